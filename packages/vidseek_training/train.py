"""Teach a backbone the domain: LoRA on both towers with a contrastive loss, watched on the validation gallery."""

from __future__ import annotations

import copy
import csv
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor
from tqdm import tqdm

from vidseek_encoder.bundle import file_sha256
from vidseek_media.errors import GateFailed
from vidseek_media.folders import whole_folder
from vidseek_training import backbones, lora, pictures, tracking
from vidseek_training.backbones import Backbone
from vidseek_training.backbones.base import clamp_logit_scale
from vidseek_training.data import PairSet, augment, batches, cut_padding, drop_words, load_pairs, to_pixels
from vidseek_training.embedding import embed_frames, embed_pairs
from vidseek_training.judging import judge
from vidseek_training.losses import info_nce
from vidseek_training.metrics import alignment, summarise, uniformity
from vidseek_training.precision import bf16_products, multiplies_in_bf16
from vidseek_training.settings import TrainSettings


@dataclass(frozen=True)
class Outcome:
    """What became of one adapter setting; outcome.json."""

    setting: str
    trained: bool
    reason: str
    """Why nothing was trained, or empty."""
    backbone: str
    num_pairs: int
    num_steps: int
    seconds: float
    run_id: str
    """Of MLflow, or empty."""


@dataclass(frozen=True)
class Data:
    """The pairs of all sides of a training."""

    train: PairSet
    validation: PairSet
    general: PairSet | None
    """Training pairs of the general world, for replay."""


def train_adapter(
    name: str, settings: TrainSettings, *, backbone: str, pairs: Path, frames: Path, general: Path | None, out: Path,
    report: Path,
) -> Outcome:
    """Train the setting `name` and write its adapter, its validation ranks and its curves.

    Args:
        name: Of the setting, in params.
        settings: How to train.
        backbone: See `backbones.load`.
        pairs: The pairs table.
        frames: The frames stage's folder.
        general: The general world's folder (pairs/ and frames/), or None: nothing to replay.
        out: Gets adapter/, outcome.json and validation.json; whole or absent.
        report: Gets metrics.json, curves.csv and pictures/.

    Raises:
        ArtifactError: a table, a shard or the backbone's files are missing or broken.
        GateFailed: the loss is no longer a number.
        ServiceError: the tracking store does not answer.
    """
    torch.manual_seed(settings.seed)
    model = backbones.load(backbone)
    data = _load(model, settings, pairs, frames, general)
    (report / "pictures").mkdir(parents=True, exist_ok=True)
    if len(data.train) < settings.min_pairs:
        reason = f"{len(data.train)} training pairs; the setting wants at least {settings.min_pairs}"
        outcome = Outcome(name, False, reason, backbone, len(data.train), 0, 0.0, "")
        _write_untrained(outcome, out, report)
        return outcome
    params = {**settings.model_dump(mode="json"), "backbone": backbone, "num_pairs": len(data.train)}
    with tracking.run(f"train-{name}", params, {"setting": name, "pairs_sha256": file_sha256(pairs)}) as run_id:
        began = time.monotonic()
        training = _Training(model, settings, data)
        training.run()
        seconds = time.monotonic() - began
        outcome = Outcome(name, True, "", backbone, len(data.train), training.steps_done, round(seconds, 1), run_id)
        _write_trained(outcome, training, out, report)
        tracking.log_folder(out / "adapter", under="adapter")
        tracking.log_folder(report, under="report")
    return outcome


def _load(model: Backbone, settings: TrainSettings, pairs: Path, frames: Path, general: Path | None) -> Data:
    spec = model.spec
    replayed = None
    if general is not None and settings.replay:
        replayed = load_pairs(general / "pairs" / "pairs.parquet", general / "frames", spec, split="train")
    return Data(
        load_pairs(pairs, frames, spec, split="train"), load_pairs(pairs, frames, spec, split="validation"),
        replayed if replayed is not None and len(replayed) >= settings.replay else None,
    )


class _Training:
    """One run: the model, its adapter, and what was seen on the way."""

    def __init__(self, model: Backbone, settings: TrainSettings, data: Data) -> None:
        self.model, self.settings, self.data = model, settings, data
        self.rng = np.random.default_rng(settings.seed)
        self.in_bf16 = multiplies_in_bf16(settings.precision, model.logit_scale.device)
        # The base's vectors: what the adapted model is compared with, and what the text tower warms up against.
        self.base_validation = embed_pairs(self.model, self.data.validation)
        self.base = judge(self.base_validation, data.validation.table)
        self.handle: PeftModel = lora.attach(model, settings)
        self.curves: list[dict[str, float]] = []
        self.best: tuple[float, dict[str, Tensor], float] | None = None
        self.adapted_vectors, self.adapted = self.base_validation, self.base
        self.steps_done = 0
        self._looks_without_gain = 0

    def run(self) -> None:
        """Warm the text tower up, train both, and end with the best adapter that validation saw."""
        self._phase(self._warm_steps(), self.settings.warmup_text_steps, "text tower", looks=False)
        self._phase(self._full_steps(), self.settings.steps, "both towers", looks=True)
        if self.best is not None:
            _, state, scale = self.best
            set_peft_model_state_dict(self.handle, state)
            self.model.logit_scale.data.fill_(scale)
        self.adapted_vectors = embed_pairs(self.model, self.data.validation)
        self.adapted = judge(self.adapted_vectors, self.data.validation.table)

    def _phase(self, losses: Iterator[Tensor], num_steps: int, title: str, *, looks: bool) -> None:
        if not num_steps:
            return
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        optimiser = torch.optim.AdamW(
            parameters, lr=self.settings.learning_rate, weight_decay=self.settings.weight_decay, betas=(0.9, 0.98)
        )
        rate = _cosine(num_steps, self.settings.warmup_share)
        self.model.train()
        with tqdm(range(num_steps), desc=title, unit="step", disable=None) as bar:
            for step in bar:
                for group in optimiser.param_groups:
                    group["lr"] = self.settings.learning_rate * rate(step)
                loss = next(losses)
                self._refuse_nan(loss)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(parameters, 1.0)
                optimiser.step()
                clamp_logit_scale(self.model)
                self.steps_done += 1
                last = step == num_steps - 1
                if looks and (step % self.settings.evaluate_every == self.settings.evaluate_every - 1 or last):
                    self._look(float(loss.detach()), optimiser.param_groups[0]["lr"])
                    bar.set_postfix(loss=f"{float(loss.detach()):.3f}", r1=f"{self.curves[-1]['validation_r1']:.3f}")
                    if self._looks_without_gain >= self.settings.patience:
                        return

    def _warm_steps(self) -> Iterator[Tensor]:
        """Losses of the text tower against the base's vectors of the clips, which do not change."""
        train, general, settings = self.data.train, self.data.general, self.settings
        if not settings.warmup_text_steps:
            return
        with _adapter_off(self.handle):
            videos = torch.from_numpy(embed_frames(self.model.eval(), train.frames))
            others = torch.from_numpy(embed_frames(self.model, general.frames)) if general is not None else None
        self.model.train()
        rows_of = batches(len(train), settings.warmup_text_batch, self.rng)
        general_rows = batches(len(general), settings.replay, self.rng) if general is not None else None
        while True:
            rows = next(rows_of)
            loss = self._loss(videos[rows], train, rows)
            if general is not None and general_rows is not None and others is not None:
                picked = next(general_rows)
                loss = loss + settings.replay_weight * self._loss(others[picked], general, picked)
            yield loss

    def _full_steps(self) -> Iterator[Tensor]:
        """Losses of both towers on fresh views, with a share of general pairs."""
        train, general, settings = self.data.train, self.data.general, self.settings
        rows_of = batches(len(train), settings.batch, self.rng)
        general_rows = batches(len(general), settings.replay, self.rng) if general is not None else None
        while True:
            rows = next(rows_of)
            views = self._views(train, rows)
            if general is None or general_rows is None:
                yield self._loss(self._embed_views(views), train, rows)
                continue
            picked = next(general_rows)
            # One pass for both worlds: the towers are busier with one larger batch than with two small ones.
            both = np.concatenate([views, self._views(general, picked)])
            videos = self._embed_views(both)
            loss = self._loss(videos[: len(rows)], train, rows)
            yield loss + settings.replay_weight * self._loss(videos[len(rows) :], general, picked)

    def _views(self, pairs: PairSet, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        settings = self.settings
        return augment(
            pairs.frames[rows], self.rng, shift_share=settings.shift_share, brightness=settings.brightness
        )

    def _embed_views(self, views: NDArray[np.uint8]) -> Tensor:
        with bf16_products(self.model, wanted=self.in_bf16):
            return self.model.embed_videos(to_pixels(views, self.model.spec)).float()

    def _loss(self, videos: Tensor, pairs: PairSet, rows: NDArray[np.int64]) -> Tensor:
        """InfoNCE with the contrasts as extra negatives; equal captions and captions of one clip are not pushed apart."""
        contrasts = rows[pairs.has_contrast[rows]]
        share, pad = self.settings.word_dropout, self.model.spec.pad_id
        ids = drop_words(pairs.ids[rows], self.rng, share=share, pad_id=pad)
        # Dropped words could make a contrast true: it keeps all of its own.
        ids = np.concatenate([ids, pairs.contrast_ids[contrasts]])
        if not self.model.reads_padding:
            ids = cut_padding(ids, pad_id=pad)
        with bf16_products(self.model, wanted=self.in_bf16):
            texts = self.model.embed_texts(torch.from_numpy(ids)).float()
        said = np.array([*pairs.table.caption.iloc[rows], *pairs.table.contrast.iloc[contrasts]])
        same = said[: len(rows), None] == said[None, :]
        clips = pairs.table.clip_id.iloc[rows].to_numpy()
        same[:, : len(rows)] |= clips[:, None] == clips[None, :]
        return info_nce(videos, texts, self.model.logit_scale, same=torch.from_numpy(same))

    def _look(self, loss: float, rate: float) -> None:
        """Judge on validation, log, and remember the adapter if it is the best so far."""
        figures = {"loss": loss, "learning_rate": rate, "logit_scale": float(self.model.logit_scale.detach().exp())}
        if len(self.data.validation):
            vectors = embed_pairs(self.model, self.data.validation)
            seen = judge(vectors, self.data.validation.table)
            figures |= {f"validation_{name}": value for name, value in summarise(seen.text_ranks).items()}
            figures["alignment"] = alignment(vectors.videos, vectors.texts)
            figures["uniformity"] = uniformity(np.concatenate([vectors.videos, vectors.texts]))
            self._remember(figures["validation_mrr"])
        else:
            figures |= {"validation_r1": float("nan")}
        self.curves.append({"step": self.steps_done, **figures})
        tracking.log({name: value for name, value in figures.items() if value == value}, step=self.steps_done)
        self.model.train()

    def _remember(self, score: float) -> None:
        if self.best is not None and score <= self.best[0]:
            self._looks_without_gain += 1
            return
        self._looks_without_gain = 0
        state = {name: tensor.clone() for name, tensor in get_peft_model_state_dict(self.handle).items()}
        self.best = (score, copy.deepcopy(state), float(self.model.logit_scale.detach()))

    def _refuse_nan(self, loss: Tensor) -> None:
        if not torch.isfinite(loss):
            raise GateFailed(
                f"the loss is {float(loss.detach())} at step {self.steps_done + 1}",
                remedy="Lower train.settings.<name>.learning_rate; nothing was written",
            )


class _adapter_off:  # noqa: N801 - reads as a word in `with`
    """The base's own answers for the length of a block."""

    def __init__(self, handle: PeftModel) -> None:
        self._block = handle.disable_adapter()

    def __enter__(self) -> None:
        self._block.__enter__()

    def __exit__(self, *error: object) -> None:
        self._block.__exit__(*error)


def _cosine(num_steps: int, warmup_share: float) -> Callable[[int], float]:
    """Linear to 1 over the warm-up, then half a cosine to 0."""
    warm = max(1, round(num_steps * warmup_share))

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, num_steps - warm)))

    return factor


def gallery_hash(pairs: PairSet) -> str:
    """Names a gallery by its clips and captions: ranks on another gallery cannot be compared."""
    rows = [[row.clip_id, row.caption, row.gallery] for row in pairs.table.itertuples()]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


def _write_untrained(outcome: Outcome, out: Path, report: Path) -> None:
    with whole_folder(out) as folder:
        (folder / "outcome.json").write_text(json.dumps(outcome.__dict__, indent=2) + "\n", encoding="utf-8")
    (report / "metrics.json").write_text(json.dumps({"trained": False}) + "\n", encoding="utf-8")
    (report / "curves.csv").write_text("step,loss,validation_r1\n", encoding="utf-8")


def _write_trained(outcome: Outcome, training: _Training, out: Path, report: Path) -> None:
    pairs = training.data.validation
    ranks = {
        "gallery": gallery_hash(pairs), "base": training.base.text_ranks.tolist(),
        "adapted": training.adapted.text_ranks.tolist(),
    }
    with whole_folder(out) as folder:
        lora.save(training.handle, training.model, folder / "adapter")
        (folder / "validation.json").write_text(json.dumps(ranks) + "\n", encoding="utf-8")
        (folder / "outcome.json").write_text(json.dumps(outcome.__dict__, indent=2) + "\n", encoding="utf-8")
    figures = {
        "trained": True, "validation": {
            "base": training.base.figures(pairs.table), "adapted": training.adapted.figures(pairs.table),
        },
    }
    (report / "metrics.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    with (report / "curves.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(training.curves[0]))
        writer.writeheader()
        writer.writerows(training.curves)
    pictures.draw_curves(training.curves, report / "pictures" / "curves.png")
    if len(pairs):
        vectors = training.adapted_vectors
        pictures.draw_similarity(vectors.texts, vectors.videos, report / "pictures" / "similarity.png")
        pictures.draw_retrieval(pairs, vectors.texts, vectors.videos, report / "pictures" / "retrieval.png")
