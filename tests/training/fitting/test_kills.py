"""What becomes of a training whose process is killed, or whose disk is full: real processes, real limits."""

from __future__ import annotations

import csv
import json
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from safetensors.torch import load_file

from tests.raising import raises
from tests.training.forked_trainings import Training, Trainings
from tests.training.one_training import SETTINGS
from tests.training.tiny import Archive
from tests.waiting import wait_until
from vidseek_media.errors import ArtifactError, ServiceError
from vidseek_training.fitting import lora, train
from vidseek_training.fitting.checkpoints import Checkpoint
from vidseek_training.fitting.train import train_adapter
from vidseek_training.tracking import Run

ROOT = Path(__file__).parents[3]
Start = Callable[..., Training]


@pytest.fixture
def start(trainings: Trainings, archive: Archive, backbone: Path, tracking_store: Path) -> Start:
    """Begin a training into a folder."""

    def begin(root: Path, *, num_processes: int = 1, pause_seconds: float = 0.0, dropout: float = 0.1) -> Training:
        root.mkdir(exist_ok=True)
        return trainings.start(
            "tests.training.one_training", arguments(archive, backbone, root, pause_seconds, dropout),
            output=root / "output", env=told(tracking_store), num_processes=num_processes,
        )

    return begin


def arguments(archive: Archive, backbone: Path, root: Path, pause_seconds: float, dropout: float) -> list[str]:
    """Those of `one_training`."""
    return [str(backbone), str(archive.pairs), str(archive.frames), str(root), str(pause_seconds), str(dropout)]


def told(tracking_store: Path) -> dict[str, str]:
    return {"MLFLOW_TRACKING_URI": f"sqlite:///{tracking_store / 'mlflow.db'}"}


def finish(child: Training) -> None:
    assert child.wait() == 0, child.output.read_text()[-3000:]


def checkpoints_of(root: Path) -> dict[str, int]:
    folder = root / "state" / "checkpoints"
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.pt")} if folder.is_dir() else {}


def wait_for_another_checkpoint(child: Training, root: Path) -> bool:
    """Return False where the training ends before it writes one."""
    before, began = checkpoints_of(root), time.monotonic()
    while checkpoints_of(root) in (before, {}):
        if child.poll() is not None:
            assert child.poll() == 0, child.output.read_text()[-3000:]
            return False
        assert time.monotonic() - began < 120, child.output.read_text()[-3000:]
        time.sleep(0.01)
    return True


def result_of(root: Path) -> dict[str, Any]:
    """All that a training leaves but the clock's figures."""
    out, speed = root / "adapters" / "lora", ("clips_per_second", "data_share")
    with (root / "report" / "curves.csv").open() as file:
        curves = [{k: v for k, v in row.items() if k not in speed} for row in csv.DictReader(file)]
    outcome = json.loads((out / "outcome.json").read_text())
    return {
        "adapter": (out / "adapter" / "adapter_model.safetensors").read_bytes(), "curves": curves,
        "logit_scale": (out / "adapter" / "vidseek.json").read_text(), "ranks": (out / "validation.json").read_text(),
        "steps": outcome["num_steps"],
    }


@pytest.mark.slow
def test_train_adapter__killed_at_random_points_ends_as_if_it_had_not_been(start: Start, tmp_path: Path) -> None:
    """A short form; `make kills` does it twenty times. A training that ended before its kill is followed by a new one."""
    num_kills = int(os.environ.get("VIDSEEK_TRAINING_KILLS", "2"))
    whole, cut, chance = tmp_path / "whole", tmp_path / "cut0", random.Random(0)
    finish(start(whole))
    num_killed = num_begun = num_ended = gone_on = 0
    while num_killed < num_kills:
        assert num_begun < 3 * num_kills, f"{num_killed} of {num_begun} were killed, the others had ended"
        child = start(cut, pause_seconds=0.05)
        wait_until(lambda child=child: "loaded\n" in child.output.read_text())  # type: ignore[misc]
        is_going_on = bool(checkpoints_of(cut))  # it finds a checkpoint of the one that was killed before
        if num_begun % 2 == 0:
            wait_for_another_checkpoint(child, cut)
            time.sleep(chance.uniform(0, 0.3))
        else:
            time.sleep(chance.uniform(0, 4))
        num_begun += 1
        is_killed = child.poll() is None
        child.kill()
        num_killed += is_killed
        gone_on += is_going_on
        if (cut / "adapters" / "lora").exists():  # it was done before it was killed
            assert result_of(cut) == result_of(whole)
            num_ended += 1
            cut = tmp_path / f"cut{num_ended}"
        else:
            assert is_killed, child.output.read_text()[-3000:]
    finish(start(cut))
    assert gone_on > 0 and result_of(cut) == result_of(whole)
    assert not checkpoints_of(cut)
    left = [str(path.relative_to(cut)) for path in cut.rglob("*") if ".part" in path.name or path.name.startswith(".lora")]
    assert left == []
    print(f"{num_killed} of {num_begun} trainings were killed, {gone_on} had gone on from one before")  # noqa: T201 - the log


@pytest.mark.slow
def test_train_adapter__two_processes_leave_the_adapter_of_one(
    start: Start, archive: Archive, backbone: Path, tmp_path: Path, tracking_store: Path
) -> None:
    """By torchrun itself, as a user starts them."""
    alone, both = tmp_path / "alone", tmp_path / "both"
    finish(start(alone, dropout=0.0))
    both.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
         "-m", "tests.training.one_training", *arguments(archive, backbone, both, 0.0, 0.0)],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, **told(tracking_store), "PYTHONPATH": f"{ROOT / 'packages'}:{ROOT}", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (load_file(each / "adapters" / "lora" / "adapter" / "adapter_model.safetensors") for each in (alone, both))
    assert one.keys() == two.keys()
    found, wanted = (torch.cat([each[name].flatten() for name in sorted(one)]) for each in (two, one))
    # 62 steps of Adam make something of the last bits in which sums over two processes differ.
    assert torch.nn.functional.cosine_similarity(found, wanted, dim=0) > 0.99
    first, second = result_of(alone), result_of(both)
    assert first["steps"] == second["steps"] == 62
    for mine, theirs in zip(first["curves"], second["curves"], strict=True):
        assert float(theirs["loss"]) == pytest.approx(float(mine["loss"]), rel=0.02)
    run_id = json.loads((both / "adapters" / "lora" / "outcome.json").read_text())["run_id"]
    mlflow.set_tracking_uri(f"sqlite:///{tracking_store / 'mlflow.db'}")
    run = mlflow.MlflowClient().get_run(run_id)
    # One run, of the first process, although two trained.
    assert run.data.tags["processes"] == "2" and run.info.status == "FINISHED"
    history = mlflow.MlflowClient().get_metric_history(run_id, "loss")
    assert [each.step for each in history] == [int(row["step"]) for row in second["curves"]]


@pytest.mark.slow
def test_train_adapter__two_processes_that_were_killed_go_on(start: Start, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    finish(start(whole, num_processes=2))
    child = start(cut, num_processes=2, pause_seconds=0.05)
    assert wait_for_another_checkpoint(child, cut)
    child.kill()
    assert checkpoints_of(cut) and not (cut / "adapters").exists()
    finish(start(cut, num_processes=2))
    assert result_of(cut) == result_of(whole)


@contextmanager
def small_disk(num_bytes: int) -> Iterator[None]:
    """No file of this process may grow beyond `num_bytes`: what a full disk does, to a file that is being written."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def begin(archive: Archive, backbone: Path, root: Path) -> None:
    train_adapter(
        "lora", SETTINGS.model_copy(update={"steps": 15}), backbone=str(backbone), pairs=archive.pairs,
        frames=archive.frames, general=None, out=root / "adapters" / "lora", report=root / "report", state=root / "state",
    )


def test_save__a_full_disk_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    kept = Checkpoint(tmp_path, "lora", "0" * 16)
    kept.save({"step": 1})
    with small_disk(10_000), raises(ArtifactError, code="not-writable", naming=kept.path.name) as caught:
        kept.save({"step": 2, "trained": torch.zeros(100_000)})
    assert "goes on" in caught.value.remedy
    assert kept.load() == {"step": 1} and list(tmp_path.iterdir()) == [kept.path]


@pytest.mark.slow
@pytest.mark.parametrize("what", ["checkpoint", "adapter", "run"])
def test_train_adapter__on_a_full_disk_is_one_error_and_goes_on_when_there_is_room(
    archive: Archive, backbone: Path, tracked: Path, no_pictures: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    what: str,
) -> None:
    begin(archive, backbone, tmp_path / "whole")
    saves: list[int] = []

    def on_a_small_disk(usual: Callable[..., Any], *, at: int) -> Callable[..., Any]:
        def save(*args: Any, **kwargs: Any) -> Any:
            saves.append(1)
            if len(saves) != at:
                return usual(*args, **kwargs)
            with small_disk(2_000):
                return usual(*args, **kwargs)

        return save

    root = tmp_path / "cut"
    with monkeypatch.context() as patch:
        if what == "checkpoint":
            patch.setattr(Checkpoint, "save", on_a_small_disk(Checkpoint.save, at=2))
        elif what == "adapter":
            patch.setattr(lora, "save", on_a_small_disk(lora.save, at=1))
        else:
            patch.setattr(Run, "log_folder", on_a_small_disk(Run.log_folder, at=1))
        kind, code = (ServiceError, "mlflow-no-answer") if what == "run" else (ArtifactError, "not-writable")
        with raises(kind, code=code, remedy="room"):
            begin(archive, backbone, root)
    assert len(checkpoints_of(root)) == 1  # the last good one
    # Whole or absent: the adapter was done before its copy in the run failed.
    assert (root / "adapters" / "lora").exists() == (what == "run")
    begin(archive, backbone, root)
    assert result_of(root) == result_of(tmp_path / "whole")
    assert train.Outcome(**json.loads((root / "adapters" / "lora" / "outcome.json").read_text())).trained
