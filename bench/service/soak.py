"""Eight kinds of hostile clients at once beside one ordinary client: does it still get its answers?

    make soak-hostile        (ten minutes, writes bench/soak.json; VIDSEEK_HOSTILE_SECONDS=60 for a shorter one)

The ordinary client asks once a second, by text and by picture in turns. Measured are its p50 and p99, where anything but
200 counts as 30 s; the peak memory of all processes of the service together, sampled twice a second (resident set sizes,
so pages that processes share count in each); and whether the process that answers was replaced. Clients and service share
the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from bench.machine import machine
from bench.searching.archives import small_archive
from bench.service.hostile import PATIENCE_SECONDS, Seen, attack, kinds_of, percentile
from bench.service.hostile_files import HostileFiles
from bench.service.services import vidseek
from vidseek.params import load_settings

OUT = Path(__file__).parents[1] / "soak.json"
SECONDS_VARIABLE = "VIDSEEK_HOSTILE_SECONDS"
SAMPLE_SECONDS = 0.5
PACKAGES = ("bentoml", "uvicorn", "httptools", "uvloop", "fastapi", "starlette", "pydantic", "pillow", "av", "onnxruntime")


@dataclass(frozen=True)
class Bounds:
    """What the service must keep."""

    text_p99_seconds: float = 1.0
    picture_p99_seconds: float = 3.0
    memory_mb: int = 2048
    """Of all processes of the service together: 256 MB of uploads, their decoding, the encoder and the index."""


@dataclass
class Watched:
    """The processes of a service, while it is attacked."""

    root: psutil.Process
    worker: psutil.Process
    peak_mb: float = 0.0

    def num_restarts(self) -> int:
        """How often the process that answers was replaced, as far as can be seen at the end: 0 or 1."""
        return int(not self.worker.is_running() or worker_of(self.root) != self.worker)


def worker_of(root: psutil.Process) -> psutil.Process:
    """The process that answers: BentoML's worker. Decoders are its children."""
    found = [each for each in root.children(recursive=True) if "_bentoml_impl.worker.service" in " ".join(each.cmdline())]
    return found[0] if found else max(root.children(), key=lambda each: each.memory_info().rss)


@contextmanager
def watching(pid: int) -> Iterator[Watched]:
    """Sample the memory of the service whose first process is `pid`."""
    root = psutil.Process(pid)
    watched = Watched(root, worker_of(root))
    done = threading.Event()
    thread = threading.Thread(target=_sample, args=(watched, done), daemon=True)
    thread.start()
    try:
        yield watched
    finally:
        done.set()
        thread.join()


def _sample(watched: Watched, done: threading.Event) -> None:
    while not done.wait(SAMPLE_SECONDS):
        total = 0
        for process in [watched.root, *watched.root.children(recursive=True)]:
            try:
                total += process.memory_info().rss
            except psutil.Error:  # a decoder that has ended
                continue
        watched.peak_mb = max(watched.peak_mb, total / 2**20)


def measure(port: int, pid: int, files: HostileFiles, *, seconds: float, one_address: bool = False) -> dict[str, Any]:
    """Attack the service at `port`, whose first process is `pid`, and say what its ordinary client saw."""
    with watching(pid) as watched:
        seen = asyncio.run(attack(port, files, seconds=seconds, one_address=one_address))
        restarts = watched.num_restarts()
    return {
        "seconds": seconds, "one_address": one_address,
        "text": _figures(seen.texts), "picture": _figures(seen.pictures), "failures": dict(seen.failures),
        "peak_mb": round(watched.peak_mb, 1), "restarts": restarts, "hostile": _rows(seen, files),
    }


def broken_bounds(found: dict[str, Any], bounds: Bounds) -> list[str]:
    """What was not kept, in words; empty if all was."""
    wanted = (
        ("p99 of text searches", found["text"]["p99_seconds"], bounds.text_p99_seconds, "s"),
        ("p99 of picture searches", found["picture"]["p99_seconds"], bounds.picture_p99_seconds, "s"),
        ("peak memory", found["peak_mb"], bounds.memory_mb, "MB"), ("restarts", found["restarts"], 0, ""),
    )
    return [f"{name}: {value:g} {unit}, wanted at most {most:g}" for name, value, most, unit in wanted if value > most]


def _figures(times: list[float]) -> dict[str, float]:
    return {
        "requests": len(times), "p50_seconds": round(percentile(times, 0.5), 3),
        "p99_seconds": round(percentile(times, 0.99), 3), "worst_seconds": round(max(times, default=0.0), 3),
    }


def _rows(seen: Seen, files: HostileFiles) -> list[dict[str, Any]]:
    return [
        {
            "kind": kind.name, "every_seconds": kind.every_seconds, "at_once": kind.at_once,
            "requests": seen.hostile[kind.name].total(), "answers": dict(sorted(seen.hostile[kind.name].items())),
        }
        for kind in kinds_of(files)
    ]


def show(found: dict[str, Any]) -> None:
    """Print the table."""
    table = Table("client", "begins a request every", "at once", "ended", "answers", title="The hostile soak")
    for row in found["hostile"]:
        answers = ", ".join(f"{status}: {num}" for status, num in row["answers"].items())
        table.add_row(row["kind"], f"{row['every_seconds']:g} s", str(row["at_once"]), str(row["requests"]), answers)
    for name in ("text", "picture"):
        of = found[name]
        said = f"p50 {of['p50_seconds']:.3f} s, p99 {of['p99_seconds']:.3f} s, worst {of['worst_seconds']:.3f} s"
        table.add_row(f"ordinary: {name}", "2 s", "", str(of["requests"]), said)
    console = Console(width=150)
    console.print(table)
    failures, peak_mb, restarts = found["failures"] or "none", found["peak_mb"], found["restarts"]
    console.print(f"Failures of the ordinary client: {failures}. Peak memory {peak_mb:.0f} MB. Restarts: {restarts}.")


def main() -> int:
    """Serve an archive, attack it, print, write; 1 where a bound was not kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=float(os.environ.get(SECONDS_VARIABLE, "600")))
    parser.add_argument("--one-address", action="store_true", help="all clients come from 127.0.0.1")
    parser.add_argument("--settings", default="{}", help="of `serve`, as JSON")
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    files, bounds = HostileFiles.make(), Bounds()
    with tempfile.TemporaryDirectory(prefix="vidseek-") as name:
        root = Path(name)
        small_archive(root)
        with vidseek(root, name="vidseek", settings={"serve": json.loads(asked.settings)}) as service:
            settings = load_settings(root / "params.yaml").serve.model_dump()
            found = measure(service.port, service.pid, files, seconds=asked.seconds, one_address=asked.one_address)
    broken = broken_bounds(found, bounds)
    report = {
        "machine": machine(os.cpu_count() or 1, PACKAGES), **found, "bounds": bounds.__dict__, "broken": broken,
        "patience_seconds": PATIENCE_SECONDS, "settings": settings,
    }
    asked.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    show(report)
    for each in broken:
        Console(stderr=True).print(f"not kept: {each}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
