"""What goes in and comes out of the API, as the OpenAPI document shows it."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

COLLECTION_PATTERN = r"^clips-[0-9a-f]{16}-[0-9a-f]{1,64}$"
"""A name from a request is looked up on the disk, so it may be nothing else than a name that publish gives."""


def _decoded(value: object) -> object:
    """The bytes of base64 text; any character that is none of it is an error, not skipped."""
    if not isinstance(value, str):
        return value
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("is not base64") from error


File = Annotated[bytes, BeforeValidator(_decoded), WithJsonSchema({"type": "string", "contentEncoding": "base64"})]


class SearchRequest(BaseModel):
    """Exactly one of text, image and clip."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, json_schema_extra={"examples": [{"text": "a dog runs to the left", "limit": 5}]}
    )

    text: str | None = Field(None, description="What to look for, in words.")
    image: File | None = Field(None, description="A picture (JPEG, PNG, WebP, GIF, BMP), base64.")
    clip: File | None = Field(None, description="A short video file, base64.")
    limit: Annotated[int, Field(ge=1, le=1000, description="Moments on this page, at most.")] = 10
    offset: Annotated[int, Field(ge=0, description="Moments to skip: `next_offset` of the page before.")] = 0
    collection: Annotated[str, Field(pattern=COLLECTION_PATTERN)] | None = Field(
        None, description="Stay on the index of the page before, as it names it; by default the live one."
    )


class Hit(BaseModel):
    """A moment."""

    model_config = ConfigDict(extra="forbid")

    video_id: str
    start_ms: int
    end_ms: int
    score: float = Field(description="Cosine of the best clip.")
    confidence: Annotated[float, Field(ge=0, le=1)] | None
    best_clip_id: str
    best_ms: int
    clip_ids: list[str]
    title: str
    uri: str = Field(description="Relative to the source root.")
    thumbnail_url: str | None


class SearchAnswer(BaseModel):
    """One page of hits, best first."""

    model_config = ConfigDict(extra="forbid")

    encoder_version: str
    collection: str
    hits: list[Hit]
    next_offset: int | None = Field(description="None on the last page.")


class Health(BaseModel):
    """The process is up."""

    status: str


class Readiness(BaseModel):
    """The bundle is loaded, the index is reachable, and both speak of one vector space."""

    status: str
    encoder_version: str
    collection: str


class Problem(BaseModel):
    """What went wrong, for a program (code) and for a person."""

    code: str
    message: str
    remedy: str


class ErrorAnswer(BaseModel):
    """The body of every answer that is no success."""

    error: Problem
    request_id: str
