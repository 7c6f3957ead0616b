"""What every stage script shares: a VidseekError becomes one message and its exit code, and paths have one home."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path

# Before any library is imported that would phone home. No stage asks the model hub: `vidseek backbone fetch` does.
os.environ.update(
    {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1",
     "MLFLOW_DISABLE_TELEMETRY": "true", "BENTOML_DO_NOT_TRACK": "true", "GX_ANALYTICS_ENABLED": "false",
     "RAY_USAGE_STATS_ENABLED": "0", "TOKENIZERS_PARALLELISM": "false"}
)

# Arrow's own pool takes huge pages, which the system clears for each table anew; malloc takes again what was freed before.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")

# A stage makes hundreds of thousands of rows that live to its end: looking for cycles among them again and again finds none.
gc.set_threshold(1_000_000, 10, 10)

from vidseek.jobs.archive_lock import stage_at_work
from vidseek.paths import ArchivePaths
from vidseek_media.errors import ArtifactError, VidseekError
from vidseek_media.output import disk_fault, lines_of, print_exceptions_shown, printable
from vidseek_media.tables import first_rejected
from vidseek_media.terminal.progress import waiting
from vidseek_training.freed_memory import keep_freed_memory

PATHS = ArchivePaths(Path())
"""Of the archive in the working directory, in which DVC runs the stages."""


def alias_of(name: str) -> str:
    """`name`, or the experiment's own alias in `dvc exp run`: an experiment never moves what is live."""
    experiment = os.environ.get("DVC_EXP_NAME")
    return f"exp-{experiment}" if experiment else name


def say(line: str) -> None:
    """Tell the person who waits something that matters before the stage ends."""
    print(f"{Path(sys.argv[0]).stem}: {line}", file=sys.stderr, flush=True)


def with_rejected(said: str, folder: Path) -> str:
    """`said`, and what the stage that wrote `folder` rejected first, where it rejected something."""
    told = first_rejected(folder)
    return f"{said}. {told}" if told else said


def run_stage(stage: Callable[[], str]) -> None:
    """Run `stage` and say what it did; a VidseekError is told in one message, with its exit code."""
    print_exceptions_shown()
    gc.freeze()  # what was imported stays to the end
    keep_freed_memory()
    name = Path(sys.argv[0]).stem
    try:
        with waiting(name), stage_at_work(PATHS.state, name):
            said = stage()
    except Exception as error:
        fault = fault_of(error)
        if fault is None:
            raise
        raise _stopped(name, fault) from None
    print(f"{name}: {printable(said)}")


def fault_of(error: Exception) -> VidseekError | None:
    """Return an error as one of ours: as it is, or that of a disk; None for a fault of the program."""
    if isinstance(error, VidseekError):
        return error
    fault = disk_fault(error)
    if fault is None and isinstance(error, OSError):
        where = error.filename or "the disk"
        fault = ArtifactError(
            f"{where}: {error.strerror}", code="not-writable", remedy="Make room or mend the rights, then run it again",
        )
    return fault


def _stopped(name: str, error: VidseekError) -> SystemExit:
    print(f"{name}: {printable(str(error), keep=lines_of(error))}", file=sys.stderr)
    return SystemExit(error.exit_code)
