"""What one video more costs by `dvc repro`, as a user runs it: DVC's own part, and all stages that run.

    python -m bench.growing.whole_run                        (after make bench-growth; bench/one_video.json)
    python -m bench.growing.whole_run --clips 1000 100000 --times 2

Takes copies of the archives that `bench.growing.growth` has made, and gives them the pipeline of `vidseek init` without the
stages that make and judge an encoder, which one video without captions does not run. Sizes are measured in turn.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from bench.growing.archive import MAKERS, GrowingArchive, measured
from bench.growing.counting import CLIPS, DELETED, WRITTEN
from bench.growing.growth import described, expected, read_figures, write_figures
from vidseek.new_archive.archive_folder import run_command, run_environment

OUT = Path(__file__).parents[1] / "one_video.json"
LEFT_OUT = (*MAKERS, "evaluate")
_OF_ARCHIVE = (".dvc", ".git", ".dvcignore", ".gitignore", "data/decisions")
_WRITTEN_BY_STAGES = ("outs", "metrics", "plots")


def make_repository(root: Path) -> None:
    """Make an archive whose stages have run an archive of DVC.

    Args:
        root: Of a `GrowingArchive`.
    """
    params = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    params["ingest"]["source"] = str(root / "source")
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / "archive"
        command = [str(Path(sys.executable).with_name("vidseek")), "init", str(fresh), "--yes"]
        subprocess.run([*command, "--videos", str(root / "source")], check=True, stdout=subprocess.DEVNULL)
        for name in _OF_ARCHIVE:
            found = fresh / name
            (shutil.copytree if found.is_dir() else shutil.copy)(found, root / name)
        pipeline = yaml.safe_load((fresh / "dvc.yaml").read_text(encoding="utf-8"))
    (root / "dvc.yaml").write_text(yaml.safe_dump(without_makers(pipeline, root), sort_keys=False), encoding="utf-8")


def without_makers(pipeline: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """Return a pipeline without the stages of `LEFT_OUT`, and without what only they would write.

    Args:
        pipeline: Content of dvc.yaml.
        root: The archive; what is there stays a dependency.
    """
    stages = {name: stage for name, stage in pipeline["stages"].items() if name not in LEFT_OUT}
    made = {_path_of(each) for stage in stages.values() for kind in _WRITTEN_BY_STAGES for each in stage.get(kind, ())}
    kept = {
        name: {**stage, "deps": [dep for dep in stage.get("deps", ()) if _is_there(dep, made, root)]}
        for name, stage in stages.items()
    }
    return {"stages": kept}


def _path_of(out: str | Mapping[str, Any]) -> str:
    return out if isinstance(out, str) else next(iter(out))


def _is_there(dep: str, made: set[str], root: Path) -> bool:
    is_of_stage = dep.partition("/")[0] in ("models", "reports", "receipts")
    return not is_of_stage or dep in made or (root / dep).exists()


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clips", type=int, nargs="+", default=[1_000, 10_000], help="Of the archives.")
    parser.add_argument("--times", type=int, default=2, help="Videos that are added to each, one after the other.")
    parser.add_argument("--root", type=Path, default=Path(".vidseek/growth"), help="Where the archives are kept.")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    command = ["env", f"PATH={run_environment()['PATH']}", *run_command(), "--quiet"]
    archives: dict[int, GrowingArchive] = {}
    for num_clips in arguments.clips:
        made, root = (arguments.root.absolute() / label / str(num_clips) / "archive" for label in ("after", "whole"))
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(made, root)
        make_repository(root)
        archives[num_clips] = GrowingArchive(root, len(list((root / "source").glob("*.mp4"))))
        measured(command, root)
    rows: dict[str, list[dict[str, float]]] = {str(num_clips): [] for num_clips in archives}
    for _ in range(arguments.times):
        for num_clips, archive in archives.items():
            archive.add(1)
            row, wanted = measured(command, archive.root), expected("1 added")
            done = {name: int(row[name]) for name in (CLIPS, WRITTEN, DELETED)}
            if any(count != wanted[name] for name, count in done.items()) or archive.is_rebuilt():
                sys.exit(f"{num_clips:,} clips: {done} or a whole index, wanted {wanted}")
            rows[str(num_clips)].append({name: row[name] for name in ("cpu_seconds", "seconds")})
            Console().print(f"{num_clips:,} clips, one more: {row['cpu_seconds']} CPU s, {row['seconds']} s by the clock")
    content = read_figures(arguments.out)
    content["dvc_repro"] = {**described(), "archives": rows}
    write_figures(arguments.out, content)


if __name__ == "__main__":
    main()
