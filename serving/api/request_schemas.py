"""The requests of the API, as the OpenAPI document shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, create_model

from serving.api.schema_fields import (
    COLLECTION_PATTERN,
    MAX_FILTER_VALUES,
    MAX_ITEMS,
    MAX_OFFSET,
    MAX_WORD,
    SOME_ITEMS,
    Asked,
    ClipId,
    Encoding,
    File,
    OneOrMore,
    ShownAlsoAlone,
    Text,
    Url,
    Weight,
    listed,
)
from vidseek.archive import ModelName
from vidseek_retrieval.settings import FIELDS
from vidseek_retrieval.vectors.registry import vector_names

_CLIP_ID = "1157d38b-4691-5e61-ba0c-ad2b11241343"
_PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEUlEQVR42mP8z4AdMDEMKQkAzUEBD7t4NqoAAAAASUVORK5CYII="
"""Eight red pixels squared, as PNG."""


SearchField = Annotated[str, Field(json_schema_extra={"enum": list(FIELDS)}, max_length=MAX_WORD)]


def _taking(*examples: dict[str, Any]) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": list(examples)})


def _former(name: str, *, alias: str | None = None) -> Any:
    """A field that is called `name` now. It is taken for one version, as if it stood there."""
    return Field((), alias=alias, description=f"The earlier name of {name}.", json_schema_extra={"deprecated": True})


def _vector_weights() -> type[BaseModel]:
    fields: dict[str, Any] = dict.fromkeys(vector_names(), (Weight, 0.0))
    return create_model(
        "VectorWeights", __base__=Asked, **fields,
        __doc__="How much each vector of a clip counts: one alone ranks by its cosine, several are fused by rank.",
    )


if TYPE_CHECKING:
    VectorWeights = BaseModel
else:
    VectorWeights = _vector_weights()  # with a field for each registered vector


def _weights(value: object) -> object:
    """Parse `video=1,words=0.5`, as the command takes it, to an object."""
    if not isinstance(value, str):
        return value
    try:
        return dict(part.split("=") for part in value[:MAX_WORD].replace(" ", "").split(","))
    except ValueError as error:
        raise ValueError("is not of the form video=1,caption=0.5,words=0.5") from error


def _bounded(filters: dict[str, Any]) -> dict[str, Any]:
    """Check the sizes of filters; the index checks their meaning."""
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
    {"type": "number", "minimum": -1e300, "maximum": 1e300}, {"type": "boolean"},
]}
Filters = Annotated[dict[str, Any], Field(max_length=16), AfterValidator(_bounded), WithJsonSchema({
    "type": "object", "maxProperties": 16, "additionalProperties": {"anyOf": [
        *_FILTER_VALUE["anyOf"], {"type": "array", "items": _FILTER_VALUE, "maxItems": MAX_FILTER_VALUES},
        {"type": "object", "additionalProperties": _FILTER_VALUE, "maxProperties": 4},
    ]},
})]


class SearchRequest(Asked):
    """What to look for: text, image, clip or clip_id; several of them, and lists of them, are looked for together."""

    model_config = ConfigDict(
        validate_by_name=True, validate_by_alias=True, json_schema_extra={"examples": [
            {"text": "a dog runs to the left", "limit": 5},
            {"image": _PICTURE},
            {"clip_id": _CLIP_ID, "limit": 20},
            {"text": ["a dog", "snow"], "negative_text": "night", "filters": {"duration_ms": {"lt": 600000}},
             "diversity": 0.3},
            {"text": "a dog runs to the left", "model": "base"},
            {"text": 'the "quarterly revenue"', "in": ["speech", "ocr"]},
        ]},
    )

    text: OneOrMore[Text] = Field((), description=(
        'What to look for, in words. Words in "quotes" must stand in what is written or said, one after the other.'
    ))
    image: OneOrMore[File] = Field((), description="A picture (JPEG, PNG, WebP, GIF, BMP), base64.")
    url: OneOrMore[Url] = Field((), description="Where a picture lies, at a host that `serve.url_hosts` names.")
    clip: OneOrMore[File] = Field((), description="A short video file, base64.")
    clip_id: OneOrMore[ClipId] = Field((), description="A clip of the archive: more of this.")
    negative_text: OneOrMore[Text] = Field((), description="What moments shall not show, in words.")
    negative_image: OneOrMore[File] = Field((), description="A picture of that.")
    negative_clip_id: OneOrMore[ClipId] = Field((), description="A clip of the archive: less of this.")
    not_text: OneOrMore[Text] = _former("negative_text", alias="not")
    not_image: OneOrMore[File] = _former("negative_image")
    not_clip_id: OneOrMore[ClipId] = _former("negative_clip_id")
    filters: Filters = Field(default_factory=dict, description=(
        "For each field (channel, category, published_at, duration_ms, video_id, start_ms, and the declared fields that "
        "GET /v1/facets lists) a value, a list of values, or bounds: gt, gte, lt, lte."
    ))
    fields: OneOrMore[SearchField] = Field((), alias="in", description=(
        "What is looked at: visual, captions, speech, ocr; by default all. Without visual, only clips whose texts have "
        "words of the query are found."
    ))
    weights: Annotated[VectorWeights, BeforeValidator(_weights)] | None = Field(
        None, description="Of single vectors, which are then fused by rank; by default pictures and words count together."
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
    rerank: bool | None = Field(None, description=(
        "Whether a language model that sees looks at the first hits again, for a query in words; by default as "
        "`search.rerank.enabled` says. Where it cannot, the first ranking stands, and `rerank` of the answer says why."
    ))
    model: Annotated[ModelName, Field(
        description="Which model shall look: the live one, or the base without what was taught, where `vidseek base` has "
        "published that. Other pages of an answer want the same."
    )] = "vidseek"

    @property
    def all_negative_texts(self) -> tuple[str, ...]:
        """Return the negative texts under either name."""
        return (*self.negative_text, *self.not_text)

    @property
    def all_negative_images(self) -> tuple[bytes, ...]:
        """Return the negative images under either name."""
        return (*self.negative_image, *self.not_image)

    @property
    def all_negative_ids(self) -> tuple[str, ...]:
        """Return the negative clips under either name."""
        return (*self.negative_clip_id, *self.not_clip_id)


class EmbedTexts(Asked):
    """Texts to vectors."""

    model_config = _taking({"texts": ["a dog runs to the left"]}, {"texts": ["red", "blue"], "encoding": "base64"})

    texts: Annotated[list[Text], SOME_ITEMS]
    encoding: Encoding = "float"


class EmbeddingsRequest(Asked):
    """What clients of OpenAI's API send for embeddings, in words only."""

    model_config = _taking({"model": "vidseek", "input": ["a dog runs to the left"]})

    input: Annotated[
        tuple[Text, ...], Field(min_length=1, max_length=MAX_ITEMS, fail_fast=True), BeforeValidator(listed),
        ShownAlsoAlone("max_embed"),
        Field(description="One text or several."),
    ]
    model: Annotated[str, Field(
        max_length=64, description="`vidseek`, or the encoder_version that is wanted; `base`, where it is published."
    )]
    encoding_format: Encoding = "float"
    dimensions: Annotated[int, Field(ge=1, le=2**20)] | None = Field(None, description="As the model has it, or left out.")
    user: Annotated[str, Field(max_length=1000)] | None = Field(None, description="Not looked at.")


class EmbedImages(Asked):
    """Pictures to vectors."""

    model_config = _taking({"images": [_PICTURE], "encoding": "base64"})

    images: Annotated[list[File], SOME_ITEMS, Field(description="JPEG, PNG, WebP, GIF or BMP files, base64.")]
    encoding: Encoding = "float"


class EmbedClips(Asked):
    """Short video files to vectors."""

    model_config = _taking({"clips": ["AAAAIGZ0eXA="]})

    clips: Annotated[list[File], SOME_ITEMS, Field(description="Video files, base64.")]
    encoding: Encoding = "float"


class FeedbackRequest(Asked):
    """Whether a clip is what a query was looking for."""

    model_config = _taking({"query": "a dog runs to the left", "clip_id": _CLIP_ID, "relevant": True})

    query: Annotated[Text, Field(min_length=1, description="The words that were searched for.")]
    clip_id: ClipId
    relevant: bool
