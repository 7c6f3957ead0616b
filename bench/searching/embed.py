"""How many clips a second go from video files to published points, against a plain loop over the same files.

    make bench-embed         (writes bench/embed.json; ViT-B/32's shape, random weights, videos made here)

Ours is ingest, cut, frames, embed and publish, called one after the other as the stages call them. The loop is what one
would write in forty lines: decord, transformers in eager mode, qdrant-client's local mode. Each turn is a process of its
own with as many threads as the others, and its clock starts when the model is open and has run once. The fastest of
several rounds is told. The vectors must be of the same clips and mean the same, else the times mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bench.machine import machine
from bench.videos.rendered import join_scenes, rendered_scene
from vidseek_encoder.choices import usable_cores
from vidseek_encoder.encoder import Encoder
from vidseek_media.cutting.cut import cut_archive, read_clips
from vidseek_media.frame_store.shards import write_frames
from vidseek_media.settings import CutSettings, FrameSettings
from vidseek_media.sources.ingest import ingest, read_videos
from vidseek_retrieval.embedding.embed_clips import embed_archive
from vidseek_retrieval.embedding.embedding_parts import PARTS_FOLDER, read_parts
from vidseek_retrieval.index.publish import publish

OUT = Path(__file__).parents[1] / "embed.json"
PACKAGES = ("onnxruntime", "torch", "transformers", "av", "decord", "qdrant-edge-py", "qdrant-client", "numpy")
WINDOW_SECONDS = 3
"""Length and stride: no frame belongs to two clips, so that decoding a video once is no advantage."""
NUM_FRAMES, SIDE_PX = 8, 224
OURS = {"vidseek fp32": "fp32", "vidseek int8": "int8"}
"""Contestants, and the variant that each runs."""
PLAIN = "decord + transformers + qdrant-client"
MIN_ITSELF = {"fp32": 0.9, "int8": 0.7}
"""How many clips at least must be nearer to their own vector of the plain loop than to any other clip's."""

Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class Turn:
    """One contestant's turn."""

    seconds: dict[str, float]
    """By step, in order."""
    shares: dict[str, float]
    """Of the wall time of the step `embed`; empty for the loop."""
    keys: list[tuple[str, int]]
    """File and start in ms of each clip."""
    vectors: Matrix
    """A row for each of `keys`."""


def main() -> None:
    """Make videos and bundle, measure in turns, check, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--videos", type=int, default=6)
    parser.add_argument("--scenes", type=int, default=10, help="of each video, about three seconds each")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32, help="frames in one run of the model, for everyone")
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    about = machine(asked.threads, PACKAGES)
    with tempfile.TemporaryDirectory(prefix="vidseek-") as name:
        folder = Path(name)
        for number in range(asked.videos):
            scenes = [rendered_scene(100 * number + scene) for scene in range(asked.scenes)]
            join_scenes(folder / "videos" / f"{number}.mp4", scenes, ["cut"] * (asked.scenes - 1), seed=number)
        _alone(build_models, folder)
        turns: dict[str, list[Turn]] = {contestant: [] for contestant in (*OURS, PLAIN)}
        for _ in range(asked.rounds):
            for contestant in turns:
                run = loop_turn if contestant == PLAIN else our_turn
                turns[contestant].append(_alone(run, folder, OURS.get(contestant), asked.threads, asked.batch))
                Console(stderr=True, width=180).print(contestant, turns[contestant][-1].seconds)
    report = {
        "machine": about, "videos": asked.videos, "clips": len(turns[PLAIN][0].keys), "batch": asked.batch,
        "rounds": asked.rounds, "shape": "CLIP ViT-B/32, 8 frames a clip, random weights", "rows": rows_of(turns),
    }
    asked.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    show(report)


def build_models(folder: Path) -> None:
    """The bundle in `bundle/`, and the same weights in `plain/` for transformers."""
    from bench.shapes import build_clip

    (folder / "bundle").mkdir()
    build_clip(folder / "bundle")[0].save_pretrained(folder / "plain")


class Timed(Encoder):
    """An encoder that adds up its seconds."""

    whole_seconds = 0.0
    """With preprocessing."""
    session_seconds = 0.0
    """Of the model alone."""

    def embed_frames(
        self, clips: NDArray[np.uint8] | Sequence[NDArray[np.uint8]], *, steady: bool = False
    ) -> Matrix:
        """As the encoder does."""
        begin = time.perf_counter()
        vectors = super().embed_frames(clips, steady=steady)
        self.whole_seconds += time.perf_counter() - begin
        return vectors

    def _run_batch(self, model: str, inputs: NDArray[Any], *, least: int = 1) -> Matrix:
        begin = time.perf_counter()
        vectors = super()._run_batch(model, inputs, least=least)
        self.session_seconds += time.perf_counter() - begin
        return vectors


def our_turn(folder: Path, variant: str, threads: int, batch: int) -> Turn:
    """The rooms' own functions, in the order of the stages."""
    encoder = Timed.load(folder / "bundle", variant=variant, threads=threads, batch=batch, towers=("video",))
    encoder.embed_images(np.zeros((1, SIDE_PX, SIDE_PX, 3), dtype=np.uint8))
    assert isinstance(encoder, Timed)
    encoder.whole_seconds = encoder.session_seconds = 0.0
    with _fresh(folder / "ours") as data:
        steps: dict[str, Callable[[], object]] = {
            "ingest": lambda: ingest(
                folder / "videos", out=data / "ingest", ledger=data / "ledger", timeout_seconds=60, workers=threads
            ),
            "cut": lambda: cut_archive(
                data / "ingest", out=data / "cut", settings=CutSettings(
                    modes=("windows",), window_length_seconds=WINDOW_SECONDS, window_stride_seconds=WINDOW_SECONDS,
                ),
            ),
            "frames": lambda: write_frames(
                folder / "videos", data / "ingest", data / "cut", out=data / "frames",
                settings=FrameSettings(num_frames=NUM_FRAMES, side_px=SIDE_PX, workers=threads),
            ),
            "embed": lambda: embed_archive(data / "frames", encoder, out=data / "embed", batch=batch),
            "publish": lambda: publish(data / "embed", data / "cut", data / "ingest", index=data / "index"),
        }
        seconds = {name: _seconds(step) for name, step in steps.items()}
        uris = {video.video_id: video.uris[0] for video in read_videos(data / "ingest")}
        spans = {str(clip.clip_id): (uris[clip.video_id], clip.start_ms) for clip in read_clips(data / "cut")}
        found = read_parts(data / "embed" / PARTS_FOLDER)
    shares = {"session": encoder.session_seconds, "encoder": encoder.whole_seconds}
    return Turn(
        seconds, {name: spent / seconds["embed"] for name, spent in shares.items()},
        [spans[clip_id] for clip_id in found.clip_ids], found.vectors,
    )


def loop_turn(folder: Path, _: None, threads: int, batch: int) -> Turn:
    """The plain loop: a video after the other, `batch` frames in a run, points upserted as they come."""
    import decord
    import torch
    from qdrant_client import QdrantClient, models
    from transformers import CLIPImageProcessorPil, CLIPModel

    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    model, processor = CLIPModel.from_pretrained(folder / "plain").eval(), CLIPImageProcessorPil()
    keys: list[tuple[str, int]] = []
    vectors: list[Matrix] = []

    def embed(clips: list[NDArray[np.uint8]]) -> Matrix:
        pixels = processor(images=list(np.concatenate(clips)), return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            frames = model.get_image_features(pixel_values=pixels).pooler_output
        frames = torch.nn.functional.normalize(frames, dim=-1).reshape(len(clips), NUM_FRAMES, -1)
        return torch.nn.functional.normalize(frames.mean(dim=1), dim=-1).numpy()

    def run(client: QdrantClient) -> None:
        client.create_collection("clips", vectors_config=models.VectorParams(size=512, distance=models.Distance.COSINE))
        for path in sorted((folder / "videos").iterdir()):
            reader = decord.VideoReader(str(path), num_threads=threads)
            starts = _starts(len(reader) / reader.get_avg_fps())
            step = max(1, batch // NUM_FRAMES)
            for some in (starts[at : at + step] for at in range(0, len(starts), step)):
                rows = embed([_frames_of(reader, start) for start in some])
                client.upsert("clips", [
                    models.PointStruct(id=str(uuid.uuid4()), vector=row.tolist(), payload={
                        "file": path.name, "start_ms": 1000 * start, "end_ms": 1000 * (start + WINDOW_SECONDS),
                    }) for start, row in zip(some, rows, strict=True)
                ])
                keys.extend((path.name, 1000 * start) for start in some)
                vectors.append(rows)

    with _fresh(folder / "loop") as data:
        client = QdrantClient(path=str(data))
        embed([np.zeros((NUM_FRAMES, SIDE_PX, SIDE_PX, 3), dtype=np.uint8)])
        seconds = {"all": _seconds(lambda: run(client))}
        assert client.count("clips").count == len(keys)
        client.close()
    return Turn(seconds, {}, keys, np.concatenate(vectors))


def rows_of(turns: dict[str, list[Turn]]) -> list[dict[str, Any]]:
    """A row for each contestant: its fastest turn, and how it compares with the loop's."""
    best = {name: min(each, key=lambda turn: sum(turn.seconds.values())) for name, each in turns.items()}
    plain_seconds = sum(best[PLAIN].seconds.values())
    rows = []
    for name, turn in best.items():
        seconds = sum(turn.seconds.values())
        row: dict[str, Any] = {
            "contestant": name, "clips_per_second": round(len(turn.keys) / seconds, 3),
            "times_plain": round(plain_seconds / seconds, 2),
            "seconds": {step: round(spent, 2) for step, spent in turn.seconds.items()},
        }
        if name in OURS:
            row["share_of_embed"] = {what: round(share, 3) for what, share in turn.shares.items()}
            row["agreement"] = agreement(turn, best[PLAIN], least=MIN_ITSELF[OURS[name]])
        rows.append(row)
    return rows


def agreement(ours: Turn, plain: Turn, *, least: float) -> dict[str, float]:
    """How alike the vectors of the same clips are.

    Raises:
        SystemExit: other clips, or vectors that do not tell one clip from another as the loop's do.
    """
    rows = {key: row for row, key in enumerate(plain.keys)}
    if sorted(ours.keys) != sorted(plain.keys):
        raise SystemExit(f"the clips differ: {sorted(set(ours.keys) ^ set(plain.keys))[:5]}")
    own = np.array([rows[key] for key in ours.keys])
    # Random weights put all pictures into a narrow cone: what they share is taken away.
    mean = plain.vectors.mean(axis=0)
    cosines = _unit(ours.vectors - mean) @ _unit(plain.vectors - mean).T
    found = {
        "mean_cosine": round(float((ours.vectors * plain.vectors[own]).sum(axis=1).mean()), 5),
        "mean_cosine_centred": round(float(cosines[np.arange(len(own)), own].mean()), 4),
        "nearest_is_itself": round(float((cosines.argmax(axis=1) == own).mean()), 3),
    }
    if found["nearest_is_itself"] < least:
        raise SystemExit(f"the vectors mean something else: {found}, wanted at least {least} nearest to themselves")
    return found


def show(report: dict[str, Any]) -> None:
    """Print the table."""
    table = Table("contestant", "clips/s", "times the loop", "seconds", "of embed inside session, encoder", "agreement")
    for row in report["rows"]:
        shares = row.get("share_of_embed", {})
        table.add_row(
            row["contestant"], str(row["clips_per_second"]), str(row["times_plain"]),
            ", ".join(f"{step} {spent}" for step, spent in row["seconds"].items()),
            ", ".join(str(share) for share in shares.values()), str(row.get("agreement", {}).get("nearest_is_itself", "")),
        )
    console = Console(width=180)
    console.print(report["machine"], f"{report['clips']} clips of {report['videos']} videos")
    console.print(table)


def _alone(run: Callable[..., Any], *arguments: Any) -> Any:
    """`run` in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(run, *arguments).result()


@contextmanager
def _fresh(folder: Path) -> Iterator[Path]:
    """An empty folder that vanishes: each turn makes everything anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    os.sync()  # what an earlier turn wrote is not this one's to wait for
    yield folder
    shutil.rmtree(folder)


def _seconds(step: Callable[[], object]) -> float:
    begin = time.perf_counter()
    step()
    return time.perf_counter() - begin


def _starts(seconds: float) -> list[int]:
    """The windows' starts, in seconds; a tail of at least half a window is one."""
    whole, tail = divmod(seconds, WINDOW_SECONDS)
    return [WINDOW_SECONDS * place for place in range(int(whole) + (2 * tail >= WINDOW_SECONDS))]


def _frames_of(reader: Any, start: int) -> NDArray[np.uint8]:
    """The frames at the centres of equal bins of a window."""
    fps, end = reader.get_avg_fps(), min(start + WINDOW_SECONDS, len(reader) / reader.get_avg_fps())
    times = [start + (place + 0.5) * (end - start) / NUM_FRAMES for place in range(NUM_FRAMES)]
    return reader.get_batch([min(int(each * fps), len(reader) - 1) for each in times]).asnumpy()


def _unit(rows: Matrix) -> Matrix:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


if __name__ == "__main__":
    main()
