"""How fast bundles of CLIP ViT-B/32's shape encode, against transformers in eager mode on the same cores.

    make bench-encode        (writes bench/encode.json; weights are random, so nothing is said of what vectors mean)

Each figure is the fastest of several rounds, and in each round every contestant has its turn: what else runs on the
machine slows all alike, and the ratios are those of one run. Forward only, but for the rows that say `end to end`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
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
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

from vidseek_encoder.encoder import Encoder
from vidseek_encoder.providers import usable_cores
from vidseek_training.backbones.base import BackboneSpec
from vidseek_training.backbones.clip import FrameAveragedCLIP
from vidseek_training.export import write_unproven

OUT = Path(__file__).with_name("encode.json")
WORDS = 14
"""Of a query: with start and end 16 tokens, as in the trial."""
FLAGS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8")
_CLIP_MEAN, _CLIP_DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

Run = Callable[[], object]


def main() -> None:
    """Build the bundle, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    with tempfile.TemporaryDirectory(prefix="vidseek-") as folder:
        clip, tokenizer = build_clip(Path(folder))
        encoders = {
            name: Encoder.load(Path(folder), variant=name, threads=asked.threads, batch=64) for name in ("fp32", "int8")
        }
        rows = measure(clip, tokenizer, encoders, batches=asked.batches, rounds=asked.rounds)
    rate = matrix_rate(encoders["fp32"], threads=asked.threads, rounds=asked.rounds)
    report = {
        "machine": machine(asked.threads), "shape": "CLIP ViT-B/32, random weights", "rows": rows,
        "share_of_matrix_rate": rate,
    }
    OUT.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    show(report)


def build_clip(folder: Path) -> tuple[CLIPModel, Tokenizer]:
    """A CLIP of the sizes of ViT-B/32, and a bundle of it in `folder`, with fp32 and int8."""
    tokenizer = whole_words()
    words = folder.parent / "words.json"
    tokenizer.save(str(words))
    torch.manual_seed(0)
    config = CLIPConfig()
    config.text_config.bos_token_id, config.text_config.eos_token_id = 1, 3
    config._attn_implementation = "sdpa"
    clip = CLIPModel(config).eval()
    spec = BackboneSpec(
        family="clip", name="random", dimension=512, context=77, frames=8, side=224, resize="crop", mean=_CLIP_MEAN,
        deviation=_CLIP_DEVIATION, pad_id=0, tokenizer=words,
    )
    write_unproven(FrameAveragedCLIP(spec, clip), folder, variants=("int8",))
    return clip, tokenizer


def whole_words() -> Tokenizer:
    """A tokenizer of one token a word."""
    vocabulary = {"<pad>": 0, "<start>": 1, "<unk>": 2, "<end>": 3} | {f"word{number}": number + 4 for number in range(1000)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 1), ("<end>", 3)]
    )
    return tokenizer


def measure(
    clip: CLIPModel, tokenizer: Tokenizer, encoders: dict[str, Encoder], *, batches: list[int], rounds: int
) -> list[dict[str, Any]]:
    """A row for each kind of work and batch: milliseconds of each contestant, and how many times faster we are."""
    rng = np.random.default_rng(0)
    processor = CLIPImageProcessorPil()
    rows = []
    for batch in batches:
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

        def eager_text_whole(texts: list[str] = texts) -> object:
            encodings = tokenizer.encode_batch_fast(texts)
            return eager_text(np.array([encoding.ids for encoding in encodings], dtype=np.int64))

        def eager_pictures(pictures: NDArray[np.uint8] = pictures) -> object:
            images = [Image.fromarray(picture) for picture in pictures]
            return eager_frames(processor(images=images, return_tensors="np")["pixel_values"])

        works: dict[str, tuple[Run, Callable[[Encoder], Run]]] = {
            "text": (eager_text, lambda encoder, ids=ids: lambda: encoder._run("text", ids)),
            "frames": (eager_frames, lambda encoder, pixels=pixels: lambda: encoder._run("frame", pixels)),
            "text, end to end": (eager_text_whole, lambda encoder, texts=texts: lambda: encoder.embed_texts(texts)),
            "640 x 360 pictures, end to end": (
                eager_pictures, lambda encoder, pictures=pictures: lambda: encoder.embed_images(pictures)
            ),
        }
        for name, (eager, ours) in works.items():
            runs = {"transformers": eager, **{variant: ours(encoder) for variant, encoder in encoders.items()}}
            best = fastest(runs, rounds=rounds)
            row = {"work": name, "batch": batch, **{f"{each}_ms": round(best[each] * 1e3, 2) for each in best}}
            rows.append(row | {f"{each}_times": round(best["transformers"] / best[each], 2) for each in encoders})
    return rows


def fastest(runs: dict[str, Run], *, rounds: int) -> dict[str, float]:
    """Seconds of the fastest of `rounds` turns of each."""
    best = dict.fromkeys(runs, float("inf"))
    for turn in range(rounds + 1):
        for name, run in runs.items():
            begin = time.perf_counter()
            run()
            if turn:  # the first one warms up
                best[name] = min(best[name], time.perf_counter() - begin)
    return best


def matrix_rate(encoder: Encoder, *, threads: int, rounds: int) -> dict[str, float]:
    """Of 32 frames in fp32: the arithmetic of its large matrix products, as a share of the rate that onnxruntime reaches
    on these cores for the same products alone."""
    batch, tokens, width = 32, 50, 768
    products = [(width, width)] * 4 + [(width, 4 * width), (4 * width, width)]
    pixels = np.random.default_rng(0).normal(size=(batch, 3, 224, 224)).astype(np.float32)
    sessions = [(_product(k, n, threads=threads), np.zeros((batch * tokens, k), np.float32)) for k, n in products]

    def alone() -> object:
        return [session.run(None, {"x": rows}) for session, rows in sessions for _ in range(12)]

    best = fastest({"products": alone, "frames": lambda: encoder._run("frame", pixels)}, rounds=max(2, rounds // 2))
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


def machine(threads: int) -> dict[str, Any]:
    """What the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    flags = set(facts.get("flags", "").split())
    return {
        "cpu": facts.get("model name", ""), "flags": [flag for flag in FLAGS if flag in flags], "threads": threads,
        "load_1min": round(float(Path("/proc/loadavg").read_text().split()[0]), 2),
        "versions": {name: version(name) for name in ("torch", "transformers", "onnxruntime", "numpy")},
    }


def show(report: dict[str, Any]) -> None:
    """Print the table."""
    table = Table("work", "batch", "transformers ms", "fp32 ms", "int8 ms", "fp32 times", "int8 times")
    for row in report["rows"]:
        table.add_row(*(str(row[name]) for name in (
            "work", "batch", "transformers_ms", "fp32_ms", "int8_ms", "fp32_times", "int8_times"
        )))
    console = Console()
    console.print(report["machine"])
    console.print(table)
    console.print("of the matrix products alone:", report["share_of_matrix_rate"])


if __name__ == "__main__":
    main()
