"""How long the search for near-duplicates takes in archives of 10^4 to 10^5 clips, and how it grows.

    make bench-dedup         (writes bench/dedup.json)

Vectors are drawn as bench.searching.vectors does, one for each video and a little off it for each of its clips; looks are
smooth random pictures that move. One video of twenty is a copy. That says how long it takes, and that the copies are
found; what real pictures make of precision and recall is bench.searching.near's to say.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.searching.vectors import base_vectors, draw
from vidseek_media.ids import clip_id_of
from vidseek_retrieval.dedup.alignment import Limits, align
from vidseek_retrieval.dedup.picture_likeness import SIDE, VideoFingerprint
from vidseek_retrieval.dedup.video_matches import candidates
from vidseek_retrieval.index.backend import Point
from vidseek_retrieval.index.collection_metadata import CollectionMetadata, collection_name
from vidseek_retrieval.index.edge.backend import EdgeBackend
from vidseek_retrieval.settings import IndexSettings

OUT = Path(__file__).parents[1] / "dedup.json"
WINDOWS = 60
COPIES = 0.05
STEP_MS, CLIP_MS = 500, 3000
LIMITS = Limits(moving=0.9, still=0.95)
_COSINE = 0.97


def main() -> None:
    """Measure each size, print it, write all."""
    parser = argparse.ArgumentParser(description=__doc__)
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
    """Seconds of each step over `num` clips, and what was found."""
    num_videos = num // WINDOWS
    num_copies = max(1, round(COPIES * num_videos))
    draws = np.random.default_rng(0)
    videos = draw(base_vectors()[0], num_videos, seed=3)
    videos[-num_copies:] = videos[:num_copies]
    fingerprints = {
        _id(video): _fingerprints(video if video < num_videos - num_copies else video - num_videos + num_copies, video)
        for video in range(num_videos)
    }
    name = collection_name("0" * 16, "0" * 12)
    with tempfile.TemporaryDirectory(prefix="vidseek-") as folder:
        backend = EdgeBackend(Path(folder))
        metadata = CollectionMetadata(name, "0" * 16, "0" * 12, videos.shape[1], num_videos * WINDOWS,
                                IndexSettings(vectors=("video",)), "2026-01-01T00:00:00")
        with backend.building():
            backend.build(metadata, _points(videos, draws))
        start = time.perf_counter()
        near = candidates(backend.open(name))
        seen = time.perf_counter()
        found = align(near, fingerprints)
        end = time.perf_counter()
    true = {(_id(copy), _id(num_videos - num_copies + copy)) for copy in range(num_copies)}
    called = {pair for pair, alignment in found.items() if LIMITS.call(alignment)}
    return {
        "num_clips": num_videos * WINDOWS, "num_videos": num_videos, "num_pairs": len(near),
        "candidates_seconds": round(seen - start, 2), "check_seconds": round(end - seen, 2),
        "clips_per_second": round(num / (end - start), 1), "copies_found": round(len(true & called) / len(true), 4),
        "called_one_that_is_not": len(called - true),
    }


def _points(videos: NDArray[np.float32], draws: np.random.Generator) -> Iterator[Point]:
    for video, vector in enumerate(videos):
        noise = draws.normal(size=(WINDOWS, len(vector))).astype(np.float32)
        noise /= np.linalg.norm(noise, axis=1, keepdims=True)
        clips = _COSINE * vector + np.sqrt(1 - _COSINE**2) * noise
        for index, clip in enumerate(clips / np.linalg.norm(clips, axis=1, keepdims=True)):
            span = {"start_ms": 1000 * index, "end_ms": 1000 * index + CLIP_MS}
            yield Point(str(clip_id_of(_id(video), *span.values())), clip, {"video_id": _id(video), **span})


def _fingerprints(seed: int, video: int) -> VideoFingerprint:
    """A background and two blobs that wander over it; noise of its own for each video."""
    draws, own = np.random.default_rng([seed, 7]), np.random.default_rng([video, 8])
    num = (WINDOWS + 2) * 1000 // STEP_MS
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    frames = np.zeros((num, SIDE, SIDE))
    for scale in (1.0, 0.6, 0.6):
        places = np.cumsum(draws.normal(scale=1.5, size=(num, 2)), axis=0) + draws.uniform(0, SIDE, 2)
        if scale == 1.0:
            places[:] = places[0]  # what stands still
        shape = (rows - places[:, :1, np.newaxis] % SIDE) ** 2 + (columns - places[:, 1:, np.newaxis] % SIDE) ** 2
        frames += scale * np.exp(-shape / (2 * draws.uniform(2, 5) ** 2))
    frames += own.normal(scale=0.01, size=frames.shape)
    flat = frames.reshape(num, -1)
    flat -= flat.mean(axis=1, keepdims=True)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    return VideoFingerprint(np.arange(num, dtype=np.int64) * STEP_MS, np.stack([flat, flat], axis=1).astype(np.float16))


def _id(video: int) -> str:
    return f"{video:032x}"


if __name__ == "__main__":
    main()
