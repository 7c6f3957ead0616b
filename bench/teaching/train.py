"""How fast adapters are trained on CLIP of ViT-B/32's shape: against a plain loop, and against sentence-transformers.

    make bench-train         (writes bench/train.json; weights are random; about half an hour on two quiet cores)

`plain` is what one writes in an afternoon: transformers and peft, and every epoch decodes each clip's 8 frames from the
video with decord. `ours` learns from shards that were written once. Both have the same LoRA, loss, optimiser, batch and
precision (fp32), and the same gradients of the same frames, which is checked first. `ours in bf16` is what a processor
that can gets by default. Every contestant is a process of its own, and in each round all have their turn: ratios are
those of one run. An epoch's time leaves out what is done once (loading, shards, features below the adapters), which
stands beside it.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bench.videos import media
from vidseek_media.settings import CutSettings, FrameSettings
from vidseek_training.settings import CaptionSettings, PairSettings

OUT = Path(__file__).parents[1] / "train.json"
FRAMES, SIDE = 8, 224
QUICK = "VIDSEEK_BENCH_QUICK" in os.environ
"""Whether every contestant is only to be seen working: figures of two clips are worth nothing."""
NUM_CLIPS, BATCH, SECONDS, EPOCHS = (2, 2, 2, 1) if QUICK else (32, 16, 10, 2)
RANK, ALPHA, RATE = 32, 64, 1.0e-4
UPPER = 4
MEMORY_CLIPS, MEMORY_CHUNK = (4, 2) if QUICK else (64, 8)
PICTURES, PICTURES_CHUNK = (4, 2) if QUICK else (64, 16)
THREADS = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))


def make(work: Path) -> None:
    """Backbone, source, shards and pairs in `work`, what is there already stays."""
    from vidseek_media.cutting.cut import cut_archive
    from vidseek_media.frame_store.shards import write_frames
    from vidseek_media.sources.ingest import ingest
    from vidseek_training.captioning.captions import write_captions
    from vidseek_training.dataset.pairs import make_pairs

    if not (work / "backbone" / "model.safetensors").is_file():
        _write_backbone(work / "backbone")
    for gop in media.GOPS:
        source, root = work / f"videos_{gop}", work / f"archive_{gop}"
        if (root / "seconds.json").is_file():
            continue
        source.mkdir(parents=True, exist_ok=True)
        captions = [caption_of(number) for number in range(NUM_CLIPS)]
        for number in range(NUM_CLIPS):
            media.make_video(source / f"{number:03}.mp4", gop=gop, seed=number, seconds=SECONDS)
        rows = "".join(f"{number:03}.mp4,{caption},train\n" for number, caption in enumerate(captions))
        (source / "captions.csv").write_text("file,caption,split\n" + rows, encoding="utf-8")
        ingest(source, out=root / "ingest", ledger=root / "ledger", timeout_seconds=60, workers=1)
        cut_archive(root / "ingest", out=root / "cut", settings=CutSettings(
            modes=("captions",), window_length_seconds=SECONDS, window_stride_seconds=SECONDS,
        ))
        began = time.monotonic()
        write_frames(
            source, root / "ingest", root / "cut", out=root / "frames",
            settings=FrameSettings(num_frames=FRAMES, side_px=SIDE, workers=THREADS),
        )
        seconds = time.monotonic() - began
        write_captions(
            root / "ingest", root / "cut", out=root / "caption",
            settings=CaptionSettings(sources=("file",)),
        )
        make_pairs(
            root / "ingest", root / "caption", root / "frames", out=root / "pairs",
            memory=root / "memory",
            settings=PairSettings(validation_share=0.0, test_share=0.0, seed=0, near_duplicate_bits=None),
        )
        (root / "seconds.json").write_text(json.dumps({"shards": round(seconds, 2)}), encoding="utf-8")


def caption_of(number: int) -> str:
    """Fourteen words: with start and end 16 tokens."""
    return " ".join(f"word{word}" for word in np.random.default_rng(number).integers(1000, size=14))


def _write_backbone(folder: Path) -> None:
    """A CLIP of ViT-B/32's sizes with random weights, as both transformers and we read one."""
    from transformers import CLIPConfig, CLIPModel

    from bench.shapes import save_for_transformers

    torch.manual_seed(0)
    config = CLIPConfig()
    config.text_config.bos_token_id, config.text_config.eos_token_id, config.text_config.pad_token_id = 1, 3, 0
    save_for_transformers(CLIPModel(config), folder)


def settings_of(*, last_layers: int | None, **others: Any) -> Any:
    """Ours, for the same work as the plain loop's: no dropout, no other views, no warm-up."""
    from vidseek_training.settings import TrainSettings

    told = {
        "rank": RANK, "alpha": ALPHA, "dropout": 0.0, "targets": ("attention",), "last_layers": last_layers, "batch": BATCH,
        "learning_rate": RATE, "shift_share": 0.0, "brightness": 0.0, "word_dropout": 0.0, "random_frames": False,
        "steps": EPOCHS * NUM_CLIPS // BATCH, "precision": "fp32", **others,
    }
    return TrainSettings(**told, evaluate_every=told["steps"])


def ours(work: Path, gop: int, *, last_layers: int | None = None, **others: Any) -> dict[str, Any]:
    """An adapter by our own training, from shards."""
    from vidseek_training import backbones
    from vidseek_training.dataset.pair_set import load_pairs
    from vidseek_training.dataset.sampling import Data
    from vidseek_training.fitting.trainer import Trainer

    root = work / f"archive_{gop}"
    model = backbones.load(work / "backbone")
    pairs = root / "pairs" / "pairs.parquet"
    train, validation = (load_pairs(pairs, root / "frames", model.spec, split=split) for split in ("train", "validation"))
    data = Data(train, validation, None)
    assert len(data.train) == NUM_CLIPS, len(data.train)
    settings = settings_of(last_layers=last_layers, **others)
    torch.manual_seed(0)
    training = Trainer(model, settings, data)
    began = time.monotonic()
    training.run()
    return {
        "epoch_seconds": training.seconds / EPOCHS, "waiting_share": training.curves[-1]["data_share"],
        "once_seconds": time.monotonic() - began - training.seconds,
    }


class Plain:
    """transformers and peft, decoding in every epoch."""

    def __init__(self, work: Path, gop: int, *, last_layers: int | None = None) -> None:
        from peft import LoraConfig, get_peft_model
        from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

        folder = str(work / "backbone")
        torch.manual_seed(0)
        layers = None if last_layers is None else list(range(12 - last_layers, 12))
        clip = CLIPModel.from_pretrained(folder, attn_implementation="sdpa")
        self.model = get_peft_model(clip, LoraConfig(
            r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules=["q_proj", "k_proj", "v_proj", "out_proj"],
            layers_to_transform=layers, layers_pattern=None if layers is None else "layers",
        ))
        clip.logit_scale.requires_grad_(True)
        self.clip = clip
        self._processor = CLIPImageProcessorPil.from_pretrained(folder)
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._paths = sorted((work / f"videos_{gop}").glob("*.mp4"))
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self._optimiser = torch.optim.AdamW(trained, lr=RATE, betas=(0.9, 0.98), weight_decay=0.0)
        self._trained = trained
        self.waited = 0.0

    def run(self) -> dict[str, Any]:
        """All epochs."""
        self.model.train()
        rng = np.random.default_rng(0)
        began = time.monotonic()
        for _ in range(EPOCHS):
            for rows in rng.permutation(NUM_CLIPS).reshape(-1, BATCH):
                self._step(rows)
        seconds = time.monotonic() - began
        return {"epoch_seconds": seconds / EPOCHS, "waiting_share": self.waited / seconds, "once_seconds": 0.0}

    def _step(self, rows: NDArray[np.int64]) -> None:
        began = time.monotonic()
        pixels = torch.stack([self._read(self._paths[row]) for row in rows])
        self.waited += time.monotonic() - began
        ids = self._tokenizer([caption_of(int(row)) for row in rows], return_tensors="pt", padding=True).input_ids
        self._optimiser.zero_grad()
        self.loss(pixels, ids).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._trained, 1.0)
        self._optimiser.step()

    def _read(self, path: Path) -> Tensor:
        import decord

        reader = decord.VideoReader(str(path))
        picks = ((np.arange(FRAMES) + 0.5) * len(reader) / FRAMES).astype(int)
        frames = reader.get_batch(picks).asnumpy()
        result: Tensor = self._processor(list(frames), return_tensors="pt").pixel_values
        return result

    def loss(self, pixels: Tensor, ids: Tensor) -> Tensor:
        """Symmetric InfoNCE of clips (n, T, 3, side, side) and texts (n, length)."""
        frames = self.clip.get_image_features(pixel_values=pixels.flatten(0, 1)).pooler_output
        clips = F.normalize(F.normalize(frames, dim=-1).view(len(pixels), FRAMES, -1).mean(1), dim=-1)
        texts = F.normalize(self.clip.get_text_features(input_ids=ids).pooler_output, dim=-1)
        logits = self.clip.logit_scale.exp() * clips @ texts.T
        target = torch.arange(len(logits))
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def same_gradients(work: Path) -> dict[str, Any]:
    """The least cosine between the gradients of both sides' tensors, from the same frames and the same adapter."""
    from vidseek_training import backbones
    from vidseek_training.fitting import lora
    from vidseek_training.fitting.losses import info_nce

    plain = Plain(work, media.GOPS[0])
    model = backbones.load(work / "backbone")
    lora.attach(model, settings_of(last_layers=None))
    theirs = {_plain_name(name): each for name, each in plain.model.named_parameters() if each.requires_grad}
    mine = {_plain_name(name): each for name, each in model.named_parameters() if each.requires_grad}
    assert theirs.keys() == mine.keys() and len(theirs) == 2 * 4 * 24 + 1, theirs.keys() ^ mine.keys()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, each in theirs.items():
            if "lora_" in name:
                each.normal_(std=0.02, generator=generator)
            mine[name].copy_(each)
    pixels = torch.randn(4, FRAMES, 3, SIDE, SIDE, generator=generator)
    ids = torch.tensor([[1, *range(10 + row, 24 + row), 3] for row in range(4)])
    plain.loss(pixels, ids).backward()  # type: ignore[no-untyped-call]
    info_nce(model.embed_videos(pixels), model.embed_texts(ids), model.logit_scale).backward()  # type: ignore[no-untyped-call]
    cosines = [float(F.cosine_similarity(theirs[name].grad.flatten(), mine[name].grad.flatten(), dim=0)) for name in theirs]
    return {"least_cosine": min(cosines), "num_tensors": len(cosines)}


def _plain_name(name: str) -> str:
    return name.replace("base_model.model.", "").removeprefix("clip.").replace(".default", "")


def large_batch(work: Path) -> dict[str, Any]:
    """One step of 64 clips of 8 frames in chunks, and the most memory that it took."""
    from vidseek_training import backbones
    from vidseek_training.dataset.sampling import Data
    from vidseek_training.fitting.trainer import Trainer

    model = backbones.load(work / "backbone")
    data = Data(_random_pairs(MEMORY_CLIPS, model), _random_pairs(0, model), None)
    settings = settings_of(last_layers=None, batch=MEMORY_CLIPS, chunk=MEMORY_CHUNK, steps=1, precision="auto")
    training = Trainer(model, settings, data)
    forget_peak()
    training.run()
    return {"step_seconds": training.seconds, "peak_gib": peak_gib()}


def pictures_ours(work: Path, precision: str) -> dict[str, Any]:
    """Steps of pictures and texts by our GradCache."""
    from vidseek_training import backbones
    from vidseek_training.dataset.sampling import Data, Sampler
    from vidseek_training.fitting.trainer import Trainer

    model = backbones.load(work / "backbone")
    data = Data(_random_pairs(PICTURES, model, frames=1), _random_pairs(0, model), None)
    settings = settings_of(last_layers=None, batch=PICTURES, chunk=PICTURES_CHUNK, precision=precision)
    training = Trainer(model, settings, data)
    batch = Sampler(data, settings, model, np.random.default_rng(0), size=PICTURES).draw()
    model.train()
    forget_peak()
    return {"step_seconds": _fastest(lambda: training._train_step(batch)), "peak_gib": peak_gib()}


def pictures_sentence_transformers(work: Path) -> dict[str, Any]:
    """The same by CachedMultipleNegativesRankingLoss, its features ready."""
    from peft import LoraConfig
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss

    module = Transformer(str(work / "backbone"))
    model = SentenceTransformer(modules=[module])
    model.add_adapter(LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["q_proj", "k_proj", "v_proj", "out_proj"]))
    both: Any = ("query_to_doc", "doc_to_query")
    loss = CachedMultipleNegativesRankingLoss(
        model, scale=14.3, mini_batch_size=PICTURES_CHUNK, directions=both, partition_mode="per_direction"
    )
    pixels = torch.randn(PICTURES, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    texts = model.preprocess([caption_of(number) for number in range(PICTURES)])
    model.train()

    def step() -> None:
        loss([{"pixel_values": pixels, "modality": "image"}, dict(texts)], torch.arange(PICTURES)).backward()

    forget_peak()
    return {"step_seconds": _fastest(step), "peak_gib": peak_gib()}


def _random_pairs(count: int, model: Any, *, frames: int = FRAMES) -> Any:
    """Pairs of noise and sixteen tokens."""
    import pandas as pd

    from vidseek_encoder.tokenize import Tokenizer
    from vidseek_training.dataset.pair_set import PairSet

    rows = [(f"{number}", caption_of(number), f"{number}", "default", "", "") for number in range(count)]
    table = pd.DataFrame(rows, columns=["clip_id", "caption", "video_id", "gallery", "contrast", "axis"])
    ids = Tokenizer.load(model.spec.tokenizer, context=77, pad_id=0).encode(list(table.caption)) if count else np.empty(
        (0, 77), np.int64)
    pixels = np.random.default_rng(0).integers(0, 256, (count, frames, SIDE, SIDE, 3), np.uint8)
    if frames < model.spec.num_frames:
        object.__setattr__(model.spec, "frames", frames)  # a picture is a clip of one frame
    return PairSet(table, pixels, ids, ids)


def _fastest(step: Callable[[], object], *, rounds: int = 3) -> float:
    times = []
    for _ in range(rounds):
        began = time.monotonic()
        step()
        times.append(time.monotonic() - began)
    return min(times)


def peak_gib() -> float:
    """Of this process since `forget_peak`: what it takes to train, not what it took to load."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 2**20


def forget_peak() -> None:
    """Let the kernel count this process's most memory anew (proc_pid_clear_refs, 5)."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")


def plain(work: Path, gop: int, *, last_layers: int | None) -> dict[str, Any]:
    """See `Plain`."""
    return Plain(work, gop, last_layers=last_layers).run()


def contestants(work: Path) -> dict[str, Callable[[], dict[str, Any]]]:
    """Each by name; one name, one process."""
    runs: dict[str, Callable[[], dict[str, Any]]] = {"same gradients": lambda: same_gradients(work)}
    for gop in media.GOPS:
        for what, upper in (("all layers", None), (f"upper {UPPER}", UPPER)):
            kept = {} if upper is None else {"cached_views": 1}
            runs[f"{what}, GOP {gop}: plain"] = partial(plain, work, gop, last_layers=upper)
            mine = partial(ours, work, gop, last_layers=upper, **kept)
            runs[f"{what}, GOP {gop}: ours"] = mine
            runs[f"{what}, GOP {gop}: ours in bf16"] = partial(mine, precision="auto")
    runs["64 x 8 frames"] = lambda: large_batch(work)
    runs["pictures: sentence-transformers"] = lambda: pictures_sentence_transformers(work)
    runs["pictures: ours"] = lambda: pictures_ours(work, "fp32")
    runs["pictures: ours in bf16"] = lambda: pictures_ours(work, "auto")
    return runs


def main() -> None:
    """Make what is needed, let each have its turns, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path(".vidseek/bench-train-quick" if QUICK else ".vidseek/bench-train"))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", default="", help="only contestants whose name has this in it; the others' figures stay")
    parser.add_argument("--run", help="one contestant, in this process")
    options = parser.parse_args()
    if options.run:
        print(json.dumps(contestants(options.work)[options.run]()))  # noqa: T201 - what the process is asked for
        return
    kept = json.loads(OUT.read_text(encoding="utf-8")) if options.only and not QUICK else None
    if kept and {name: kept[name] for name in setting()} != setting():
        raise SystemExit(f"{OUT} is of another machine, version or setting: run without --only")
    make(options.work)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in contestants(options.work) if options.only in name}
    for _ in range(options.rounds):
        for name, results in found.items():
            results.append(_in_a_process(name, options.work))
            print(name, json.dumps(results[-1]), flush=True)  # noqa: T201 - progress of half an hour
    report = summarise(found, options.work)
    if not QUICK:
        if kept:  # each ratio is of one run all the same
            report |= {name: kept[name] | report[name] for name in ("best", "ratios")}
        OUT.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report["ratios"], indent=2))  # noqa: T201 - this is the command's answer


def _in_a_process(name: str, work: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.teaching.train", "--work", str(work), "--run", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def summarise(found: dict[str, list[dict[str, float]]], work: Path) -> dict[str, Any]:
    """The best round of each, and by how much ours is faster."""
    best: dict[str, dict[str, float]] = {}
    for name, results in found.items():
        key = next((key for key in ("epoch_seconds", "step_seconds") if key in results[0]), "least_cosine")
        chosen = min(results, key=lambda result: result[key])
        best[name] = {figure: round(value, 6 if key == "least_cosine" else 3) for figure, value in chosen.items()}
    ratios = {}
    for name, figures in best.items():
        rival = name.split(": ours")[0] + (": sentence-transformers" if name.startswith("pictures") else ": plain")
        for key in ("epoch_seconds", "step_seconds"):
            if ": ours" in name and key in figures and rival in best:
                ratios[name] = round(best[rival][key] / figures[key], 2)
    once = {gop: json.loads((work / f"archive_{gop}" / "seconds.json").read_text()) for gop in media.GOPS}
    return {
        **setting(),
        "shards_made_once_seconds": {f"GOP {gop}": seconds["shards"] for gop, seconds in once.items()},
        "best": best, "ratios": ratios,
    }


def setting() -> dict[str, Any]:
    """What two runs must have in common, for their figures to stand beside one another."""
    return {
        "machine": {"threads": THREADS, "cores": os.cpu_count(), **{name: version(name) for name in (
            "torch", "transformers", "peft", "decord", "sentence-transformers")}},
        "clips": NUM_CLIPS, "batch": BATCH, "frames": FRAMES, "video_seconds": SECONDS, "epochs": EPOCHS,
    }


if __name__ == "__main__":
    main()
