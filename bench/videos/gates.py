"""How long all gates take over a made archive of a million rows a table. Run: python -m bench.videos.gates.

Clips, frames, captions, pairs and embeddings have `--rows` rows each, videos a tenth as many. What is measured is what a
stage does: from the Parquet files to the report and the Data Docs. Imports, and making the tables, are not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from vidseek_media.ids import clip_ids_of
from vidseek_media.tables import CAPTIONS, CLIPS, FRAMES, GROUPS, PAIRS, REJECTED, VIDEOS, write_table
from vidseek_quality.gates import check_embeddings, check_pairs

CLIPS_PER_VIDEO = 10
CLIP_MS = 3000
ENCODER_VERSION = "0" * 16
NUM_PARTS = 16
STAGES = ("ingest", "cut", "frames", "caption", "pairs")
WORDS = ("red", "blue", "small", "large", "ball", "cube", "truck", "dog", "man", "woman", "runs", "turns", "falls", "on",
         "in", "the", "grass", "water", "street", "left", "right")


def make_archive(folder: Path, *, num_rows: int, dimension: int) -> None:
    """The tables that a sound archive of `num_rows` clips has, all that the gates read."""
    rng = np.random.default_rng(0)
    num_videos = -(-num_rows // CLIPS_PER_VIDEO)
    ids = np.array([f"{number:032x}" for number in range(num_videos)], dtype=object)
    of, index = np.arange(num_rows) // CLIPS_PER_VIDEO, np.arange(num_rows) % CLIPS_PER_VIDEO
    video_id, start_ms = ids[of], index * CLIP_MS
    clip_id = clip_ids_of(video_id, start_ms, start_ms + CLIP_MS)
    texts = np.array(WORDS, dtype=object)[rng.integers(len(WORDS), size=(num_rows, 6))]
    text = np.array([" ".join(words) for words in texts], dtype=object)
    split = np.array(["train", "validation", "test"], dtype=object)[rng.choice(3, size=num_videos, p=[0.7, 0.15, 0.15])][of]
    nothing = dict.fromkeys(("split", "gallery", "contrast", "axis"), "")
    duration_ms = CLIPS_PER_VIDEO * CLIP_MS
    about: dict[str, Any] = {**dict.fromkeys(VIDEOS.names, ""), "views": None}
    write_table(folder / "ingest" / "videos.parquet", pd.DataFrame({
        **{name: [value] * num_videos for name, value in about.items()}, "video_id": ids,
        "uris": [[f"{number}.mp4"] for number in range(num_videos)], "duration_ms": duration_ms, "fps": 25.0,
        "width": 640, "height": 360, "codec": "h264",
    }), VIDEOS)
    write_table(folder / "cut" / "clips.parquet", pd.DataFrame({
        "clip_id": clip_id, "video_id": video_id, "index": index, "start_ms": start_ms, "end_ms": start_ms + CLIP_MS,
        "cut": [["windows"]] * num_rows,
    }), CLIPS)
    write_table(folder / "frames" / "frames.parquet", pd.DataFrame({
        "clip_id": clip_id, "video_id": video_id, "key": clip_id, "shard": "all.tar", "num_frames": 8,
        "num_repeated": 0, "decoder": "pyav", "quality_flags": [[]] * num_rows,
        "hashes": list(rng.integers(2**63, size=(num_rows, 8), dtype=np.uint64)), "frames_digest": clip_id, "offset": 0,
        "num_bytes": 1,
    }), FRAMES)
    write_table(folder / "caption" / "captions.parquet", pd.DataFrame({
        "video_id": video_id, "clip_id": clip_id, "text": text, "writer": "file", "cost_usd": 0.0, "model": "", **nothing,
    }), CAPTIONS)
    write_table(folder / "pairs" / "pairs.parquet", pd.DataFrame({
        "clip_id": clip_id, "video_id": video_id, "caption": text, **nothing, "split": split, "gallery": "default",
        "frames_digest": clip_id, "writer": "file",
    }), PAIRS)
    write_table(folder / "pairs" / "groups.parquet", pd.DataFrame({"video_id": ids, "group": ids}), GROUPS)
    for stage in STAGES:
        write_table(folder / stage / "rejected.parquet", [], REJECTED)
    _make_parts(folder / "parts", clip_id, dimension, rng)


def _make_parts(parts: Path, clip_id: np.ndarray, dimension: int, rng: np.random.Generator) -> None:
    parts.mkdir()
    for number, own in enumerate(np.array_split(np.sort(clip_id), NUM_PARTS)):
        values = rng.standard_normal((len(own), dimension), dtype=np.float32)
        values /= np.linalg.norm(values, axis=1, keepdims=True)
        pq.write_table(pa.table({
            "clip_id": pa.array(own, pa.string()),
            "values": pa.ListArray.from_arrays(np.arange(len(own) + 1, dtype=np.int32) * dimension, values.ravel()),
            "encoder_version": pa.array([ENCODER_VERSION] * len(own)), "variant": pa.array(["fp32"] * len(own)),
        }), parts / f"{number:02d}.parquet")


def measured(run: Callable[[], object]) -> dict[str, float]:
    """Seconds of wall and of CPU (user and system, all threads)."""
    wall, cpu = time.monotonic(), time.process_time()
    run()
    return {"wall_seconds": round(time.monotonic() - wall, 2), "cpu_seconds": round(time.process_time() - cpu, 2)}


def main() -> None:
    """Make the tables, run both gates, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--out", type=Path, default=Path("bench/gates.json"))
    args = parser.parse_args()
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import vidseek_quality.validation  # noqa: F401 - its import is not counted

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_archive(folder, num_rows=args.rows, dimension=args.dimension)
        report: dict[str, object] = {"rows": args.rows, "dimension": args.dimension, "cores": os.cpu_count()}
        report["pairs"] = measured(lambda: check_pairs(
            *(folder / stage for stage in STAGES), out=folder / "reports" / "pairs",
        ))
        report["embeddings"] = measured(lambda: check_embeddings(
            folder / "parts", folder / "frames" / "frames.parquet", out=folder / "reports" / "embeddings",
            dimension=args.dimension, encoder_version=ENCODER_VERSION, variant="fp32",
        ))
        report["all"] = {
            key: round(report["pairs"][key] + report["embeddings"][key], 2)  # type: ignore[index]
            for key in ("wall_seconds", "cpu_seconds")
        }
        report["peak_mib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    args.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=2))  # noqa: T201 - this is the command's answer


if __name__ == "__main__":
    main()
