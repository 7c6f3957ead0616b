"""What vidseek does on a GPU: LoRA training, towers and exported towers, checked against the CPU and timed.

    make gpu-check           (writes bench/gpu.json and prints its tables; five and a half minutes at most)
    python -m bench.gpu.check    (the same from a bare checkout: nothing is installed; what is not there is named)

Weights are random and clips are drawn, so nothing is said of what vectors mean. Where the environment names a folder OUT,
the report is also written there, after each part. A part that fails is reported, the others go on, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
OUT = Path(__file__).parents[1] / "gpu.json"
NEEDED = ("torch", "transformers", "peft", "numpy", "pandas", "pyarrow", "tokenizers", "safetensors", "PIL", "tqdm")
EXPORT = ("onnx", "onnxscript", "onnxruntime")
VERSIONS = (*NEEDED[:3], "numpy", "pandas", "tokenizers", *EXPORT, "onnxruntime-gpu", "tensorrt", "pydantic")


class Report:
    """What was found so far; on disk after each part."""

    def __init__(self, files: list[Path], *, minutes: float) -> None:
        self.files, self._began, self._minutes = files, time.monotonic(), minutes
        self.content: dict[str, Any] = {"parts": {}, "seconds": {}, "skipped": {}, "failed": {}}

    def say(self, text: str) -> None:
        """A line of progress."""
        print(f"[{time.monotonic() - self._began:6.1f} s] {text}", flush=True)  # noqa: T201 - this is the command's answer

    def part(self, name: str, run: Callable[[], Any], *, seconds: float = 60, needs: Iterable[str] = ()) -> None:
        """Run a part, unless a package is missing or the time is up. What it finds is kept as far as it came.

        After `seconds`, or when all the time is up, it is cut off: between two lines of Python, so in the middle of a row.
        """
        missing = [each for each in needs if importlib.util.find_spec(each) is None]
        if missing or self._is_late():
            self.content["skipped"][name] = f"{', '.join(missing)} not installed" if missing else "no time was left"
            self.say(f"{name}: skipped, {self.content['skipped'][name]}")
            return
        began = time.monotonic()
        self.say(f"{name} begins")
        try:
            with _cut_off(min(seconds, 60 * self._minutes - (began - self._began))):
                self._keep(name, run())
        except _TimeUp:
            self.content["skipped"][f"the rest of {name}"] = f"its {seconds:.0f} seconds were up"
            self.say(f"{name} was cut off")
        except Exception as error:  # noqa: BLE001 - whatever a part raises, the others go on
            self.content["failed"][name] = f"{type(error).__name__}: {error}"
            self.say(f"{name} FAILED\n{traceback.format_exc()}")
        self.content["seconds"][name] = round(time.monotonic() - began, 1)
        self.save()

    def _is_late(self) -> bool:
        return time.monotonic() - self._began > 60 * self._minutes

    def _keep(self, name: str, found: Any) -> None:
        """A mapping as it is; else row by row, or name by name, so that what came before a failure stays."""
        if isinstance(found, dict):
            self.content["parts"][name] = found
            self.say(f"{name}: {_short(found)}")
            return
        for each in found:
            if isinstance(each, tuple):
                self.content["parts"].setdefault(name, {})[each[0]] = each[1]
            else:
                self.content["parts"].setdefault(name, []).extend(each if isinstance(each, list) else [each])
            self.say(f"{name}: {_rates(each) if isinstance(each, list) else _short(each)}")

    def save(self) -> None:
        """Write the report."""
        self.content["seconds"]["all"] = round(time.monotonic() - self._began, 1)
        for file in self.files:
            file.write_text(json.dumps(self.content, indent=1) + "\n", encoding="utf-8")

    def failures(self) -> list[str]:
        """What failed: parts, rows within them, and what is further from the CPU than `gpu_limits` allows."""
        from bench.gpu.limits import beyond

        rows = [(name, row) for name, part in self.content["parts"].items()
                for row in (part.values() if isinstance(part, dict) else part)]
        failed = [f"{name}: {row['failed']}" for name, row in rows if isinstance(row, dict) and "failed" in row]
        return [*(f"{name}: {why}" for name, why in self.content["failed"].items()), *failed, *beyond(self.content["parts"])]


class _TimeUp(BaseException):
    """A part's seconds are up. No Exception: what guards against faults inside a part must let it through."""


@contextmanager
def _cut_off(seconds: float) -> Iterator[None]:
    """Raise _TimeUp in the block after `seconds`."""
    def ring(*_: object) -> None:
        raise _TimeUp

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _short(found: Any) -> str:
    text = json.dumps(found)
    return text if len(text) <= 400 else f"{text[:400]} ..."


def _rates(rows: list[dict[str, Any]]) -> str:
    told = ", ".join(f"{row['kind']} {row['batch']}: {row['per_second']:,.0f}" for row in rows)
    return f"{rows[0]['shape']} {rows[0]['precision']}, a second: {told}" if rows else "nothing"


def main() -> int:
    """Measure what is there; gives the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--minutes", type=float, default=5.5, help="after so many all that is left is cut off")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes on the CPU: only to see that the parts run")
    parser.add_argument("--show", action="store_true", help="print the tables of the report that is there")
    asked = parser.parse_args()
    if asked.show:
        print(tables(json.loads(asked.out.read_text(encoding="utf-8"))))  # noqa: T201
        return 0
    if reason := _why_not(needs_cuda=not asked.tiny):
        print(f"gpu-check: skipped, {reason}")  # noqa: T201
        return 0
    files = [asked.out] + ([Path(os.environ["OUT"]) / "gpu.json"] if os.environ.get("OUT") else [])
    report = Report(files, minutes=60 if asked.tiny else asked.minutes)
    measure(report, tiny=asked.tiny)
    print(tables(report.content))  # noqa: T201
    if os.environ.get("OUT"):
        (Path(os.environ["OUT"]) / "gpu.md").write_text(tables(report.content), encoding="utf-8")
    for failure in report.failures():
        print(f"FAILED {failure}")  # noqa: T201
    return 1 if report.failures() else 0


def _why_not(*, needs_cuda: bool) -> str:
    """Why nothing can be measured here; empty where it can."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        return f"{', '.join(missing)} not installed"
    import torch

    return "torch finds no CUDA here" if needs_cuda and not torch.cuda.is_available() else ""


def measure(report: Report, *, tiny: bool) -> None:
    """All parts into `report`."""
    sys.path.insert(0, str(ROOT / "packages"))
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import peft  # noqa: F401 - before the stand-in: it and transformers ask which libraries are there
    import torch
    import transformers  # noqa: F401

    from bench.unchecked import pydantic_or_stand_in

    warnings.filterwarnings("ignore", message=".*TF32.*")
    with pydantic_or_stand_in() as checked:
        if not checked:
            report.content["skipped"]["checks of settings"] = "pydantic not installed"
        from bench.gpu import sizes as gpu_sizes
        from bench.gpu import towers as gpu_towers
        from bench.gpu import training as gpu_training
    sizes = gpu_sizes.TINY if tiny else gpu_sizes.FULL
    device = torch.device("cpu" if tiny else "cuda")
    longer = 100 if tiny else 1  # a test asks whether parts run, on however slow a machine
    report.part("machine", lambda: _machine(torch, device))
    with tempfile.TemporaryDirectory(prefix="vidseek-gpu-") as name:
        folder = Path(name)
        report.part("paths", lambda: gpu_training.paths(device, sizes.backbones, sizes.paths), seconds=50 * longer)
        report.part("resume", lambda: gpu_training.stopped_and_gone_on(device, folder), seconds=30 * longer)
        report.part("training", lambda: gpu_training.against_cpu(sizes.training, device, folder), seconds=60 * longer)
        report.part("exported", lambda: gpu_towers.exported(sizes.towers, folder), seconds=70 * longer, needs=EXPORT)
        report.part("training_speed", lambda: gpu_training.speed(sizes.training, device, folder), seconds=80 * longer)
        report.part("towers", lambda: gpu_towers.rates(sizes.towers, device, folder), seconds=90 * longer)
    report.save()


def _machine(torch: Any, device: Any) -> dict[str, Any]:
    """What this is, and how fast it multiplies at best."""
    found: dict[str, Any] = {
        "python": platform.python_version(), "cores": len(os.sched_getaffinity(0)),
        "versions": {name: told for name in VERSIONS if (told := _version(name))},
    }
    if device.type != "cuda":
        return found
    about = torch.cuda.get_device_properties(device)
    found |= {
        "gpu": about.name, "gib": round(about.total_memory / 2**30, 1), "capability": f"{about.major}.{about.minor}",
        "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(),
    }
    from bench.gpu.models import median_ms, tf32

    for name, dtype in {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}.items():
        square = torch.randn(8192, 8192, device=device, dtype=dtype)
        with tf32(products=name == "tf32", convolutions=False):
            ms = median_ms(lambda square=square: square @ square, device)  # type: ignore[misc]
        found[f"product_tflops_{name}"] = round(2 * 8192**3 / ms / 1e9, 1)
    return found


def _version(name: str) -> str:
    try:
        return version("pillow" if name == "PIL" else name)
    except PackageNotFoundError:
        return ""


def tables(report: dict[str, Any]) -> str:
    """The report as Markdown, for docs/."""
    from bench.gpu.tables import write_tables

    return write_tables(report)


if __name__ == "__main__":
    sys.exit(main())
