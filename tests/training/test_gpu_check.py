"""`make gpu-check` on a machine without a GPU: its parts run on the CPU, with no more than its machine has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.gpu import check as gpu
from bench.gpu.limits import beyond
from bench.unchecked import UncheckedModel

_ROOT = Path(__file__).parents[2]
_ABSENT = ("pydantic", "av", "decord", "mlflow", "dvc", "qdrant_client", "qdrant_edge", "great_expectations", "duckdb")
_WITHOUT = f"""
import importlib.abc, runpy, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {_ABSENT!r}:
            raise ModuleNotFoundError(name, name=name)
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in {_ABSENT!r} else found(name, package)
sys.meta_path.insert(0, Absent())
sys.argv = ["bench.gpu.check", "--tiny", "--out", sys.argv[1]]
runpy.run_module("bench.gpu.check", run_name="__main__")
"""


@pytest.mark.slow  # each part of it on the CPU
def test_parts__run_without_what_the_machine_lacks(tmp_path: Path) -> None:
    out = tmp_path / "copy"
    out.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT, str(tmp_path / "gpu.json")], cwd=_ROOT, capture_output=True, text=True, timeout=300,
        env={**environment, "OUT": str(out), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}, check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert report["failed"] == {} and list(beyond(report["parts"])) == []
    assert report["skipped"] == {"checks of settings": "pydantic not installed"}
    assert (out / "gpu.json").read_text() == (tmp_path / "gpu.json").read_text()
    parts = report["parts"]
    assert parts["training"]["gradients"]["fp32"]["relative_difference"] < 1e-5
    assert parts["training"]["chunks"]["fp32"]["relative_difference"] < 1e-3
    curves = parts["training"]["loss_curves"]["curves"]
    assert len(curves["fp32"]) == 3 and curves["fp32"][-1] < curves["fp32"][0]
    assert parts["training"]["adapter"]["least_cosine"] > 0.99999 > parts["training"]["adapter"]["least_cosine_to_base"]
    assert parts["resume"] == {"steps_before": 3, "largest_difference": pytest.approx(0, abs=1e-4)}
    assert {(row["shape"], row["kind"]) for row in parts["towers"]} >= {("tiny", "pictures"), ("tiny X-CLIP", "clips")}
    assert parts["exported"]["cpu fp32"]["admitted"] is True
    table = (out / "gpu.md").read_text()
    assert "| tiny | fp32 |" in table and "| cpu fp32 |" in table and "| loss curves of 2 ways of training |" in table


def test_main__says_in_one_line_that_there_is_no_gpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["bench.gpu.check", "--out", str(tmp_path / "gpu.json")])
    assert gpu.main() == 0
    assert capsys.readouterr().out == "gpu-check: skipped, torch finds no CUDA here\n"
    assert not (tmp_path / "gpu.json").exists()


def test_part__that_fails_is_reported_and_keeps_what_it_found(tmp_path: Path) -> None:
    def breaks():  # type: ignore[no-untyped-def]
        yield "first", {"value": 1}
        raise RuntimeError("the device fell off")

    report = gpu.Report([tmp_path / "gpu.json"], minutes=1)
    report.part("broken", breaks)
    report.part("missing", dict, needs=["no_such_package"])
    report.part("whole", lambda: {"value": 2})
    content = json.loads((tmp_path / "gpu.json").read_text())
    assert content["parts"] == {"broken": {"first": {"value": 1}}, "whole": {"value": 2}}
    assert content["skipped"] == {"missing": "no_such_package not installed"}
    assert report.failures() == ["broken: RuntimeError: the device fell off"]


def test_part__begins_none_when_the_time_is_up(tmp_path: Path) -> None:
    report = gpu.Report([tmp_path / "gpu.json"], minutes=0)
    report.part("late", lambda: {"value": 1})
    assert report.content["skipped"] == {"late": "no time was left"} and report.content["parts"] == {}


def test_part__is_cut_off_when_its_seconds_are_up_and_keeps_what_it_found(tmp_path: Path) -> None:
    def endless():  # type: ignore[no-untyped-def]
        yield "first", {"value": 1}
        while True:
            try:
                time.sleep(0.01)
            except Exception:  # noqa: BLE001 - as parts guard their rows
                yield "caught", {"value": 3}

    report = gpu.Report([tmp_path / "gpu.json"], minutes=1)
    report.part("endless", endless, seconds=1)
    report.part("next", lambda: {"value": 2})
    content = json.loads((tmp_path / "gpu.json").read_text())
    assert content["parts"] == {"endless": {"first": {"value": 1}}, "next": {"value": 2}}
    assert content["skipped"] == {"the rest of endless": "its 1 seconds were up"} and report.failures() == []


def test_beyond__names_what_is_too_far() -> None:
    parts = {
        "training": {"gradients": {"fp32": {"relative_difference": 0.5}}, "adapter": {"least_cosine": float("nan")}},
        "towers": [{"shape": "ViT-B/32", "precision": "fp16", "least_cosine": 0.5}],
    }
    named = [each.partition(":")[0] for each in beyond(parts)]
    assert named == ["gradients, fp32", "merged on the CPU", "towers, ViT-B/32 fp16"]


def test_unchecked_model__has_defaults_and_refuses_what_it_does_not_know() -> None:
    class Settings(UncheckedModel):
        rank: int = 4
        name: str

    settings = Settings(name="lora")
    assert (settings.rank, settings.name) == (4, "lora")
    with pytest.raises(TypeError, match="has no ranks"):
        Settings(ranks=5)
