"""Finds the shots of a video by abrupt cuts (PySceneDetect) and gradual transitions, and adjusts their lengths."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import SupportsInt

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from vidseek_media.cutting.transitions import Pace, add_gradual, cells_of, without_flashes
from vidseek_media.decoding.frames import frames_at
from vidseek_media.decoding.packets import read_plan
from vidseek_media.decoding.worker_batch import run_each
from vidseek_media.errors import ConfigError
from vidseek_media.files.video_memory import VideoMemory
from vidseek_media.installing import install_command
from vidseek_media.records import Refusal, Span
from vidseek_media.settings import ShotSettings
from vidseek_media.sources.originals import original

LOOKED_AT_PX = 144
"""Of the shorter side of the frames that the detector sees: 256 pixels wide at 16 to 9, its own default."""

_OF_CUTS = {"threshold", "min_content", "gradual"}
"""Settings that move a cut; the others make shots of cuts."""

FORMAT = 4
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


def find_cuts(path: Path, *, settings: ShotSettings) -> list[int]:
    """Find the times at which new shots begin, in ms, ascending, without the first shot's 0.

    A dissolve counts at its middle, a fade at its darkest frame, and a flash of light not at all.

    Args:
        path: The video file.
        settings: Thresholds of the detection.

    Raises:
        InputRejected: the file cannot be decoded.
    """
    from scenedetect import FrameTimecode
    from scenedetect.detectors import AdaptiveDetector

    plan = read_plan(path)
    detector = AdaptiveDetector(
        adaptive_threshold=settings.threshold, min_content_val=settings.min_content, min_scene_len=1
    )
    starts_ms: list[int] = []
    cuts: list[int] = []
    cells: list[NDArray[np.uint8]] = []
    # A time is asked for 1 ms after the frame begins: rounded down it would lie before it.
    times_ms = [plan.ms_of(pts) + 1 for pts in plan.pts]
    for number, frame in enumerate(frames_at(path, times_ms, side_px=LOOKED_AT_PX, plan=plan)):
        starts_ms.append(frame.time_ms)
        # The detector counts frames; their rate is of no consequence to it.
        found = detector.process_frame(FrameTimecode(number, fps=25.0), np.ascontiguousarray(frame.pixels[:, :, ::-1]))
        cuts += [cut.frame_num for cut in found]
        cells.append(cells_of(frame.pixels))
    pace, seen = Pace.of(plan.step * float(plan.time_base)), np.stack(cells)
    cuts = without_flashes(cuts, seen, pace)
    if settings.gradual:
        cuts = add_gradual(cuts, seen, pace)
    return [starts_ms[number] for number in cuts]


def find_all_cuts(
    paths: Mapping[str, Path], *, settings: ShotSettings, memory: Path
) -> tuple[dict[str, list[int]], dict[str, Refusal]]:
    """Return the cuts of each video by video_id, and the reasons for videos without any.

    Results are kept in a folder outside the pipeline, so that another run only decodes new videos.

    Args:
        paths: Files by video_id.
        settings: Thresholds of the detection.
        memory: Folder of the kept results.

    Raises:
        ConfigError: PySceneDetect is not installed.
    """
    if find_spec("scenedetect") is None:
        raise ConfigError(
            "cut.modes lists shots, and scenedetect is not installed", code="not-installed",
            remedy=f"Run `{install_command('shots')}`",
        )
    kept = VideoMemory(memory, {"format": FORMAT, **settings.model_dump(include=_OF_CUTS)})
    cuts: dict[str, list[int]] = {}
    lost: dict[str, Refusal] = {}
    for video_id in paths:
        if (known := kept.recall(video_id, _cuts_in)) is not None:
            cuts[video_id] = known
    todo = [(path, video_id) for video_id, path in paths.items() if video_id not in cuts]
    with closing(
        run_each(
            partial(_cuts_of_original, settings=settings), todo, workers=min(settings.workers, len(todo)),
            timeout_seconds=settings.timeout_seconds, timeout_setting="cut.shots.timeout_seconds",
        )
    ) as outcomes:
        for outcome in tqdm(outcomes, desc="shots", unit="video", total=len(todo), disable=None):
            path, video_id = outcome.item
            if outcome.error is not None:
                lost[video_id] = Refusal.of(outcome.error, f"{path.name}: its shots were not found: ")
            else:
                cuts[video_id] = outcome.value or []
                kept.remember(video_id, cuts[video_id])
    return cuts, lost


def _cuts_of_original(item: tuple[Path, str], *, settings: ShotSettings) -> list[int]:
    path, video_id = item
    with original(path, video_id):
        return find_cuts(path, settings=settings)


def _cuts_in(content: Iterable[SupportsInt]) -> list[int]:
    return [int(cut) for cut in content]
