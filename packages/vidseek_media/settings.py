"""Settings of this room: the sections `general`, `ingest`, `fields`, `cut`, `frames`, `subtitles`, `ocr` and `speech`
of params.yaml, one record each.

A record states type, range and default of each key, once. The first sentence of a key's docstring is its comment in
params.yaml (`vidseek.params`). Every room has its own records; those of the service are in `vidseek.settings`.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from vidseek_media.errors import ConfigError
from vidseek_media.fields.declared import AUTO_TAGS, FieldType, fields_of
from vidseek_media.text.languages import is_language
from vidseek_media.urls import has_secrets

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
CutMode = Literal["captions", "windows", "shots"]
ShotDetector = Literal["adaptive", "transnetv2"]
Decoder = Literal["auto", "pyav", "decord"]
DECODER: Decoder = "auto"
QualityFlag = Literal["black", "flat", "frozen"]

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass as _ModelType
else:
    _ModelType = type(BaseModel)

MAX_FRAMES = 100
"""Of a clip; frame numbers have two digits."""
RECYCLE_AFTER = 200
"""Decoders leak: a worker is replaced after this many inputs."""
WORKER_MEMORY_MIB = 4096
"""Enough for 8K video with 16 reference frames."""


@dataclass(frozen=True)
class Fault:
    """One key of params.yaml that is wrong."""

    key: str
    """Dotted: `frames.side_px`."""
    kind: Literal["unknown", "missing", "changed", "choice", "value"]
    """`changed`: a key of an earlier version; `choice`: none of the values there are; `value`: another type or range."""
    text: str
    """One clause that names the key, what came, and what is wanted."""


class SettingsRefused(ConfigError):
    """Settings have an unknown key, lack one, or have a value out of its range.

    Its code is that of its faults, where all are of one kind.
    """

    code = "invalid-settings"
    codes: ClassVar[Mapping[str, str]] = {
        "unknown": "unknown-setting", "missing": "setting-missing", "changed": "setting-changed", "choice": "unknown-choice",
        "value": "setting-out-of-range",
    }

    def __init__(self, message: str, *, remedy: str, faults: tuple[Fault, ...]) -> None:
        kinds = {fault.kind for fault in faults}
        super().__init__(message, code=self.codes[kinds.pop()] if len(kinds) == 1 else "", remedy=remedy)
        self.faults = faults


_SHORT = reprlib.Repr()
_SHORT.maxlevel = 2
"""Of values that came: a few lines of YAML with anchors can stand for gigabytes."""


class _SectionType(_ModelType):
    """Lets a record that is made in Python raise a ConfigError, as one that is read from params.yaml does."""

    def __call__(cls, *args: Any, **values: Any) -> Any:  # noqa: N805
        try:
            return super().__call__(*args, **values)
        except ValidationError as error:
            raise _refused(error, cls.place) from error  # type: ignore[attr-defined]


class Section(BaseModel, metaclass=_SectionType):
    """A section of params.yaml: no other keys than these, and it does not change.

    Raises:
        ConfigError: a key is unknown, missing or out of range; every fault is named.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    place: ClassVar[str] = ""
    """Its dotted name in params.yaml."""
    unstated: ClassVar[tuple[str, ...]] = ()
    """Keys that a pipeline's params.yaml may leave out: those that came later than the file, and those that few change.
    `*` means all of them."""

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Self:
        """Return the record of what a file says of this section.

        Raises:
            ConfigError: a key is unknown, missing or out of range; every fault is named.
        """
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise _refused(error, cls.place) from error


def faults_of(error: ValidationError, place: str) -> Iterator[Fault]:
    """Yield what pydantic found, each with its key from `place` on; of a list, its entries that are wrong alone."""
    found = error.errors()
    within = {each["loc"][:length] for each in found for length in range(len(each["loc"]))}
    for each in found:
        if each["loc"] in within:
            continue  # pydantic counts no wrong entry, and then finds too few
        key = ".".join([*([place] if place else []), *(str(part) for part in each["loc"])])
        if each["type"] == "extra_forbidden":
            yield Fault(key, "unknown", f"{key} is no key that we know")
        elif each["type"] == "missing":
            yield Fault(key, "missing", f"{key} is missing")
        else:
            is_record = each["type"] == "value_error" and isinstance(each["input"], dict)
            came = key if is_record else f"{key} is {_SHORT.repr(each['input'])}"
            wanted = str(each["ctx"]["error"]) if each["type"] == "value_error" else each["msg"].lower()
            kind: Literal["choice", "value"] = "choice" if each["type"] == "literal_error" else "value"
            yield Fault(key, kind, f"{came}: {wanted}")


def _refused(error: ValidationError, place: str) -> SettingsRefused:
    faults = tuple(faults_of(error, place))
    return SettingsRefused(
        "; ".join(fault.text for fault in faults), remedy=f"Mend {place} in params.yaml", faults=faults
    )


def _refuse_secrets(source: str) -> str:
    if has_secrets(source):
        # DVC writes what params.yaml says into dvc.lock, which is committed.
        raise ValueError(
            "it has a password or a signature, and params.yaml is no place for one: write env:VIDSEEK_SOURCE, and set "
            "VIDSEEK_SOURCE to the URL, or name it in a manifest"
        )
    return source


def _require_language(text: str) -> str:
    if not is_language(text):
        raise ValueError("it is no language tag such as en, de or pt-BR")
    return text


LanguageTag = Annotated[str, AfterValidator(_require_language)]
SourceName = Annotated[str, Field(min_length=1), AfterValidator(_refuse_secrets)]


class GeneralSettings(Section):
    """The general world: videos that replay learns from, and on which retention is measured."""

    place = "general"

    source: SourceName | None = None
    """The general world, for replay and retention, named as `ingest.source` is; null: neither."""


class DownloadSettings(Section):
    """How a page of YouTube is downloaded with yt-dlp."""

    place = "ingest.youtube"

    cookies: Path | None = None
    """A cookies.txt in Netscape's format, for sites that ask for a login. It is read and never written."""
    max_videos: Positive | None = 100
    """The first so many of those that the page lists; null: all."""
    max_side_px: Positive = 720
    """Of the shorter side of what is downloaded, where the site has a choice."""
    subtitles: tuple[LanguageTag, ...] = ("en",)
    """Languages, the most wanted first: the first that a video has becomes its transcript; []: none."""
    automatic_captions: bool = True
    """Take captions that the site made from speech, where nobody wrote any."""
    rate_limit_kib: Positive | None = None
    """KiB a second, at most; null: as fast as it goes."""
    sleep_seconds: Annotated[float, Field(ge=0)] = 2.0
    """Wait before each video, at least."""
    max_sleep_seconds: Annotated[float, Field(ge=0)] = 6.0
    """Wait before each video, at most: the pause is random between the two."""
    sleep_requests_seconds: Annotated[float, Field(ge=0)] = 0.75
    """Wait between the requests that a page takes."""
    sleep_subtitles_seconds: Annotated[float, Field(ge=0)] = 5.0
    """Wait before each file of subtitles."""
    retries: Annotated[int, Field(ge=0)] = 5
    """Of each request that fails; the wait doubles from 1 s to a minute."""


class IngestSettings(Section):
    """Where the videos are, and how they are listed and probed."""

    place = "ingest"
    unstated = ("captions",)

    source: SourceName = ""
    """A folder, pattern, manifest, URL or page of YouTube: docs/own-videos.md. Empty where none is named."""
    captions: Path | None = None
    """A file of captions that lies elsewhere than the videos; it counts beside those of the source."""
    clip_pattern: str | None = None
    """Files named so are clips of one video, e.g. '(?P<stem>.+)_(?P<index>\\d+)'."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 60
    """For probing one file; as much again for each GB of it."""
    workers: Positive = 2
    """Processes that probe."""
    max_gone_share: Share = 0.5
    """Of the videos of the run before; where more are gone and none is new, a disk is away, and nothing changes."""
    youtube: DownloadSettings = DownloadSettings()
    """Read where the source is a page: docs/youtube.md."""
    sources: dict[str, dict[str, Any]] = {}
    """Settings of sources that other packages bring, by their name."""


class FieldSettings(Section):
    """Fields of one's own: the columns of manifests and files of captions that clips are filtered by.

    A key is the name of a field, its value a type: keyword, integer, float, boolean, datetime or text, or a list of one.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Any] = Field(init=False)

    place = "fields"
    unstated = ("*",)

    @model_validator(mode="after")
    def _declares_fields(self) -> FieldSettings:
        if AUTO_TAGS in fields_of(self.model_extra or {}):
            raise ValueError(f"a field is called {AUTO_TAGS}, which prompts fill (`tags.prompts`): give it another name")
        return self

    @property
    def declared(self) -> dict[str, FieldType]:
        """The fields with their types, by name."""
        return fields_of(self.model_extra or {})


class ShotSettings(Section):
    """How cuts are found, and what lengths their shots are brought to."""

    place = "cut.shots"
    unstated = ("detector",)

    detector: ShotDetector = "adaptive"
    """adaptive, or transnetv2: a network, slower. The three keys below are of adaptive."""
    threshold: Annotated[float, Field(gt=0)] = 3.0
    """How many times more than its neighbours a frame must change."""
    min_content: Annotated[float, Field(ge=0, le=255)] = 15.0
    """By how many levels it must change at least. They are levels of hue, saturation and value on average."""
    gradual: bool = True
    """Find dissolves and fades too. See `transitions.py`."""
    min_seconds: Annotated[float, Field(ge=0)] = 2.0
    """A shorter shot is joined to the next."""
    max_seconds: Annotated[float, Field(gt=0)] = 10.0
    """A longer shot is split into equal parts."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 600
    """For one video."""
    workers: Positive = 2
    """Processes that look for cuts."""

    @model_validator(mode="after")
    def _is_a_range(self) -> ShotSettings:
        if not self.min_seconds < self.max_seconds:
            raise ValueError("min_seconds must be below max_seconds")
        return self


class CutSettings(Section):
    """How videos become clips."""

    place = "cut"

    modes: Annotated[tuple[CutMode, ...], Field(min_length=1)] = ("captions", "windows")
    """captions: what is learned from; windows or shots: what is published."""
    window_length_seconds: Annotated[float, Field(ge=0.001)] = 30.0
    """Length of a window; a shorter video is one clip."""
    window_stride_seconds: Annotated[float, Field(ge=0.001)] = 30.0
    """From the start of one window to the start of the next."""
    shots: ShotSettings = ShotSettings()
    """Read where modes lists shots."""


class SubtitleSettings(Section):
    """Which subtitles of the videos are evidence for searches. Files beside the videos always are."""

    place = "subtitles"
    unstated = ("*",)

    embedded: bool = True
    """Read the text streams in the files too; the whole file is read once."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 300
    """For the streams of one video."""
    workers: Positive = 2
    """Processes that read streams."""


def longer_by_length(seconds: float, duration_ms: int) -> float:
    """Return the time-out of a stage that reads whole videos: as much again for each ten minutes of the video.

    Args:
        seconds: As the settings state it.
        duration_ms: Length of the video in milliseconds.
    """
    return seconds * (1 + duration_ms / 600_000)


class OcrSettings(Section):
    """Which on-screen text of the videos is read, and how."""

    place = "ocr"
    unstated = ("*",)

    enabled: bool = False
    """Read the text that the videos show; docs/evidence.md has its cost."""
    interval_seconds: Annotated[float, Field(ge=0.1, le=60)] = 1.0
    """One frame is read of each such span."""
    side_px: Annotated[int, Field(ge=64, le=8192)] = 720
    """Shorter side of the frames that text is read from; smaller videos are not enlarged."""
    detect_side_px: Annotated[int, Field(ge=64, le=8192)] = 480
    """Shorter side of the frames that text is looked for in; smaller is faster and misses small text."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 600
    """For one video; as much again for each ten minutes of it."""
    workers: Positive = 2
    """Processes that read, on one core each."""


class SpeechSettings(Section):
    """How speech becomes text. Addresses and keys are no settings: they are read from the environment."""

    place = "speech"
    unstated = ("*",)

    enabled: bool = False
    """Turn speech into text; docs/evidence.md has its cost."""
    engine: str = "faster-whisper"
    """faster-whisper, openai (any endpoint of its protocol), pocketsphinx, or one that another package brings."""
    model: str | None = None
    """Of the engine: a folder or a name of the hub (faster-whisper), the name that the server knows (openai)."""
    language: LanguageTag | None = None
    """That is spoken; null: the engine finds it, span by span."""
    options: dict[str, Any] = {}
    """Further settings of the engine, as it names them."""
    voice_threshold: Share = 0.5
    """Probability of speech from which a span of sound is heard."""
    max_span_seconds: Annotated[float, Field(ge=5, le=300)] = 28.0
    """A longer span is cut where nobody speaks, if it can be."""
    usd_per_minute: Annotated[float, Field(ge=0)] | None = None
    """Price of a minute of sound, for openai; 0 for a server of your own."""
    budget_usd: Annotated[float, Field(ge=0)] = 1.0
    """Of all runs of this archive together."""
    concurrency: Annotated[int, Field(ge=1, le=64)] = 4
    """Requests under way at once, for openai."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 600
    """For decoding the sound of one video; as much again for each ten minutes of it."""
    workers: Positive = 2
    """Processes that decode sound."""

    def identity(self) -> dict[str, object]:
        """Return the settings that change what is heard."""
        named = {"engine", "model", "language", "options", "voice_threshold", "max_span_seconds"}
        return self.model_dump(mode="json", include=named)


def _side_px(value: object) -> object:
    if value != "auto" and (isinstance(value, bool) or not isinstance(value, int) or not 16 <= value <= 8192):
        raise ValueError("it must be auto, or a number of pixels from 16 to 8192")
    return value


class FrameSettings(Section):
    """Which frames of a clip are kept, and how they are decoded and stored."""

    place = "frames"

    num_frames: Annotated[int, Field(ge=1, le=MAX_FRAMES)] = 8
    """Of each clip, at the centres of equal bins. A model sees one frame of each bin."""
    per_bin: Positive = 1
    """Frames kept of each bin; 3, 5, ... for training views that vary. Odd, so that the centre of the bin is among them."""
    decoder: Decoder = DECODER
    """auto, pyav or decord."""
    side_px: Annotated[int | Literal["auto"], PlainValidator(_side_px)] = "auto"
    """Of the shorter side; smaller videos are not enlarged. auto: what the backbone takes."""
    quality: Annotated[int, Field(ge=1, le=100)] = 95
    """Of the JPEG files, 1 to 100."""
    shard_mib: Annotated[float, Field(gt=0, le=2**16)] = 128
    """Size from which a shard takes no more videos, in MiB."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 600
    """For decoding one video."""
    worker_memory_mib: Annotated[int, Field(ge=512)] = WORKER_MEMORY_MIB
    """Of one worker; a video that takes more is rejected. The default is enough for 8K with 16 reference frames."""
    recycle_after: Positive = RECYCLE_AFTER
    """Videos, after which a worker is replaced, since decoders leak."""
    workers: Positive = 2
    """Processes that decode."""

    @field_validator("per_bin")
    @classmethod
    def _keeps_the_centre(cls, per_bin: int, given: ValidationInfo) -> int:
        if per_bin % 2 == 0:
            raise ValueError("it must be odd: then the centre of each bin is kept too")
        if per_bin * given.data.get("num_frames", 1) > MAX_FRAMES:
            raise ValueError(f"num_frames times per_bin must be at most {MAX_FRAMES}")
        return per_bin

    @property
    def stored_px(self) -> int:
        """`side_px` as a number.

        Raises:
            ConfigError: it is auto: the stage `side` finds the number, and `stored_side` puts it here.
        """
        if self.side_px == "auto":
            raise ConfigError(
                "frames.side_px is auto, wanted a number here", code="side-auto", remedy="Run `dvc repro side`"
            )
        return self.side_px

    @property
    def shard_bytes(self) -> int:
        """`shard_mib` in bytes."""
        return round(self.shard_mib * 2**20)

    @property
    def num_kept(self) -> int:
        """Frames of each clip in the shard."""
        return self.num_frames * self.per_bin
