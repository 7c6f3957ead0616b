"""Finds the shots of a video by one of two detectors, and adjusts their lengths."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol, SupportsInt

import numpy as np
from numpy.typing import NDArray

from vidseek_media.cutting.content_changes import ContentChanges
from vidseek_media.cutting.transitions import Pace
from vidseek_media.cutting.transnetv2 import TransNetV2
from vidseek_media.cutting.transnetv2_model import prepared_model
from vidseek_media.decoding.frames import frames_at
from vidseek_media.decoding.packets import read_plan
from vidseek_media.decoding.worker_batch import run_videos
from vidseek_media.files.video_memory import VideoMemory
from vidseek_media.installing import require_module
from vidseek_media.records import Refusal, Span
from vidseek_media.settings import ShotDetector, ShotSettings
from vidseek_media.sources.originals import original

LOOKED_AT_PX = 144
"""Of the shorter side of the frames that the detectors see: 256 pixels wide at 16 to 9, PySceneDetect's own default."""

_OF_CUTS: Mapping[ShotDetector, set[str]] = {
    "adaptive": {"threshold", "min_content", "gradual"}, "transnetv2": {"detector"},
}
"""Settings that move a cut, by detector; the others make shots of cuts."""

FORMAT = 6
"""Of what is remembered of a video: raise it when the same settings find other cuts."""


def shot_spans(cuts_ms: Sequence[int], duration_ms: int, *, min_ms: int, max_ms: int) -> Iterator[Span]:
    """Yield the shots of a video as spans, in order and without gaps.

    A shot shorter than `min_ms` is joined with the following ones until it is long enough; the last one is joined with the
    previous one. A shot longer than `max_ms` is split into as few equal parts as possible.

    Args:
        cuts_ms: Times of the cuts in milliseconds, ascending.
        duration_ms: Length of the video in milliseconds.
        min_ms: Shortest shot in milliseconds.
        max_ms: Longest shot in milliseconds, above 0.

    Examples:
        >>> list(shot_spans([2000, 2400], 6000, min_ms=1000, max_ms=4000))
        [(0, 2000), (2000, 6000)]
    """
    bounds = [0, *sorted({cut for cut in cuts_ms if 0 < cut < duration_ms}), duration_ms]
    kept = [0]
    for bound in bounds[1:]:
        if bound - kept[-1] >= min_ms:
            kept.append(bound)
    kept = [*(kept[:-1] if len(kept) > 1 else kept), duration_ms]
    for start, end in itertools.pairwise(kept):
        parts = -(-(end - start) // max_ms)
        edges = [start + (2 * i * (end - start) + parts) // (2 * parts) for i in range(parts + 1)]
        yield from itertools.pairwise(edges)


class BoundaryDetector(Protocol):
    """Looks at the frames of one video, and says where shots begin."""

    def take(self, pixels: NDArray[np.uint8]) -> None:
        """Look at the next frame: RGB, shape (height, width, 3)."""

    def boundaries(self, pace: Pace) -> list[int]:
        """Return the numbers of the frames at which shots begin, ascending, after the last frame."""


def find_cuts(path: Path, *, settings: ShotSettings, model: Path | None = None) -> list[int]:
    """Find the times at which new shots begin, in ms, ascending, without the first shot's 0.

    A dissolve counts at its middle, a fade in the middle of its dark, and a flash of light not at all.

    Args:
        path: The video file. A still picture has no cuts.
        settings: Detector and thresholds.
        model: Of the detector transnetv2, from `prepared_model`; None for the other.

    Raises:
        InputRejected: the file cannot be decoded.
    """
    plan = read_plan(path)
    if plan.is_still:
        return []
    detector: BoundaryDetector = ContentChanges(settings) if model is None else TransNetV2(model)
    starts_ms: list[int] = []
    # A time is asked for 1 ms after the frame begins: rounded down it would lie before it.
    times_ms = [plan.ms_of(pts) + 1 for pts in plan.pts]
    for frame in frames_at(path, times_ms, side_px=LOOKED_AT_PX, plan=plan):
        starts_ms.append(frame.time_ms)
        detector.take(frame.pixels)
    pace = Pace.of(plan.step * float(plan.time_base))
    return sorted({starts_ms[number] for number in detector.boundaries(pace) if starts_ms[number] > starts_ms[0]})


def find_all_cuts(
    paths: Mapping[str, Path], *, settings: ShotSettings, memory: Path
) -> tuple[dict[str, list[int]], dict[str, Refusal]]:
    """Return the cuts of each video by video_id, and the reasons for videos without any.

    Results are kept in a folder outside the pipeline, so that another run only decodes new videos.

    Args:
        paths: Files by video_id.
        settings: Detector and thresholds.
        memory: Folder of the kept results, and of the model of TransNetV2.

    Raises:
        ConfigError: what the detector needs is not installed.
    """
    model = _require_detector(settings, memory)
    kept = VideoMemory(memory, {"format": FORMAT, **settings.model_dump(include=_OF_CUTS[settings.detector])})
    cuts = kept.recall_all(paths, _cuts_in)
    lost: dict[str, Refusal] = {}
    todo = [(path, video_id) for video_id, path in paths.items() if video_id not in cuts]
    with run_videos(
        partial(_cuts_of_original, settings=settings, model=model), todo, label="shots", workers=settings.workers,
        timeout_seconds=settings.timeout_seconds, timeout_setting="cut.shots.timeout_seconds",
    ) as outcomes:
        for outcome in outcomes:
            path, video_id = outcome.item
            if outcome.error is not None:
                lost[video_id] = Refusal.of(outcome.error, f"{path.name}: its shots were not found: ")
            else:
                cuts[video_id] = outcome.value or []
                kept.remember(video_id, cuts[video_id])
    return cuts, lost


def _require_detector(settings: ShotSettings, folder: Path) -> Path | None:
    """Return the model of TransNetV2; None for the other detector, which needs none."""
    if settings.detector == "transnetv2":
        return prepared_model(folder)
    require_module("scenedetect", "shots", why="cut.modes lists shots")
    return None


def _cuts_of_original(item: tuple[Path, str], *, settings: ShotSettings, model: Path | None) -> list[int]:
    path, video_id = item
    with original(path, video_id):
        return find_cuts(path, settings=settings, model=model)


def _cuts_in(content: Iterable[SupportsInt]) -> list[int]:
    return [int(cut) for cut in content]
