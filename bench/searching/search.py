"""How fast and how well an index of 10^5 or 10^6 clips answers, against other ways to search the same vectors.

    make bench-search        (writes bench/search.json; 10^5, then 10^6; build and search each in a process of its own)

Recall is of the ten nearest against exact search, over queries that are drawn as the clips are. Nothing else should run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.searching.vectors import base_vectors, draw, gaussian
from vidseek_media.ids import clip_id_of
from vidseek_retrieval.confidence.calibration import FEATURES, Calibration
from vidseek_retrieval.confidence.familiarity import Familiarity
from vidseek_retrieval.index.backend import Alias, Point
from vidseek_retrieval.index.collection_metadata import CollectionMetadata, collection_name
from vidseek_retrieval.index.edge.backend import EdgeBackend
from vidseek_retrieval.search.filters import parse_filters
from vidseek_retrieval.search.query import Query, SearchOptions
from vidseek_retrieval.search.searcher import Searcher
from vidseek_retrieval.settings import IndexSettings

OUT = Path(__file__).parents[1] / "search.json"
NUM_QUERIES = 500
WARM_UP = 50
WINDOWS, CLIP_MS = 60, 3000
"""Clips of each video, one each second, and how long they are."""
VERSION, ALIAS = "0" * 16, "bench"
FILTER = {"channel": ["channel 3"]}
"""That a tenth of the clips fit."""
EFS = (16, 32, 128, 64)
"""What `publish.index.hnsw_ef` might be, the default last; it takes no new graph."""
FAISS = {"m": 16, "ef_construct": 200, "ef": 128}

Search = Callable[[NDArray[np.float32]], Sequence[int]]
"""A query to the rows of the ten nearest."""


def main() -> None:
    """Measure what was asked for, print it, write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--local", type=int, default=100_000, help="most clips for qdrant-client's local mode")
    parser.add_argument("--gaussian", type=int, default=100_000, help="most clips for vectors in random directions")
    parser.add_argument("--large", nargs="+", default=[], metavar="NAME", help="who is built above 10^5; by default all")
    parser.add_argument("--work", type=Path, help="a folder that keeps our indexes, to search them again without building")
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    base, source = base_vectors()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="vidseek-") as name:
        for num in asked.sizes:
            for kind in ("real", "gaussian"):
                if kind == "gaussian" and num > asked.gaussian:
                    continue
                vectors = draw(base, num, seed=1) if kind == "real" else gaussian(num, seed=1)
                queries = draw(base, NUM_QUERIES, seed=2) if kind == "real" else gaussian(NUM_QUERIES, seed=2)
                folder = (asked.work or Path(name)) / f"{kind}-{num}"
                folder.mkdir(parents=True, exist_ok=True)
                np.save(folder / "vectors.npy", vectors)
                np.save(folder / "queries.npy", queries)
                np.save(folder / "nearest.npy", _exact(vectors, queries))
                del vectors
                for contestant in contestants(num, kind=kind, most_local=asked.local, large=asked.large):
                    row = {"vectors": kind, "num": num, **_alone(contestant, folder)}
                    rows.append(row)
                    print(json.dumps(row), flush=True)  # noqa: T201 - what a benchmark is for
                if not asked.work:
                    shutil.rmtree(folder)
    report = {"machine": _machine(), "drawn_around": source, "num_queries": NUM_QUERIES, "filter": "a tenth of the clips",
              "rows": rows}
    asked.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def contestants(num: int, *, kind: str, most_local: int, large: Sequence[str]) -> list[dict[str, Any]]:
    """Who is measured on so many vectors; ours with its defaults, and what params.yaml offers for large archives."""
    ours = [{"name": "vidseek"}, *([{"name": "vidseek, int8", "quantization": "int8"}] if kind == "real" else [])]
    everybody = [
        *ours, {"name": "faiss HNSW"}, {"name": "numpy, exact"},
        *([{"name": "qdrant-client, local"}] if kind == "real" and num <= most_local else []),
    ]
    return [each for each in everybody if num <= 100_000 or not large or each["name"] in large]


def measure(contestant: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Build in this process, and search."""
    vectors, queries = np.load(folder / "vectors.npy", mmap_mode="r"), np.load(folder / "queries.npy")
    nearest = np.load(folder / "nearest.npy")
    name = contestant["name"]
    if name.startswith("vidseek"):
        return {**contestant, **_ours(vectors, queries, nearest, folder, contestant.get("quantization", "none"))}
    build = {"faiss HNSW": _faiss, "numpy, exact": _numpy, "qdrant-client, local": _local}[name]
    before, start = _resident_mb(), time.perf_counter()
    search = build(vectors)
    return {**contestant, "build_seconds": round(time.perf_counter() - start, 2), **_times(search, queries, nearest),
            "memory_mb": round(_resident_mb() - before), "disk_mb": None}


def _ours(
    vectors: NDArray[np.float32], queries: NDArray[np.float32], nearest: NDArray[np.int64], folder: Path, quantization: Any
) -> dict[str, Any]:
    num, dimension = vectors.shape
    backend = EdgeBackend(folder / f"index-{quantization}")
    name = collection_name(VERSION, "0" * 12)
    metadata = CollectionMetadata(name, VERSION, "0" * 12, dimension, num,
                            IndexSettings(vectors=("video",), quantization=quantization), "2026-01-01T00:00:00",
                            longest_ms=CLIP_MS, calibration=_calibration(queries).to_json())
    if ALIAS not in backend.aliases():
        start = time.perf_counter()
        with backend.building():
            backend.build(metadata, _points(vectors))
            backend.move_alias(ALIAS, Alias(name))
        (backend.root / "build_seconds").write_text(f"{time.perf_counter() - start:.2f}", encoding="utf-8")
    built = float((backend.root / "build_seconds").read_text(encoding="utf-8"))
    before = _resident_mb()
    start = time.perf_counter()
    collection = backend.open(name)
    opened = time.perf_counter() - start
    row_of = {_clip(row)[0]: row for row in range(num)}
    conditions = parse_filters(FILTER)

    def search(query: NDArray[np.float32]) -> list[int]:
        return [row_of[clip.clip_id] for clip in collection.search(query, limit=10)]

    by_ef = {}
    for ef in EFS:
        collection._facts = replace(metadata, settings=metadata.settings.model_copy(update={"hnsw_ef": ef}))
        by_ef[collection.metadata.search_ef] = _times(search, queries, nearest)
    plain = by_ef[metadata.search_ef]
    filtered = _milliseconds(lambda query: collection.search(query, limit=10, conditions=conditions), queries)
    searcher = Searcher.open(backend, None, alias=ALIAS)

    def call(query: NDArray[np.float32], *, words: str = "") -> object:
        return searcher.search(Query.of_vector(query, VERSION, words=words), SearchOptions())

    # The plain searches above were of the same queries, so that what they read is mapped: so must it be for the calls.
    first, whole = _milliseconds(call, queries), _milliseconds(call, queries)
    text = partial(call, words="a crane")
    _milliseconds(text, queries)
    confident = _milliseconds(text, queries)
    return {
        "build_seconds": built, "open_seconds": round(opened, 3), "hnsw_ef": metadata.search_ef, **plain,
        "by_hnsw_ef": by_ef,
        "filtered_p50_ms": filtered[0], "filtered_p99_ms": filtered[1],
        "search_call_p50_ms": whole[0], "search_call_p99_ms": whole[1], "added_ms": round(whole[0] - plain["p50_ms"], 3),
        "first_search_call_p50_ms": first[0],
        "with_confidence_p50_ms": confident[0], "with_confidence_p99_ms": confident[1],
        "memory_mb": round(_resident_mb() - before),
        "disk_mb": round(sum(file.stat().st_size for file in (backend.root / name).rglob("*") if file.is_file()) / 1e6),
    }


def _faiss(vectors: NDArray[np.float32]) -> Search:
    import faiss

    index = faiss.IndexHNSWFlat(vectors.shape[1], FAISS["m"], faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction, index.hnsw.efSearch = FAISS["ef_construct"], FAISS["ef"]
    index.add(np.ascontiguousarray(vectors))
    return lambda query: index.search(query[np.newaxis], 10)[1][0].tolist()


def _numpy(vectors: NDArray[np.float32]) -> Search:
    held = np.ascontiguousarray(vectors)

    def search(query: NDArray[np.float32]) -> list[int]:
        scores = held @ query
        best = np.argpartition(-scores, 10)[:10]
        return best[np.argsort(-scores[best])].tolist()

    return search


def _local(vectors: NDArray[np.float32]) -> Search:
    from qdrant_client import QdrantClient, models

    warnings.simplefilter("ignore")
    client = QdrantClient(":memory:")
    client.create_collection("c", vectors_config=models.VectorParams(
        size=vectors.shape[1], distance=models.Distance.COSINE
    ))
    for start in range(0, len(vectors), 1000):
        batch = vectors[start : start + 1000]
        client.upsert("c", models.Batch(ids=list(range(start, start + len(batch))), vectors=batch.tolist()))
    return lambda query: [int(point.id) for point in client.query_points("c", query=query.tolist(), limit=10).points]


def _times(search: Search, queries: NDArray[np.float32], nearest: NDArray[np.int64]) -> dict[str, float]:
    found: list[Sequence[int]] = []
    p50, p99 = _milliseconds(lambda query: found.append(search(query)), queries)
    shares = [len(set(rows) & set(truth.tolist())) / 10 for rows, truth in zip(found[WARM_UP:], nearest, strict=True)]
    return {"p50_ms": p50, "p99_ms": p99, "recall_at_10": round(float(np.mean(shares)), 4)}


def _milliseconds(ask: Callable[[NDArray[np.float32]], object], queries: NDArray[np.float32]) -> tuple[float, float]:
    """The median and the 99th percentile, one query after the other, after some that are not counted."""
    for query in queries[:WARM_UP]:
        ask(query)
    took = []
    for query in queries:
        start = time.perf_counter()
        ask(query)
        took.append(1000 * (time.perf_counter() - start))
    return round(float(np.median(took)), 3), round(float(np.quantile(took, 0.99)), 3)


def _points(vectors: NDArray[np.float32]) -> Iterator[Point]:
    for row in range(len(vectors)):
        clip_id, video_id, start_ms = _clip(row)
        yield Point(clip_id, vectors[row], {
            "video_id": video_id, "start_ms": start_ms, "end_ms": start_ms + CLIP_MS, "index": row % WINDOWS,
            "title": f"video {row // WINDOWS}", "uri": f"folder/video {row // WINDOWS}.mp4", "duration_ms": 63_000,
            "channel": f"channel {row // WINDOWS % 10}", "encoder_version": VERSION,
        })


def _calibration(vectors: NDArray[np.float32]) -> Calibration:
    """One that costs what a fitted one costs: its numbers say nothing."""
    familiarity = Familiarity.of(["a crane lifts a load"] * len(vectors), vectors)
    return Calibration(VERSION, 1.0, (0.0,) * len(FEATURES), 0.0, 0.5, len(vectors), familiarity=familiarity)


def _clip(row: int) -> tuple[str, str, int]:
    video_id, start_ms = f"{row // WINDOWS:032x}", row % WINDOWS * 1000
    return str(clip_id_of(video_id, start_ms, start_ms + CLIP_MS)), video_id, start_ms


def _exact(vectors: NDArray[np.float32], queries: NDArray[np.float32]) -> NDArray[np.int64]:
    """The rows of the ten nearest of each query: shape (n, 10)."""
    rows = [np.argpartition(-(vectors @ query), 10)[:10] for query in queries]
    return np.stack(rows)


def _alone(contestant: dict[str, Any], folder: Path) -> dict[str, Any]:
    """`measure` in a process of its own, so that memory is one contestant's."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure, contestant, folder).result()


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def _machine() -> dict[str, Any]:
    return {"python": platform.python_version(), "cores": len(os.sched_getaffinity(0)),
            "load_before": round(os.getloadavg()[0], 2)}


if __name__ == "__main__":
    main()
