"""Run what a grown archive needs to be searched: the stages that DVC says have changed, in one process, recorded by DVC.

    python -m pipelines.grow

It is what `vidseek add` and `vidseek watch` start. One process imports each library once, where `dvc repro` starts one for
each stage. Training and what only people read are left to `dvc repro` (`LEFT`), and said at the end. What happens is told in
lines of JSON on standard output: `{"stage", "number", "of"}`, then `{"said"}`, and in the end `{"open"}` or `{"error"}`.

Decision: docs/decisions/2026-11-27-jobs.md.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from pipelines.stage import PATHS, fault_of, say
from vidseek.jobs.archive_lock import WORKER_VARIABLE, ArchiveBusy
from vidseek_media.decoding.sandbox import die_with_parent
from vidseek_media.errors import ConfigError
from vidseek_media.files.folders import whole_file
from vidseek_media.output import lines_of, print_exceptions_shown, printable

TARGET = "publish"
LEFT = ("general", "train", "select", "export", "evaluate", "report")
"""Stages that are left to `dvc repro`: they teach, prove or report."""
ALWAYS = ("ingest",)
"""Its source is outside of DVC: only a run of it says whether anything changed."""
ALSO = ("check_pairs",)
"""The gate of the archive's tables. It guards the training, and no less what is published."""
_LOCK_SECONDS = 60.0


class Dvc:
    """What DVC knows of this archive: dvc.yaml and dvc.lock are read once, and dvc.lock is written once.

    Each reading and writing of them costs DVC half a second. A run that is killed before `write` has recorded nothing: DVC
    takes its stages for changed, and they find their work done.
    """

    def __init__(self) -> None:
        from dvc.repo import Repo

        self._repo = Repo()
        self._stages: dict[str, Any] = {_name(stage): stage for stage in self._repo.index.stages}
        self._graph = self._repo.index.graph  # from a stage to those that it depends on
        self._recorded: dict[str, Any] = {}

    def stages(self, target: str) -> list[str]:
        """Return the stages that `target` needs, in the order in which they run, without those that are left out."""
        ordered: list[str] = []

        def visit(name: str) -> None:
            if name in ordered or _room(name) in LEFT:
                return
            for below in sorted(map(_name, self._graph.successors(self._stages[name]))):
                visit(below)
            ordered.append(name)

        for name in (*ALSO, target):
            visit(name)
        return [*(name for name in ordered if name != target), target]

    def left(self) -> list[str]:
        """Return the stages that have something to do, and are left to `dvc repro`."""
        return [name for name, stage in self._stages.items() if not stage.always_changed and self.is_changed(name)]

    def is_changed(self, name: str) -> bool:
        """Whether a dependency, a setting, an output or the command of a stage is another than recorded."""
        return bool(self._locked(lambda: self._stages[name].status(check_updates=True)))

    def record(self, name: str) -> None:
        """Take the outputs of a stage into DVC's cache, and note them and what they were made from for dvc.lock."""
        stage = self._stages[name]

        def commit() -> None:
            stage.save()
            stage.commit()

        self._locked(commit)
        self._recorded[name] = stage

    def write(self) -> None:
        """Write what was recorded since to dvc.lock."""
        if self._recorded:
            self._locked(self._write)
        self._recorded = {}

    def _write(self) -> None:
        """DVC writes dvc.lock in its place: a kill meanwhile would leave a part of it, and train again what is not in it."""
        from dvc.dvcfile import LOCK_FILE, Lockfile

        path = Path(self._repo.root_dir, LOCK_FILE)
        with whole_file(path) as beside:
            if path.exists():
                shutil.copyfile(path, beside)
            else:
                beside.unlink()
            Lockfile(self._repo, str(beside)).dump_stages(list(self._recorded.values()))

    @contextmanager
    def holding(self, names: Sequence[str]) -> Iterator[None]:
        """Keep DVC from running any of these stages in this block: `dvc repro` removes outputs before a stage begins.

        DVC tells who is refused the words that this process was started with.

        Raises:
            ArchiveBusy: a `dvc repro` runs one of them.
        """
        from dvc.rwlock import rwlock

        outs = [out.fs_path for name in names for out in self._stages[name].outs]
        command, has_links = " ".join(sys.argv), bool(self._repo.config["core"].get("hardlink_lock", False))
        with ExitStack() as stack:
            self._locked(lambda: stack.enter_context(
                rwlock(self._repo.tmp_dir, self._repo.fs, command, [], outs, has_links)
            ))
            yield

    def close(self) -> None:
        """Close its files."""
        self._repo.close()

    def _locked(self, work: Callable[[], Any]) -> Any:
        """Do `work` under DVC's own lock, which `dvc status` of somebody else may hold for a moment."""
        from dvc.lock import LockError
        from dvc.repo import lock_repo
        from dvc.rwlock import RWLOCK_FILE, RWLockFileCorruptedError

        until = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                with lock_repo(self._repo):
                    return work()
            except RWLockFileCorruptedError:  # half-written by a DVC that was killed: nobody could go on with it
                Path(self._repo.tmp_dir, RWLOCK_FILE).unlink(missing_ok=True)
            except LockError as error:
                if time.monotonic() > until:
                    raise ArchiveBusy(
                        f"DVC is at work on this archive: {error}", remedy="Try again when it has ended",
                    ) from error


def main() -> int:
    """Run the stages; gives the exit code."""
    print_exceptions_shown()
    die_with_parent(signal.SIGKILL)  # a stage may be killed at any moment, and nobody else would stop this one
    told = sys.stdout
    sys.argv = [os.environ.get(WORKER_VARIABLE) or "vidseek add or watch"]
    with redirect_stdout(sys.stderr):  # what a library prints is no line of ours
        try:
            for line in grow():
                print(json.dumps(line), file=told, flush=True)
        except Exception as error:
            fault = fault_of(error)
            if fault is None:
                raise
            content = {"code": fault.code, "message": fault.message, "remedy": fault.remedy, "exit_code": fault.exit_code}
            print(json.dumps({"error": content}), file=told, flush=True)
            say(printable(str(fault), keep=lines_of(fault)))
            return fault.exit_code
    return 0


def grow() -> Iterator[dict[str, Any]]:
    """Run each stage that is needed, and yield what happens.

    Raises:
        ConfigError: there is no encoder yet, or DVC cannot read the pipeline.
        VidseekError: a stage failed; the archive is searched as before.
    """
    if not (PATHS.encoder / "encoder.json").is_file():
        raise ConfigError(
            f"{PATHS.encoder} is not there: this archive was never made", code="archive-not-made",
            remedy="Run `dvc repro` once; then videos can be added one by one",
        )
    dvc = _opened()
    try:
        names = dvc.stages(TARGET)
        with dvc.holding(names):
            try:
                for number, name in enumerate(names):
                    yield {"stage": name, "number": number, "of": len(names)}
                    if name in ALWAYS or dvc.is_changed(name):
                        yield {"stage": name, "said": _run(name)}
                        dvc.record(name)
            finally:
                dvc.write()
        yield {"open": dvc.left()}
    finally:
        dvc.close()


def _opened() -> Dvc:
    from dvc.exceptions import DvcException

    try:
        return Dvc()
    except DvcException as error:
        raise ConfigError(f"DVC cannot read this archive: {error}", code="dvc-failed", remedy="Run `dvc status`") from error


def _run(name: str) -> str:
    script = importlib.import_module(f"pipelines.{_room(name)}")
    said: str = script.main()
    say(f"{name}: {printable(said)}")
    return said


def _name(stage: Any) -> str:
    return str(stage.addressing)


def _room(name: str) -> str:
    return name.partition("@")[0]


if __name__ == "__main__":
    sys.exit(main())
