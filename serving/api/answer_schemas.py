"""The answers of the API, as the OpenAPI document shows them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from serving.api.schema_fields import Answer
from vidseek.archive import ModelName

OwnFields = dict[str, str | int | float | list[str | int | float]]
"""Values of declared fields by name: a boolean is the text true or false, a time RFC 3339."""


def _is_none(value: object) -> bool:
    return value is None


class TextSegment(Answer):
    """A text of a video."""

    field: str = Field(description="captions, speech or ocr.")
    text: str
    start_ms: int
    end_ms: int


class Evidence(TextSegment):
    """A text for which a moment was found."""

    matches: list[str] = Field(description="The words of the text that matched, as they are written there.")


class Reranked(Answer):
    """The second look at a hit."""

    score: Annotated[float, Field(ge=0, le=1)] = Field(description="Of the second look. It is no probability.")
    first_rank: int = Field(description="Its place in the first ranking, from 1.")


class RerankReport(Answer):
    """What came of the second look."""

    is_done: bool = Field(description="False where the first ranking stands.")
    reason: str = Field(description="Why it stands, or why some hits have no score; often empty.")
    model: str
    num_hits: int
    num_cached: int = Field(description="Of these, the ones whose score was known.")
    cost_usd: float
    seconds: float


class Hit(Answer):
    """A moment."""

    video_id: str
    start_ms: int
    end_ms: int
    score: float = Field(description=(
        "Of the best clip: its cosine, with what words add to it; 0 to 1 where pictures do not count or vectors were fused."
    ))
    confidence: Annotated[float, Field(ge=0, le=1)] | None
    best_clip_id: str
    best_ms: int
    clip_ids: list[str]
    title: str
    uri: str = Field(description="Relative to the source root, or as a manifest says.")
    thumbnail_url: str | None
    evidence: list[Evidence] = Field([], description="The texts for which it was found, the best first.")
    fields: OwnFields = Field({}, description="The declared fields of its best clip; those without a value are left out.")
    reranked: Reranked | None = Field(None, exclude_if=_is_none, description=(
        "Only where a second look put it here; `score` stays that of the first ranking, and `confidence` is null."
    ))


class SearchAnswer(Answer):
    """One page of hits, best first."""

    encoder_version: str
    collection: str
    hits: list[Hit]
    next_offset: int | None = Field(description="None on the last page.")
    rerank: RerankReport | None = Field(
        None, exclude_if=_is_none, description="What came of a second look; only where one was wanted."
    )


class ModelInfo(Answer):
    """A model that queries may ask for, as clients of OpenAI's API expect it, and with what it searches."""

    id: ModelName
    object: Literal["model"] = "model"
    created: int = Field(description="When its collection was made, in seconds since 1970.")
    owned_by: Literal["vidseek"] = "vidseek"
    encoder_version: str
    collection: str
    num_clips: int
    has_confidence: bool = Field(description="Whether its collection was calibrated: confidence is null where it was not.")
    is_current: bool | None = Field(description=(
        "Whether its collection is of the same clips, titles, captions and decided near-duplicates as the live one. Where "
        "the base's is not, run `vidseek base` again. Null where collections are too old to say."
    ))


class ModelsAnswer(Answer):
    """The live model, and the base where it is published."""

    object: Literal["list"] = "list"
    data: list[ModelInfo]


class EmbedAnswer(Answer):
    """One unit vector for each item, in order."""

    encoder_version: str = Field(description="Vectors of another one cannot be compared with these.")
    variant: str = Field(description="The precision in which they were made.")
    dimension: int
    embeddings: list[list[float]] | list[str]


class OneEmbedding(Answer):
    """The unit vector of one text."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class Usage(Answer):
    """Tokens that were read."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsAnswer(Answer):
    """What clients of OpenAI's API expect."""

    object: Literal["list"] = "list"
    data: list[OneEmbedding]
    model: str = Field(description="The encoder_version: vectors of another one cannot be compared with these.")
    usage: Usage


class ClipAnswer(Answer):
    """A clip of the live index."""

    clip_id: str
    video_id: str
    start_ms: int
    end_ms: int
    title: str
    uri: str = Field(description="Relative to the source root, or as a manifest says.")
    channel: str | None
    category: str | None
    published_at: str | None
    duration_ms: int | None
    thumbnail_url: str = Field(description="A frame of the clip, made by this service.")
    media_url: str = Field(description="The clip's whole video, in byte ranges.")
    fields: OwnFields = Field(description="Its declared fields; those without a value are left out.")


class FeedbackAnswer(Answer):
    """It was written down."""

    said_at: str


class Health(BaseModel):
    """The process is up."""

    status: str


class Readiness(BaseModel):
    """The bundle is loaded, the index is reachable, and both speak of one vector space."""

    status: str
    encoder_version: str
    collection: str


class Problem(BaseModel):
    """What went wrong, for a program (code, and finer: fault) and for a person."""

    code: str
    fault: str
    """The kind of fault, a code of docs/errors.md."""
    message: str
    remedy: str


class ErrorAnswer(BaseModel):
    """The body of every answer that is no success."""

    error: Problem
    request_id: str
