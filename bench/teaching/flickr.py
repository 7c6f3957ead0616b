"""Real pictures: a small CLIP from scratch on Flickr8k's training pictures, judged once on its dev pictures; then LoRA.

    make bench-flickr        (reads VIDSEEK_REALDATA, writes bench/flickr.json; an hour of CPU time, goes on where stopped)

The epoch is chosen on 400 pictures of the training side that are not learned from. Beside the contrastive loss of two
captions of each picture, and of these captions with each other, the picture tower learns to say the words of its captions
(Joulin et al. 2016): with 5,600 pictures that is what makes it see. The weights stay in .vidseek: Flickr8k is for
research alone. `bench/teaching/flickr_adapt.py` goes on from there: LoRA on exercise photos, gain inside and loss outside.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from vidseek_encoder.preprocess import Resizing, resize_frame
from vidseek_encoder.tokenize import Tokenizer as Texts
from vidseek_quality.intervals import interval
from vidseek_training import backbones
from vidseek_training.backbones.base import Backbone, BackboneSpec, clamp_logit_scale
from vidseek_training.backbones.clip import build_clip
from vidseek_training.backbones.files.tokenizer_files import clip_tokenizer
from vidseek_training.dataset.pair_set import Batches, PairSet
from vidseek_training.dataset.views import drop_words
from vidseek_training.evaluation.embedding import embed_pairs
from vidseek_training.evaluation.metrics import Ranks, summarise
from vidseek_training.evaluation.retrieval_metrics import judge, one_a_clip
from vidseek_training.fitting.checkpoints import Checkpoint, fingerprint
from vidseek_training.fitting.losses import info_nce

REALDATA = Path(os.environ.get("VIDSEEK_REALDATA", "../shared/realdata"))
OUT = Path(__file__).parents[1] / "flickr.json"
WORK = Path(".vidseek/flickr")

SIDE, KEPT_SIDE, CONTEXT, WIDTH, NUM_MERGES = 64, 80, 24, 256, 2500
"""Pictures are kept at 80 pixels, crops of them are seen at 64."""
MEAN, DEVIATION = (0.46, 0.45, 0.41), (0.28, 0.27, 0.28)
NUM_HELD_OUT = 400

BATCH, RATE, WEIGHT_DECAY = 192, 1.0e-3, 0.1
WORDS_WEIGHT, TEXTS_WEIGHT, AVERAGE = 1.0, 0.3, 0.998


@dataclass(frozen=True)
class Pictures:
    """Pictures with their captions."""

    names: list[str]
    pictures: NDArray[np.uint8]
    """Shape (n, side, side, 3)."""
    captions: list[list[str]]
    """Of each picture."""


def read_flickr(folder: Path, *, side: int) -> Pictures:
    """The pictures of `captions.csv`, in its order, at `side` pixels."""
    captions: dict[str, list[str]] = {}
    with (folder / "captions.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            captions.setdefault(row["image"], []).append(row["caption"])
    names = list(captions)
    pictures = np.empty((len(names), side, side, 3), np.uint8)
    for place, name in enumerate(names):
        with Image.open(folder / "images" / name) as picture:
            pictures[place] = resize_frame(np.asarray(picture.convert("RGB")), Resizing(side, "squash"))
    return Pictures(names, pictures, list(captions.values()))


def write_tokenizer(captions: list[str], path: Path) -> int:
    """CLIP's kind of byte-pair encoding, its merges learned from `captions`; gives the number of tokens.

    Padding is token 0 and the end token the last.
    """
    rough = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    rough.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(r" ", behavior="removed"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    ])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=NUM_MERGES + 2 * len(alphabet), initial_alphabet=alphabet, end_of_word_suffix="</w>",
        show_progress=False, min_frequency=3,
    )
    rough.train_from_iterator([" ".join(caption.lower().split()) for caption in captions], trainer)
    learned = json.loads(rough.to_str())["model"]
    letters = sorted(alphabet)
    words = ["<pad>", *letters, *(f"{letter}</w>" for letter in letters)]
    words += [word for word in sorted(learned["vocab"], key=learned["vocab"].get) if word not in set(words)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    clip_tokenizer(vocabulary, [tuple(pair) for pair in learned["merges"]]).save(str(path))
    return len(words)


def config_of(num_tokens: int) -> dict[str, Any]:
    """The config.json of the CLIP."""
    tower = {
        "hidden_act": "quick_gelu", "hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "projection_dim": WIDTH,
        "num_attention_heads": 4,
    }
    return {
        "model_type": "clip", "projection_dim": WIDTH, "stem": "residual", "frames": 1, "resize": "squash",
        "mean": list(MEAN), "deviation": list(DEVIATION), "pad_id": 0,
        "vision_config": {**tower, "image_size": SIDE, "patch_size": 16, "num_hidden_layers": 4},
        "text_config": {
            **tower, "vocab_size": num_tokens, "max_position_embeddings": CONTEXT, "num_hidden_layers": 2,
            "pad_token_id": 0, "bos_token_id": num_tokens - 2, "eos_token_id": num_tokens - 1,
        },
    }


def words_of(captions: list[list[str]]) -> NDArray[np.float32]:
    """What each picture's captions say: shares (n, words), words that are in few pictures weighing more."""
    said = [Counter(word for caption in own for word in set(caption.lower().split())) for own in captions]
    pictures_with = Counter(word for own in said for word in own)
    known = sorted(word for word, count in pictures_with.items() if count >= 10 and word.isalpha())
    numbers = {word: number for number, word in enumerate(known)}
    shares = np.zeros((len(captions), len(known)), np.float32)
    for row, own in enumerate(said):
        for word, count in own.items():
            if word in numbers:
                shares[row, numbers[word]] = count * math.log(len(captions) / pictures_with[word])
    return shares / np.maximum(shares.sum(1, keepdims=True), 1e-6)


def views_of(
    pictures: NDArray[np.uint8] | Tensor, rng: np.random.Generator, *, side: int = SIDE,
    mean: tuple[float, ...] = MEAN, deviation: tuple[float, ...] = DEVIATION, least_part: float = 0.35,
) -> Tensor:
    """Return `least_part` of each picture or more, sometimes mirrored, in other light: shape (n, 1, 3, side, side).

    `pictures` are uint8 (n, height, width, 3); where they are a tensor, views are made on its device.
    """
    whole = torch.as_tensor(pictures)
    count, device = len(whole), whole.device
    area, aspect = rng.uniform(least_part, 1, count), np.exp(rng.uniform(-0.25, 0.25, count))
    wide, high = np.minimum(1, np.sqrt(area * aspect)), np.minimum(1, np.sqrt(area / aspect))
    mirror = np.where(rng.uniform(size=count) < 0.5, -1, 1)
    theta = np.zeros((count, 2, 3), np.float32)
    theta[:, 0, 0], theta[:, 1, 1] = wide * mirror, high
    theta[:, 0, 2], theta[:, 1, 2] = rng.uniform(-1, 1, count) * (1 - wide), rng.uniform(-1, 1, count) * (1 - high)
    grid = F.affine_grid(torch.from_numpy(theta).to(device), [count, 3, side, side], align_corners=False)
    seen = F.grid_sample(whole.permute(0, 3, 1, 2).float() / 255, grid, padding_mode="reflection", align_corners=False)
    drawn = torch.from_numpy(rng.uniform(-1, 1, (3, count, 1, 1, 1)).astype(np.float32)).to(device)
    grey = seen.mean(1, keepdim=True)
    seen = grey + (seen - grey) * (1 + 0.4 * drawn[0])
    seen = (seen * (1 + 0.3 * drawn[1]) + 0.1 * drawn[2]).clamp(0, 1)
    middle, spread = (torch.tensor(values, device=device).view(3, 1, 1) for values in (mean, deviation))
    return ((seen - middle) / spread)[:, None]


def pairs_of(pictures: Pictures, texts: Texts) -> PairSet:
    """A pair for each caption, as our judging takes them."""
    rows = [(name, caption) for name, own in zip(pictures.names, pictures.captions, strict=True) for caption in own]
    table = pd.DataFrame(rows, columns=["clip_id", "caption"]).assign(video_id=[name for name, _ in rows])
    table = table.assign(gallery="default", contrast="", axis="")
    counts = [len(own) for own in pictures.captions]
    ids = texts.encode(list(table.caption))
    return PairSet(table, np.repeat(pictures.pictures, counts, axis=0)[:, None], ids, ids)


class Training:
    """The recipe on one machine: the model, the mean of its weights over the steps, and where it stands."""

    def __init__(self, folder: Path, *, num_epochs: int) -> None:
        train = read_flickr(REALDATA / "B_image_text" / "flickr8k_train", side=KEPT_SIDE)
        order = np.random.default_rng(0).permutation(len(train.names))
        self._learned, held_out = order[NUM_HELD_OUT:], order[:NUM_HELD_OUT]
        captions = [train.captions[row] for row in self._learned]
        folder.mkdir(parents=True, exist_ok=True)
        num_tokens = write_tokenizer([caption for own in captions for caption in own], folder / "tokenizer.json")
        self.folder, self._config = folder, config_of(num_tokens)
        self._texts = Texts.load(folder / "tokenizer.json", context=CONTEXT, pad_id=0)
        self._pictures, self._words = train.pictures[self._learned], torch.from_numpy(words_of(captions))
        self._ids = [self._texts.encode(own) for own in captions]
        small = np.stack([resize_frame(train.pictures[row], Resizing(SIDE, "squash")) for row in held_out])
        self._held_out = pairs_of(
            Pictures([train.names[row] for row in held_out], small, [train.captions[row] for row in held_out]), self._texts
        )
        torch.manual_seed(0)
        spec = BackboneSpec("clip", str(folder), WIDTH, CONTEXT, 1, SIDE, "squash", MEAN, DEVIATION, 0,
                            folder / "tokenizer.json")
        self.model, self.averaged = build_clip(self._config, spec), build_clip(self._config, spec)
        self.averaged.load_state_dict(self.model.state_dict())
        self._says = nn.Linear(WIDTH, self._words.shape[1])
        self._num_steps = num_epochs * len(self._learned) // BATCH
        self._rng = np.random.default_rng(0)
        self._rows = Batches(len(self._learned), BATCH, self._rng)
        self._optimiser = torch.optim.AdamW(_groups(self.model, self._says), lr=RATE, betas=(0.9, 0.98))
        mark = fingerprint(num_epochs=num_epochs, batch=BATCH, rate=RATE, config=self._config)
        self._checkpoint = Checkpoint(folder, "flickr", mark)
        self.curve: list[dict[str, float]] = []
        self.best: dict[str, Tensor] = {}
        self.cpu_seconds = 0.0

    def run(self, *, validate_every: int = 100) -> None:
        """Train to the end, from the last checkpoint where there is one; ends with the best average in the folder."""
        saved = self._checkpoint.load()
        first = 0 if saved is None else self._restore(saved)
        began = time.process_time() - self.cpu_seconds
        losses: list[list[float]] = []
        for step in range(first, self._num_steps):
            losses.append(self._step(step))
            if step % validate_every == validate_every - 1 or step == self._num_steps - 1:
                self.cpu_seconds = time.process_time() - began
                self._validate(step + 1, np.mean(losses, axis=0))
                losses = []
                self._checkpoint.save(self._state(step + 1))
        self.averaged.load_state_dict(self.best)
        self.save()

    def _step(self, step: int) -> list[float]:
        warm = self._num_steps // 20
        share = (step + 1) / warm if step < warm else 0.5 + 0.5 * math.cos(
            math.pi * (step - warm) / (self._num_steps - warm))
        for group in self._optimiser.param_groups:
            group["lr"] = RATE * share
        rows = self._rows.draw()
        picks = [self._rng.permutation(len(self._ids[row]))[:2] for row in rows]
        ids = np.concatenate([
            np.stack([self._ids[row][pick[which]] for row, pick in zip(rows, picks, strict=True)]) for which in (0, 1)
        ])
        ids = drop_words(ids, self._rng, share=0.1, pad_id=0)
        ids = ids[:, : int((ids != 0).sum(1).max())]
        views = views_of(self._pictures[rows], self._rng)
        self.model.train()
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):  # the fused one is slower backwards
            seen = self.model.clip.vision_model(views[:, 0]).pooler_output
            videos = self.model.clip.visual_projection(seen)
            texts = self.model.text_features(torch.from_numpy(ids))
            said = self._says(F.dropout(seen, 0.2))
        videos, texts = F.normalize(videos.float(), dim=-1), F.normalize(texts.float(), dim=-1)
        scale, count = self.model.logit_scale, len(rows)
        contrast = (info_nce(videos, texts[:count], scale) + info_nce(videos, texts[count:], scale)) / 2
        between = info_nce(texts[:count], texts[count:], scale)
        words = -(self._words[rows] * F.log_softmax(said.float(), 1)).sum(1).mean()
        loss = contrast + TEXTS_WEIGHT * between + WORDS_WEIGHT * words
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_([*self.model.parameters(), *self._says.parameters()], 1.0)
        self._optimiser.step()
        clamp_logit_scale(self.model)
        keep = min(AVERAGE, (1 + step) / (10 + step))
        with torch.no_grad():
            for mean, value in zip(self.averaged.parameters(), self.model.parameters(), strict=True):
                mean.lerp_(value, 1 - keep)
        return [float(each.detach()) for each in (contrast, between, words)]

    def _validate(self, step: int, losses: NDArray[np.float64]) -> None:
        seen = judge(embed_pairs(self.averaged, self._held_out), self._held_out.table)
        figures = summarise(seen.text_ranks)
        if figures["mrr"] > max((each["mrr"] for each in self.curve), default=0):
            self.best = {name: tensor.clone() for name, tensor in self.averaged.state_dict().items()}
        names = ("contrast", "texts", "words")
        self.curve.append({
            "step": step, "cpu_seconds": round(self.cpu_seconds), **dict(zip(names, losses.round(3).tolist(), strict=True)),
            **figures,
        })
        print(json.dumps(self.curve[-1]), flush=True)  # noqa: T201 - progress of an hour

    def _state(self, step: int) -> dict[str, Any]:
        return {
            "step": step, "model": self.model.state_dict(), "averaged": self.averaged.state_dict(), "best": self.best,
            "says": self._says.state_dict(), "optimiser": self._optimiser.state_dict(), "curve": self.curve,
            "torch": torch.get_rng_state(), "numpy": json.dumps(self._rng.bit_generator.state),
            "rows": torch.from_numpy(self._rows.left.copy()), "cpu_seconds": self.cpu_seconds,
        }

    def _restore(self, saved: dict[str, Any]) -> int:
        self.model.load_state_dict(saved["model"])
        self.averaged.load_state_dict(saved["averaged"])
        self._says.load_state_dict(saved["says"])
        self._optimiser.load_state_dict(saved["optimiser"])
        torch.set_rng_state(saved["torch"])
        self._rng.bit_generator.state = json.loads(saved["numpy"])
        self._rows.left = saved["rows"].numpy()
        self.curve, self.best, self.cpu_seconds = saved["curve"], saved["best"], saved["cpu_seconds"]
        return int(saved["step"])

    def save(self) -> None:
        """Write the averaged model into the folder, as `backbones.load` reads one."""
        tensors = {name: tensor.detach().contiguous() for name, tensor in self.averaged.clip.state_dict().items()}
        save_file(tensors, self.folder / "model.safetensors")
        (self.folder / "config.json").write_text(json.dumps(self._config, indent=2) + "\n", encoding="utf-8")


def _groups(*modules: nn.Module) -> list[dict[str, Any]]:
    """Matrices decay; norms, biases and the scale do not."""
    every = [parameter for module in modules for parameter in module.parameters()]
    return [
        {"params": [parameter for parameter in every if parameter.ndim > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [parameter for parameter in every if parameter.ndim <= 1], "weight_decay": 0.0},
    ]


def judge_on_dev(model: Backbone) -> dict[str, Any]:
    """Recalls on the 1,000 dev pictures, both ways, each with its interval: pictures are drawn, with all their captions."""
    texts = Texts.load(model.spec.tokenizer, context=CONTEXT, pad_id=0)
    dev = pairs_of(read_flickr(REALDATA / "B_image_text" / "flickr8k_dev", side=SIDE), texts)
    found = judge(embed_pairs(model, dev), dev.table)
    once = one_a_clip(dev.table)
    return {
        "num_pictures": int(once.sum()), "num_captions": len(dev),
        "text_to_image": intervals(found.text_ranks, dev.table.clip_id.to_numpy()),
        "image_to_text": intervals(found.video_ranks[once], dev.table.clip_id.to_numpy()[once]),
    }


def intervals(ranks: Ranks, of: NDArray[Any]) -> dict[str, Any]:
    """R@1, R@5 and R@10, each the mean over pictures of the share of the picture's queries that hit, with its interval."""
    figures = {}
    for k in (1, 5, 10):
        shares = pd.Series(ranks <= k).groupby(of).mean().to_numpy(np.float64)
        figures[f"r{k}"] = interval(shares, range(len(shares)), resamples=2000, seed=0).to_json()
    return figures | {"median_rank": float(np.median(ranks))}


def main() -> None:
    """Train, judge on dev once, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--epochs", type=int, default=45)
    options = parser.parse_args()
    training = Training(options.work, num_epochs=options.epochs)
    training.run()
    model = backbones.load(options.work)
    report = {
        "parameters": model.num_parameters(), "cpu_seconds": round(training.cpu_seconds), "epochs": options.epochs,
        "dev": judge_on_dev(model), "curve": training.curve,
    }
    OUT.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report["dev"], indent=2))  # noqa: T201 - this is the command's answer


if __name__ == "__main__":
    main()
