"""Says what a new archive will cost on this machine: seconds of a core for an hour of video, minutes in all, bytes of disk.

Frames are measured here on a few of the videos. The encoder's work follows from the sizes in its config.json and a rate that
`make bench-embed` measured (bench/embed.json: CLIP ViT-B/32, fp32, ONNX Runtime, two cores with AVX-512); training from
`make bench-train` (bench/train.json). These two are about right within a factor of two.
"""

from __future__ import annotations

import csv
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vidseek.new_archive.machine import Machine
from vidseek.new_archive.proposal import Proposal
from vidseek.new_archive.source_look import SourceLook
from vidseek_media.cutting.cut import cut_archive
from vidseek_media.errors import VidseekError
from vidseek_media.frame_store.shards import write_frames
from vidseek_media.frame_store.stored_clips import stored_clips
from vidseek_media.settings import CutSettings, FrameSettings
from vidseek_media.sources.ingest import ingest
from vidseek_media.sources.opening import open_source
from vidseek_media.tables import CLIPS, read_table, write_table
from vidseek_training.backbones.files.configs import read_beside
from vidseek_training.backbones.files.folder import resolve
from vidseek_training.backbones.files.image_processing import published_side
from vidseek_training.fitting.presets import PRESETS
from vidseek_training.settings import TrainSettings

MEASURED_MS, NUM_MEASURED = 120_000, 8
"""Video that is decoded for the measurement, and the most files that it comes from."""
LONGEST_MS = 1_800_000
"""A file above this length is not decoded for a measurement."""
CORE_FLOPS: Mapping[str, float] = {"avx512f": 1.6e11, "avx2": 0.8e11, "": 0.3e11}
"""Operations of the encoder a second and core. The first is bench/embed.json's; the others are half and a fifth of it."""
LEAST_CLIP_SECONDS = 0.004
"""Of a clip, however small the model: reading, scaling, writing."""
TRAINED_CLIP_TIMES = 1.5
"""Work of a training step, in encodings of its clips, with the upper layers taught (bench/train.json)."""
EPOCHS = 10.0
TINY_PARAMETERS_FLOPS = 2e9
"""A model of less work a clip has the preset `tiny`."""
TINY_CLIPS_A_STEP = 64
FIXED_SECONDS = 75.0
"""Seconds of a core for an archive of no size: sixteen stages start, and load their libraries."""
TEXT_SECONDS_PER_HOUR = 600.0
"""Of a core, for an hour of video (bench/ocr.json: 8 to 11 minutes)."""
SPEECH_SECONDS_PER_HOUR: Mapping[str, float] = {"pocketsphinx": 1560.0}
"""Of a core, for an hour of speech, by engine (bench/speech.json); the others were not measured."""
BYTES_PER_CLIP = 12_000
"""Of vectors, tables and the index."""
CACHE_TIMES = 2
"""DVC keeps a copy of the frames where the disk cannot share blocks."""


@dataclass(frozen=True)
class Costs:
    """What an archive will cost."""

    hours_of_video: float
    num_clips: int
    frame_seconds_per_hour: float | None
    """Of a core, for an hour of video: reading, decoding, cutting; None where nothing could be measured."""
    embed_seconds_per_hour: float
    train_seconds: float
    """Of a core, in all; 0 where nothing is taught."""
    minutes: float
    """Of this machine, in all."""
    disk_bytes: int
    measured_on: int
    """Videos that were decoded for it."""
    text_seconds: float = 0.0
    """Of a core, in all, for text on the screen."""
    speech_seconds: float = 0.0
    """The same for speech, if somebody speaks all the time; 0 too for an engine that was not measured."""


def estimate(look: SourceLook, proposal: Proposal, machine: Machine) -> Costs | None:
    """Return the costs of an archive; None where its source was not looked at. Takes some seconds.

    Args:
        look: What the source holds.
        proposal: The settings.
        machine: The machine that will run the stages.
    """
    if not look.sampled:
        return None
    folder = resolve(proposal.backbone.name)
    side_px = published_side(folder)
    measured = measure_frames(look, proposal, side_px)
    num_clips = _num_clips(look, proposal)
    flops = _flops(folder)
    hours, clip_seconds = look.hours, seconds_per_clip(flops, machine)
    per_clip, per_clip_bytes = (measured.seconds, measured.num_bytes) if measured else (None, 8 * side_px**2 // 4)
    train = _train_seconds(look, proposal, clip_seconds, flops)
    frames = num_clips * (per_clip or 0.0)
    text = TEXT_SECONDS_PER_HOUR * hours if proposal.reads_text else 0.0
    speech = SPEECH_SECONDS_PER_HOUR.get(proposal.speech[0], 0.0) * hours * look.share_of("has_sound")
    total = FIXED_SECONDS + (frames + num_clips * clip_seconds + train + text) / machine.cores + speech
    return Costs(
        hours_of_video=hours, num_clips=num_clips,
        frame_seconds_per_hour=frames / hours if per_clip is not None and hours else None,
        embed_seconds_per_hour=num_clips * clip_seconds / max(hours, 1e-9), train_seconds=train, minutes=total / 60,
        disk_bytes=int(num_clips * (CACHE_TIMES * per_clip_bytes + BYTES_PER_CLIP)) + bundle_bytes(folder),
        measured_on=measured.num_videos if measured else 0, text_seconds=text, speech_seconds=speech,
    )


@dataclass(frozen=True)
class MeasuredFrames:
    """What a clip cost, from file to stored frames."""

    seconds: float
    num_bytes: float
    num_videos: int


@dataclass(frozen=True)
class _Run:
    """A run of the stages over some videos."""

    seconds: float
    num_clips: int
    num_bytes: int
    num_videos: int

    def beyond(self, other: _Run) -> MeasuredFrames | None:
        """Return what a clip costs beyond the start of the worker processes, which a smaller run has too."""
        if not self.num_clips:
            return None
        more, slower = self.num_clips - other.num_clips, self.seconds - other.seconds
        seconds = slower / more if more > 0 and slower > 0 else self.seconds / self.num_clips
        return MeasuredFrames(seconds, self.num_bytes / self.num_clips, self.num_videos)


def measure_frames(look: SourceLook, proposal: Proposal, side_px: int) -> MeasuredFrames | None:
    """Read, cut and decode a little of a source with the stages' own code; None where no video is short enough.

    Args:
        look: What the source holds.
        proposal: The settings.
        side_px: Of the frames that are kept.
    """
    chosen: list[Path] = []
    length_ms = 0
    for path, seen in sorted(look.sampled.items(), key=lambda item: item[1].duration_ms):
        if length_ms < MEASURED_MS and len(chosen) < NUM_MEASURED and seen.duration_ms <= LONGEST_MS:
            chosen.append(path)
            length_ms += seen.duration_ms
    if not chosen:
        return None
    with tempfile.TemporaryDirectory(prefix="vidseek-") as folder:
        try:
            one = _measured(chosen[:1], Path(folder) / "one", proposal, side_px)
            return _measured(chosen, Path(folder) / "all", proposal, side_px).beyond(one)
        except VidseekError:
            return None  # the first run says what is wrong with these files


def _measured(chosen: list[Path], folder: Path, proposal: Proposal, side_px: int) -> _Run:
    folder.mkdir()
    with (folder / "list.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["uri"], *([str(path)] for path in chosen)])
    source = open_source(str(folder / "list.csv"), downloads=folder / "downloads")
    start = time.perf_counter()
    found = ingest(source, out=folder / "ingest", ledger=folder / "ledger", timeout_seconds=60, workers=1)
    windows = CutSettings(
        modes=("windows",), window_length_seconds=proposal.window_seconds, window_stride_seconds=proposal.stride_seconds
    )
    cut_archive(folder / "ingest", out=folder / "cut", settings=windows)
    clips = read_table(folder / "cut" / "clips.parquet", CLIPS)
    clips = clips[clips["start_ms"] < MEASURED_MS]
    write_table(folder / "cut" / "clips.parquet", clips, CLIPS)
    settings = FrameSettings(side_px=side_px, workers=1)
    write_frames(source, folder / "ingest", folder / "cut", out=folder / "frames", settings=settings)
    seconds = time.perf_counter() - start
    stored = stored_clips(folder / "frames")
    return _Run(seconds, len(stored), sum(each.num_bytes for each in stored), found.num_out)


def seconds_per_clip(flops: float, machine: Machine) -> float:
    """Return seconds of a core that a clip takes to encode: by the model's operations and the processor's kind."""
    kind = next((flag for flag in ("avx512f", "avx2") if flag in machine.flags), "")
    return LEAST_CLIP_SECONDS + flops / CORE_FLOPS[kind]


def _flops(backbone: Path) -> float:
    """Return the operations of a clip of eight frames, from the sizes in config.json; those of a B/32 where it is silent."""
    config = read_beside(backbone / "config.json")
    vision = config.get("vision") or config.get("vision_config") or {}
    width, layers = (int(vision.get(a) or vision.get(b) or usual) for a, b, usual in (
        ("width", "hidden_size", 768), ("layers", "num_hidden_layers", 12),
    ))
    side, patch = (int(vision.get(a) or vision.get(b) or usual) for a, b, usual in (
        ("side", "image_size", 224), ("patch", "patch_size", 32),
    ))
    tokens = (side // patch) ** 2 + 1
    if config.get("model_type") == "viclip":
        return layers * _layer_flops(tokens * FrameSettings().num_frames, width)
    return FrameSettings().num_frames * layers * _layer_flops(tokens, width)


def _layer_flops(tokens: int, width: int) -> float:
    """Of a transformer's layer: projections and MLP of 12 w² weights, and attention."""
    return 24.0 * tokens * width**2 + 4.0 * tokens**2 * width


def bundle_bytes(backbone: Path) -> int:
    """Return the size of the bundle and the adapter's copies, by that of the weights: three variants, and DVC's copy."""
    weights = sum(each.stat().st_size for each in backbone.glob("*.safetensors")) or sum(
        each.stat().st_size for each in backbone.glob("*.bin"))
    return int(weights * (1 + 0.5 + 0.25) * CACHE_TIMES)


def _num_clips(look: SourceLook, proposal: Proposal) -> int:
    """Windows and captioned spans: of the sample, for all."""
    lengths = [each.duration_ms / 1000 for each in look.sampled.values()]
    windows = sum(1 + max(0.0, (length - proposal.window_seconds) // proposal.stride_seconds) for length in lengths)
    all_windows = windows / len(lengths) * look.num_videos * (1 - look.rejected_share)
    return max(1, round(all_windows) + look.captions.num_timed)


def _train_seconds(look: SourceLook, proposal: Proposal, clip_seconds: float, flops: float) -> float:
    num_pairs = look.captions.num_matched
    if num_pairs < (proposal.min_pairs or TrainSettings().min_pairs):
        return 0.0
    if flops < TINY_PARAMETERS_FLOPS:
        return float(PRESETS["tiny"]["steps"]) * TINY_CLIPS_A_STEP * clip_seconds * TRAINED_CLIP_TIMES
    return EPOCHS * num_pairs * clip_seconds * TRAINED_CLIP_TIMES
