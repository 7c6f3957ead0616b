"""How fast bundles of ViT-B/32's and X-CLIP B/32's shapes encode: against transformers in eager mode, sentence-transformers
and open_clip.

    make bench-encode        (writes bench/encode.json; weights are random, so nothing is said of what vectors mean)

Each figure is the fastest of several rounds, and in each round every contestant has its turn (see bench.turns): what else
runs on the machine slows all alike, and the ratios are those of one run. Forward only, but where a row says `end to end`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from PIL import Image
from rich.console import Console
from rich.table import Table
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from tokenizers import Tokenizer
from transformers import CLIPImageProcessorPil, CLIPModel, XCLIPModel

from bench.machine import machine
from bench.shapes import FRAMES, build_clip, build_xclip, save_for_transformers
from bench.turns import turn
from vidseek_encoder.choices import usable_cores
from vidseek_encoder.encoder import Encoder

OUT = Path(__file__).parents[1] / "encode.json"
OTHERS = Path(__file__).parents[2] / ".vidseek" / "bench-others"
"""What `make bench-encode` installs for open_clip."""
WORDS = 14
"""Of a query: with start and end 16 tokens, as in the trial."""
PICTURES = "640 x 360 pictures, end to end"

Run = Callable[[], object]
Timed = Callable[[], float]
"""A turn that gives the seconds of a run."""


def main() -> None:
    """Build the bundles, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    with tempfile.TemporaryDirectory(prefix="vidseek-") as name, open_clip(asked.threads) as peer:
        folder = Path(name)
        clip, encoders, tokenizer = opened(folder / "clip", threads=asked.threads)
        save_for_transformers(clip, folder / "transformers")
        sentences = SentenceTransformer(modules=[Transformer(str(folder / "transformers"))], device="cpu")
        rows = []
        for batch in asked.batches:
            works = clip_works(clip, tokenizer, encoders, sentences, batch)
            rows += measure(works, peer, batch=batch, rounds=asked.rounds)
        rate = matrix_rate(encoders["fp32"], threads=asked.threads, rounds=asked.rounds)
        del clip, encoders, sentences
        xclip, encoders, _ = opened(folder / "xclip", threads=asked.threads)
        for batch in asked.batches[:2]:  # 32 clips of 8 frames take transformers a quarter of a minute
            rows += measure(xclip_works(xclip, encoders, batch), None, batch=batch, rounds=min(3, asked.rounds))
    report = {
        "machine": machine(asked.threads, ("torch", "transformers", "sentence-transformers", "onnxruntime", "numpy")),
        "shapes": "CLIP ViT-B/32 and X-CLIP B/32 with 8 frames, random weights",
        "open_clip": peer.version if peer else f"not there: {OTHERS} is missing, `make bench-encode` installs it",
        "rows": rows, "share_of_matrix_rate": rate,
    }
    asked.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    show(report)


def opened(folder: Path, *, threads: int) -> tuple[Any, dict[str, Encoder], Tokenizer | None]:
    """The model of the shape that `folder` is named after, its bundle's variants, and its tokenizer."""
    folder.mkdir()
    model, tokenizer = build_clip(folder) if folder.name == "clip" else (build_xclip(folder), None)
    return model, {
        name: Encoder.load(folder, variant=name, threads=threads, batch=64) for name in ("fp32", "int8")
    }, tokenizer


def clip_works(
    clip: CLIPModel, tokenizer: Tokenizer | None, encoders: Mapping[str, Encoder], sentences: SentenceTransformer, batch: int
) -> dict[str, dict[str, Run]]:
    """For each kind of work what each contestant runs."""
    assert tokenizer is not None
    rng = np.random.default_rng(0)
    processor = CLIPImageProcessorPil()
    texts = [" ".join(f"word{number}" for number in rng.integers(0, 1000, WORDS)) for _ in range(batch)]
    ids = encoders["fp32"]._tokenizer.encode(texts, trim=True)
    pixels = rng.normal(size=(batch, 3, 224, 224)).astype(np.float32)
    pictures = rng.integers(0, 256, (batch, 360, 640, 3), dtype=np.uint8)

    def eager_text(ids: NDArray[np.int64] = ids) -> object:
        with torch.inference_mode():
            return clip.get_text_features(input_ids=torch.from_numpy(ids)).pooler_output

    def eager_frames(pixels: NDArray[np.float32] = pixels) -> object:
        with torch.inference_mode():
            return clip.get_image_features(pixel_values=torch.from_numpy(pixels)).pooler_output

    def eager_text_whole() -> object:
        return eager_text(np.array([each.ids for each in tokenizer.encode_batch_fast(texts)], dtype=np.int64))

    def eager_pictures() -> object:
        images = [Image.fromarray(picture) for picture in pictures]
        return eager_frames(processor(images=images, return_tensors="np")["pixel_values"])

    def of_all(eager: Run, ours: Callable[[Encoder], object]) -> dict[str, Run]:
        return {"transformers": eager} | {
            name: (lambda encoder=encoder: ours(encoder)) for name, encoder in encoders.items()  # type: ignore[misc]
        }

    images = [Image.fromarray(picture) for picture in pictures]
    works = {
        "text": of_all(eager_text, lambda encoder: encoder._run("text", [ids])),
        "frames": of_all(
            eager_frames, lambda encoder: encoder._run("frame", encoder._batches("frame", pixels, encoder.batch))
        ),
        "text, end to end": of_all(eager_text_whole, lambda encoder: encoder.embed_texts(texts)),
        PICTURES: of_all(eager_pictures, lambda encoder: encoder.embed_images(pictures)),
    }
    told = {"batch_size": batch, "normalize_embeddings": True, "show_progress_bar": False}
    works["text, end to end"]["sentence-transformers"] = lambda: sentences.encode(texts, **told)
    works[PICTURES]["sentence-transformers"] = lambda: sentences.encode(images, **told)
    return works


def xclip_works(xclip: XCLIPModel, encoders: Mapping[str, Encoder], batch: int) -> dict[str, dict[str, Run]]:
    """The same for clips of X-CLIP."""
    pixels = np.random.default_rng(0).normal(size=(batch, FRAMES, 3, 224, 224)).astype(np.float32)

    def eager() -> object:
        with torch.inference_mode():
            return xclip.get_video_features(pixel_values=torch.from_numpy(pixels)).pooler_output

    ours: dict[str, Run] = {
        name: (lambda encoder=encoder: encoder._run("video", encoder._batches("video", pixels, encoder.batch)))  # type: ignore[misc]
        for name, encoder in encoders.items()
    }
    return {"X-CLIP, clips of 8 frames": {"transformers": eager, **ours}}


def measure(
    works: Mapping[str, Mapping[str, Run]], peer: OpenClip | None, *, batch: int, rounds: int
) -> list[dict[str, Any]]:
    """A row for each kind of work: milliseconds of each contestant, and how many times faster than transformers we are."""
    rows = []
    for work, runs in works.items():
        timed: dict[str, Timed] = {name: partial(turn, run) for name, run in runs.items()}
        if peer is not None:
            timed["open_clip"] = lambda work=work: peer.run(work, batch)  # type: ignore[misc]
        best = fastest(timed, rounds=rounds)
        row = {"work": work, "batch": batch, **{f"{name}_ms": round(best[name] * 1e3, 2) for name in best}}
        ours = {f"{name}_times": round(best["transformers"] / best[name], 2) for name in ("fp32", "int8")}
        rows.append(row | ours)
        Console(stderr=True, width=200).print(rows[-1])
    return rows


def fastest(runs: Mapping[str, Timed], *, rounds: int) -> dict[str, float]:
    """Seconds of the fastest of `rounds` turns of each; one turn before them warms up."""
    turns = [{name: run() for name, run in runs.items()} for _ in range(rounds + 1)][1:]
    return {name: min(turn[name] for turn in turns) for name in runs}


class OpenClip:
    """open_clip in a process of its own: see `bench.teaching.open_clip_peer`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.version = str(self._answer()["version"])

    def run(self, work: str, batch: int) -> float:
        """Seconds of a run there, of a turn like the others'."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"work": work, "batch": batch}) + "\n")
        self._process.stdin.flush()
        return float(self._answer()["seconds"])

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("open_clip's process ended; what it said is above")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def open_clip(threads: int) -> Iterator[OpenClip | None]:
    """The contestant, or None where it was not installed."""
    if not (OTHERS / "open_clip").is_dir():
        yield None
        return
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(OTHERS), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "bench.teaching.open_clip_peer", str(threads)]
    with subprocess.Popen(
        command, cwd=Path(__file__).parents[2], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield OpenClip(process)
        process.kill()


def matrix_rate(encoder: Encoder, *, threads: int, rounds: int) -> dict[str, float]:
    """Of 32 frames in fp32: the arithmetic of its large matrix products, as a share of the rate that onnxruntime reaches
    on these cores for the same products alone."""
    batch, tokens, width = 32, 50, 768
    products = [(width, width)] * 4 + [(width, 4 * width), (4 * width, width)]
    pixels = np.random.default_rng(0).normal(size=(batch, 3, 224, 224)).astype(np.float32)
    sessions = [(_product(k, n, threads=threads), np.zeros((batch * tokens, k), np.float32)) for k, n in products]

    def alone() -> object:
        return [session.run(None, {"x": rows}) for session, rows in sessions for _ in range(12)]

    def frames() -> object:
        return encoder._run("frame", encoder._batches("frame", pixels, encoder.batch))

    runs = {"products": partial(turn, alone), "frames": partial(turn, frames)}
    best = fastest(runs, rounds=max(2, rounds // 2))
    flops = 12 * sum(2 * batch * tokens * k * n for k, n in products)
    return {
        "products_gflops": round(flops / best["products"] / 1e9, 1), "share": round(best["products"] / best["frames"], 3)
    }


def _product(k: int, n: int, *, threads: int) -> ort.InferenceSession:
    weights = helper.make_tensor("w", TensorProto.FLOAT, [k, n], np.ones((k, n), np.float32).tobytes(), raw=True)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", k])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", n])], [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def show(report: Mapping[str, Any]) -> None:
    """Print the table, as docs/encoder.md has it."""
    names: Sequence[str] = (
        "work", "batch", "transformers_ms", "sentence-transformers_ms", "open_clip_ms", "fp32_ms", "int8_ms",
        "fp32_times", "int8_times",
    )
    table = Table(*names)
    for row in report["rows"]:
        table.add_row(*(str(row.get(name, "")) for name in names))
    console = Console(width=160)
    console.print(report["machine"], report["open_clip"])
    console.print(table)
    console.print("of the matrix products alone:", report["share_of_matrix_rate"])


if __name__ == "__main__":
    main()
