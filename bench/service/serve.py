"""How many requests a second the service answers, against itself without batching and against a plain service.

    make bench-serve         (writes bench/serve.json; ViT-B/32's shape, random weights, an index of random vectors)

Closed loop: each of 1, 8, 32 and 128 clients sends its next request when its last one is answered, over a connection
that it keeps. Clients and services share the machine's cores, so what the clients take of them is said beside. All
services are up all the while, and take turns: what else runs on the machine slows all alike.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.machine import machine
from bench.searching.archives import small_archive, vit_archive
from bench.service.load import Load, ask
from bench.service.services import Service, plain, vidseek
from vidseek_encoder.choices import usable_cores
from vidseek_encoder.encoder import Encoder

OUT = Path(__file__).parents[1] / "serve.json"
QUERIES = [" ".join(f"word{(7 * query + 13 * place) % 1000}" for place in range(14)) for query in range(256)]
EMBED, SEARCH = "/v1/embed/text", "/v1/search"
BODIES = {
    SEARCH: [json.dumps({"text": text, "limit": 10}).encode() for text in QUERIES],
    EMBED: [json.dumps({"texts": [text], "encoding": "base64"}).encode() for text in QUERIES],
}
PLAIN_BODIES = [json.dumps({"texts": [text]}).encode() for text in QUERIES]
CROWD = 128
"""Clients whose queue takes so long that a window must begin late."""


def main() -> None:
    """Build archives, ask each service in turn, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--seconds", type=float, default=3.0, help="of one turn")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32, CROWD])
    parser.add_argument("--clips", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vidseek-") as name, ExitStack() as stack:
        folder = Path(name)
        cold = cold_start(folder / "small")
        vit_archive(folder / "archive", plain=folder / "plain", num_clips=asked.clips)
        services = [
            stack.enter_context(vidseek(
                folder / "archive", name=f"vidseek {variant}{'' if batch > 1 else ', batching off'}",
                settings={"search": {"variant": variant, "threads": asked.threads}, "serve": {"max_batch": batch}},
            )) for variant in ("fp32", "int8") for batch in (32, 1)
        ]
        services.append(stack.enter_context(plain(folder / "plain", threads=asked.threads)))
        rows = measure(services, clients=asked.clients, seconds=asked.seconds, rounds=asked.rounds)
        report = {
            "machine": machine(asked.threads, ("torch", "transformers", "onnxruntime", "bentoml", "uvicorn", "uvloop")),
            "clips": asked.clips, "seconds": asked.seconds, "rounds": asked.rounds, "cold_start": cold,
            "peak_mb": {service.name: service.peak_mb() for service in services},
            "added": [
                added(service, folder / "archive" / "models" / "encoder", threads=asked.threads)
                for service in services if service.name in ("vidseek fp32", "vidseek int8")
            ],
            "rows": rows,
        }
    asked.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    show(report)


def measure(
    services: Sequence[Service], *, clients: Sequence[int], seconds: float, rounds: int
) -> list[dict[str, Any]]:
    """A row for each route, number of clients and service; the services take turns in every round."""
    rows = []
    for route in (EMBED, SEARCH):
        asked = [service for service in services if route == EMBED or not service.is_plain]
        for number in clients:
            seen: dict[str, Seen] = defaultdict(Seen)
            for _ in range(rounds):
                for service in asked:
                    bodies = PLAIN_BODIES if service.is_plain else BODIES[route]
                    seen[service.name].turn(service, route, bodies, clients=number, seconds=seconds)
            for service in asked:
                rows.append({"route": route, "clients": number, "service": service.name, **seen[service.name].row()})
                Console(stderr=True, width=160).print(rows[-1])
    return rows


class Seen:
    """What came of the turns of one service under one load."""

    def __init__(self) -> None:
        self.load = Load()
        self.service_seconds = 0.0
        self.num_batches = 0.0
        self.num_items = 0.0

    def turn(self, service: Service, route: str, bodies: Sequence[bytes], *, clients: int, seconds: float) -> None:
        """One window. What the service itself counts is of the window and its warming up together."""
        warm_seconds = 1.0 if clients < CROWD else seconds
        before, used = service.batches(), service.cpu_seconds()
        load = ask(service.port, route, bodies, clients=clients, seconds=seconds, warm_seconds=warm_seconds)
        after = service.batches()
        self.load.add(load)
        self.service_seconds += (service.cpu_seconds() - used) * seconds / (seconds + warm_seconds)
        self.num_batches += after[0] - before[0]
        self.num_items += after[1] - before[1]

    def row(self) -> dict[str, Any]:
        """Rate and times; mean batch; CPU milliseconds of service and clients for each answer."""
        times = self.load.times
        if not times:
            return {"per_second": 0.0, "failed": self.load.num_failed}
        row: dict[str, Any] = {
            "per_second": round(len(times) / self.load.seconds, 1),
            "p50_ms": round(statistics.median(times) * 1e3, 1),
            "p99_ms": round(float(np.percentile(times, 99)) * 1e3, 1),
            "failed": self.load.num_failed,
            "service_cpu_ms": round(self.service_seconds / len(times) * 1e3, 2),
            "clients_cpu_ms": round(self.load.own_seconds / len(times) * 1e3, 3),
        }
        if self.num_batches:
            row["mean_batch"] = round(self.num_items / self.num_batches, 1)
        return row


def added(service: Service, bundle: Path, *, threads: int, rounds: int = 10, seconds: float = 1.0) -> dict[str, Any]:
    """What the API adds to the encoder for a lone client: the median of its log's milliseconds for an embedding in base64,
    less the median of the same encoder, with nothing around it, in this process; both in turns."""
    encoder = Encoder.load(bundle, variant=service.name.split()[-1], threads=threads, towers=("text",))
    bare: list[float] = []
    logged: list[float] = []
    for turn in range(rounds):
        mark = service.log_mark()
        ask(service.port, EMBED, BODIES[EMBED], clients=1, seconds=seconds, warm_seconds=0.2)
        logged += service.logged_ms(EMBED, since=mark)
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            begin = time.perf_counter()
            encoder.embed_texts([QUERIES[(17 * len(bare) + turn) % len(QUERIES)]])
            bare.append((time.perf_counter() - begin) * 1e3)
    api_ms, encoder_ms = round(statistics.median(logged), 2), round(statistics.median(bare), 2)
    return {
        "service": service.name, "api_ms": api_ms, "encoder_ms": encoder_ms, "added_ms": round(api_ms - encoder_ms, 2),
    }


def cold_start(root: Path) -> dict[str, float]:
    """Seconds from `vidseek serve` to ready with the small shipped bundle, the second of two starts; its peak memory."""
    small_archive(root)
    for _ in range(2):
        with vidseek(root, name="small", settings={}) as service:
            found = {"ready_seconds": service.ready_seconds, "peak_mb": service.peak_mb()}
    return found


def show(report: dict[str, Any]) -> None:
    """Print the tables."""
    names = ("route", "clients", "service", "per_second", "p50_ms", "p99_ms", "failed", "mean_batch", "service_cpu_ms",
             "clients_cpu_ms")
    table = Table(*names)
    for row in report["rows"]:
        table.add_row(*(str(row.get(name, "")) for name in names))
    console = Console(width=160)
    for name in ("machine", "cold_start", "peak_mb", "added"):
        console.print(name, report[name])
    console.print(table)
    for line in ratios(report["rows"]):
        console.print(line)


def ratios(rows: Sequence[dict[str, Any]]) -> list[str]:
    """How many times the plain service's rate each of ours has, for each number of clients."""
    rates = {(row["clients"], row["service"]): row["per_second"] for row in rows if row["route"] == EMBED}
    plain_name = "FastAPI + transformers"
    return [
        f"{number} clients: {name} answers {rate / rates[number, plain_name]:.1f} times as many as {plain_name}"
        for (number, name), rate in rates.items() if name != plain_name and rates.get((number, plain_name))
    ]


if __name__ == "__main__":
    main()
