from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.training import two_processes
from tests.training.forked_trainings import Trainings
from tests.training.tiny import Archive
from vidseek_training.fitting.distributed import DistributedContext


@pytest.mark.slow
def test_two_processes__have_the_loss_and_gradients_of_one_with_the_same_batch(
    trainings: Trainings, archive: Archive, backbone: Path, tmp_path: Path
) -> None:
    arguments = [str(backbone), str(archive.pairs), str(archive.frames)]
    two_processes.main(*arguments, str(tmp_path / "alone"))
    both = trainings.start(
        "tests.training.two_processes", [*arguments, str(tmp_path / "both")], output=tmp_path / "output", num_processes=2,
    )
    assert both.wait() == 0, both.output.read_text()[-3000:]
    names = ("alone.0", "both.0", "both.1")
    alone, one, other = (torch.load(tmp_path / name, weights_only=True) for name in names)
    assert (alone["count"], one["count"], other["count"]) == (1, 2, 2)
    for chunk in (None, 3):
        loss, gradients = alone[f"step in chunks of {chunk}"]
        for each in (one, other):
            found_loss, found = each[f"step in chunks of {chunk}"]
            assert found_loss == pytest.approx(loss, abs=1e-5) and found.keys() == gradients.keys()
            for name, wanted in gradients.items():
                assert torch.allclose(found[name], wanted, atol=1e-6, rtol=1e-3), name
    for name, wanted in alone["trained"].items():
        # Adam's steps make much of gradients that are nearly nothing.
        assert torch.allclose(one["trained"][name], wanted, atol=2e-3, rtol=1e-2), name
        assert torch.equal(one["trained"][name], other["trained"][name]), name


def test_processes__alone_says_nothing_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    alone = DistributedContext.here(cuda=False)
    values = torch.tensor([1.0, 2.0])
    assert alone.is_first and alone.count == 1 and alone.device(cuda=False) == torch.device("cpu")
    assert torch.equal(alone.add(values.clone()), values) and torch.equal(alone.agree(values.clone()), values)
    assert alone.gather(values).tolist() == [[1.0, 2.0]]
    alone.wait()
