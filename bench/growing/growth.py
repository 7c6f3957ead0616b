"""What a run costs when the archive grows: one video is added, 100 are, one is changed, one is removed.

    make bench-growth                                        (bench/growth.json, entry `after`; 10^3 and 10^4 clips)
    python -m bench.growing.growth --clips 100000 --limit 540    (stops in time; run it again to go on)
    python -m bench.growing.growth --only "1 added"          (the steps to do; those before them must be done)

The scripts of the stages run as `dvc repro` runs them, each in a process of its own, on videos of 64 pixels with the
shipped backbone vidseek/viclip-tiny as it is. For each stage: videos read by workers (in `frames`: decoded), clips embedded,
points written and deleted, bytes written, and seconds with the start of the process: of processors, and of the clock. A
stage whose dependencies are as they were is left out, as DVC leaves it out. The first videos have captions and those that
are added have none: what training depends on must not change. Figures and archives are kept in `--root`; what is done is
not done again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from rich.console import Console
from rich.table import Table

from bench.growing.archive import CLIPS_A_VIDEO, ROW, STAGES, GrowingArchive, Row, Stopped
from bench.growing.counting import CLIPS, DELETED, FILES, WRITTEN
from bench.machine import machine
from vidseek_media.files.json_files import write_json

OUT = Path(__file__).parents[1] / "growth.json"
MANY = 100
"""Videos that are added at once."""
STEPS = ("first run", "nothing new", "1 added", f"{MANY} added", "1 changed", "1 removed")
STATE_FILE = "growth.json"

Step: TypeAlias = dict[str, Any]


class OutOfTime(Exception):
    """The limit of time has passed; another run goes on."""


@dataclass
class Deadline:
    """When a run has to end."""

    limit_seconds: float | None
    begun: float

    def left(self) -> float | None:
        """Return the seconds that are left; None without a limit.

        Raises:
            OutOfTime: none are left.
        """
        if self.limit_seconds is None:
            return None
        left = self.limit_seconds - (time.monotonic() - self.begun)
        if left <= 0:
            raise OutOfTime
        return left


class Growth:
    """The steps of one archive, and their figures in a file, so that a run that was stopped goes on."""

    def __init__(self, root: Path, num_clips: int) -> None:
        self._file = root / STATE_FILE
        self._state: dict[str, Any] = {"num_made": 0, "steps": {}}
        if self._file.exists():
            self._state = json.loads(self._file.read_text(encoding="utf-8"))
        self._archive = GrowingArchive(root / "archive", self._state["num_made"])
        self._num_videos = num_clips // CLIPS_A_VIDEO

    @property
    def steps(self) -> dict[str, Step]:
        """The steps that are done, in order."""
        return {name: step for name, step in self._state["steps"].items() if step.get("done")}

    def run(self, name: str, deadline: Deadline) -> None:
        """Do a step, or what is left of it.

        Raises:
            OutOfTime: the deadline has passed.
        """
        step = self._state["steps"].setdefault(name, {"stages": {}})
        if step.get("done"):
            return
        if not step.get("changed"):
            deadline.left()
            self._changes()[name]()
            step["changed"] = True
            self._save()
        for stage in STAGES:
            if stage not in step["stages"]:
                self._run_stage(step, stage, deadline)
        step["trained_from"] = self._archive.trained_from()
        step["rebuilt"] = self._archive.is_rebuilt()
        done = list(self.steps.values())
        step["trains"] = not done or done[-1]["trained_from"] != step["trained_from"]
        step["done"] = True
        self._save()

    def _run_stage(self, step: Step, stage: str, deadline: Deadline) -> None:
        so_far, read = step.setdefault("so_far", {}), self._state.setdefault("read", {})
        reads = self._archive.reads(stage)
        if reads and read.get(stage) == reads:
            step["stages"][stage] = {**dict.fromkeys(ROW, 0), "skipped": True}
            self._save()
            return
        try:
            row = self._archive.run(stage, timeout_seconds=deadline.left())
        except Stopped as stopped:
            so_far[stage] = _sum(so_far.get(stage, {}), stopped.row)
            self._save()
            raise OutOfTime from stopped
        step["stages"][stage], read[stage] = _sum(so_far.pop(stage, {}), row), reads
        self._save()

    def _changes(self) -> dict[str, Callable[[], None]]:
        archive = self._archive
        return {
            "first run": self._create, "nothing new": lambda: None, "1 added": lambda: archive.add(1),
            f"{MANY} added": lambda: archive.add(MANY), "1 changed": archive.change_one, "1 removed": archive.remove_one,
        }

    def _create(self) -> None:
        self._archive.num_made = 0
        self._archive.create(self._num_videos)

    def _save(self) -> None:
        self._state["num_made"] = self._archive.num_made
        self._file.parent.mkdir(parents=True, exist_ok=True)
        write_json(self._file, self._state)


def _sum(one: Row, other: Row) -> Row:
    """Return the sums of what a stage did before it was stopped and after."""
    return {key: round(one.get(key, 0) + value, 2) for key, value in other.items()}


def expected(step: str) -> dict[str, int]:
    """Return the counts of a step whose work is that of its change."""
    videos = {"1 added": 1, f"{MANY} added": MANY, "1 changed": 1}.get(step, 0)
    gone = 1 if step in ("1 changed", "1 removed") else 0
    return {
        FILES: videos, CLIPS: videos * CLIPS_A_VIDEO, WRITTEN: videos * CLIPS_A_VIDEO, DELETED: gone * CLIPS_A_VIDEO,
    }


def counted(step: Step) -> dict[str, int]:
    """Return the counts of a step: videos decoded, clips embedded for the index, points written and deleted."""
    stages = step["stages"]
    return {
        FILES: int(stages["frames"][FILES]), CLIPS: int(stages["embed"][CLIPS]),
        WRITTEN: int(stages["publish"][WRITTEN]), DELETED: int(stages["publish"][DELETED]),
    }


def table_of(num_clips: int, steps: dict[str, Step]) -> Table:
    """A row for each step."""
    table = Table("", "files decoded", "clips embedded", "points written", "points deleted", "MB written", "CPU s",
                  "seconds", "trains", title=f"an archive of {num_clips:,} clips")
    for name, step in steps.items():
        stages = step["stages"].values()
        table.add_row(
            name, *(f"{count:,}" for count in counted(step).values()),
            f"{sum(each['bytes_written'] for each in stages) / 1e6:.1f}",
            *(f"{sum(each[key] for each in stages):.1f}" for key in ("cpu_seconds", "seconds")),
            "yes" if step["trains"] else "no",
        )
    return table


def stages_table(num_clips: int, steps: dict[str, Step]) -> Table:
    """Seconds of processors of each stage in each step, and MB written."""
    table = Table("", *steps, title=f"CPU seconds (MB written), {num_clips:,} clips")
    for stage in STAGES:
        rows = [step["stages"][stage] for step in steps.values()]
        table.add_row(stage, *(f"{row['cpu_seconds']:.1f} ({row['bytes_written'] / 1e6:.1f})" for row in rows))
    return table


def wrong_counts(steps: dict[str, Step]) -> list[str]:
    """Return what is not exactly the change, a line each. The first run makes all.

    An index that was built at once, since too large a share of it changed (`publish.compact_share`), has all points.
    """
    return [
        f"{name}: {key} {count:,}, wanted {expected(name)[key]:,}"
        for name, step in steps.items() if name != "first run"
        for key, count in counted(step).items()
        if count != expected(name)[key] and not (step.get("rebuilt") and key in (WRITTEN, DELETED))
    ] + [f"{name}: training would run" for name, step in steps.items() if name != "first run" and step["trains"]]


def keep_figures(path: Path, label: str, num_clips: int, steps: dict[str, Step]) -> None:
    """Put the steps of an archive into the JSON file, below `label`."""
    content = read_figures(path)
    entry = content.setdefault(label, {})
    entry.update(described())
    figures = {
        name: {"trains": step["trains"], "rebuilt": step.get("rebuilt", True), "stages": {
            stage: {key: value for key, value in row.items() if value or key == "seconds"}
            for stage, row in step["stages"].items()
        }}
        for name, step in steps.items()
    }
    entry.setdefault("archives", {})[str(num_clips)] = figures
    write_figures(path, content)


def described() -> dict[str, Any]:
    """Return the commit and the machine that figures are of."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False,
    ).stdout.strip()
    return {"commit": commit, "machine": machine(2, ("av", "numpy", "onnxruntime", "qdrant-edge-py"))}


def read_figures(path: Path) -> dict[str, Any]:
    """Return the content of the JSON file; nothing if there is none."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return content


def write_figures(path: Path, content: dict[str, Any]) -> None:
    """Write the JSON file."""
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Grow each archive, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clips", type=int, nargs="+", default=[1_000, 10_000], help="Of the archives.")
    parser.add_argument("--only", nargs="+", choices=STEPS, default=STEPS, metavar="STEP", help=f"Of: {', '.join(STEPS)}.")
    parser.add_argument("--label", default="after", help="The entry of the JSON file: before or after.")
    parser.add_argument("--root", type=Path, default=Path(".vidseek/growth"), help="Where the archives are kept.")
    parser.add_argument("--limit", type=float, metavar="SECONDS", help="Stop after so long; the next run goes on.")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    deadline, wrong = Deadline(arguments.limit, time.monotonic()), []
    for num_clips in arguments.clips:
        growth = Growth(arguments.root.absolute() / arguments.label / str(num_clips), num_clips)
        try:
            for name in (each for each in STEPS if each in arguments.only):
                growth.run(name, deadline)
        except OutOfTime:
            wrong.append(f"{num_clips:,} clips: out of time; run it again to go on")
        if growth.steps:
            for table in (table_of(num_clips, growth.steps), stages_table(num_clips, growth.steps)):
                Console(width=140).print(table)
            keep_figures(arguments.out, arguments.label, num_clips, growth.steps)
            wrong += [f"{num_clips:,} clips: {line}" for line in wrong_counts(growth.steps)]
    sys.exit("\n".join(wrong) or None)


if __name__ == "__main__":
    main()
