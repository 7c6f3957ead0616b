"""How long the search for near-duplicates takes in archives of 10^4 to 10^5 clips, how it grows, and what a new video costs.

    make bench-dedup         (writes bench/dedup.json)

Pictures are smooth, random, and move; one video of twenty is a copy. That says how long it takes, and that the copies are
found; what real pictures make of precision and recall is bench.searching.near's to say. Reading fingerprints is not counted:
it is done once for each video.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from vidseek_retrieval.dedup.comparing.compared import compare
from vidseek_retrieval.dedup.comparing.fingerprints import SIDE, VideoFingerprint
from vidseek_retrieval.dedup.judging.limits import choose_threshold
from vidseek_retrieval.dedup.judging.scoring import log_odds

OUT = Path(__file__).parents[1] / "dedup.json"
WINDOWS = 60
COPIES = 0.05
STEP_MS = 250
_SCENE = 24
"""Frames."""


def main() -> None:
    """Measure each size, print it, write all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 30_000, 100_000])
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    rows = []
    for num in asked.sizes:
        rows.append(measure(num))
        print(json.dumps(rows[-1]), flush=True)  # noqa: T201 - what a benchmark is for
    report = {"cores": len(os.sched_getaffinity(0)), "windows_of_a_video": WINDOWS, "copies": COPIES, "rows": rows}
    asked.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def measure(num: int) -> dict[str, Any]:
    """Seconds of all videos, and of one more, over `num` clips, and what was found."""
    num_videos = num // WINDOWS
    num_copies = max(1, round(COPIES * num_videos))
    videos = {
        _id(video): drawn(video if video < num_videos - num_copies else video - num_videos + num_copies, video)
        for video in range(num_videos)
    }
    digests = dict.fromkeys(videos, "1")
    with tempfile.TemporaryDirectory(prefix="vidseek-") as folder:
        start, cpu = time.perf_counter(), _cpu_seconds()
        compared = compare(videos, digests, cache=Path(folder))
        seconds, cpu_seconds = time.perf_counter() - start, _cpu_seconds() - cpu
        one_more = {**videos, _id(num_videos): drawn(0, num_videos)}
        start = time.perf_counter()
        added = compare(one_more, {**digests, _id(num_videos): "1"}, cache=Path(folder))
        added_seconds = time.perf_counter() - start
    odds = {pair: log_odds(found.evidence) for pair, found in compared.alignments.items()}
    limit = choose_threshold(list(odds.values()), num_videos=num_videos, own={}, target=0.95).odds
    true = {(_id(copy), _id(num_videos - num_copies + copy)) for copy in range(num_copies)}
    called = {pair for pair, value in odds.items() if value >= limit}
    return {
        "num_clips": num_videos * WINDOWS, "num_videos": num_videos, "num_aligned": compared.num_pairs,
        "seconds": round(seconds, 2), "cpu_seconds": round(cpu_seconds, 2), "clips_per_second": round(num / seconds, 1),
        "one_more_video_seconds": round(added_seconds, 2), "one_more_aligned": added.num_pairs,
        "copies_found": round(len(true & called) / len(true), 4), "called_one_that_is_not": len(called - true),
    }


def drawn(seed: int, video: int) -> VideoFingerprint:
    """Smooth scenes in each of which something wanders; noise of its own for each video."""
    draws, own = np.random.default_rng([seed, 7]), np.random.default_rng([video, 8])
    num = (WINDOWS + 2) * 1000 // STEP_MS
    rows, columns = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    pictures = np.empty((num, SIDE, SIDE), np.uint8)
    for start in range(0, num, _SCENE):
        waves = draws.uniform(-3, 3, (8, 2)), draws.uniform(0, 6, 8), draws.uniform(5, 30, 8)
        ground = 120 + sum(
            height * np.cos(2 * np.pi * (down * rows + across * columns) + phase)
            for (down, across), phase, height in zip(*waves, strict=True)
        )
        place, step = draws.uniform(0.2, 0.8, 2), draws.uniform(-0.03, 0.03, 2)
        for frame in range(start, min(start + _SCENE, num)):
            at = (place + step * (frame - start)) % 1
            thing = 90 * np.exp(-((rows - at[0]) ** 2 + (columns - at[1]) ** 2) / 0.01)
            pictures[frame] = np.clip(ground + thing + own.normal(0, 2, (SIDE, SIDE)), 0, 255)
    return VideoFingerprint(np.arange(num, dtype=np.int64) * STEP_MS, pictures)


def _cpu_seconds() -> float:
    return sum(
        used.ru_utime + used.ru_stime for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def _id(video: int) -> str:
    return f"{video:032x}"


if __name__ == "__main__":
    main()
