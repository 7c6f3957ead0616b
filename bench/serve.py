"""How many requests a second the service answers, against itself without batching and against a plain service.

    make bench-serve         (writes bench/serve.json; ViT-B/32's shape, random weights, an index of random vectors)

Closed loop: each of 1, 8, 32 and 128 clients sends its next request when its last one is answered, over a connection
that it keeps. Clients and service share the machine's cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.encode import build_clip, machine
from vidseek_encoder.bundle import EncoderSpec
from vidseek_encoder.providers import usable_cores
from vidseek_media.ids import clip_id_of
from vidseek_media.tables import CLIPS, VIDEOS, write_table
from vidseek_retrieval.parts import write_part
from vidseek_retrieval.publish import publish

OUT = Path(__file__).with_name("serve.json")
ROOT = Path(__file__).parents[1]
QUERIES = [" ".join(f"word{(7 * query + 13 * place) % 1000}" for place in range(14)) for query in range(256)]
BODIES = {
    "/v1/search": [json.dumps({"text": text, "limit": 10}).encode() for text in QUERIES],
    "/v1/embed/text": [json.dumps({"texts": [text], "encoding": "base64"}).encode() for text in QUERIES],
}
PLAIN = [json.dumps({"texts": [text]}).encode() for text in QUERIES]


def main() -> None:
    """Build an archive, ask each service, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--clips", type=int, default=10_000)
    asked = parser.parse_args()
    rows: list[dict[str, Any]] = []
    starts: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="vidseek-") as name:
        folder = Path(name)
        write_archive(folder, num_clips=asked.clips)
        for variant, batch in (("fp32", 32), ("fp32", 1), ("int8", 32), ("int8", 1)):
            label = f"vidseek {variant}{'' if batch > 1 else ', batching off'}"
            settings = {"search": {"variant": variant, "threads": asked.threads}, "serve": {"max_batch": batch}}
            (folder / "params.yaml").write_text(json.dumps(settings), encoding="utf-8")
            with running([sys.executable, "-m", "vidseek.cli", "serve"], folder) as (port, start):
                for route, bodies in BODIES.items():
                    for clients in asked.clients:
                        row = ask(port, route, bodies, clients=clients, seconds=asked.seconds)
                        rows.append({"service": label, "route": route, **row})
                        Console(stderr=True).print(rows[-1])
                starts[label] = {**start, "peak_mb": peak_mb(port)}
        command = [sys.executable, "-m", "uvicorn", "bench.plain_service:app", "--log-level", "error"]
        extra = {"BENCH_MODEL": str(folder / "plain"), "BENCH_THREADS": str(asked.threads)}
        with running(command, ROOT, **extra) as (port, _):
            for clients in asked.clients:
                row = ask(port, "/v1/embed/text", PLAIN, clients=clients, seconds=asked.seconds)
                rows.append({"service": "FastAPI + transformers", "route": "/v1/embed/text", **row})
                Console(stderr=True).print(rows[-1])
    report = {"machine": machine(asked.threads), "clips": asked.clips, "starts": starts, "rows": rows}
    OUT.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    show(report)


def write_archive(root: Path, *, num_clips: int) -> None:
    """A bundle, the same weights for transformers, and an index of random vectors."""
    bundle = root / "models" / "encoder"
    bundle.mkdir(parents=True)
    clip, tokenizer = build_clip(bundle)
    clip.save_pretrained(root / "plain")
    tokenizer.save(str(root / "plain" / "tokenizer.json"))
    version = EncoderSpec.load(bundle).encoder_version
    video = f"{1:032x}"
    row: dict[str, object] = {**dict.fromkeys(VIDEOS.names, ""), "video_id": video, "uris": ["a.mp4"]}
    numbers = {"duration_ms": 1000 * num_clips, "fps": 25.0, "width": 64, "height": 48, "views": None}
    write_table(root / "ingest" / "videos.parquet", [row | numbers], VIDEOS)
    ids = [str(clip_id_of(video, 1000 * index, 1000 * index + 1000)) for index in range(num_clips)]
    write_table(root / "cut" / "clips.parquet", [
        {"clip_id": clip_id, "video_id": video, "index": index, "start_ms": 1000 * index, "end_ms": 1000 * index + 1000,
         "cut": ["windows"]} for index, clip_id in enumerate(ids)
    ], CLIPS)
    vectors = np.random.default_rng(0).normal(size=(num_clips, 512)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    write_part(root / "embed" / "parts" / "0-0.parquet", clip_ids=ids, vectors=vectors, encoder_version=version,
               variant="fp32")
    summary = {"encoder_version": version, "num_clips": num_clips}
    (root / "embed" / "embeddings.json").write_text(json.dumps(summary), encoding="utf-8")
    # Random vectors are the hardest there are for an approximate index; how well it finds them is not asked here.
    publish(root / "embed", root / "cut", root / "ingest", index=root / "index", min_recall=0.0)


@contextmanager
def running(command: list[str], folder: Path, **extra: str) -> Iterator[tuple[int, dict[str, float]]]:
    """The service, ready; with its port, and the seconds that it took to be so."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'packages'}{os.pathsep}{ROOT}", **extra}
    environment.pop("VIDSEEK_HOME", None)
    begin = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--port", str(port)], cwd=folder, env=environment, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )
    try:
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).close()
                break
            except OSError:
                if process.poll() is not None or time.perf_counter() - begin > 120:
                    raise SystemExit(f"{' '.join(command)} does not start") from None
                time.sleep(0.02)
        yield port, {"ready_seconds": round(time.perf_counter() - begin, 2)}
    finally:
        process.terminate()
        process.wait(30)


def ask(port: int, route: str, bodies: list[bytes], *, clients: int, seconds: float) -> dict[str, Any]:
    """Requests a second, median and 99th percentile in milliseconds, and how many were not answered with 200."""
    before = encode_seconds(port)
    times, num_failed = asyncio.run(_ask_all(port, route, bodies, clients=clients, seconds=seconds))
    after = encode_seconds(port)
    row: dict[str, Any] = {
        "clients": clients, "per_second": round(len(times) / seconds, 1),
        "p50_ms": round(statistics.median(times) * 1e3, 1),
        "p99_ms": round(float(np.percentile(times, 99)) * 1e3, 1), "failed": num_failed,
    }
    if before and after and after[0] > before[0]:
        num_batches = after[0] - before[0]
        row["mean_batch"] = round(len(times) / num_batches, 1)
        row["encode_ms"] = round((after[1] - before[1]) / num_batches * 1e3, 2)
    return row


async def _ask_all(
    port: int, route: str, bodies: list[bytes], *, clients: int, seconds: float
) -> tuple[list[float], int]:
    begin = time.perf_counter() + 1.0  # the first second warms up
    loops = [_ask(port, route, bodies, first=client, begin=begin, seconds=seconds) for client in range(clients)]
    answers = [answer for each in await asyncio.gather(*loops) for answer in each]
    return [took for took, _ in answers], sum(status != 200 for _, status in answers)


async def _ask(
    port: int, route: str, bodies: list[bytes], *, first: int, begin: float, seconds: float
) -> list[tuple[float, int]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answers, number = [], first
    while (sent := time.perf_counter()) < begin + seconds:
        body = bodies[number % len(bodies)]
        head = (f"POST {route} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json",
                f"Content-Length: {len(body)}", "\r\n")
        writer.write("\r\n".join(head).encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", answer, re.IGNORECASE)
        await reader.readexactly(int(length.group(1)) if length else 0)
        if sent >= begin:
            answers.append((time.perf_counter() - sent, int(answer.split()[1])))
        number += 17
    writer.close()
    return answers


def encode_seconds(port: int) -> tuple[float, float] | None:
    """Runs of the text encoder so far, and their seconds; None where the service does not say."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            page = answer.read().decode()
    except OSError:
        return None
    found = [re.search(rf'vidseek_work_seconds_{name}{{work="text"}} (\S+)', page) for name in ("count", "sum")]
    return (float(found[0].group(1)), float(found[1].group(1))) if found[0] and found[1] else (0.0, 0.0)


def peak_mb(port: int) -> float:
    """The most memory that any process listening at `port` has had."""
    listening = {line.split()[9] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
                 if line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A"}
    peak = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            links = [str(each.readlink()) for each in (status.parent / "fd").iterdir()]
            if listening & {link.removeprefix("socket:[").rstrip("]") for link in links}:
                most = re.search(r"VmHWM:\s+(\d+)", status.read_text())
                peak = max(peak, int(most.group(1)) if most else 0)
        except OSError:
            continue
    return round(peak / 1024, 1)


def show(report: dict[str, Any]) -> None:
    """Print the tables."""
    names = ("service", "route", "clients", "per_second", "p50_ms", "p99_ms", "failed", "mean_batch", "encode_ms")
    table = Table(*names)
    for row in report["rows"]:
        table.add_row(*(str(row.get(name, "")) for name in names))
    console = Console(width=140)
    console.print(report["machine"])
    console.print(report["starts"])
    console.print(table)


if __name__ == "__main__":
    main()
