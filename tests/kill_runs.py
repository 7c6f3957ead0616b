"""The long form of the tests that kill processes: all parts, also where one fails, and one line at the end.

    make kills                                   (all of it; half an hour on two quiet cores)
    python -m tests.kill_runs add publish        (some parts)
    python -m tests.kill_runs --at-once 1        (one part after the other)

A part is a pytest of its own. Its output goes into `.vidseek/kills/`, and what came of it into `.vidseek/kills/kills.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / ".vidseek" / "kills"
NUM_TIMES = 50


@dataclass(frozen=True)
class Part:
    """A test file, or some of its tests, that does something so many times."""

    what: str
    file: str
    variable: str
    """Says how many times."""
    only: str = ""
    """Pytest's expression for the tests that are run; empty for all of the file."""
    num_times: int = NUM_TIMES


_RUNS, _INDEX = "tests/pipelines/test_kills.py", "tests/retrieval/index/difference/test_kills.py"
PARTS = {
    "add": Part("kills of vidseek add and vidseek watch", "tests/pipelines/test_job_kills.py", "VIDSEEK_JOB_KILLS"),
    "run": Part("kills of the stages of a growing archive", _RUNS, "VIDSEEK_GROWTH_KILLS", "killed"),
    "disk": Part("full disks under these stages, and other faults", _RUNS, "VIDSEEK_GROWTH_KILLS", "not killed"),
    "train": Part("kills of a training", "tests/training/fitting/test_kills.py", "VIDSEEK_TRAINING_KILLS",
                  "random_points or were_killed", num_times=20),
    "publish": Part("kills of a publish by difference", _INDEX, "VIDSEEK_INDEX_KILLS", "kind_of_change and publish"),
    "compact": Part("kills of a compaction of the index", _INDEX, "VIDSEEK_INDEX_KILLS", "kind_of_change and compact"),
    "frames": Part("kills of frames, and of their compaction", "tests/media/frame_store/test_growth.py", "VIDSEEK_KILLS",
                   "killed_at_any_change"),
    "embed": Part("kills of an embedding", "tests/retrieval/embedding/test_embed_clips.py", "VIDSEEK_KILLS",
                  "killed_at_any_change"),
}
"""The longest first, so that two at once end at about the same time."""


@dataclass(frozen=True)
class Ended:
    """What came of a part."""

    part: str
    what: str
    num_times: int
    passed: bool
    said: str
    """The last line of pytest."""
    seconds: float


def run(name: str, *, num_times: int | None = None) -> Ended:
    """Run a part, and say in a line how it ended."""
    part, log = PARTS[name], OUT / f"{name}.log"
    number = part.num_times if num_times is None else num_times
    chosen = ["-k", part.only] if part.only else []
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", part.file, *chosen]
    environment = {**os.environ, part.variable: str(number), "OMP_NUM_THREADS": "1"}
    begun = time.monotonic()
    with log.open("wb") as file:
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT, check=False)
    said = last_line(log.read_text(encoding="utf-8", errors="replace"))
    ended = Ended(name, part.what, number, done.returncode == 0, said, round(time.monotonic() - begun, 1))
    _say(f"{name}: {'passed' if ended.passed else 'FAILED'}, {number} {part.what}: {said}")
    return ended


def last_line(output: str) -> str:
    """Return the last line that pytest wrote, without its signs and colours."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip(" =") for line in output.splitlines()]
    return next((line for line in reversed(lines) if line), "nothing")


def verdict(ended: Sequence[Ended]) -> str:
    """Return one line about all parts."""
    failed = [each.part for each in ended if not each.passed]
    if failed:
        logs = ", ".join(f".vidseek/kills/{name}.log" for name in failed)
        return f"kills: FAILED: {len(failed)} of {len(ended)} parts ({', '.join(failed)}); see {logs}"
    return f"kills: all passed: {', '.join(f'{each.num_times} {each.what}' for each in ended)}"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Run the parts; gives the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"Of: {', '.join(PARTS)}; all where none is named.")
    parser.add_argument("--at-once", type=int, default=2, help="Parts that run at the same time.")
    parser.add_argument("--times", type=int, help="Of each part; what it has by itself where this is not given.")
    arguments = parser.parse_args()
    names = arguments.parts or list(PARTS)
    if unknown := [name for name in names if name not in PARTS]:
        parser.error(f"unknown: {', '.join(unknown)}")
    OUT.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(max(1, arguments.at_once)) as pool:
        ended = list(pool.map(lambda name: run(name, num_times=arguments.times), names))
    content = {"date": datetime.now(UTC).date().isoformat(), "parts": [asdict(each) for each in ended]}
    (OUT / "kills.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    _say(verdict(ended))
    return 0 if all(each.passed for each in ended) else 1


if __name__ == "__main__":
    sys.exit(main())
