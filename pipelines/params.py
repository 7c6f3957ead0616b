"""params.yaml, typed: every section, every key, every range; what is unknown or out of range is a ConfigError."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from vidseek.settings import SearchSettings, ServeSettings, read_params
from vidseek_media.errors import ConfigError
from vidseek_media.urls import has_secrets
from vidseek_training.llm.settings import LlmSettings
from vidseek_training.settings import Preset, TrainSettings

PARAMS_FILE = Path("params.yaml")

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _refuse_secrets(source: str) -> str:
    if has_secrets(source):
        # DVC writes what params.yaml says into dvc.lock, which is committed.
        raise ValueError(
            "it has a password or a signature, and params.yaml is no place for one: write env:VIDSEEK_SOURCE, and set "
            "VIDSEEK_SOURCE to the URL, or name it in a manifest"
        )
    return source


SourceName = Annotated[str, Field(min_length=1), AfterValidator(_refuse_secrets)]


class General(_Section):
    """The general world, for replay and retention."""

    source: SourceName | None
    """As `ingest.source`."""


class Youtube(_Section):
    """See `vidseek_media.youtube.DownloadSettings`."""

    cookies: Path | None
    max_videos: Positive | None
    max_height: Positive
    rate_limit_kib: Positive | None
    sleep_seconds: float = Field(ge=0)
    retries: int = Field(ge=0)


class Ingest(_Section):
    """Where the videos are."""

    source: SourceName
    """See `vidseek_media.sources.open_source`."""
    clip_pattern: str | None
    timeout_seconds: float = Field(gt=0)
    workers: Positive
    youtube: Youtube


class Shots(_Section):
    """See `vidseek_media.shots.ShotSettings`."""

    threshold: float = Field(gt=0)
    min_content: float = Field(ge=0, le=255)
    min_seconds: float = Field(ge=0)
    max_seconds: float = Field(gt=0)
    gradual: bool
    timeout_seconds: float = Field(gt=0)
    workers: Positive


class Cut(_Section):
    """How videos become clips."""

    modes: tuple[Literal["captions", "windows", "shots"], ...] = Field(min_length=1)
    window_length_seconds: float = Field(gt=0)
    window_stride_seconds: float = Field(gt=0)
    shots: Shots


class Frames(_Section):
    """Which frames of a clip are kept, and how."""

    num_frames: int = Field(ge=1, le=100)
    per_bin: Positive
    decoder: Literal["auto", "pyav", "decord"]
    side_px: int = Field(ge=16)
    quality: int = Field(ge=1, le=100)
    shard_digits: int = Field(ge=0, le=4)
    timeout_seconds: float = Field(gt=0)
    worker_memory_mib: int = Field(ge=512)
    recycle_after: Positive
    workers: Positive


class Caption(_Section):
    """Who writes captions."""

    sources: tuple[Literal["file", "transcript", "title", "llm"], ...]
    max_transcript_characters: Positive
    llm: LlmSettings = LlmSettings()


class Pairs(_Section):
    """How videos are split where the source does not say."""

    validation_share: Share
    test_share: Share
    seed: int
    skip_marks: tuple[Literal["black", "flat", "frozen"], ...]
    near_duplicate_bits: Annotated[int, Field(ge=0, le=7)] | None
    near_duplicate_share: float = Field(gt=0, le=1)


class ArchiveGate(_Section):
    """See `vidseek_quality.thresholds.ArchiveThresholds`."""

    max_rejected_share: Share
    languages: Annotated[tuple[str, ...], Field(min_length=1)] | None
    max_other_language_share: Share
    max_one_length_share: Share


class PairGate(_Section):
    """See `vidseek_quality.thresholds.PairThresholds`."""

    min_caption_length: Positive
    max_caption_length: Positive
    max_caption_share: Share
    max_rejected_share: Share


class EmbeddingGate(_Section):
    """See `vidseek_quality.thresholds.EmbeddingThresholds`."""

    max_mean_cosine: float = Field(ge=-1, le=1)
    min_effective_rank: float = Field(ge=1)
    max_drift: Share
    on_drift: Literal["warn", "fail"]


class DriftGate(_Section):
    """See `vidseek.settings.DriftGate`."""

    max_psi: float = Field(gt=0)


class Gates(_Section):
    """What the gates let through."""

    archive: ArchiveGate
    pairs: PairGate
    embeddings: EmbeddingGate
    drift: DriftGate


class Backbone(_Section):
    """The base model."""

    name: str = Field(min_length=1)


class Train(_Section):
    """The adapter settings, by name."""

    preset: Preset = "none"
    """Where the values of keys that a setting does not give come from; see `vidseek_training.presets`."""
    settings: dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")], TrainSettings] = Field(min_length=1)


class Select(_Section):
    """The bootstrap that decides."""

    resamples: Positive
    seed: int


class Parity(_Section):
    """See `vidseek_training.export.ParityLimits`."""

    min_cosine: float = Field(ge=-1, le=1)
    min_overlap: Share
    min_r1_difference: float = Field(ge=-1, le=1)


class Parities(_Section):
    """What each variant must reach."""

    fp32: Parity
    fp16: Parity
    int8: Parity


class Export(_Section):
    """The variants of the bundle, and the parity gate."""

    variants: tuple[Literal["fp16", "int8"], ...]
    max_clips: int = Field(ge=10)
    parity: Parities


class Ray(_Section):
    """See `vidseek_retrieval.on_ray.RaySettings`."""

    actors: Positive
    cpus_per_actor: Positive
    gpus_per_actor: Literal[0, 1]


class Embed(_Section):
    """How the archive is embedded, and where."""

    variant: Literal["fp32", "fp16", "int8"]
    batch: Positive
    executor: Literal["local", "ray"]
    ray: Ray


class Evaluate(_Section):
    """The bootstrap of the report."""

    resamples: Positive
    seed: int


class Calibrate(_Section):
    """How confidence is fitted."""

    max_queries: Positive
    prior: float = Field(default=0.9, gt=0, lt=1)
    """The share of queries that have an answer in the archive."""


class Index(_Section):
    """See `vidseek_retrieval.index.IndexSettings`."""

    vectors: tuple[Literal["video", "caption", "words"], ...] = Field(min_length=1)
    language: str = Field(min_length=1)
    m: int = Field(ge=2, le=512)
    ef_construct: int = Field(ge=4)
    hnsw_ef: Positive
    quantization: Literal["none", "int8"]
    oversampling: float = Field(ge=1)
    on_disk: bool


class Server(_Section):
    """See `vidseek_retrieval.server.ServerSettings`."""

    shards: Positive
    replicas: Positive
    write_consistency: Positive


class Publish(_Section):
    """How the index is built and switched."""

    cut: Literal["captions", "windows", "shots"]
    keep_previous: int = Field(ge=0)
    min_recall: Share
    index: Index
    server: Server


class Params(_Section):
    """All of params.yaml."""

    general: General
    ingest: Ingest
    cut: Cut
    frames: Frames
    caption: Caption
    pairs: Pairs
    gates: Gates
    backbone: Backbone
    train: Train
    select: Select
    export: Export
    embed: Embed
    evaluate: Evaluate
    calibrate: Calibrate
    publish: Publish
    search: SearchSettings = SearchSettings()
    serve: ServeSettings = ServeSettings()


def load_params(path: Path = PARAMS_FILE) -> Params:
    """Read and check `path`.

    Raises:
        ConfigError: it is missing, no YAML, has an unknown key, or a value out of range; every fault is named.
    """
    if not path.is_file():
        raise ConfigError(f"{path} is missing in {Path.cwd()}", code="params-missing", remedy="Run in the project's folder")
    content = read_params(path)
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        faults = "; ".join(_fault(each) for each in error.errors())
        raise ConfigError(f"{path}: {faults}", code="invalid-settings", remedy="Mend the keys named") from error


def _fault(error: Any) -> str:
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{place} is no key that we know"
    if error["type"] == "missing":
        return f"{place} is missing"
    return f"{place} is {error['input']!r}: {error['msg'].lower()}"
