"""Base classes, and types and limits of fields, that the API's requests and answers share."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetJsonSchemaHandler, WithJsonSchema
from pydantic_core import CoreSchema

COLLECTION_PATTERN = r"^clips-[0-9a-f]{16}-[0-9a-f]{1,64}$"
"""A collection name as publish gives it. Names from requests become paths, so nothing else is accepted."""
CLIP_ID_PATTERN = r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"

MAX_TEXT = 100_000
"""Characters of any text in the schema. The service's own limit is `serve.max_text_length`."""
MAX_ITEMS = 10_000
"""Items of any list in the schema. The service's own limit is `serve.max_embed`."""
MAX_WORD = 500
"""Characters of a value to filter by."""
MAX_FILTER_VALUES = 1000
MAX_OFFSET = 10_000_000
LIMITS = "x-limit"
"""Key in a schema: the setting that limits characters or items. The OpenAPI document shows its value."""


class Answer(BaseModel):
    """What a route gives: no other fields than these."""

    model_config = ConfigDict(extra="forbid")


class Asked(BaseModel):
    """What a route takes: no other fields than these, and it does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _decoded(value: object) -> object:
    """Decode base64; a character outside its alphabet is an error."""
    if not isinstance(value, str):
        return value
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("is not base64") from error


File = Annotated[bytes, BeforeValidator(_decoded), WithJsonSchema({"type": "string", "contentEncoding": "base64"})]
Item = TypeVar("Item")


def listed(value: object) -> object:
    """Return a value as a list: None as an empty list, a single value as a list of one.

    Args:
        value: As the request has it.
    """
    if value is None:
        return []
    return value if isinstance(value, list | tuple) else [value]


@dataclass(frozen=True)
class ShownAlsoAlone:
    """Documents a list that may also be given as a single value, or as null if it may be empty."""

    limit: str | None = None
    """The setting that limits the length of the list."""

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        listed = handler.resolve_ref_schema(handler(core))
        alone = [listed["items"], {**listed, **({LIMITS: self.limit} if self.limit else {})}]
        return {"anyOf": alone if listed.get("minItems") else [*alone, {"type": "null"}]}


OneOrMore = Annotated[
    tuple[Item, ...], Field(max_length=16, fail_fast=True), BeforeValidator(listed), ShownAlsoAlone()
]
Text = Annotated[str, Field(max_length=MAX_TEXT, json_schema_extra={LIMITS: "max_text_length"})]
Url = Annotated[str, Field(max_length=2048)]
Weight = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
ClipId = Annotated[str, Field(pattern=CLIP_ID_PATTERN, description="A clip of the archive, as hits name it.")]
Encoding = Annotated[Literal["float", "base64"], Field(
    description="How a vector is written: a list of numbers, or the base64 of its float32 values, lowest byte first."
)]


SOME_ITEMS = Field(min_length=1, max_length=MAX_ITEMS, fail_fast=True, json_schema_extra={LIMITS: "max_embed"})
