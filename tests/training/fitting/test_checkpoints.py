from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.raising import raises
from vidseek_media.errors import ArtifactError
from vidseek_training.fitting.checkpoints import Checkpoint, fingerprint


def test_fingerprint__is_of_all_that_was_said() -> None:
    assert fingerprint(settings={"a": 1, "b": 2}, pairs="x") == fingerprint(pairs="x", settings={"b": 2, "a": 1})
    assert fingerprint(settings={"a": 1}, pairs="x") != fingerprint(settings={"a": 2}, pairs="x")
    assert len(fingerprint()) == 16


def test_checkpoint__gives_back_what_was_saved_last(tmp_path: Path) -> None:
    kept = Checkpoint(tmp_path / "new", "lora", "0" * 16)
    assert kept.load() is None
    for step in (1, 2):
        kept.save({"step": step, "trained": {"w": torch.full((2,), float(step))}, "nothing": None, "text": "2**100"})
    found = kept.load()
    assert found is not None and found["step"] == 2 and found["trained"]["w"].tolist() == [2, 2]
    assert [path.name for path in kept.path.parent.iterdir()] == [f"lora-{'0' * 16}.pt"]
    assert Checkpoint(tmp_path / "new", "lora", "1" * 16).load() is None


def test_checkpoint__a_disk_that_is_full_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Checkpoint(tmp_path, "lora", "0" * 16)
    kept.save({"step": 1})

    def full(_: Any, path: Path) -> None:
        path.write_bytes(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file: no space left")

    monkeypatch.setattr(torch, "save", full)
    with raises(ArtifactError, code="not-writable", naming="no space left") as caught:
        kept.save({"step": 2})
    assert "goes on" in caught.value.remedy
    assert kept.load() == {"step": 1} and len(list(tmp_path.iterdir())) == 1


def test_checkpoint__a_broken_one_is_an_error_that_names_it(tmp_path: Path) -> None:
    kept = Checkpoint(tmp_path, "lora", "0" * 16)
    kept.path.write_bytes(b"no checkpoint")
    with raises(ArtifactError, code="checkpoint-broken", naming=kept.path.name):
        kept.load()


def test_remove__takes_the_setting_s_and_no_other_s(tmp_path: Path) -> None:
    mine = [Checkpoint(tmp_path, "lora", mark * 16) for mark in "0a"]
    other = Checkpoint(tmp_path, "lora-wide", "0" * 16)
    for each in (*mine, other):
        each.save({})
    mine[0].remove()
    assert list(tmp_path.iterdir()) == [other.path]
