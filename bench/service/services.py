"""Services under measurement: started on loopback, ready, and asked what they used."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
START_SECONDS = 120.0


@dataclass(frozen=True)
class Service:
    """One that runs and is ready."""

    name: str
    port: int
    ready_seconds: float
    """From the start of its command to its first /readyz of 200."""
    pid: int
    log: Path
    is_plain: bool

    def cpu_seconds(self) -> float:
        """What all its processes have used so far."""
        times = [each.cpu_times() for each in self._processes()]
        return sum(each.user + each.system for each in times)

    def peak_mb(self) -> float:
        """The most memory that any one of its processes has had at once (VmHWM)."""
        peaks = [
            int(found.group(1)) for each in self._processes()
            if (found := re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{each.pid}/status").read_text(encoding="ascii")))
        ]
        return round(max(peaks) / 1024, 1)

    def batches(self) -> tuple[float, float]:
        """Runs of the text encoder so far, and the texts in them; zeros where the service does not say."""
        if self.is_plain:
            return 0.0, 0.0
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=60) as answer:
            page = answer.read().decode()
        counts = [re.search(rf'vidseek_batch_size_{each}{{work="text"}} (\S+)', page) for each in ("count", "sum")]
        return float(counts[0].group(1)) if counts[0] else 0.0, float(counts[1].group(1)) if counts[1] else 0.0

    def log_mark(self) -> int:
        """Where its log ends now."""
        return self.log.stat().st_size

    def logged_ms(self, route: str, *, since: int) -> list[float]:
        """What its log says of the time of each request to `route`, from the place `since` on."""
        with self.log.open("rb") as file:
            file.seek(since)
            lines = [json.loads(line) for line in file if line.startswith(b'{"time"') and line.endswith(b"\n")]
        return [line["milliseconds"] for line in lines if line.get("route") == route]

    def _processes(self) -> list[psutil.Process]:
        parent = psutil.Process(self.pid)
        return [parent, *parent.children(recursive=True)]


@contextmanager
def vidseek(root: Path, *, name: str, settings: dict[str, Any]) -> Iterator[Service]:
    """`vidseek serve` over the archive in `root`; settings are read at its start."""
    (root / "params.yaml").write_text(json.dumps(settings), encoding="utf-8")
    with _running([sys.executable, "-m", "vidseek.cli", "serve"], root, name=name) as service:
        yield service


@contextmanager
def plain(model: Path, *, threads: int) -> Iterator[Service]:
    """FastAPI and transformers (`bench.service.plain_service`) over the weights in `model`."""
    command = [sys.executable, "-m", "uvicorn", "bench.service.plain_service:app", "--log-level", "error"]
    extra = {"BENCH_MODEL": str(model), "BENCH_THREADS": str(threads)}
    with _running(command, ROOT, name="FastAPI + transformers", is_plain=True, extra=extra) as service:
        yield service


@contextmanager
def _running(
    command: list[str], folder: Path, *, name: str, is_plain: bool = False, extra: dict[str, str] | None = None
) -> Iterator[Service]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    environment = {
        each: value for each, value in os.environ.items() if not each.startswith(("VIDSEEK", "BENTOML", "QDRANT"))
    }
    environment |= {"PYTHONPATH": f"{ROOT / 'packages'}{os.pathsep}{ROOT}", "HF_HUB_OFFLINE": "1", **(extra or {})}
    log = Path(f"/tmp/vidseek-bench-{os.getpid()}-{port}.log")
    begin = time.perf_counter()
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*command, "--port", str(port)], cwd=folder, env=environment, stdout=stream, stderr=stream,
            start_new_session=True,
        )
    try:
        _wait(process, port, log, until=begin + START_SECONDS)
        yield Service(name, port, round(time.perf_counter() - begin, 2), process.pid, log, is_plain)
    finally:
        process.terminate()
        process.wait(30)
        log.unlink(missing_ok=True)


def _wait(process: subprocess.Popen[bytes], port: int, log: Path, *, until: float) -> None:
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).close()
            return
        except OSError:
            if process.poll() is not None or time.perf_counter() > until:
                raise SystemExit(f"{process.args!r} does not start:\n{log.read_text()}") from None
            time.sleep(0.02)
