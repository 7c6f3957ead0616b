"""What goes in and comes out of the API, as the OpenAPI document shows it."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    WithJsonSchema,
    create_model,
)
from pydantic_core import CoreSchema

from vidseek.archive import ModelName
from vidseek_retrieval.vectors.registry import vector_names

COLLECTION_PATTERN = r"^clips-[0-9a-f]{16}-[0-9a-f]{1,64}$"
"""A name from a request is looked up on the disk, so it may be nothing else than a name that publish gives."""
CLIP_ID_PATTERN = r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"

MAX_TEXT = 100_000
"""Characters of any text; `serve.max_text_length` says how many of them are taken."""
MAX_ITEMS = 10_000
"""Of a list; `serve.max_embed` says how many of them are taken."""
MAX_WORD = 500
"""Characters of a value to filter by."""
MAX_FILTER_VALUES = 1000
MAX_OFFSET = 10_000_000
LIMITS = "x-limit"
"""In a schema: the setting that says how many characters or items are taken. The OpenAPI document states its value."""

_CLIP_ID = "1157d38b-4691-5e61-ba0c-ad2b11241343"
_PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEUlEQVR42mP8z4AdMDEMKQkAzUEBD7t4NqoAAAAASUVORK5CYII="
"""Eight red pixels squared, as PNG."""


def _decoded(value: object) -> object:
    """The bytes of base64 text; any character that is none of it is an error, not skipped."""
    if not isinstance(value, str):
        return value
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("is not base64") from error


File = Annotated[bytes, BeforeValidator(_decoded), WithJsonSchema({"type": "string", "contentEncoding": "base64"})]
Item = TypeVar("Item")


def _listed(value: object) -> object:
    """One thing as a list of it, nothing as an empty one."""
    if value is None:
        return []
    return value if isinstance(value, list | tuple) else [value]


@dataclass(frozen=True)
class _ShownAlsoAlone:
    """In the OpenAPI document: a list, or one thing without a list around it, or null where the list may be empty."""

    limit: str | None = None
    """The setting that says how long the list may be."""

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        listed = handler.resolve_ref_schema(handler(core))
        alone = [listed["items"], {**listed, **({LIMITS: self.limit} if self.limit else {})}]
        return {"anyOf": alone if listed.get("minItems") else [*alone, {"type": "null"}]}


OneOrMore = Annotated[
    tuple[Item, ...], Field(max_length=16, fail_fast=True), BeforeValidator(_listed), _ShownAlsoAlone()
]
Text = Annotated[str, Field(max_length=MAX_TEXT, json_schema_extra={LIMITS: "max_text_length"})]
Url = Annotated[str, Field(max_length=2048)]
Weight = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
ClipId = Annotated[str, Field(pattern=CLIP_ID_PATTERN, description="A clip of the archive, as hits name it.")]
Encoding = Annotated[Literal["float", "base64"], Field(
    description="How a vector is written: a list of numbers, or the base64 of its float32 values, lowest byte first."
)]


_SOME = Field(min_length=1, max_length=MAX_ITEMS, fail_fast=True, json_schema_extra={LIMITS: "max_embed"})


def _taking(*examples: dict[str, Any]) -> ConfigDict:
    return ConfigDict(extra="forbid", frozen=True, json_schema_extra={"examples": list(examples)})


def _vector_weights() -> type[BaseModel]:
    fields: dict[str, Any] = dict.fromkeys(vector_names(), (Weight, 0.0))
    return create_model(
        "VectorWeights", __config__=ConfigDict(extra="forbid", frozen=True), **fields,
        __doc__="How much each vector of a clip counts: one alone ranks by its cosine, several are fused by rank.",
    )


if TYPE_CHECKING:
    VectorWeights = BaseModel
else:
    VectorWeights = _vector_weights()  # with a field for each registered vector


def _weights(value: object) -> object:
    """`video=1,words=0.5`, as the command has it, to the same as an object."""
    if not isinstance(value, str):
        return value
    try:
        return dict(part.split("=") for part in value[:MAX_WORD].replace(" ", "").split(","))
    except ValueError as error:
        raise ValueError("is not of the form video=1,caption=0.5,words=0.5") from error


def _bounded(filters: dict[str, Any]) -> dict[str, Any]:
    """The filters, whose meaning the index checks, where none of them is larger than a filter can be."""
    for name, wanted in filters.items():
        if len(name) > MAX_WORD:
            raise ValueError(f"a field has a name of {len(name)} characters")
        values = list(wanted.values()) if isinstance(wanted, dict) else wanted if isinstance(wanted, list) else [wanted]
        if len(values) > MAX_FILTER_VALUES:
            raise ValueError(f"{name[:64]} has {len(values)} values, at most {MAX_FILTER_VALUES} are taken")
        for value in values:
            if isinstance(value, str) and len(value) > MAX_WORD:
                raise ValueError(f"{name[:64]} has a value of {len(value)} characters, at most {MAX_WORD} are taken")
            if isinstance(value, int) and not -(2**63) <= value < 2**63:
                raise ValueError(f"{name[:64]} has a number that does not fit in 64 bits")
    return filters


_FILTER_VALUE = {"anyOf": [
    {"type": "string", "maxLength": MAX_WORD}, {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
]}
Filters = Annotated[dict[str, Any], Field(max_length=16), AfterValidator(_bounded), WithJsonSchema({
    "type": "object", "maxProperties": 16, "additionalProperties": {"anyOf": [
        *_FILTER_VALUE["anyOf"], {"type": "array", "items": _FILTER_VALUE, "maxItems": MAX_FILTER_VALUES},
        {"type": "object", "additionalProperties": _FILTER_VALUE, "maxProperties": 4},
    ]},
})]


class SearchRequest(BaseModel):
    """What to look for: text, image, clip or clip_id; several of them, and lists of them, are looked for together."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_by_name=True, validate_by_alias=True, json_schema_extra={"examples": [
            {"text": "a dog runs to the left", "limit": 5},
            {"image": _PICTURE},
            {"clip_id": _CLIP_ID, "limit": 20},
            {"text": ["a dog", "snow"], "not": "night", "filters": {"duration_ms": {"lt": 600000}}, "diversity": 0.3},
            {"text": "a dog runs to the left", "model": "base"},
        ]},
    )

    text: OneOrMore[Text] = Field((), description="What to look for, in words.")
    image: OneOrMore[File] = Field((), description="A picture (JPEG, PNG, WebP, GIF, BMP), base64.")
    url: OneOrMore[Url] = Field((), description="Where a picture lies, at a host that `serve.url_hosts` names.")
    clip: OneOrMore[File] = Field((), description="A short video file, base64.")
    clip_id: OneOrMore[ClipId] = Field((), description="A clip of the archive: more of this.")
    not_text: OneOrMore[Text] = Field((), alias="not", description="What moments shall not show, in words.")
    not_image: OneOrMore[File] = Field((), description="A picture of that.")
    not_clip_id: OneOrMore[ClipId] = Field((), description="A clip of the archive: less of this.")
    filters: Filters = Field(default_factory=dict, description=(
        "For each field (channel, category, published_at, duration_ms, video_id, start_ms) a value, a list of values, "
        "or bounds: gt, gte, lt, lte."
    ))
    weights: Annotated[VectorWeights, BeforeValidator(_weights)] | None = Field(
        None, description="By default those of the archive."
    )
    diversity: Annotated[float, Field(ge=0, le=1, description="How different the moments shall be.")] = 0.0
    min_confidence: Annotated[float, Field(
        ge=0, le=1, description="Leave out what is less likely right; for one text, where the archive was calibrated."
    )] = 0.0
    limit: Annotated[int, Field(ge=1, le=1000, description="Moments on this page, at most.")] = 10
    offset: Annotated[int, Field(ge=0, le=MAX_OFFSET, description="Moments to skip: `next_offset` of the page before.")] = 0
    collection: Annotated[str, Field(pattern=COLLECTION_PATTERN)] | None = Field(
        None, description="Stay on the index of the page before, as it names it; by default the live one."
    )
    model: Annotated[ModelName, Field(
        description="Which model shall look: the live one, or the base without what was taught, where `vidseek base` has "
        "published that. Other pages of an answer want the same."
    )] = "vidseek"


class EmbedTexts(BaseModel):
    """Texts to vectors."""

    model_config = _taking({"texts": ["a dog runs to the left"]}, {"texts": ["red", "blue"], "encoding": "base64"})

    texts: Annotated[list[Text], _SOME]
    encoding: Encoding = "float"


class EmbeddingsRequest(BaseModel):
    """What clients of OpenAI's API send for embeddings, in words only."""

    model_config = _taking({"model": "vidseek", "input": ["a dog runs to the left"]})

    input: Annotated[
        tuple[Text, ...], Field(min_length=1, max_length=MAX_ITEMS, fail_fast=True), BeforeValidator(_listed),
        _ShownAlsoAlone("max_embed"),
        Field(description="One text or several."),
    ]
    model: Annotated[str, Field(
        max_length=64, description="`vidseek`, or the encoder_version that is wanted; `base`, where it is published."
    )]
    encoding_format: Encoding = "float"
    dimensions: Annotated[int, Field(ge=1, le=2**20)] | None = Field(None, description="As the model has it, or left out.")
    user: Annotated[str, Field(max_length=1000)] | None = Field(None, description="Not looked at.")


class EmbedImages(BaseModel):
    """Pictures to vectors."""

    model_config = _taking({"images": [_PICTURE], "encoding": "base64"})

    images: Annotated[list[File], _SOME, Field(description="JPEG, PNG, WebP, GIF or BMP files, base64.")]
    encoding: Encoding = "float"


class EmbedClips(BaseModel):
    """Short video files to vectors."""

    model_config = _taking({"clips": ["AAAAIGZ0eXA="]})

    clips: Annotated[list[File], _SOME, Field(description="Video files, base64.")]
    encoding: Encoding = "float"


class FeedbackRequest(BaseModel):
    """Whether a clip is what a query was looking for."""

    model_config = _taking({"query": "a dog runs to the left", "clip_id": _CLIP_ID, "relevant": True})

    query: Annotated[Text, Field(min_length=1, description="The words that were searched for.")]
    clip_id: ClipId
    relevant: bool


class Hit(BaseModel):
    """A moment."""

    model_config = ConfigDict(extra="forbid")

    video_id: str
    start_ms: int
    end_ms: int
    score: float = Field(description="Of the best clip: its cosine, or 0 to 1 where several vectors were fused.")
    confidence: Annotated[float, Field(ge=0, le=1)] | None
    best_clip_id: str
    best_ms: int
    clip_ids: list[str]
    title: str
    uri: str = Field(description="Relative to the source root, or as a manifest says.")
    thumbnail_url: str | None


class SearchAnswer(BaseModel):
    """One page of hits, best first."""

    model_config = ConfigDict(extra="forbid")

    encoder_version: str
    collection: str
    hits: list[Hit]
    next_offset: int | None = Field(description="None on the last page.")


class ModelInfo(BaseModel):
    """A model that queries may ask for, as clients of OpenAI's API expect it, and with what it searches."""

    model_config = ConfigDict(extra="forbid")

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


class ModelsAnswer(BaseModel):
    """The live model, and the base where it is published."""

    model_config = ConfigDict(extra="forbid")

    object: Literal["list"] = "list"
    data: list[ModelInfo]


class EmbedAnswer(BaseModel):
    """One unit vector for each item, in order."""

    model_config = ConfigDict(extra="forbid")

    encoder_version: str = Field(description="Vectors of another one cannot be compared with these.")
    variant: str = Field(description="The precision in which they were made.")
    dimension: int
    embeddings: list[list[float]] | list[str]


class OneEmbedding(BaseModel):
    """The unit vector of one text."""

    model_config = ConfigDict(extra="forbid")

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    """Tokens that were read."""

    model_config = ConfigDict(extra="forbid")

    prompt_tokens: int
    total_tokens: int


class EmbeddingsAnswer(BaseModel):
    """What clients of OpenAI's API expect."""

    model_config = ConfigDict(extra="forbid")

    object: Literal["list"] = "list"
    data: list[OneEmbedding]
    model: str = Field(description="The encoder_version: vectors of another one cannot be compared with these.")
    usage: Usage


class ClipAnswer(BaseModel):
    """A clip of the live index."""

    model_config = ConfigDict(extra="forbid")

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


class FeedbackAnswer(BaseModel):
    """It was written down."""

    model_config = ConfigDict(extra="forbid")

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
