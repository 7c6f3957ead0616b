"""How long the search for near-duplicates takes in an archive of 10^5 clips of short videos, and what new videos cost.

    make bench-dedup         (writes bench/dedup.json; needs the photos of ../shared/realdata)

One video of twenty is a copy of another. That says how long it takes, how many pairs are proposed and aligned, and that the
copies are found among very many others; what real videos make of precision and recall is bench.searching.near's to say.
Reading fingerprints is not counted: it is done once for each video.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bench.searching import near_archive
from vidseek_retrieval.dedup.comparing.candidates import Pair
from vidseek_retrieval.dedup.comparing.compared import Compared, compare
from vidseek_retrieval.dedup.comparing.fingerprints import VideoFingerprint
from vidseek_retrieval.dedup.comparing.processes import map_in_processes
from vidseek_retrieval.dedup.judging.limits import choose_threshold
from vidseek_retrieval.dedup.judging.scoring import log_odds

OUT = Path(__file__).parents[1] / "dedup.json"
SHAPES = ((10_000, 10), (100_000, 10), (100_000, 50))
"""Clips of an archive, and of each of its videos."""
COPIES = 0.05
NEW = (1, 100)
"""Videos that are added; every second of them is a copy."""


def main() -> None:
    """Measure each archive, print it, write all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archives", nargs="+", default=[f"{num}/{windows}" for num, windows in SHAPES],
                        help="clips/clips of a video")
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    rows = []
    for shape in asked.archives:
        num, windows = map(int, shape.split("/"))
        rows.append(measure(num // windows, windows))
        print(json.dumps(rows[-1]), flush=True)  # noqa: T201 - what a benchmark is for
    report = {"cores": len(os.sched_getaffinity(0)), "copies": COPIES, "rows": rows}
    asked.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def measure(num_videos: int, windows: int) -> dict[str, Any]:
    """Seconds of all videos, and of more of them, and what was found."""
    num_copies = max(1, round(COPIES * num_videos))
    videos, true = drawn(num_videos - num_copies, num_copies, windows)
    with tempfile.TemporaryDirectory(prefix="vidseek-") as folder:
        compared, took = timed(videos, Path(folder))
        added = []
        for num in NEW:
            more = {f"new-{place}": near_archive.copy(place, windows)[1] if place % 2 else near_archive.video(
                num_videos + place, windows) for place in range(num)}
            again, seconds = timed({**videos, **more}, Path(folder))
            added.append({"videos": num, **seconds, "aligned": again.num_pairs})
    return {
        "num_clips": num_videos * windows, "num_videos": num_videos, "aligned": compared.num_pairs,
        "left_out": compared.num_left_out, **took, **found(compared, num_videos, true), "new": added,
    }


def drawn(num_originals: int, num_copies: int, windows: int) -> tuple[dict[str, VideoFingerprint], dict[Pair, str]]:
    """Originals and copies of some of them, by id, and which are which, with the kind of the copy."""
    originals = map_in_processes(partial(near_archive.video, num_windows=windows), range(num_originals), chunksize=50)
    videos = {_id(number): of for number, of in enumerate(tqdm(originals, "draw", num_originals, disable=None))}
    of_copies = [number * num_originals // num_copies for number in range(num_copies)]
    true = {}
    for number, (kind, of) in zip(of_copies, map_in_processes(
            partial(near_archive.copy, num_windows=windows), of_copies, chunksize=50), strict=True):
        videos[f"{_id(number)}-copy"] = of
        true[_id(number), f"{_id(number)}-copy"] = kind
    return videos, true


def timed(videos: Mapping[str, VideoFingerprint], cache: Path) -> tuple[Compared, dict[str, float]]:
    """What comes of comparing videos, and how long it took."""
    start, cpu = time.perf_counter(), _cpu_seconds()
    compared = compare(videos, dict.fromkeys(videos, "1"), cache=cache)
    return compared, {"seconds": round(time.perf_counter() - start, 2), "cpu_seconds": round(_cpu_seconds() - cpu, 2)}


def found(compared: Compared, num_videos: int, true: Mapping[Pair, str]) -> dict[str, Any]:
    """How many copies are called one at a precision of 0.95, and how many pairs that are none."""
    odds = {pair: log_odds(of.evidence) for pair, of in compared.alignments.items()}
    weights = [of.weight for of in compared.alignments.values()]
    threshold = choose_threshold(list(odds.values()), num_videos=num_videos, own={}, target=0.95, weights=weights)
    called = {pair for pair, value in odds.items() if value >= threshold.odds}
    return {
        "likeness_from": threshold.limit, "alikeness": threshold.alikeness,
        "copies_found": round(len(true.keys() & called) / len(true), 4), "called_one_that_is_not": len(called - true.keys()),
        "kinds_missed": sorted(kind for pair, kind in true.items() if pair not in called),
    }


def _cpu_seconds() -> float:
    return sum(
        used.ru_utime + used.ru_stime for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def _id(number: int) -> str:
    return f"{number:032x}"


if __name__ == "__main__":
    main()
