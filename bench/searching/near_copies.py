"""Videos and the copies that are made of them, for the prior of `vidseek dedup` and for its benchmark.

Pictures are changed at 128 px of the shorter side and times on a grid of 40 ms, then sampled, made small and stored as JPEG
as the stage `frames` does. Grey alone: fingerprints and hashes see nothing else. Half of the originals, by their names, are
there to choose on (`is_chosen_on`), the others to measure on.
"""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vidseek_media.cutting.cut import window_spans
from vidseek_media.decoding.frames import bin_centres, frames_at
from vidseek_media.decoding.packets import read_plan
from vidseek_media.errors import InputRejected
from vidseek_retrieval.dedup.comparing.fingerprints import VideoFingerprint, fingerprint_of, grey_of, picture_of

Frames = NDArray[np.uint8]
"""Shape (T, height, width), grey."""
Change = Callable[[Frames, np.random.Generator], Frames]
GRID_MS = 40
SIDE_PX, STORED_PX = 128, 64
MOST_MS = 25_000
LENGTH_MS, STRIDE_MS, NUM_FRAMES = 3000, 1000, 8
REAL = Path(os.environ.get("VIDSEEK_REALDATA", Path(__file__).resolve().parents[3] / "shared" / "realdata"))
DEMO = Path(".vidseek/demo/domain")
SUFFIXES = frozenset([".mp4", ".mkv", ".webm", ".mov", ".avi", ".flv", ".ts", ".gif", ".3gp"])
FOLDERS = ("A_video_captioned", "A_video_formats", "E_near_duplicates/tmk", "E_shot_boundaries")
GROUPS = {
    "man in an office": ("sample.mp4", "sample_av1.mp4", "sample.flv", "sample_fragmented.mp4", "sample_with_srt.mkv",
                         "sample_mdat_too_long.mp4"),
    "pattern": ("pattern-hd-no-bar.mp4", "pattern-sd-grey-bar.mp4", "pattern-sd-with-large-logo-bar.mp4",
                "pattern-sd-with-small-logo-bar.mp4"),
}
"""Real copies, by E_near_duplicates/video_groups.csv. Of each group the first is an original that copies are made of."""
UNCLEAR = ("h265_10bits.mp4", "bt709_full_range.mp4", "var_fps_video.mp4", "test_video.mp4")
"""Test pictures like those of others: neither the same nor different."""


@dataclass(frozen=True)
class Sampled:
    """What the stages see of a video."""

    times_ms: NDArray[np.int64]
    frames: Frames
    duration_ms: int
    world: str = ""

    @classmethod
    def of_grid(cls, grid: Frames, world: str) -> Sampled:
        """All frames of a video, one each `GRID_MS`."""
        return cls(np.arange(len(grid)) * GRID_MS, grid, len(grid) * GRID_MS, world)

    def fingerprint(self) -> VideoFingerprint:
        """As `vidseek dedup` has it."""
        return fingerprint_of(self.times_ms.tolist(), [picture_of(_stored(frame)) for frame in self.frames])


@dataclass(frozen=True)
class Kind:
    """How a copy is made."""

    change: Change
    speed: float = 1.0
    lost: tuple[float, float] = (0.0, 0.0)
    """The shares of the video that are missing at its beginning and its end."""


def is_chosen_on(name: str) -> bool:
    """Whether an original is one to choose on: no figure is measured on it."""
    return zlib.crc32(name.encode()) % 2 == 0


def draws_of(*names: str) -> np.random.Generator:
    """Random numbers that are the same each time."""
    return np.random.default_rng(zlib.crc32("/".join(names).encode()))


def read_originals() -> dict[str, Sampled]:
    """Real and rendered videos, and some made of photos (a moving view, slides, a still), by name, all different."""
    paths = [path for folder in FOLDERS for path in sorted((REAL / folder).rglob("*")) if path.suffix in SUFFIXES]
    copies = {name for names in GROUPS.values() for name in names[1:]} | set(UNCLEAR)
    found = {}
    for world, of_world in (("real", paths), ("rendered", sorted(DEMO.glob("*.mp4"))[:24])):
        for path in of_world:
            if path.name not in copies and (grid := read_grid(path)) is not None:
                found[path.name] = Sampled.of_grid(grid, world)
    return {**found, **_of_photos()}


def read_copies() -> dict[str, dict[str, Sampled]]:
    """The real copies of each group, by name, the first of each its original."""
    found: dict[str, dict[str, Sampled]] = {}
    for group, names in GROUPS.items():
        for path in (path for folder in FOLDERS for path in sorted((REAL / folder).rglob("*"))):
            if path.name in names and (grid := read_grid(path)) is not None:
                found.setdefault(group, {})[path.name] = Sampled.of_grid(grid, "real")
    return found


def read_grid(path: Path) -> Frames | None:
    """The frames of a file on the grid; None where it cannot be read, is shorter than half a second, or shows nothing."""
    try:
        plan = read_plan(path)
        times = list(range(0, min(plan.duration_ms, MOST_MS), GRID_MS))
        grid = np.stack([
            grey_of(frame.pixels) for frame in frames_at(path, times, side_px=SIDE_PX, plan=plan)
        ]) if times else np.zeros((0, 1, 1), np.uint8)
    except InputRejected:
        return None
    return grid if len(grid) * GRID_MS >= 500 and grid.std(axis=(1, 2)).max() > 4 else None


def sampled(grid: Frames, *, speed: float = 1.0, start_ms: float = 0.0, end_ms: float | None = None) -> Sampled:
    """A part of a video, so much faster, at the times at which its clips are sampled."""
    end_ms = len(grid) * GRID_MS if end_ms is None else end_ms
    duration_ms = int((end_ms - start_ms) / speed)
    times = np.array(sampled_times(duration_ms))
    places = ((start_ms + times * speed) / GRID_MS).astype(int).clip(0, len(grid) - 1)
    return Sampled(times, grid[places], duration_ms)


def sampled_times(duration_ms: int) -> list[int]:
    """The times at which the clips of a video are sampled, in order, each once."""
    spans = window_spans(duration_ms, length_ms=LENGTH_MS, stride_ms=STRIDE_MS)
    return sorted({time for span in spans for time in bin_centres(*span, NUM_FRAMES)})


def make_copy(original: Sampled, kind: Kind, draws: np.random.Generator) -> Sampled:
    """A copy, whose frames lie at other times than those of the original."""
    length_ms = original.duration_ms
    begin_ms = kind.lost[0] * length_ms + float(draws.integers(0, min(200, max(1, length_ms // 8))))
    made = sampled(original.frames, speed=kind.speed, start_ms=begin_ms, end_ms=(1 - kind.lost[1]) * length_ms)
    return Sampled(made.times_ms, kind.change(made.frames, draws), made.duration_ms, original.world)


def joined(parts: list[Frames]) -> Sampled:
    """One video after another, all in the size of the first."""
    height, width = parts[0].shape[1:]
    grid = np.concatenate([part if part.shape[1:] == (height, width) else _sized(part, height, width) for part in parts])
    return sampled(grid)


def _stored(frame: Frames) -> Frames:
    height, width = frame.shape
    scale = min(STORED_PX / min(height, width), 1.0)
    return _jpeg(_resize(frame, round(height * scale), round(width * scale), Image.Resampling.BOX), 95)


def _resize(frame: Frames, height: int, width: int, how: Image.Resampling = Image.Resampling.BILINEAR) -> Frames:
    return np.asarray(Image.fromarray(frame).resize((max(width, 2), max(height, 2)), how))


def _sized(frames: Frames, height: int, width: int) -> Frames:
    return np.stack([_resize(frame, height, width) for frame in frames])


def _jpeg(frame: Frames, quality: int) -> Frames:
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def _each(change: Callable[[Frames], Frames]) -> Change:
    return lambda frames, _: np.stack([change(frame) for frame in frames])


def _same(frames: Frames, _: np.random.Generator) -> Frames:
    return frames


def _cropped(share: float) -> Change:
    def change(frames: Frames, draws: np.random.Generator) -> Frames:
        height, width = frames.shape[1:]
        down, across = (share * (1 + draws.uniform(-0.5, 0.5, 2)) * (height, width)).astype(int)
        return frames[:, down : down + int(height * (1 - 2 * share)), across : across + int(width * (1 - 2 * share))]
    return change


def _barred(*, down: bool, across: bool, level: int | None = 0, share: tuple[float, float] = (0.08, 0.25)) -> Change:
    def change(frames: Frames, draws: np.random.Generator) -> Frames:
        sides = zip(frames.shape[1:], (down, across), strict=True)
        thick = [int(size * draws.uniform(*share)) * wanted for size, wanted in sides]
        value = int(draws.integers(60, 250)) if level is None else level
        return np.pad(frames, ((0, 0), (thick[0],) * 2, (thick[1],) * 2), constant_values=value)
    return change


def _logo(share: float) -> Change:
    def change(frames: Frames, draws: np.random.Generator) -> Frames:
        marked = frames.copy()
        height, width = frames.shape[1:]
        high, wide = int(height * share), int(width * share * draws.uniform(0.8, 1.4))
        top = int(draws.choice([height * 0.04, height * 0.96 - high]))
        left = int(draws.choice([width * 0.04, width * 0.96 - wide]))
        marked[:, top : top + high, left : left + wide] = _resize(
            draws.integers(0, 256, (6, 8)).astype(np.uint8), high, wide, Image.Resampling.NEAREST
        )
        return marked
    return change


def _subtitled(frames: Frames, draws: np.random.Generator) -> Frames:
    marked = frames.copy()
    height, width = frames.shape[1:]
    for start in range(0, len(frames), 14):
        high, wide = int(height * 0.12), int(width * draws.uniform(0.4, 0.8))
        text = ((draws.random((3, 30)) > 0.5) * 255).astype(np.uint8)
        top, left = int(height * 0.94) - high, (width - wide) // 2
        shown = _resize(text, high, wide, Image.Resampling.NEAREST)
        marked[start : start + 12, top : top + high, left : left + wide] = shown
    return marked


def _levels(power: float = 1.0, factor: float = 1.0, more: float = 0.0) -> Change:
    return lambda frames, _: np.clip(255 * (frames / 255.0) ** power * factor + more, 0, 255).astype(np.uint8)


def _noisy(frames: Frames, draws: np.random.Generator) -> Frames:
    return np.clip(frames + draws.normal(0, 14, frames.shape), 0, 255).astype(np.uint8)


def _turned(frames: Frames, draws: np.random.Generator) -> Frames:
    angle = float(draws.choice([-3, 3]))
    return np.stack([np.asarray(Image.fromarray(frame).rotate(angle, Image.Resampling.BILINEAR)) for frame in frames])


def _both(*changes: Change) -> Change:
    def change(frames: Frames, draws: np.random.Generator) -> Frames:
        for each in changes:
            frames = each(frames, draws)
        return frames
    return change


def _mirrored(frames: Frames, _: np.random.Generator) -> Frames:
    return frames[:, :, ::-1]


def _held(num: int) -> Change:
    """A lower frame rate: each frame is shown for so many."""
    return lambda frames, _: frames[np.arange(len(frames)) // num * num]


_LETTERBOXED = _barred(down=True, across=False)

FITTED: Mapping[str, Kind] = {
    "re-encoded": Kind(_each(lambda frame: _jpeg(frame, 18))),
    "scaled": Kind(_each(lambda frame: _resize(frame, frame.shape[0] // 2, frame.shape[1] // 2))),
    "cropped": Kind(_cropped(0.08)), "letterboxed": Kind(_LETTERBOXED), "logo": Kind(_logo(0.2)),
    "bordered": Kind(_barred(down=True, across=True, level=None, share=(0.03, 0.1))),
    "brightness": Kind(_levels(factor=0.55, more=8)), "gamma": Kind(_levels(power=0.6)), "mirrored": Kind(_mirrored),
    "trimmed": Kind(_same, lost=(0.15, 0.0)), "half": Kind(_same, lost=(0.5, 0.0)), "sped up": Kind(_same, speed=1.25),
}
"""Those that the prior is made from, beside `spliced`."""
OTHERS: Mapping[str, Kind] = {
    "as it is": Kind(_same), "squeezed": Kind(_each(lambda frame: _resize(frame, frame.shape[0], frame.shape[1] * 3 // 4))),
    "blurred": Kind(_each(lambda frame: _resize(_resize(frame, 16, 24), *frame.shape))), "noisy": Kind(_noisy),
    "cropped 5 %": Kind(_cropped(0.05)), "cropped 10 %": Kind(_cropped(0.1)),
    "pillarboxed": Kind(_barred(down=False, across=True)), "large logo": Kind(_logo(0.38)),
    "logo in bars": Kind(_both(_LETTERBOXED, _logo(0.2))), "subtitled": Kind(_subtitled),
    "brighter": Kind(_levels(more=45)), "more contrast": Kind(_levels(factor=1.5, more=-55)),
    "turned 3 degrees": Kind(_turned),
    "mirrored, cropped": Kind(_both(_mirrored, _cropped(0.06))), "half the frame rate": Kind(_held(2)),
    "1.05 x": Kind(_same, speed=1.05), "1.1 x": Kind(_same, speed=1.1), "1.5 x": Kind(_same, speed=1.5),
    "0.8 x": Kind(_same, speed=0.8), "trimmed at the end": Kind(_same, lost=(0.0, 0.17)),
    "trimmed at both ends": Kind(_same, lost=(0.12, 0.2)), "the middle": Kind(_same, lost=(0.3, 0.25)),
    "trimmed, bars, logo": Kind(_both(_LETTERBOXED, _logo(0.2)), lost=(0.15, 0.0)),
    "1.15 x, mirrored": Kind(_mirrored, speed=1.15),
    "cropped, darker, trimmed": Kind(_both(_cropped(0.08), _levels(factor=0.55, more=8)), lost=(0.1, 0.05)),
}
"""Those that nothing is chosen on."""


def splice(one: Sampled, other: Sampled) -> Sampled:
    """The first 60 % of one video, then the second half of another."""
    return joined([one.frames[: int(0.6 * len(one.frames))], other.frames[len(other.frames) // 2 :]])


def inset(host: Sampled, small: Sampled) -> Sampled:
    """A small picture of one video in a corner of another."""
    grid = host.frames[: min(len(host.frames), len(small.frames))].copy()
    height, width = grid.shape[1:]
    little = _sized(small.frames[: len(grid)], int(height * 0.4), int(width * 0.4))
    grid[:, 6 : 6 + little.shape[1], width - 6 - little.shape[2] : width - 6] = little
    return sampled(grid)


def openings() -> dict[str, Frames]:
    """What different videos begin with: colour bars, a test card, black."""
    height, width = SIDE_PX, 226
    columns = np.repeat(np.array([235, 210, 170, 145, 106, 81, 41, 16], np.uint8), 29)[:width]
    bars = np.tile(columns, (height, 1))
    card = bars.copy()
    rows, across = np.mgrid[:height, :width]
    card[(rows - height // 2) ** 2 + (across - width // 2) ** 2 < 2500] = 120
    card[::16], card[:, ::16] = 255, 255
    seconds = {"colour bars": (bars, 3), "test card": (card, 2), "black": (np.full((height, width), 16, np.uint8), 2)}
    return {name: np.repeat(picture[np.newaxis], length * 1000 // GRID_MS, 0) for name, (picture, length) in seconds.items()}


def _of_photos() -> dict[str, Sampled]:
    folders = ("B_image_text/exercise_photos", "B_image_text/flickr8k_dev")
    paths = [path for folder in folders for path in sorted((REAL / folder).rglob("*.jpg"))]
    if len(paths) < 100:
        return {}
    draws = draws_of("photos")
    photos = iter([paths[place] for place in draws.permutation(len(paths))[:100]])
    found = {}
    for number in range(14):
        ends = draws.uniform(0, 1, (2, 2)), draws.uniform(0.55, 0.95, 2)
        found[f"moving view {number}"] = _moving(next(photos), *ends, num=int(draws.integers(70, 160)))
    for number in range(10):
        shown = [_shown(next(photos)) for _ in range(int(draws.integers(3, 6)))]
        found[f"slides {number}"] = np.concatenate([np.repeat(each, int(draws.integers(35, 80)), 0) for each in shown])
    for number in range(10):
        found[f"still {number}"] = np.repeat(_shown(next(photos)), int(draws.integers(60, 150)), 0)
    return {name: Sampled.of_grid(grid, name.rsplit(" ", 1)[0]) for name, grid in found.items()}


def _shown(path: Path) -> Frames:
    return _moving(path, np.full((2, 2), 0.5), np.full(2, 0.95), num=1)


def _moving(path: Path, places: NDArray[np.float64], sizes: NDArray[np.float64], *, num: int) -> Frames:
    """A view that moves over a photo from one place and size to another."""
    photo = Image.open(path).convert("L")
    frames = []
    for share in np.linspace(0, 1, num):
        size = sizes[0] + (sizes[1] - sizes[0]) * share
        left, top = (places[0] + (places[1] - places[0]) * share) * (1 - size) * photo.size
        box = (left, top, left + size * photo.width, top + size * photo.height)
        frames.append(np.asarray(photo.resize((170, SIDE_PX), Image.Resampling.BICUBIC, box=box)))
    return np.stack(frames)
