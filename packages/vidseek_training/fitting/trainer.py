"""One training: two phases of gradient descent, looks at the validation gallery, and a checkpoint at each look."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from torch import Tensor, nn
from tqdm import tqdm

from vidseek_media.errors import ArtifactError, ConfigError, GateFailed
from vidseek_training.backbones import Backbone
from vidseek_training.backbones.base import clamp_logit_scale
from vidseek_training.dataset.negatives import hardest
from vidseek_training.dataset.pair_set import choose_frames, cut_padding, to_pixels
from vidseek_training.dataset.sampling import BaseVectors, Batch, Data, Lower, Sampler
from vidseek_training.evaluation import scales
from vidseek_training.evaluation.embedding import embed_clips, embed_frames, embed_ids, embed_pairs, look_rows
from vidseek_training.evaluation.metrics import alignment, summarise, uniformity
from vidseek_training.evaluation.retrieval_metrics import judge
from vidseek_training.evaluation.scales import Scaled
from vidseek_training.fitting import lora
from vidseek_training.fitting.cached_hidden_states import depth_of, lower_tokens
from vidseek_training.fitting.checkpoints import REMEDY, Checkpoint
from vidseek_training.fitting.distributed import DistributedContext
from vidseek_training.fitting.forecast import Forecast, Measured, Work, probe
from vidseek_training.fitting.losses import drift, info_nce, sigmoid_bias, sigmoid_loss
from vidseek_training.fitting.precision import bf16_products, multiplies_in_bf16
from vidseek_training.fitting.timing import StepTimer
from vidseek_training.settings import TrainSettings

Log = Callable[[dict[str, float], int], None]
Say = Callable[[str], None]

_GAUGE_EVERY = 10
"""Steps between two measurements of the updates' strength, beside those of each validation."""
_NUM_PROBED = 8
"""Rows that a forecast is measured on, at most: a lone row pays for all weights being read."""
_HIGHEST_FACTOR = 100.0
"""Of cosines: CLIP's own limit. A model that was trained to a higher one keeps its own."""


class Trainer:
    """One run: the model, its adapter, and what was seen on the way.

    Attributes:
        curves: The figures of each look, oldest first.
        best: Score, adapter and logit scale of the best look; None where there is no validation.
        sweep: Of the adapter's scale; empty where there was none.
        warnings: What the person who waits should know of, each said once, as soon as it is known.
        strongest: The largest update over weight, in spectral norm, that was measured, and the layer.
        steps_done: Over both phases.
        seconds: That the steps took, a stopped run's included.
    """

    def __init__(
        self, model: Backbone, settings: TrainSettings, data: Data, *, log: Log | None = None,
        checkpoint: Checkpoint | None = None, about: dict[str, str] | None = None,
        processes: DistributedContext | None = None, lower: Path | None = None, say: Say | None = None,
    ) -> None:
        """Of `model`, in place; `log` gets each look's figures, `about` stands in each checkpoint, `say` gets warnings.

        `lower` is the folder where `settings.cached_views` are kept; None for a file that vanishes.
        """
        self.model, self.settings, self.data = model, settings, data
        self._log, self._checkpoint = log or (lambda figures, step: None), checkpoint
        self._say = say or (lambda line: None)
        self._about, self._processes, self._lower_folder = about or {}, processes or DistributedContext(), lower
        self._rng = np.random.default_rng(settings.seed)
        self._device = model.logit_scale.device
        self.in_bf16 = multiplies_in_bf16(settings.precision, self._device)
        # The base's vectors: what the adapted model is compared with, and what the text tower warms up against.
        self.base_validation = embed_pairs(self.model, self.data.validation)
        self.base = judge(self.base_validation, data.validation.table)
        self.handle: PeftModel = lora.attach(model, settings)
        self._gauge = lora.UpdateGauge(self.handle)
        self.strongest: tuple[float, str] = (0.0, "")
        self.warnings: list[str] = []
        self._warned: list[str] = []
        self._num_held = 0
        self._look_rows = look_rows(data.validation, settings.look_clips, seed=settings.seed)
        self._look_table = data.validation.table.iloc[self._look_rows].reset_index(drop=True)
        self._highest_factor = max(_HIGHEST_FACTOR, float(model.logit_scale.detach().exp()))
        # Of the sigmoid loss; it moves no vector, and no adapter keeps it.
        self.bias: nn.Parameter | None = None
        if self._processes.rank:
            torch.manual_seed(settings.seed + 1_000_003 * self._processes.rank)  # its dropout is its own
        self.curves: list[dict[str, float]] = []
        self.best: tuple[float, dict[str, Tensor], float] | None = None
        self.adapted_vectors, self.adapted = self.base_validation, self.base
        self.sweep: list[Scaled] = []
        self.steps_done = 0
        self.seconds = 0.0
        self._looks_without_gain = 0
        self._best_step = 0
        self._losses: list[float] = []

    def run(self, saved: dict[str, Any] | None = None) -> None:
        """Warm the text tower up, train both, and end with the best adapter that validation saw.

        Args:
            saved: A checkpoint's state to go on from; None to begin.

        Raises:
            GateFailed: the loss is no longer a number; the last checkpoint stays.
            ArtifactError: the disk does not take a checkpoint.
        """
        settings = self.settings
        warms = saved is None and settings.warmup_text_steps > 0
        holds = self.data.general is not None and settings.replay_anchor > 0
        base = self._base_vectors(of_training=warms) if warms or holds else None
        if warms:
            sampler = Sampler(
                self.data, settings, self.model, self._rng, size=settings.warmup_text_batch, base=base,
                clips_are_known=True,
            )
            self._phase(sampler, settings.warmup_text_steps, "text tower", looks=False)
        sampler = Sampler(
            self.data, settings, self.model, self._rng, size=settings.batch, base=base, lower=self._lower_tokens()
        )
        num_steps = settings.num_steps(len(self.data.train))
        self._phase(sampler, num_steps, "both towers", looks=True, saved=saved)
        if self.best is not None:
            _, state, scale = self.best
            lora.set_scaled(self.handle, state, 1.0)
            self.model.logit_scale.data.fill_(scale)
        self._choose_scale()
        self.adapted_vectors = embed_pairs(
            self.model, self.data.validation, base=self.base_validation, towers=settings.towers
        )
        self.adapted = judge(self.adapted_vectors, self.data.validation.table)

    def forecast(self) -> Forecast:
        """What `run` will take here: the work is known, its time and memory are measured on a few rows."""
        settings, count = self.settings, len(self.data.train)
        clips = settings.pairs_a_step(count)
        general = min(settings.replay, len(self.data.general)) if self.data.general is not None else 0
        contrasts = round(clips * float(self.data.train.has_contrast.mean())) if count else 0
        texts = clips * (2 if settings.text_view_weight else 1) + contrasts + general
        steps, every = settings.num_steps(count), settings.look_every(count)
        found = Work(
            num_pairs=count, num_steps=steps, pairs_a_step=clips, epochs=self._epochs(steps),
            clips_a_step=clips * (2 if settings.clip_view_weight else 1) + general, texts_a_step=texts,
            clip_values=3 * self.model.spec.frames * self.model.spec.side**2,
            chunk=settings.chunk, num_looks=math.ceil(steps / every),
            clips_a_look=int(self._look_table.clip_id.nunique()), texts_a_look=len(self._look_rows),
            num_warmup_steps=settings.warmup_text_steps, num_processes=self._processes.count,
        )
        if not count:
            raise ConfigError(
                "there is no training pair: nothing can be forecast", code="no-training-pairs",
                remedy="Run `dvc repro pairs`",
            )
        return Forecast(found, self._measure_rows(np.arange(min(clips, settings.chunk or clips, _NUM_PROBED))))

    def _measure_rows(self, rows: NDArray[np.int64]) -> Measured:
        """What a clip and a text cost: frames, or tokens where the layers below are computed once."""
        spec, ids = self.model.spec, self.data.train.ids
        views: NDArray[Any] = choose_frames(self.data.train.frames[rows], spec.frames, None)
        if not self.model.reads_padding:
            ids = cut_padding(ids[:256], pad_id=spec.pad_id)
        kind = "views"
        if self.settings.cached_views:
            with torch.no_grad():
                pixels = to_pixels(views, spec, self._device)
                views = self.model.video_tokens(pixels, depth_of(self.model, self.settings)).half().cpu().numpy()
            kind = "tokens"
        state = self._random_state()
        pieces: list[tuple[str, NDArray[Any]]] = [(kind, views), ("ids", ids[rows])]
        measured = probe(self.model, [partial(self._embed, piece) for piece in pieces], len(rows))
        self._set_random_state(state)
        return measured

    def _choose_scale(self) -> None:
        """Apply the adapter as strongly as the rule of `scales` says."""
        if self.settings.scales == (1.0,) or not len(self.data.validation):
            return
        self.sweep = scales.sweep(
            self.model, self.handle, self.settings.scales, validation=self.data.validation,
            general=self.data.general_validation,
        )
        lora.set_scaled(self.handle, lora.state_of(self.handle), scales.choose(self.sweep).scale)

    def _base_vectors(self, *, of_training: bool) -> BaseVectors:
        """With the adapter put aside; those of the training clips, which the warm-up alone wants, if `of_training`."""
        train, general = self.data.train, self.data.general
        nothing = np.empty((0, self.model.spec.dimension), np.float32)
        with self.handle.disable_adapter():
            self.model.eval()
            return BaseVectors(
                embed_clips(self.model, train) if of_training else nothing,
                nothing if general is None else embed_clips(self.model, general),
                nothing if general is None else embed_ids(self.model, general.ids),
            )

    def _lower_tokens(self) -> Lower:
        """Those that the settings want kept. The first process computes them where all see its folder."""
        if not self.settings.cached_views:
            return None, None
        shared = self._lower_folder is not None
        if shared and not self._processes.is_first:
            self._processes.wait()
        domain, general = (
            None if pairs is None else lower_tokens(
                self.model, pairs, self.settings, in_bf16=self.in_bf16, folder=self._lower_folder, side=side
            )
            for side, pairs in (("domain", self.data.train), ("general", self.data.general))
        )
        if shared and self._processes.is_first:
            self._processes.wait()
        return domain, general

    def _phase(
        self, sampler: Sampler, num_steps: int, title: str, *, looks: bool, saved: dict[str, Any] | None = None
    ) -> None:
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        if self.settings.loss == "sigmoid":
            if self.bias is None:
                self.bias = self._first_bias()
            parameters.append(self.bias)
        optimiser = torch.optim.AdamW(
            parameters, lr=self.settings.learning_rate, weight_decay=self.settings.weight_decay, betas=(0.9, 0.98)
        )
        first = 0 if saved is None else self._restored(saved, sampler, optimiser)
        rate = _cosine(num_steps, self.settings.warmup_share, self.settings.cycles)
        look_every = self.settings.look_every(len(self.data.train))
        self.model.train()
        timer = StepTimer(self.seconds)
        with tqdm(range(first, num_steps), initial=first, total=num_steps, desc=title, unit="step",
                  disable=None if self._processes.is_first else True) as bar:
            for step in bar:
                for group in optimiser.param_groups:
                    group["lr"] = self.settings.learning_rate * rate(step)
                with timer.waiting():
                    batch = sampler.draw()
                optimiser.zero_grad(set_to_none=True)
                self._losses.append(self._train_step(batch))
                torch.nn.utils.clip_grad_norm_(parameters, 1.0)
                optimiser.step()
                clamp_logit_scale(self.model, self._highest_factor)
                if self.settings.hold_updates and self.settings.max_update_ratio is not None:
                    self._num_held = self._gauge.hold(self.settings.max_update_ratio)
                self.steps_done += 1
                timer.count(len(batch.clips))
                self.seconds = timer.seconds()
                last = step == num_steps - 1
                if step % _GAUGE_EVERY == _GAUGE_EVERY - 1:
                    self._gauge_updates()
                if looks and (step % look_every == look_every - 1 or last):
                    self._validate(optimiser.param_groups[0]["lr"], timer)
                    bar.set_postfix(loss=f"{self.curves[-1]['loss']:.3f}", r1=f"{self.curves[-1]['validation_r1']:.3f}")
                    if last or self._has_stalled():
                        return
                    self._mine(sampler)
                    state = self._state(step + 1, sampler, optimiser)
                    if self._checkpoint is not None and self._processes.is_first:
                        self._checkpoint.save(state)
                    self.model.train()

    def _train_step(self, batch: Batch) -> float:
        """Add the gradients of the step's loss to the parameters; gives the loss.

        Raises:
            GateFailed: it is not a number.
        """
        # GradCache (Gao et al. 2021), over processes too: each embeds its share, all have all vectors and the loss of the
        # whole batch, and each sends the loss's gradients by its own vectors back through what made them. In chunks that
        # is made again, under the random state that it had, so that its dropout is the same.
        pieces = list(_pieces(batch, self.settings.chunk, self._processes.count))
        ends = np.cumsum([len(rows) for _, rows in pieces])
        own = range(self._processes.rank, len(pieces), self._processes.count)
        again = self.settings.chunk is not None
        states, made = {}, {}
        for number in own:
            states[number] = self._random_state()
            with torch.set_grad_enabled(not again):
                made[number] = self._embed(pieces[number])
        vectors = torch.zeros(int(ends[-1]), self.model.spec.dimension, device=self._device)
        for number, part in made.items():
            vectors[ends[number] - len(part) : ends[number]] = part.detach()
        self._processes.add(vectors).requires_grad_()
        loss = self._loss(vectors, batch)
        self._refuse_nan(loss)
        loss.backward()  # type: ignore[no-untyped-call]
        assert vectors.grad is not None
        for number in own:
            part = made.pop(number)
            if again:
                self._set_random_state(states[number])
                part = self._embed(pieces[number])
            if part.requires_grad:
                part.backward(vectors.grad[ends[number] - len(part) : ends[number]])  # type: ignore[no-untyped-call]
        self._add_gradients()
        return float(loss.detach())

    def _add_gradients(self) -> None:
        """Over all processes; that of the logit scale is the same in each."""
        if self._processes.count == 1:
            return
        for parameter in self.model.parameters():
            if parameter.requires_grad and parameter is not self.model.logit_scale:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                self._processes.add(parameter.grad)

    def _embed(self, piece: tuple[str, NDArray[Any]]) -> Tensor:
        """Unit rows of one piece of a batch, in fp32."""
        kind, values = piece
        if kind == "known":
            return torch.from_numpy(values).to(self._device)
        with bf16_products(self.model, wanted=self.in_bf16):
            if kind == "tokens":
                tokens = torch.from_numpy(values).to(self._device).float()
                return self.model.embed_tokens(tokens, depth_of(self.model, self.settings)).float()
            if kind == "views":
                return self.model.embed_videos(to_pixels(values, self.model.spec, self._device)).float()
            return self.model.embed_texts(torch.from_numpy(values).to(self._device)).float()

    def _loss(self, vectors: Tensor, batch: Batch) -> Tensor:
        """The weighted sum of the batch's terms and anchors."""
        total = torch.zeros((), device=self._device)
        for term in batch.terms:
            same = torch.from_numpy(term.same).to(self._device)
            left, right, scale = vectors[term.left], vectors[term.right], self.model.logit_scale
            if self.bias is None or term.of_views:
                loss = info_nce(left, right, scale, same=same)
            else:
                loss = sigmoid_loss(left, right, scale, self.bias, same=same)
            total = total + term.weight * loss
        for anchor in batch.anchors:
            total = total + anchor.weight * drift(vectors[anchor.rows], torch.from_numpy(anchor.held).to(self._device))
        return total

    def _random_state(self) -> Tensor:
        return torch.cuda.get_rng_state(self._device) if self._device.type == "cuda" else torch.get_rng_state()

    def _set_random_state(self, state: Tensor) -> None:
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(state, self._device)
        else:
            torch.set_rng_state(state)

    def _validate(self, rate: float, timer: StepTimer) -> None:
        """Judge on validation, log, and remember the adapter if it is the best so far."""
        figures = {
            "loss": float(np.mean(self._losses)), "learning_rate": rate,
            "logit_scale": float(self.model.logit_scale.detach().exp()), "epoch": round(self._epochs(self.steps_done), 3),
            "update_ratio": round(self._gauge_updates(), 4), "updates_held": self._num_held, **timer.figures(),
        }
        self._losses = []
        with timer.pausing():
            if len(self.data.validation):
                vectors = embed_pairs(
                    self.model, self.data.validation, rows=self._look_rows, base=self.base_validation,
                    towers=self.settings.towers,
                )
                seen = judge(vectors, self._look_table)
                figures |= {f"validation_{name}": value for name, value in summarise(seen.text_ranks).items()}
                back = summarise(seen.video_ranks)
                figures |= {f"validation_video_to_text_{name}": back[name] for name in ("r1", "r5", "r10", "mdr")}
                figures["alignment"] = alignment(vectors.videos, vectors.texts)
                figures["uniformity"] = uniformity(np.concatenate([vectors.videos, vectors.texts]))
                self._remember(figures["validation_mrr"])
            else:
                figures |= {"validation_r1": float("nan")}
            self.curves.append({"step": self.steps_done, **figures})
            self._log({name: value for name, value in figures.items() if value == value}, self.steps_done)

    def _gauge_updates(self) -> float:
        """Measure how strong the updates are; gives the largest, and warns of it once where it is too large."""
        ratios = self._gauge.ratios()
        if not ratios:
            return 0.0
        layer = max(ratios, key=lambda name: ratios[name])
        self.strongest = max(self.strongest, (ratios[layer], layer))
        limit = self.settings.max_update_ratio
        if limit is not None and ratios[layer] > limit and not self.settings.hold_updates:
            self.warn(
                "strong update",
                f"after step {self.steps_done} the update of {layer} is {ratios[layer]:.2f} of its weight in spectral norm, "
                f"over {limit:g}: general knowledge is being overwritten; lower learning_rate, alpha or epochs",
            )
        if limit is not None and 2 * self._num_held > len(ratios):
            self.warn(
                "held updates",
                f"after step {self.steps_done} updates of {self._num_held} of {len(ratios)} layers are held at {limit:g} "
                "of their weights: learning_rate, alpha or epochs are high for this backbone",
            )
        return ratios[layer]

    def warn(self, kind: str, text: str) -> None:
        """Say `text`, unless a warning of its kind was said before."""
        if kind not in self._warned:
            self._warned.append(kind)
            self.warnings.append(text)
            self._say(f"warning: {text}")

    def _remember(self, score: float) -> None:
        if self.best is not None and score <= self.best[0]:
            self._looks_without_gain += 1
            return
        self._looks_without_gain, self._best_step = 0, self.steps_done
        self.best = (score, lora.state_of(self.handle), float(self.model.logit_scale.detach()))

    def _has_stalled(self) -> bool:
        if self.best is None:
            return False
        waited: float = self._looks_without_gain
        if self.settings.patience_unit == "epochs":
            waited = self._epochs(self.steps_done - self._best_step)
        # The first one's word counts: two GPUs may differ in a last bit, and one that stops leaves the others waiting.
        return bool(self._processes.agree(torch.tensor(float(waited >= self.settings.patience), device=self._device)))

    def _epochs(self, steps: int) -> float:
        return steps * min(self.settings.batch, len(self.data.train)) / len(self.data.train)

    def _mine(self, sampler: Sampler) -> None:
        """Let the sampler pick hard negatives by the model as it is now, among at most `hard_clips` training clips."""
        settings, train = self.settings, self.data.train
        if not settings.hard_share:
            return
        # Its own generator: how many are looked at changes no other draw.
        rows = look_rows(train, settings.hard_clips, seed=settings.seed + self.steps_done)
        self.model.eval()
        found = hardest(
            embed_ids(self.model, train.ids[rows]), embed_clips(self.model, train, rows=rows), sampler.right, rows,
            depth=settings.hard_depth,
        )
        if sampler.neighbours is None:
            sampler.neighbours = np.full((len(train), settings.hard_depth), -1, np.int64)
        sampler.neighbours[rows] = np.where(found < 0, -1, rows[found])
        agreed = self._processes.agree(torch.from_numpy(sampler.neighbours).to(self._device))
        sampler.neighbours = agreed.cpu().numpy()

    def _state(self, step: int, sampler: Sampler, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
        """All that the steps from `step` on depend on."""
        return {
            **self._about, "step": step, "steps_done": self.steps_done, "seconds": self.seconds, "curves": self.curves,
            "best": self.best, "looks_without_gain": self._looks_without_gain, "best_step": self._best_step,
            "trained": {name: each.detach() for name, each in self.model.named_parameters() if each.requires_grad},
            "bias": None if self.bias is None else self.bias.detach(), "optimiser": optimiser.state_dict(),
            "torch": self._processes.gather(self._random_state().to(self._device)).cpu(),
            # A text: the generator's numbers are of 128 bits.
            "numpy": json.dumps(self._rng.bit_generator.state),
            "rows": torch.from_numpy(sampler.rows.left.copy()),
            "general_rows": None if sampler.general_rows is None else torch.from_numpy(sampler.general_rows.left.copy()),
            "neighbours": None if sampler.neighbours is None else torch.from_numpy(sampler.neighbours),
            "strongest": self.strongest, "warnings": self.warnings, "warned": self._warned,
        }

    def _first_bias(self) -> nn.Parameter:
        """The model's own; else by the base's vectors of the first training pairs, as many as a batch has."""
        if self.model.logit_bias is not None:
            return nn.Parameter(torch.tensor(self.model.logit_bias, device=self._device))
        with self.handle.disable_adapter():
            self.model.eval()
            rows = np.arange(min(self.settings.batch, len(self.data.train)))
            clips = embed_frames(self.model, self.data.train.frames, rows=rows)
            texts = embed_ids(self.model, self.data.train.ids[rows])
        videos, captions = (torch.from_numpy(each).to(self._device) for each in (clips, texts))
        return nn.Parameter(torch.tensor(sigmoid_bias(videos, captions, self.model.logit_scale), device=self._device))

    def _restored(self, saved: dict[str, Any], sampler: Sampler, optimiser: torch.optim.Optimizer) -> int:
        """As `_restore`.

        Raises:
            ArtifactError: `saved` is no state of this training.
        """
        try:
            return self._restore(saved, sampler, optimiser)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, RuntimeError) as error:
            where = self._checkpoint.path if self._checkpoint else "given"
            raise ArtifactError(
                f"the checkpoint {where} is none of this training: {error!r}", code="checkpoint-broken", remedy=REMEDY,
            ) from error

    def _restore(self, saved: dict[str, Any], sampler: Sampler, optimiser: torch.optim.Optimizer) -> int:
        """Take up the state of `_state`; gives the step to go on with."""
        parameters = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, value in saved["trained"].items():
                parameters[name].copy_(value)
            if self.bias is not None:
                self.bias.copy_(saved["bias"])
        optimiser.load_state_dict(saved["optimiser"])
        # A copy: from a row that does not begin its memory torch's generator reads with a fault.
        self._set_random_state(saved["torch"][self._processes.rank].clone())
        self._rng.bit_generator.state = json.loads(saved["numpy"])
        num = len(self.data.train)
        sampler.rows.left = _rows_below(saved["rows"], num)
        if sampler.general_rows is not None and saved["general_rows"] is not None:
            assert self.data.general is not None
            sampler.general_rows.left = _rows_below(saved["general_rows"], len(self.data.general))
        sampler.neighbours = None if saved["neighbours"] is None else _rows_below(saved["neighbours"], num, least=-1)
        self.steps_done, self.seconds, self.curves = saved["steps_done"], saved["seconds"], list(saved["curves"])
        self.best = None if saved["best"] is None else tuple(saved["best"])
        self._looks_without_gain, self._best_step = saved["looks_without_gain"], saved["best_step"]
        ratio, layer = saved["strongest"]
        self.strongest = (ratio, layer)
        self.warnings, self._warned = list(saved["warnings"]), list(saved["warned"])
        return int(saved["step"])

    def _refuse_nan(self, loss: Tensor) -> None:
        if torch.isfinite(loss):
            return
        kept = self._checkpoint is not None and self._checkpoint.path.is_file()
        where = f"; the state at the last look is in {self._checkpoint.path}" if self._checkpoint and kept else ""
        raise GateFailed(
            f"the loss is {float(loss.detach())} at step {self.steps_done + 1}{where}", code="loss-not-finite",
            remedy="Lower train.settings.<name>.learning_rate; no adapter was written",
        )


def _rows_below(rows: Tensor, num: int, *, least: int = 0) -> NDArray[np.int64]:
    """The numbers of rows of a table of `num`; a `least` of -1 lets -1 stand for no row.

    Raises:
        ValueError: they are none.
    """
    if rows.dtype != torch.int64 or bool(((rows < least) | (rows >= num)).any()):
        raise ValueError(f"it names rows that are not among {num}")
    return rows.numpy()


def _pieces(batch: Batch, chunk: int | None, count: int) -> Iterator[tuple[str, NDArray[Any]]]:
    """What is embedded in one go, in the order of the batch's vectors: clips, then texts, each of at most `chunk` rows.

    Of each kind there are as many pieces for each of `count` processes.
    """
    kind = {np.dtype(np.uint8): "views", np.dtype(np.float16): "tokens"}.get(batch.clips.dtype, "known")
    for name, rows in ((kind, batch.clips), ("ids", batch.ids)):
        rounds = math.ceil(len(rows) / (count * chunk)) if chunk else 1
        for part in np.array_split(rows, min(rounds * count, len(rows))):
            yield name, part


def _cosine(num_steps: int, warmup_share: float, cycles: int) -> Callable[[int], float]:
    """Linear to 1 over the warm-up, then half a cosine to 0, `cycles` times."""
    warm = max(1, round(num_steps * warmup_share))

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * ((step - warm) * cycles / max(1, num_steps - warm) % 1)))

    return factor
