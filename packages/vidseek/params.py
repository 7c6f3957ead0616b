"""params.yaml: assembles the records of its sections, which live in the packages that read them.

Stages read the whole file (`load_params`); the command and the service read single sections (`load_section`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from vidseek.configuration.yaml_file import PARAMS_FILE, Model, ParamsFile, records_in
from vidseek.settings import JobSettings, SavedSettings, ServeSettings
from vidseek_media.errors import ConfigError
from vidseek_media.settings import (
    CutSettings,
    Fault,
    FieldSettings,
    FrameSettings,
    GeneralSettings,
    IngestSettings,
    OcrSettings,
    Section,
    SpeechSettings,
    SubtitleSettings,
)
from vidseek_quality.thresholds import GateSettings
from vidseek_retrieval.settings import CalibrateSettings, EmbedSettings, PublishSettings, SearchSettings, TagSettings
from vidseek_training.settings import (
    BackboneSettings,
    CaptionSettings,
    EvaluateSettings,
    ExportSettings,
    PairSettings,
    SelectSettings,
    TrainingSettings,
)

SETTLED_DIR = Path("data", "settings")
"""Where the stage `settings` of an archive folder writes what the other stages depend on."""
CHANGED = {
    "export.min_cosine": "each variant has its own: write export.parity.fp32.min_cosine",
    "export.min_overlap": "each variant has its own: write export.parity.fp32.min_overlap",
    "export.min_r1_difference": "each variant has its own: write export.parity.fp32.min_r1_difference",
    "ingest.youtube.max_height": "the shorter side counts, as in upright videos: write ingest.youtube.max_side_px",
    "caption.llm.skip_marks": "write caption.llm.skip_quality_flags",
    "frames.shard_digits": "shards are filled up to a size: write frames.shard_mib, 128 for example",
    "pairs.skip_marks": "write pairs.skip_quality_flags",
    "train.settings.*.looks_per_epoch": "write train.settings.*.validations_per_epoch",
    "train.settings.*.look_clips": "write train.settings.*.validation_clips",
    "publish.alias": "the live alias is always clips: take the line out",
}
"""Keys of earlier versions, and their replacements. `search.merge_margin` is not listed, since it is still read."""


class Params(Section):
    """All of params.yaml."""

    general: GeneralSettings = GeneralSettings()
    ingest: IngestSettings = IngestSettings()
    fields: FieldSettings = FieldSettings()
    cut: CutSettings = CutSettings()
    frames: FrameSettings = FrameSettings()
    subtitles: SubtitleSettings = SubtitleSettings()
    ocr: OcrSettings = OcrSettings()
    speech: SpeechSettings = SpeechSettings()
    caption: CaptionSettings = CaptionSettings()
    pairs: PairSettings = PairSettings()
    gates: GateSettings = GateSettings()
    backbone: BackboneSettings
    train: TrainingSettings
    select: SelectSettings = SelectSettings()
    export: ExportSettings = ExportSettings()
    embed: EmbedSettings = EmbedSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    calibrate: CalibrateSettings = CalibrateSettings()
    tags: TagSettings = TagSettings()
    publish: PublishSettings = PublishSettings()
    search: SearchSettings = SearchSettings()
    serve: ServeSettings = ServeSettings()
    jobs: JobSettings = JobSettings()
    saved: SavedSettings = SavedSettings()


class Settings(Section):
    """The sections for searching and serving; missing keys have their defaults."""

    search: SearchSettings = SearchSettings()
    serve: ServeSettings = ServeSettings()


def load_params(path: Path = Path(PARAMS_FILE)) -> Params:
    """Read and check all of params.yaml, as the stages do: every key that DVC compares must be stated.

    In an archive that `vidseek init` made, DVC compares the files of the stage `settings`: there no key must be stated.

    Args:
        path: The file.

    Raises:
        ConfigError: the file is missing or not YAML; a key is missing, repeated, unknown or of an earlier version; or a
            value is out of range. Every fault is named.

    Examples:
        >>> load_params(Path("params.yaml")).cut.window_length_seconds > 0
        True
    """
    if (path.parent / SETTLED_DIR).is_dir():
        return load_short_params(path)
    file = _read_whole(path)
    return file.checked(Params, file.content, others=[*_changed(file.content), *_unstated(Params, file.content)])


def load_short_params(path: Path) -> Params:
    """Read and check all of a params.yaml that may leave keys to their defaults.

    Args:
        path: The file.

    Raises:
        ConfigError: as `load_params`, but for a key that is not stated and has a default.
    """
    file = _read_whole(path)
    return file.checked(Params, file.content, others=list(_changed(file.content)))


def _read_whole(path: Path) -> ParamsFile:
    if not path.is_file():
        raise ConfigError(f"{path} is missing in {Path.cwd()}", code="params-missing", remedy="Run in the project's folder")
    return ParamsFile.read(path)


def load_settings(path: Path) -> Settings:
    """Read the sections `search` and `serve`; a missing file gives the defaults, so that bundle and index suffice.

    Raises:
        ConfigError: the file is not YAML, or a key of these sections is unknown or out of range.
    """
    file = ParamsFile.read(path)
    return Settings(search=file.section(SearchSettings), serve=file.section(ServeSettings))


def load_section(path: Path, kind: type[Model]) -> Model:
    """Read one section of params.yaml, and ignore the others; a missing file or section gives the defaults.

    Args:
        path: The file.
        kind: The record of the section.

    Raises:
        ConfigError: the file is not YAML, or a key of the section is unknown, of an earlier version, or out of range.

    Examples:
        >>> _ = Path("changed.yaml").write_text("search: {negative_weight: 0.25}")
        >>> load_section(Path("changed.yaml"), SearchSettings).negative_weight
        0.25
    """
    file = ParamsFile.read(path)
    within = [fault for fault in _changed(file.content) if fault.key.startswith(f"{kind.place}.")]
    return file.section(kind, others=within)


def _changed(content: Mapping[str, Any]) -> Iterator[Fault]:
    for changed, now in CHANGED.items():
        for key in _found(content, changed.split(".")):
            yield Fault(key, "changed", f"{key} is of an earlier version: {now.replace('*', key.split('.')[-2])}")


def _found(content: Any, path: Sequence[str], place: str = "") -> Iterator[str]:
    """Yield the keys of `content` that `path` names, where `*` is any key, by their dotted names."""
    if not isinstance(content, dict):
        return
    for name in content if path[0] == "*" else [name for name in path[:1] if name in content]:
        if len(path) == 1:
            yield f"{place}{name}"
        else:
            yield from _found(content[name], path[1:], f"{place}{name}.")


def _unstated(kind: type[Section], content: Mapping[str, Any], place: str = "") -> Iterator[Fault]:
    """Yield keys that the file leaves to their defaults and may not: DVC compares only what is stated."""
    for name, info in kind.model_fields.items():
        key = f"{place}{name}"
        if "*" in kind.unstated or name in kind.unstated or (info.is_required() and name not in content):
            continue
        records = records_in(info.annotation)
        if name not in content:
            if not (records and "*" in records[0].unstated):
                yield Fault(key, "missing", f"{key} is missing: write {_flow(name, info.get_default())}")
        elif records and isinstance(content[name], dict) and records[0] is info.annotation:
            yield from _unstated(records[0], content[name], f"{key}.")


def _flow(name: str, default: Any) -> str:
    value = default.model_dump(mode="json") if isinstance(default, Section) else default
    value = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump({name: value}, default_flow_style=True, width=10_000).strip()[1:-1]
