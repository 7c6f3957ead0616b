"""Settings of this room: the sections `embed`, `calibrate`, `publish`, `search` and `tags` of params.yaml.

No engine and no encoder is imported here, so that params can be checked in no time.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, PlainValidator, field_validator, model_validator

from vidseek_encoder.choices import BATCH as BATCH
from vidseek_encoder.choices import PROVIDER, VARIANT, Provider, Variant
from vidseek_media.errors import InputRejected
from vidseek_media.fields.tags import TAG
from vidseek_media.guards import text_of
from vidseek_media.settings import CutMode, Positive, Section, Share
from vidseek_retrieval.vectors.registry import evidence_vectors, index_vectors, vector_names

log = logging.getLogger("vidseek.settings")

Vector = str
"""The name of a registered vector of the index."""

KEEP_PREVIOUS = 1
"""Collections that are kept for a rollback."""
MIN_RECALL = 0.99
"""Least recall at 10 of approximate against exact searches."""
COMPACT_SHARE = 0.2
"""Share of points that may be written or removed before a collection is built at once again."""
PRIOR = 0.9
"""The share of queries that have an answer in the archive."""
MERGE_MARGIN_SD = 0.12
"""How many standard deviations below the best a neighbour may score and still widen a moment."""
NEGATIVE_WEIGHT = 0.5
"""How much of a negative example is taken from what is wanted."""
MULTILINGUAL = "multilingual"
"""Words of any script, as they stand: no stop words, no stems."""


def _require_registered(names: Iterable[str]) -> None:
    known = vector_names()
    if unknown := sorted(set(names) - set(known)):
        raise ValueError(f"there is no vector {', '.join(unknown)}: wanted some of {', '.join(known)}")


class RaySettings(Section):
    """How many actors embed, and what each one takes."""

    place = "embed.ray"

    actors: Positive = 1
    """Each holds a session of the encoder."""
    cpus_per_actor: Positive = 1
    """Also the clips that it embeds at once, one thread each."""
    gpus_per_actor: Literal[0, 1] = 0
    """0: it embeds on its cores; 1: on CUDA."""


class EmbedSettings(Section):
    """How the archive is embedded, and where."""

    place = "embed"

    variant: Variant = VARIANT
    """fp32, fp16 or int8, as the bundle has it."""
    batch: Positive = BATCH
    """Clips, or texts, in one run of the encoder on a GPU; a CPU runs each by itself."""
    executor: Literal["local", "ray"] = "local"
    """local, or ray: many machines, docs/operations.md."""
    ray: RaySettings = RaySettings()
    """Read where executor is ray; RAY_ADDRESS names the cluster."""


class CalibrateSettings(Section):
    """How confidence is fitted."""

    place = "calibrate"
    unstated = ("prior",)

    max_queries: Positive = 500
    """Captions of each split; fitted on validation, measured on test."""
    max_clips: Positive = 50_000
    """Published clips that are searched; of a larger archive whole videos are drawn."""
    prior: Annotated[float, Field(gt=0, lt=1)] = PRIOR
    """The share of queries that have an answer in the archive: every confidence assumes it."""


class IndexSettings(Section):
    """How a collection is built and searched."""

    place = "publish.index"

    m: Annotated[int, Field(ge=2, le=512)] = 16
    """HNSW: edges of a node in the graph."""
    ef_construct: Annotated[int, Field(ge=4)] = 200
    """Candidates while the graph is built."""
    hnsw_ef: Positive = 64
    """Candidates while it is searched, up to 10^5 clips; four times as many at 10^6. See `CollectionMetadata.search_ef`."""
    vectors: Annotated[tuple[Vector, ...], Field(min_length=1)] = ("video", "caption", "words", "speech", "ocr")
    """Named vectors of the points; video is always one."""
    language: Annotated[str, Field(min_length=1)] = MULTILINGUAL
    """Of the words; or english, german, ...: stop words left out, words stemmed."""
    quantization: Literal["none", "int8"] = "none"
    """none, or int8: a graph over bytes, the best candidates scored again by float32."""
    oversampling: Annotated[float, Field(ge=1)] = 4.0
    """Candidates that are scored again, for each that is wanted. See `CollectionMetadata.oversampling`."""
    on_disk: bool = False
    """Leave float32 vectors to the page cache."""

    @field_validator("vectors")
    @classmethod
    def _has_video_and_each_once(cls, vectors: tuple[Vector, ...]) -> tuple[Vector, ...]:
        if "video" not in vectors or len(set(vectors)) != len(vectors):
            raise ValueError("wanted video, and each once")
        _require_registered(vectors)
        return vectors


class ServerSettings(Section):
    """How a collection lies on a cluster."""

    place = "publish.server"
    unstated = ("by_difference",)

    shards: Positive = 1
    """Parts of a collection, on as many nodes."""
    replicas: Positive = 1
    """Copies of each shard."""
    write_consistency: Positive = 1
    """Replicas that must have taken a write before it counts."""
    by_difference: bool = True
    """Write what changed into the live collection; false builds all anew. Other clients of the server must filter then, as
    docs/clients.md says."""


MAX_PROMPTS = 256
"""Of all tags together."""
MAX_PROMPT = 1000
"""Characters of a prompt. The encoder's context, in tokens, is mostly shorter."""


def _prompts_of(value: object) -> dict[str, tuple[str, ...]]:
    """Return the prompts by tag.

    Args:
        value: From params.yaml; not trusted.

    Raises:
        ValueError: it is none, a tag or a prompt is blank, too long or no text, or there are too many.
    """
    if not isinstance(value, Mapping):
        raise ValueError('wanted tags with their prompts, for example {night: "a scene at night"}')
    found: dict[str, tuple[str, ...]] = {}
    for name, said in value.items():
        tag = _tag_of(name)
        if tag in found:
            raise ValueError(f"the tag {tag!r} is there twice")
        found[tag] = tuple(_prompt_of(tag, text) for text in ([said] if isinstance(said, str) else _listed(tag, said)))
    if (num := sum(map(len, found.values()))) > MAX_PROMPTS:
        raise ValueError(f"there are {num} prompts, wanted at most {MAX_PROMPTS}")
    return found


def _tag_of(name: object) -> str:
    if not isinstance(name, str):  # YAML takes no, on, 1 and null for other things than words
        raise ValueError(f"the tag {name!r} is no text for YAML: write it in quotes")
    try:
        return str(TAG.parse(name))
    except InputRejected as error:
        raise ValueError(f"the tag is {error.message}") from None


def _listed(tag: str, said: object) -> Sequence[object]:
    if not isinstance(said, list | tuple) or not said:
        raise ValueError(f"the tag {tag!r} has {said!r}, wanted a prompt or a list of prompts")
    return said


def _prompt_of(tag: str, said: object) -> str:
    try:
        text = text_of(said, "the prompt")
    except InputRejected as error:
        raise ValueError(f"a prompt of the tag {tag!r}: {error.message}") from None
    if not 0 < len(text) <= MAX_PROMPT:
        raise ValueError(f"a prompt of the tag {tag!r} has {len(text)} characters, wanted 1 to {MAX_PROMPT}")
    return text


class TagSettings(Section):
    """Tags that clips get without people, from texts that describe them."""

    place = "tags"

    prompts: Annotated[dict[str, tuple[str, ...]], PlainValidator(_prompts_of)] = Field(default={})
    """Of each tag, a text or several that describe its clips; {}: none. docs/fields.md has what they find."""
    min_confidence: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Probability from which a clip has the tag, against none of them having it, by the calibration."""
    min_score: Annotated[float, Field(ge=-1, le=1)] | None = None
    """A least cosine in place of the probability; null: by the calibration, and where there is none, no tags."""


class PublishSettings(Section):
    """How the index is built and switched."""

    place = "publish"

    cut: CutMode = "windows"
    """Clips of this mode are published: captions, windows or shots."""
    keep_previous: Annotated[int, Field(ge=0)] = KEEP_PREVIOUS
    """Collections that are kept for a rollback."""
    min_recall: Share = MIN_RECALL
    """Least recall at 10 of approximate against exact searches."""
    compact_share: Share = COMPACT_SHARE
    """Share of points that publishes write or remove before all are built at once again. Below it, what changed is written
    into a copy of the live collection."""
    index: IndexSettings = IndexSettings()
    """How a collection is built and searched."""
    server: ServerSettings = ServerSettings()
    """Read where QDRANT_URL names a server."""


class Weights(Section):
    """How much each vector of a clip counts: one alone ranks by its own score, several are fused by rank.

    Other registered vectors are named beside these; one that is not named has the weight that its file says.
    """

    model_config = ConfigDict(strict=True, extra="allow")
    __pydantic_extra__: dict[str, Annotated[float, Field(ge=0)]] = Field(init=False)

    place = "search.weights"

    video: Annotated[float, Field(ge=0)] = 1.0
    """Of what the clip shows."""
    caption: Annotated[float, Field(ge=0)] = 0.0
    """Of the embedded caption."""
    words: Annotated[float, Field(ge=0)] = 0.0
    """Of the words that were written about it (BM25)."""

    @model_validator(mode="after")
    def _one_counts(self) -> Weights:
        _require_registered(self.model_extra or {})
        if not any(self.by_name().values()):
            raise ValueError("wanted one weight above 0")
        return self

    def by_name(self) -> dict[str, float]:
        """Return the weight of every registered vector by name."""
        return {each.name: each.weight for each in index_vectors()} | self.model_dump()


VISUAL = "visual"
FIELDS = (VISUAL, "captions", "speech", "ocr")
"""What a search looks at: what clips show; what was written about them, is said in them, and stands on the screen."""


class EvidenceWeights(Section):
    """How much words count beside pictures, by what they come from."""

    place = "search.evidence"
    unstated = ("*",)

    captions: Annotated[float, Field(ge=0)] = 1.0
    """Of titles and captions. The odds that words are meant are multiplied by it; 0: not looked at."""
    speech: Annotated[float, Field(ge=0)] = 1.0
    """Of what is said."""
    ocr: Annotated[float, Field(ge=0)] = 1.0
    """Of what stands on the screen."""

    def by_field(self) -> dict[str, float]:
        """Return the weight of each field of evidence; those of other packages count 1."""
        return dict.fromkeys(evidence_vectors(), 1.0) | self.model_dump()


class RerankSettings(Section):
    """A second look at the first hits of a search by words, by a language model that sees. Off by default."""

    place = "search.rerank"
    unstated = ("*",)

    enabled: bool = False
    """Look twice unless a search says otherwise; false: only where a search asks for it."""
    provider: Annotated[str, Field(min_length=1)] = "openai"
    """openai: any endpoint of that protocol, named by VIDSEEK_LLM_URL; or gemini."""
    model: Annotated[str, Field(min_length=1)] | None = None
    """The provider's model that sees, by today's name; null: no second look."""
    usd_per_million_tokens_in: Annotated[float, Field(ge=0)] | None = None
    """As the provider states it; 0 for a model of your own."""
    usd_per_million_tokens_out: Annotated[float, Field(ge=0)] | None = None
    """As the provider states it; 0 for a model of your own."""
    budget_usd: Annotated[float, Field(ge=0)] = 1.0
    """Of all searches of this archive together."""
    num_hits: Annotated[int, Field(ge=2, le=50)] = 10
    """Hits that are looked at: the first so many."""
    num_frames: Annotated[int, Field(ge=1, le=16)] = 4
    """Of each clip, shown to the model."""
    num_clips: Annotated[int, Field(ge=1, le=10)] = 1
    """Of each hit, the best so many are looked at, one request each, and the best score counts."""
    timeout_seconds: Annotated[float, Field(gt=0, le=60)] = 5.0
    """Of one search: where an answer is missing by then, the first ranking stands."""


class SearchSettings(Section):
    """How a query is encoded and how its hits are merged."""

    model_config = ConfigDict(strict=True)

    place = "search"
    unstated = ("*",)

    provider: Provider = PROVIDER
    """cpu, cuda or tensorrt: what the encoder runs on."""
    variant: Variant = VARIANT
    """fp32, fp16 or int8, as the bundle has it."""
    threads: Positive | None = None
    """Of the encoder; null: as many as the process may use."""
    merge_margin_sd: Annotated[float, Field(ge=0)] = MERGE_MARGIN_SD
    """How far below the best a neighbouring clip may score and still join its moment. In standard deviations of the
    collection's scores."""
    merge_margin: Annotated[float, Field(ge=0)] | None = None
    """The same as a cosine: the key of earlier versions. It is read in this version and wins where it is given."""
    negative_weight: Annotated[float, Field(ge=0)] = NEGATIVE_WEIGHT
    """How much of what is negative is taken from what is wanted."""
    evidence: EvidenceWeights = EvidenceWeights()
    """How much words count beside pictures, by what they come from."""
    weights: Weights | None = None
    """null: pictures and words together. Weights of single vectors in its place: several are fused by rank."""
    rerank: RerankSettings = RerankSettings()
    """A second look at the first hits by a model that sees; docs/search.md says what it needs."""

    @model_validator(mode="after")
    def _names_the_new_key(self) -> SearchSettings:
        if self.merge_margin is not None:
            _warn_of_merge_margin(self.merge_margin)
        return self

    def margin(self, score_spread: float) -> float:
        """Return how far below the best a neighbouring clip may score, as a difference of scores of that standard deviation.
        """
        return self.merge_margin if self.merge_margin is not None else round(self.merge_margin_sd * score_spread, 6)


@lru_cache
def _warn_of_merge_margin(value: float) -> None:
    log.warning(
        "search.merge_margin: %s is a cosine, and the next version does not read it. Write search.merge_margin_sd, in "
        "standard deviations of the scores, in its place: 0.12 is what 0.02 was on the demo.", value,
    )
