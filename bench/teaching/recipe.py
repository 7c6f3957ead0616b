"""Which settings teach a model of CLIP's size: towers of ViT-B/32's shape, trained here from scratch, then adapted.

    python -m bench.teaching.recipe pack DIR     (where VIDSEEK_REALDATA is: one file of pictures and captions)
    python -m bench.teaching.recipe render DIR   (instead: pictures of the demo's worlds)
    python -m bench.teaching.recipe run DIR      (writes bench/recipe.json)

The published weights are not to be had here, so a CLIP of the published shape (151 M parameters, 224 pixels, patches of 32)
is trained from scratch on a general world. Then `Trainer` adapts it to a domain. Each trial says what the domain gains on
held-out pictures, what is left of held-out general pictures, and how strong the update of any layer was against its weight,
in spectral norm, after any step.

With `pack` the general world is Flickr8k's pictures that show no dog, and the domains are photos of exercises (few pairs)
and the pictures that show dogs (many): for a GPU. With `render` they are the demo's worlds in single pictures
(`bench.teaching.recipe_rendered`), which a CPU learns in half an hour too, by seeing some patches of each picture and one
caption of it. With `--work` the base stays in that folder, and a later run does the trials that the file lacks.

The device machine has no decoder of videos, no MLflow and no pydantic: this file and what it imports need only the last
of these, which can be carried as wheels.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import math
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench.machine import machine
from bench.teaching import flickr
from vidseek_encoder.preprocess import Resizing, resize_frame
from vidseek_encoder.tokenize import Tokenizer as Texts
from vidseek_quality.intervals import interval
from vidseek_training import backbones
from vidseek_training.backbones.base import Backbone, BackboneSpec, clamp_logit_scale
from vidseek_training.backbones.clip import build_clip
from vidseek_training.dataset.pair_set import Batches, FramesOfPairs, PairSet
from vidseek_training.dataset.sampling import Data, Sampler
from vidseek_training.dataset.views import drop_words
from vidseek_training.evaluation.embedding import embed_pairs
from vidseek_training.evaluation.metrics import Ranks
from vidseek_training.evaluation.retrieval_metrics import judge
from vidseek_training.fitting import lora
from vidseek_training.fitting.losses import info_nce
from vidseek_training.fitting.presets import Model, resolve
from vidseek_training.fitting.timing import StepTimer
from vidseek_training.fitting.trainer import Trainer
from vidseek_training.settings import TrainSettings

OUT = Path(__file__).parents[1] / "recipe.json"
PACKED = "recipe.npz"
MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_WARM = 1 / 12
"""Share of the time of the training from scratch in which the rate rises."""
_LEAST_STEPS = 8
"""Of the training from scratch, however short it is."""
DOGS = frozenset(["dog", "dogs", "puppy", "puppies"])
NUM_VALIDATION, NUM_REPLAYED = 100, 1500
KEPT_SIDE = 128
"""Of the pictures that the towers are trained from scratch on; crops of them are enlarged to what the model takes."""


@dataclass(frozen=True)
class Shape:
    """Of the towers, and of their training from scratch."""

    side: int = 224
    patch: int = 32
    width: int = 768
    text_width: int = 512
    layers: int = 12
    dimension: int = 512
    context: int = 77
    batch: int = 512
    rate: float = 5.0e-4
    weight_decay: float = 0.1
    kept_patches: float = 1.0
    """Share of a picture's patches that are seen in the training from scratch (Li et al. 2023, FLIP)."""
    captions: int = 2
    """Of each picture in a step of it; with two they are contrasted with each other too."""
    most_tokens: int | None = None
    """Of a caption in it; what is longer is cut."""
    least_part: float = 0.35
    """Least part of a picture that a view shows."""

    def config(self, num_tokens: int) -> dict[str, Any]:
        """The config.json, as transformers has it."""
        vision, text = (
            {"hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": width // 64 or 1}
            for width in (self.width, self.text_width)
        )
        both = {"hidden_act": "quick_gelu", "num_hidden_layers": self.layers, "projection_dim": self.dimension}
        return {
            "model_type": "clip", "projection_dim": self.dimension, "frames": 1, "resize": "squash", "mean": list(MEAN),
            "deviation": list(DEVIATION), "pad_id": 0,
            "vision_config": {**both, **vision, "image_size": self.side, "patch_size": self.patch},
            "text_config": {
                **both, **text, "vocab_size": num_tokens, "max_position_embeddings": self.context, "pad_token_id": 0,
                "bos_token_id": num_tokens - 2, "eos_token_id": num_tokens - 1,
            },
        }


RENDERED = Shape(batch=64, rate=2.0e-4, kept_patches=0.4, captions=1, most_tokens=18, least_part=0.85)
"""The same towers; for the rendered world, and a CPU."""
SMOKE = Shape(side=32, patch=16, width=64, text_width=64, layers=2, dimension=32, context=24, batch=8)


@dataclass(frozen=True)
class Trial:
    """One adapter setting on one domain."""

    name: str
    domain: str
    """exercise or dogs; of the rendered worlds jargon, thermal, negative or rotated."""
    preset: str
    changes: dict[str, Any] = field(default_factory=dict)
    """Keys in the place of the preset's."""
    replays: bool = True
    """Whether general pairs are at hand, as with `general.source`."""
    most_pictures: int | None = None
    """Of the domain's training pictures; None: all."""
    most_captions: int | None = None
    """Of each of these; None: all."""


_MEANT = {"allow_large_updates": True}
_FREE = {"hold_updates": False}
_FORMER: dict[str, Any] = {
    "targets": ("attention",), "last_layers": 4, "rank": 8, "alpha": 8, "learning_rate": 1.0e-4, "chunk": None,
}
"""The preset `base-few` until 28 November 2026."""
TRIALS = (
    Trial("preset", "exercise", "base-few"),
    Trial("preset", "dogs", "base-many"),
    Trial("the tiny backbones' settings", "exercise", "tiny", _MEANT),
    Trial("preset, no general pairs", "exercise", "base-few", {"scales": (1.0,)}, replays=False),
    Trial("preset, updates not held", "exercise", "base-few", _FREE),
    Trial("preset, updates not held", "dogs", "base-many", _FREE),
    Trial("attention of the last 4, rank 8, rate 1e-4", "exercise", "base-few", _FORMER),
    Trial("rate 1e-4", "exercise", "base-few", {"learning_rate": 1.0e-4}),
    Trial("rate 1e-3", "exercise", "base-few", {"learning_rate": 1.0e-3}),
    Trial("rate 1e-3, not held", "exercise", "base-few", {"learning_rate": 1.0e-3, **_FREE}),
    Trial("attention alone, rank 8", "exercise", "base-few", {"targets": ("attention",), "rank": 8, "alpha": 8}),
    Trial("30 epochs", "exercise", "base-few", {"epochs": 30.0}),
    Trial("attention of the last 4, rank 8", "dogs", "base-many",
          {"targets": ("attention",), "last_layers": 4, "rank": 8, "alpha": 8}),
    Trial("rate 5e-4", "dogs", "base-many", {"learning_rate": 5.0e-4}),
    Trial("preset, no general pairs", "dogs", "base-many", {"scales": (1.0,)}, replays=False),
    Trial("the tiny backbones' settings", "dogs", "tiny", _MEANT),
)
"""The more they say, the earlier: a lease may end before all are done."""
_FEW: dict[str, Any] = {"most_pictures": 330, "most_captions": 2}
_FEWER: dict[str, Any] = {"most_pictures": 165, "most_captions": 2}
_ALL: dict[str, Any] = {
    "last_layers": None, "targets": ("attention", "mlp"), "rank": 16, "alpha": 16, "batch": 32, "replay": 16, "epochs": 5.0,
    "scales": (1.0,), "learning_rate": 3.0e-4,
}
_WORDS_ALONE: dict[str, Any] = {"towers": ("text",), "scales": (1.0,)}
TRIALS_RENDERED = (
    Trial("preset", "jargon", "base-few", **_FEW),
    Trial("preset, text tower alone", "jargon", "base-few", _WORDS_ALONE, **_FEW),
    Trial("rate 1e-3, text tower alone", "jargon", "base-few", {**_WORDS_ALONE, "learning_rate": 1.0e-3}, **_FEW),
    Trial("attention of the last 4, rank 8, rate 1e-4, text tower alone", "jargon", "base-few", {**_FORMER, **_WORDS_ALONE},
          **_FEW),
    Trial("preset, 330 pairs", "jargon", "base-few", **_FEWER),
    Trial("attention of the last 4, rank 8, rate 1e-4", "thermal", "base-few", _FORMER, **_FEW),
    Trial("attention and MLP of all layers, rank 16, rate 3e-4, batch 32, 5 epochs", "thermal", "base-few", _ALL, **_FEW),
    Trial("attention of the last 4, rank 8, rate 1e-4", "negative", "base-few", _FORMER, **_FEWER),
    Trial("the tiny backbones' settings, 30 steps", "negative", "tiny",
          {"steps": 30, "warmup_text_steps": 0, "evaluate_every": 10, **_MEANT}, **_FEWER),
    Trial("attention of the last 4, rank 8, rate 1e-4", "rotated", "base-few", _FORMER, **_FEW),
    Trial("attention and MLP of all layers, not held", "negative", "base-few", {**_ALL, **_FREE}, **_FEWER),
    Trial("preset, no general pairs", "negative", "base-few", {"scales": (1.0,)}, replays=False, **_FEWER),
    Trial("preset of many pairs", "jargon", "base-many"),
)
"""The most telling first; ten minutes each on one core, those of the text tower alone three. docs/training.md says which
have been run."""
SMOKE_TRIALS = (
    Trial("preset", "exercise", "base-few", {"epochs": 1.0, "batch": 8, "last_layers": 1, "replay": 4}),
    Trial("the tiny backbones' settings", "dogs", "tiny", {"steps": 2, "batch": 8, "replay": 4, "warmup_text_steps": 1}),
    Trial("preset, text tower alone", "dogs", "base-few", {**_WORDS_ALONE, "epochs": 1.0, "batch": 8, "replay": 4}),
)


@dataclass(frozen=True)
class Side:
    """Pictures of one side of the data, as JPEG files, with their captions."""

    names: list[str]
    jpegs: list[bytes]
    captions: list[list[str]]

    def pixels(self, side: int) -> NDArray[np.uint8]:
        """Shape (n, side, side, 3)."""
        out = np.empty((len(self.jpegs), side, side, 3), np.uint8)

        def decode(row: int) -> None:
            with Image.open(io.BytesIO(self.jpegs[row])) as picture:
                out[row] = resize_frame(np.asarray(picture.convert("RGB")), Resizing(side, "squash"))

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(decode, range(len(self.jpegs))))
        return out


def pack(folder: Path) -> None:
    """Write the pictures, captions and CLIP's tokenizer of `VIDSEEK_REALDATA` into `folder`."""
    from bench.teaching import flickr_adapt

    folder.mkdir(parents=True, exist_ok=True)
    root = flickr.REALDATA / "B_image_text"
    sides = {}
    train, dev = (_read_captions(root / name) for name in ("flickr8k_train", "flickr8k_dev"))
    rng = np.random.default_rng(0)
    for name, shows in (("general", False), ("dogs", True)):
        rows = [row for row, own in enumerate(train.captions) if _shows_dogs(own) == shows]
        order = [rows[place] for place in rng.permutation(len(rows))]
        sides[f"{name}_validation"] = _some(train, order[:NUM_VALIDATION])
        sides[f"{name}_train"] = _some(train, order[NUM_VALIDATION:])
        sides[f"{name}_test"] = _some(dev, [row for row, own in enumerate(dev.captions) if _shows_dogs(own) == shows])
    for split, photos in flickr_adapt.split(flickr_adapt.read_photos()).items():
        jpegs = [(root / "exercise_photos" / "images" / name).read_bytes() for name in photos.names]
        sides[f"exercise_{split}"] = Side(photos.names, jpegs, photos.captions)
    write_packed(sides, folder)
    _write_tokenizer(folder)


def render(folder: Path) -> None:
    """Write pictures of the demo's worlds, what is said of them, and CLIP's tokenizer into `folder`."""
    from bench.teaching.recipe_rendered import rendered_sides

    folder.mkdir(parents=True, exist_ok=True)
    write_packed({name: Side(each.names, each.jpegs, each.captions) for name, each in rendered_sides().items()}, folder)
    _write_tokenizer(folder)


def _write_tokenizer(folder: Path) -> None:
    """CLIP's."""
    from vidseek_training.backbones.files.tokenizer_files import find_tokenizer

    with tempfile.TemporaryDirectory() as plain:
        name = "bpe_simple_vocab_16e6.txt.gz"
        shutil.copy(flickr.REALDATA / "C_models_tokenizers" / name, Path(plain) / name)
        shutil.copy(find_tokenizer(Path(plain)), folder / "tokenizer.json")


def write_packed(sides: Mapping[str, Side], folder: Path) -> None:
    """Write one file of all sides."""
    arrays: dict[str, Any] = {}
    for name, side in sides.items():
        arrays[f"{name}_bytes"] = np.frombuffer(b"".join(side.jpegs), np.uint8)
        arrays[f"{name}_ends"] = np.cumsum([len(each) for each in side.jpegs])
        arrays[f"{name}_texts"] = np.frombuffer(json.dumps([side.names, side.captions]).encode(), np.uint8)
    np.savez(folder / PACKED, **arrays)


def read_packed(folder: Path) -> dict[str, Side]:
    """What `write_packed` wrote."""
    sides = {}
    with np.load(folder / PACKED) as arrays:
        for name in sorted(key.removesuffix("_ends") for key in arrays.files if key.endswith("_ends")):
            content, ends = arrays[f"{name}_bytes"].tobytes(), arrays[f"{name}_ends"].tolist()
            names, captions = json.loads(arrays[f"{name}_texts"].tobytes())
            jpegs = [content[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
            sides[name] = Side(names, jpegs, captions)
    return sides


def _read_captions(folder: Path) -> Side:
    captions: dict[str, list[str]] = {}
    with (folder / "captions.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            captions.setdefault(row["image"], []).append(row["caption"])
    names = list(captions)
    return Side(names, [(folder / "images" / name).read_bytes() for name in names], list(captions.values()))


def _shows_dogs(captions: list[str]) -> bool:
    return any(DOGS & set(caption.lower().split()) for caption in captions)


def _some(side: Side, rows: list[int]) -> Side:
    return Side(
        [side.names[row] for row in rows], [side.jpegs[row] for row in rows], [side.captions[row] for row in rows]
    )


class Pretraining:
    """A CLIP from scratch: InfoNCE with two captions of each picture and between them, and the words of the captions."""

    def __init__(self, side: Side, shape: Shape, tokenizer: Path, device: str) -> None:
        self._shape, self._device, self.tokenizer = shape, device, tokenizer
        texts = Texts.load(tokenizer, context=shape.context, pad_id=0)
        self.config = shape.config(int(texts.encode([side.captions[0][0]]).max()) + 1)
        cut = Texts.load(tokenizer, context=shape.most_tokens or shape.context, pad_id=0)
        self._ids = [cut.encode(own) for own in side.captions]
        self._pictures = torch.from_numpy(side.pixels(KEPT_SIDE)).to(device)
        self._words = torch.from_numpy(flickr.words_of(side.captions)).to(device)
        torch.manual_seed(0)
        spec = BackboneSpec("clip", "recipe", shape.dimension, shape.context, 1, shape.side, "squash", MEAN, DEVIATION, 0,
                            tokenizer)
        self.model = build_clip(self.config, spec).to(device)
        self._says = nn.Linear(shape.width, self._words.shape[1]).to(device)
        self._rng = np.random.default_rng(0)
        self._rows = Batches(len(self._ids), shape.batch, self._rng)
        self._optimiser = torch.optim.AdamW(
            flickr._groups(self.model, self._says), lr=shape.rate, betas=(0.9, 0.98), fused=True,
            weight_decay=shape.weight_decay,
        )
        self._mean = {name: value.detach().clone() for name, value in self.model.named_parameters()}
        self.losses: list[list[float]] = []
        self.looks: list[dict[str, Any]] = []

    def run(self, seconds: float, *, validation: Side | None = None, look_every: float = 300.0) -> int:
        """Train for about so long; the rate follows the clock. Gives the number of steps.

        Args:
            seconds: For all steps and looks.
            validation: Pictures that the model is judged on now and then; nothing is chosen by it.
            look_every: Seconds between looks.
        """
        began = time.monotonic()
        next_look = look_every
        found: list[Tensor] = []
        while len(found) < _LEAST_STEPS or time.monotonic() - began < seconds:
            passed = time.monotonic() - began
            found.append(self._step(len(found), min(1.0, passed / seconds) if seconds else 0.5))
            if validation is not None and passed >= next_look:
                next_look += look_every
                self._look(len(found), passed, torch.stack(found[-20:]).mean(0).tolist(), validation)
        for start in range(0, len(found), 100):
            self.losses.append([round(value, 3) for value in torch.stack(found[start : start + 100]).mean(0).tolist()])
        with torch.no_grad():
            for name, value in self.model.named_parameters():
                value.copy_(self._mean[name])
        return len(found)

    def _look(self, step: int, seconds: float, losses: list[float], validation: Side) -> None:
        side = validation.pixels(self._shape.side)
        texts = Texts.load(self.tokenizer, context=self._shape.context, pad_id=0)
        found = ranks_of(self.model, _pairs(_some(validation, list(range(len(side)))), side, texts, most_captions=2))
        self.looks.append({
            "step": step, "seconds": round(seconds), "losses": [round(value, 3) for value in losses],
            "r10": round(float((found <= 10).mean()), 4),
        })
        print("look", json.dumps(self.looks[-1]), flush=True)  # noqa: T201 - progress of minutes

    def _step(self, step: int, passed: float) -> Tensor:
        share = passed / _WARM if passed < _WARM else 0.5 + 0.5 * math.cos(math.pi * (passed - _WARM) / (1 - _WARM))
        for group in self._optimiser.param_groups:
            group["lr"] = self._shape.rate * max(share, 0.01)
        rows = self._rows.draw()
        videos, texts, said = self._embed(rows)
        scale, count = self.model.logit_scale, len(rows)
        contrast = info_nce(videos, texts[:count], scale)
        between = torch.zeros((), device=self._device)
        if self._shape.captions > 1:
            contrast = (contrast + info_nce(videos, texts[count:], scale)) / 2
            between = info_nce(texts[:count], texts[count:], scale)
        wanted = self._words[torch.from_numpy(rows).to(self._device)]
        words = -(wanted * F.log_softmax(said.float(), 1)).sum(1).mean()
        self._update(contrast + flickr.TEXTS_WEIGHT * between + flickr.WORDS_WEIGHT * words, step)
        return torch.stack([contrast.detach(), between.detach(), words.detach()])

    def _embed(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
        """Unit vectors of views and captions of some pictures, and what words the views are said to show."""
        where = torch.from_numpy(rows).to(self._device)
        views = flickr.views_of(self._pictures[where], self._rng, side=self._shape.side, mean=MEAN, deviation=DEVIATION,
                                least_part=self._shape.least_part)
        ids = torch.from_numpy(self._draw_captions(rows)).to(self._device)
        on_cpu = self._device == "cpu"
        self.model.train()
        with torch.autocast(self._device, torch.bfloat16), (
            sdpa_kernel(SDPBackend.MATH) if on_cpu else contextlib.nullcontext()  # the fused one is slower backwards
        ):
            seen = self._see(views[:, 0])
            videos = self.model.clip.visual_projection(seen)
            texts = self.model.text_features(ids)
            said = self._says(F.dropout(seen, 0.2))
        return F.normalize(videos.float(), dim=-1), F.normalize(texts.float(), dim=-1), said

    def _draw_captions(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Token ids: one caption of each picture, then, where two are wanted, another."""
        picks = [self._rng.permutation(len(self._ids[row]))[:2] for row in rows]
        ids = np.concatenate([
            np.stack([self._ids[row][pick[which % len(pick)]] for row, pick in zip(rows, picks, strict=True)])
            for which in range(self._shape.captions)
        ])
        ids = drop_words(ids, self._rng, share=0.1, pad_id=0)
        return ids[:, : int((ids != 0).sum(1).max())]

    def _see(self, views: Tensor) -> Tensor:
        """What the picture tower makes of some patches of each view."""
        vision = self.model.clip.vision_model
        tokens = self.model.picture_tokens(views)
        num_patches = tokens.shape[1] - 1
        keep = max(1, round(self._shape.kept_patches * num_patches))
        if keep < num_patches:
            drawn = 1 + torch.rand(len(tokens), num_patches, device=tokens.device).argsort(1)[:, :keep]
            kept = tokens.gather(1, drawn[:, :, None].expand(-1, -1, tokens.shape[2]))
            tokens = torch.cat([tokens[:, :1], kept], dim=1)
        seen: Tensor = vision.post_layernorm(vision.encoder(inputs_embeds=tokens).last_hidden_state[:, 0])
        return seen

    def _update(self, loss: Tensor, step: int) -> None:
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_([*self.model.parameters(), *self._says.parameters()], 1.0)
        self._optimiser.step()
        clamp_logit_scale(self.model)
        keep = min(0.99, (1 + step) / (10 + step))
        with torch.no_grad():
            names, values = zip(*self.model.named_parameters(), strict=True)
            torch._foreach_lerp_([self._mean[name] for name in names], [value.detach() for value in values], 1 - keep)

    def save(self, folder: Path) -> None:
        """Write the model as `backbones.load` reads one."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.model.clip.state_dict().items()}
        save_file(tensors, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(self.config), encoding="utf-8")
        shutil.copy(self.tokenizer, folder / "tokenizer.json")


class GaugedTrainer(Trainer):
    """A training that looks at the strength of its updates after every step.

    Attributes:
        strengths: For each step the largest ratio of an update to its weight, and the layer.
        held: For each step the number of layers whose update was scaled back.
    """

    def __init__(self, model: Backbone, settings: TrainSettings, data: Data) -> None:
        super().__init__(model, settings, data)
        self.strengths: list[tuple[float, str]] = []
        self.held: list[int] = []

    def run(self, saved: dict[str, Any] | None = None) -> None:
        """Train; with an adapter on the text tower alone, against the base's vectors of pictures, which are computed once.

        Args:
            saved: As for `Trainer.run`.
        """
        if "video" in self.settings.towers or saved is not None:
            super().run(saved)
            return
        base = self._base_vectors(of_training=True)
        sampler = Sampler(
            self.data, self.settings, self.model, self._rng, size=self.settings.batch, base=base, clips_are_known=True)
        self._phase(sampler, self.settings.num_steps(len(self.data.train)), "text tower", validates=True)
        assert self.best is not None
        lora.set_scaled(self.handle, self.best[1], 1.0)
        self.model.logit_scale.data.fill_(self.best[2])
        self._choose_scale()

    def _step(self, sampler: Sampler, optimiser: torch.optim.Optimizer, rate: float, timer: StepTimer) -> None:
        super()._step(sampler, optimiser, rate, timer)
        layer, ratio = max(self._gauge.ratios().items(), key=lambda each: each[1])
        self.strengths.append((ratio, layer))
        self.held.append(self._num_held)


@dataclass(frozen=True)
class Place:
    """Where the trials find what they need."""

    data: Path
    work: Path
    """The base's folder `model`, and frames as `<side>.npy`."""
    device: str
    most_judged: int | None = None
    """Captions of a picture that are queries of a validation or test; None: all."""
    most_replayed: int = NUM_REPLAYED
    """General training pictures that a training draws from."""

    def pairs(self, name: str, texts: Texts, *, most_captions: int | None = None, most: int | None = None) -> PairSet:
        """Pairs of one side, a row for each caption; the frames of a picture are not repeated on disk."""
        side = read_packed(self.data)[name]
        some = _some(side, list(range(len(side.names)))[:most])
        return _pairs(some, np.load(self.work / f"{name}.npy", mmap_mode="r")[:most], texts, most_captions=most_captions)


def _pairs(side: Side, frames: NDArray[np.uint8], texts: Texts, *, most_captions: int | None) -> PairSet:
    captions = [own[:most_captions] for own in side.captions]
    rows = [(picture, caption) for picture, own in zip(side.names, captions, strict=True) for caption in own]
    table = pd.DataFrame(rows, columns=["clip_id", "caption"]).assign(video_id=[picture for picture, _ in rows])
    table = table.assign(gallery="default", contrast="", axis="")
    ids = texts.encode(list(table.caption))
    place = np.repeat(np.arange(len(side.names)), [len(own) for own in captions])
    return PairSet(table, FramesOfPairs(frames[:, None], place), ids, ids)


def run_trial(trial: Trial, place: Place, base: dict[str, list[int]]) -> dict[str, Any]:
    """Adapt the base to the trial's domain, and judge it.

    Args:
        trial: What to do.
        place: Where data and base lie.
        base: Ranks of the base's text queries on each test side.
    """
    began = time.monotonic()
    model = backbones.load(place.work / "model").to(place.device)
    texts = Texts.load(model.spec.tokenizer, context=model.spec.context_length, pad_id=model.spec.pad_id)
    judged = place.most_judged
    sides = {
        name: place.pairs(f"{trial.domain}_{name}", texts, most_captions=judged) for name in ("validation", "test")
    }
    sides["train"] = place.pairs(
        f"{trial.domain}_train", texts, most=trial.most_pictures, most_captions=trial.most_captions)
    general = {
        "train": place.pairs("general_train", texts, most_captions=1, most=place.most_replayed) if trial.replays else None,
        "validation": place.pairs("general_validation", texts, most_captions=judged) if trial.replays else None,
        "test": place.pairs("general_test", texts, most_captions=judged),
    }
    asked = TrainSettings(preset=trial.preset, device=place.device, **trial.changes)  # type: ignore[arg-type]
    settings = resolve(asked, model_of(model), len(sides["train"])).settings
    torch.manual_seed(settings.seed)
    training = GaugedTrainer(
        model, settings, Data(sides["train"], sides["validation"], general["train"], general["validation"])
    )
    training.run()
    ratio, layer = max(training.strengths)
    after = {"on_domain": ranks_of(model, sides["test"]), "on_general": ranks_of(model, general["test"])}
    before = {"on_domain": np.array(base[trial.domain]), "on_general": np.array(base["general"])}
    on_gpu = place.device == "cuda"
    return {
        **asdict(trial), "num_pairs": len(sides["train"]), "num_steps": training.steps_done,
        "settings": settings.model_dump(mode="json"), "max_update_ratio": round(ratio, 4), "in_layer": layer,
        "num_layers": len(training._gauge), "most_held": max(training.held), "steps_held": sum(map(bool, training.held)),
        "update_ratios": [round(value, 4) for value, _ in training.strengths[:: max(1, len(training.strengths) // 12)]],
        "sweep": [each.to_json() for each in training.sweep],
        "curve": [{key: each.get(key) for key in ("step", "loss", "validation_mrr")} for each in training.curves],
        **{name: change(before[name], after[name], pairs) for name, pairs in (
            ("on_domain", sides["test"]), ("on_general", general["test"]))},
        "step_seconds": round(training.seconds / max(1, training.steps_done), 4),
        "peak_gpu_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2) if on_gpu else None,
        "seconds": round(time.monotonic() - began, 1),
    }


def model_of(model: Backbone) -> Model:
    """The sizes that choose a preset."""
    return Model(model.spec.name, model.num_parameters(), model.num_embedding_parameters())


def ranks_of(model: Backbone, pairs: PairSet | None) -> Ranks:
    """Of each caption's picture among the side's pictures."""
    assert pairs is not None
    return judge(embed_pairs(model, pairs), pairs.table).text_ranks


def change(before: NDArray[np.int64], after: Ranks, pairs: PairSet | None) -> dict[str, Any]:
    """R@1, R@5 and R@10 before and after, and the difference with an interval over pictures."""
    assert pairs is not None
    of, found = pairs.table.clip_id.to_numpy(), {}
    for k in (1, 5, 10):
        old, new = ((ranks <= k).astype(float) for ranks in (before, after))
        by_picture = pd.Series(new - old).groupby(of).mean().to_numpy(np.float64)
        found[f"r{k}"] = {"before": round(float(old.mean()), 4), "after": round(float(new.mean()), 4),
                          "change": interval(by_picture, range(len(by_picture)), resamples=2000, seed=0).to_json()}
    return found | {"num_queries": len(of), "num_pictures": len(set(of))}


def base_strengths(model: Backbone) -> dict[str, Any]:
    """Spectral norms of the weights that adapters are added to: least, median and greatest."""
    norms = sorted(
        lora.spectral_norm(model.get_submodule(name).weight.detach()) for name in model.lora_targets(("attention", "mlp"))
    )
    return {"least": round(norms[0], 3), "median": round(norms[len(norms) // 2], 3), "greatest": round(norms[-1], 3)}


def run(data: Path, work: Path, out: Path, *, device: str, shape: Shape, trials: tuple[Trial, ...], pretrain_seconds: float,
        budget_seconds: float, workers: int, most_judged: int | None = None, most_replayed: int = NUM_REPLAYED,
        ) -> dict[str, Any]:
    """Train the base, then all trials for which there is time; `out` is written anew after each.

    Without `workers` all is done in this process. A base that `work` holds is taken as it is, and of a file of that base the
    trials that it has are not done again.
    """
    began = time.monotonic()
    place = Place(data, work, device, most_judged, most_replayed)
    with contextlib.ExitStack() as stack:
        pool = None
        if workers:
            spawn = multiprocessing.get_context("spawn")
            pool = stack.enter_context(ProcessPoolExecutor(workers, spawn, torch.set_num_threads, (2,)))
            for _ in range(workers):
                pool.submit(os.getpid)  # they import while the base is trained
        report, base = _base_of(place, shape, pretrain_seconds, out)
        done, spent = {(each["name"], each["domain"]) for each in report["trials"]}, report["seconds"]
        trials = tuple(trial for trial in trials if (trial.name, trial.domain) not in done)
        _write(report, out)
        for found in _each(pool, trials, place, base, until=began + budget_seconds):
            report["trials"].append(found)
            report["seconds"] = round(spent + time.monotonic() - began, 1)
            _write(report, out)
            _say(found)
    return report


def _base_of(place: Place, shape: Shape, seconds: float, out: Path) -> tuple[dict[str, Any], dict[str, list[int]]]:
    """The report up to the trials, and the base's ranks; from `place.work` where it has them."""
    kept = place.work / "base.json"
    if kept.is_file():
        report, base = json.loads(kept.read_text(encoding="utf-8"))
        with contextlib.suppress(FileNotFoundError):
            former = json.loads(out.read_text(encoding="utf-8"))
            if former.get("pretraining") == report["pretraining"] and former.get("judged") == report["judged"]:
                report = former
        return report, base
    report = _pretrain(place.data, place.work, device=place.device, shape=shape, seconds=seconds)
    report["judged"] = {"most_captions": place.most_judged, "most_replayed": place.most_replayed}
    report["base"], base = _judge_base(place)
    report["seconds"], report["trials"] = report["pretraining"]["seconds"], []
    _write([report, base], kept)
    return report, base


def _write(report: Any, path: Path) -> None:
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _pretrain(data: Path, work: Path, *, device: str, shape: Shape, seconds: float) -> dict[str, Any]:
    """Leave the base and the pictures at its size in `work`; say what was done."""
    began = time.monotonic()
    sides = read_packed(data)
    pretraining = Pretraining(sides["general_train"], shape, data / "tokenizer.json", device)
    num_steps = pretraining.run(seconds, validation=sides["general_validation"])
    pretraining.save(work / "model")
    for name, side in sides.items():
        rows = range(min(len(side.names), NUM_REPLAYED if name == "general_train" else len(side.names)))
        np.save(work / f"{name}.npy", _some(side, list(rows)).pixels(shape.side))
    return {
        "material": "rendered" if "thermal_test" in sides else "Flickr8k", "machine": _machine(device),
        "shape": asdict(shape), "num_parameters": pretraining.model.num_parameters(),
        "pretraining": {"pictures": len(sides["general_train"].names), "steps": num_steps, "losses": pretraining.losses,
                        "looks": pretraining.looks, "seconds": round(time.monotonic() - began, 1)},
    }


def _machine(device: str) -> dict[str, Any]:
    """What the figures were made with."""
    own = machine(torch.get_num_threads(), ("torch", "transformers", "peft"))
    return {"device": torch.cuda.get_device_name() if device == "cuda" else "cpu", **own}


def _judge_base(place: Place) -> tuple[dict[str, Any], dict[str, list[int]]]:
    model = backbones.load(place.work / "model").to(place.device)
    texts = Texts.load(model.spec.tokenizer, context=model.spec.context_length, pad_id=model.spec.pad_id)
    ranks, figures = {}, {}
    for name in sorted(side.removesuffix("_test") for side in read_packed(place.data) if side.endswith("_test")):
        found = ranks_of(model, place.pairs(f"{name}_test", texts, most_captions=place.most_judged))
        ranks[name] = found.tolist()
        figures[name] = {f"r{k}": round(float((found <= k).mean()), 4) for k in (1, 5, 10)}
    figures["spectral_norms"] = base_strengths(model)
    print("base", json.dumps(figures), flush=True)  # noqa: T201 - progress of minutes
    return figures, ranks


def _each(
    pool: ProcessPoolExecutor | None, trials: tuple[Trial, ...], place: Place, base: dict[str, list[int]], *, until: float
) -> Iterator[dict[str, Any]]:
    """What came of the trials, as they end; those that are not done at `until` are left out."""
    if pool is None:
        yield from (run_trial(trial, place, base) for trial in trials if time.monotonic() < until)
        return
    waiting = {pool.submit(run_trial, trial, place, base): trial for trial in trials}
    try:
        for done in as_completed(waiting, timeout=max(1.0, until - time.monotonic())):
            if error := done.exception():  # the others go on
                print("failed:", waiting[done], repr(error), flush=True)  # noqa: T201
            else:
                yield done.result()
    except TimeoutError:
        print("no time for the rest", flush=True)  # noqa: T201
        for process in list(pool._processes.values()):
            process.terminate()


def _say(found: dict[str, Any]) -> None:
    def told(side: str) -> str:
        return " ".join(f"{k} {found[side][k]['before']:.3f} to {found[side][k]['after']:.3f}" for k in ("r1", "r5", "r10"))

    what = f"{found['domain']}, {found['name']} ({found['num_steps']} steps, {found['seconds']:.0f} s)"
    print(f"{what}: domain {told('on_domain')}; general {told('on_general')}; largest update "  # noqa: T201 - progress
          f"{found['max_update_ratio']} in {found['in_layer']}", flush=True)


def main() -> None:
    """Pack, or run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("pack", "render", "run"))
    parser.add_argument("data", type=Path)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--work", type=Path, help="keeps the base, or has it; left out: nothing is kept")
    parser.add_argument("--pretrain-seconds", type=float, help="90 on a GPU, 1,560 on a CPU")
    parser.add_argument("--budget-seconds", type=float, help="for all; trials that do not fit are left out")
    parser.add_argument("--most-judged", type=int, help="captions of a picture that are queries; left out: all")
    parser.add_argument("--workers", type=int, help="4 on a GPU; 0 on a CPU: all in this process")
    parser.add_argument("--smoke", action="store_true", help="tiny towers, two trials")
    options = parser.parse_args()
    if options.what != "run":
        {"pack": pack, "render": render}[options.what](options.data)
        return
    scale = _scale_of(options)
    with contextlib.ExitStack() as stack:
        work = options.work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="recipe-")))
        work.mkdir(parents=True, exist_ok=True)
        run(options.data, work, options.out, device=options.device, **scale)


def _scale_of(options: argparse.Namespace) -> dict[str, Any]:
    """How large the towers, and how long the training: what is not said is as device and pictures ask for."""
    on_cpu = options.device == "cpu"
    is_rendered = "thermal_test" in read_packed(options.data)
    scale: dict[str, Any] = {
        "shape": RENDERED if is_rendered else Shape(), "trials": TRIALS_RENDERED if is_rendered else TRIALS,
        "pretrain_seconds": 1560.0 if on_cpu else 90.0, "budget_seconds": 3 * 3600.0 if on_cpu else 270.0,
        "most_replayed": 500 if on_cpu else NUM_REPLAYED, "workers": 0 if on_cpu else 4,
    }
    if options.smoke:
        scale |= {"shape": SMOKE, "trials": SMOKE_TRIALS, "pretrain_seconds": 0.0, "workers": 0}
    said = {name: getattr(options, name) for name in ("pretrain_seconds", "budget_seconds", "most_judged", "workers")}
    return scale | {name: value for name, value in said.items() if value is not None}


if __name__ == "__main__":
    main()
