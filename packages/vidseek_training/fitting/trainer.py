"""The training loop: text warm-up, both towers, validations, and a checkpoint at each validation."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from torch import Tensor, nn

from vidseek_media.errors import ArtifactError, GateFailed
from vidseek_media.terminal.progress import Progress
from vidseek_training.backbones import Backbone
from vidseek_training.backbones.base import clamp_logit_scale
from vidseek_training.dataset.negatives import hardest
from vidseek_training.dataset.pair_set import cut_padding, to_pixels
from vidseek_training.dataset.sampling import BaseVectors, Batch, Data, Lower, Sampler
from vidseek_training.dataset.views import choose_frames
from vidseek_training.evaluation import scales
from vidseek_training.evaluation.embedding import embed_clips, embed_frames, embed_ids, embed_pairs, validation_rows
from vidseek_training.evaluation.metrics import alignment, summarise, uniformity
from vidseek_training.evaluation.retrieval_metrics import judge
from vidseek_training.evaluation.scales import Scaled
from vidseek_training.fitting import lora
from vidseek_training.fitting.cached_hidden_states import depth_of, lower_tokens
from vidseek_training.fitting.checkpoints import REMEDY, Checkpoint
from vidseek_training.fitting.distributed import DistributedContext
from vidseek_training.fitting.forecast import Forecast, Measured, probe, work_of
from vidseek_training.fitting.grad_cache import (
    Piece,
    add_gradients,
    batch_loss,
    embed_piece,
    random_state,
    set_random_state,
)
from vidseek_training.fitting.losses import sigmoid_bias
from vidseek_training.fitting.precision import multiplies_in_bf16
from vidseek_training.fitting.presets import holds_as_preset
from vidseek_training.fitting.timing import StepTimer
from vidseek_training.settings import TrainSettings

Log = Callable[[dict[str, float], int], None]
Say = Callable[[str], None]

_GAUGE_EVERY = 10
"""Steps between two measurements of the updates, besides one at each validation."""
_NUM_PROBED = 8
"""Rows that a forecast is measured on, at most. One row alone would cost too much: every pass reads all weights."""
_HIGHEST_FACTOR = 100.0
"""The limit of exp(logit_scale), as in CLIP. A model that comes with a higher one keeps it."""


class Trainer:
    """One training: the model, its adapter, and the figures of its validations.

    Attributes:
        curves: The figures of each validation, oldest first.
        best: MRR, adapter and logit scale of the best validation; None if there are no validation pairs.
        sweep: Results for each scale of the adapter; empty if only one scale is allowed.
        warnings: For the user, each once and as soon as it is known.
        strongest: The largest ratio of update to weight in spectral norm that was measured, and its layer.
        steps_done: Over both phases.
        seconds: Time of all steps, including those before a restart.
        bias: Of the sigmoid loss; no vector depends on it and no adapter stores it. None for InfoNCE.
    """

    def __init__(
        self, model: Backbone, settings: TrainSettings, data: Data, *, log: Log | None = None,
        checkpoint: Checkpoint | None = None, about: dict[str, str] | None = None,
        processes: DistributedContext | None = None, lower: Path | None = None, say: Say | None = None,
    ) -> None:
        """Attach a new adapter to the model and judge the base on validation.

        Args:
            model: The backbone; changed in place.
            settings: Of this training.
            data: Training, validation and replay pairs.
            log: Gets the figures of each validation and its step; None for no log.
            checkpoint: Where the state is saved at each validation; None for nowhere.
            about: Entries that each checkpoint carries, for example a run id; None for none.
            processes: Those that train together; None for this one alone.
            lower: The folder for cached hidden states; None for a temporary file.
            say: Gets each warning, one line; None for nobody.
        """
        self.model, self.settings, self.data = model, settings, data
        self._log, self._checkpoint = log or (lambda figures, step: None), checkpoint
        self._say = say or (lambda line: None)
        self._about, self._processes, self._lower_folder = about or {}, processes or DistributedContext(), lower
        self._rng = np.random.default_rng(settings.seed)
        self._device = model.logit_scale.device
        self.in_bf16 = multiplies_in_bf16(settings.precision, self._device)
        # Before the adapter is attached: the adapted model is compared with these vectors.
        self.base_validation = embed_pairs(self.model, self.data.validation)
        self.base = judge(self.base_validation, data.validation.table)
        self.handle: PeftModel = lora.attach(model, settings)
        self._gauge = lora.UpdateGauge(self.handle)
        self.strongest: tuple[float, str] = (0.0, "")
        self.warnings: list[str] = []
        self._warned: list[str] = []
        self._num_held = 0
        self._validation_rows = validation_rows(data.validation, settings.validation_clips, seed=settings.seed)
        self._validation_table = data.validation.table.iloc[self._validation_rows].reset_index(drop=True)
        self._highest_factor = max(_HIGHEST_FACTOR, float(model.logit_scale.detach().exp()))
        self.bias: nn.Parameter | None = None
        if self._processes.rank:
            torch.manual_seed(settings.seed + 1_000_003 * self._processes.rank)  # each process draws its own dropout
        self.curves: list[dict[str, float]] = []
        self.best: tuple[float, dict[str, Tensor], float] | None = None
        self.adapted_vectors, self.adapted = self.base_validation, self.base
        self.sweep: list[Scaled] = []
        self.steps_done = 0
        self.seconds = 0.0
        self._validations_without_gain = 0
        self._best_step = 0
        self._losses: list[float] = []

    def run(self, saved: dict[str, Any] | None = None) -> None:
        """Warm up the text tower, train both towers, and load the adapter that was best on validation.

        Args:
            saved: The state of a checkpoint to continue from; None to begin.

        Raises:
            GateFailed: the loss or a gradient is not finite; the last checkpoint stays.
            ArtifactError: a checkpoint cannot be written, or `saved` is not of this training.
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
            self._phase(sampler, settings.warmup_text_steps, "text tower", validates=False)
        sampler = Sampler(
            self.data, settings, self.model, self._rng, size=settings.batch, base=base, lower=self._lower_tokens()
        )
        num_steps = settings.num_steps(len(self.data.train))
        self._phase(sampler, num_steps, "both towers", validates=True, saved=saved)
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
        """Return what `run` will take here: steps, epochs, and its time and memory, measured on a few rows.

        Raises:
            ConfigError: there is no training pair.
        """
        settings, count = self.settings, len(self.data.train)
        work = work_of(
            self.data,
            settings,
            self.model.spec,
            validation_table=self._validation_table,
            num_processes=self._processes.count,
        )
        clips = settings.pairs_a_step(count)
        return Forecast(work, self._measure_rows(np.arange(min(clips, settings.chunk or clips, _NUM_PROBED))))

    def _measure_rows(self, rows: NDArray[np.int64]) -> Measured:
        """Measure time and memory of a clip and of a text: from frames, or from hidden states if those are cached."""
        spec, ids = self.model.spec, self.data.train.ids
        views: NDArray[Any] = choose_frames(self.data.train.frames[rows], spec.num_frames, None)
        if not self.model.reads_padding:
            ids = cut_padding(ids[:256], pad_id=spec.pad_id)
        kind = "views"
        if self.settings.cached_views:
            with torch.no_grad():
                pixels = to_pixels(views, spec, self._device)
                views = self.model.video_tokens(pixels, depth_of(self.model, self.settings)).half().cpu().numpy()
            kind = "tokens"
        state = random_state(self._device)
        pieces: list[tuple[str, NDArray[Any]]] = [(kind, views), ("ids", ids[rows])]
        measured = probe(self.model, [partial(self._embed, piece) for piece in pieces], len(rows))
        set_random_state(state, self._device)
        return measured

    def _choose_scale(self) -> None:
        """Evaluate the scales of the adapter and apply the one that `scales.choose` returns."""
        if self.settings.scales == (1.0,) or not len(self.data.validation):
            return
        self.sweep = scales.sweep(
            self.model, self.handle, self.settings.scales, validation=self.data.validation,
            general=self.data.general_validation,
        )
        lora.set_scaled(self.handle, lora.state_of(self.handle), scales.choose(self.sweep).scale)

    def _base_vectors(self, *, of_training: bool) -> BaseVectors:
        """Embed with the adapter disabled. The training clips are embedded only if `of_training`: the warm-up needs them."""
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
        """Return the cached hidden states that the settings ask for.

        In a shared folder the first process computes them and the others wait.
        """
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
        self, sampler: Sampler, num_steps: int, title: str, *, validates: bool, saved: dict[str, Any] | None = None
    ) -> None:
        """Take the steps of one phase; with `validates` validate, save and mine at intervals, and stop when it stalls."""
        optimiser = self._optimiser()
        first = 0 if saved is None else self._restored(saved, sampler, optimiser)
        rate = _cosine(num_steps, self.settings.warmup_share, self.settings.cycles)
        validate_every = self.settings.validate_every(len(self.data.train))
        self.model.train()
        timer = StepTimer(self.seconds)
        with Progress(title, unit="step", total=num_steps, done=first, is_shown=self._processes.is_first) as progress:
            for step in range(first, num_steps):
                self._step(sampler, optimiser, self.settings.learning_rate * rate(step), timer)
                progress.update()
                progress.note(self._told())
                last = step == num_steps - 1
                if step % _GAUGE_EVERY == _GAUGE_EVERY - 1:
                    self._gauge_updates()
                if validates and (step % validate_every == validate_every - 1 or last):
                    self._validate(optimiser.param_groups[0]["lr"], timer)
                    if last or self._has_stalled():
                        return
                    self._mine(sampler)
                    self._save(self._state(step + 1, sampler, optimiser))
                    self.model.train()

    def _told(self) -> str:
        """Return the loss of the last steps, and R@1 of the last validation, for the progress."""
        told = f"loss {np.mean(self._losses[-_GAUGE_EVERY:]):.3f}" if self._losses else ""
        if self.curves and "validation_r1" in self.curves[-1]:
            told += f"{', ' if told else ''}R@1 on validation {self.curves[-1]['validation_r1']:.2f}"
        return told

    def _optimiser(self) -> torch.optim.Optimizer:
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        if self.settings.loss == "sigmoid":
            if self.bias is None:
                self.bias = self._first_bias()
            parameters.append(self.bias)
        return torch.optim.AdamW(
            parameters, lr=self.settings.learning_rate, weight_decay=self.settings.weight_decay, betas=(0.9, 0.98)
        )

    def _step(self, sampler: Sampler, optimiser: torch.optim.Optimizer, rate: float, timer: StepTimer) -> None:
        """Draw a batch and update the adapter with the learning rate `rate`."""
        for group in optimiser.param_groups:
            group["lr"] = rate
        with timer.waiting():
            batch = sampler.draw()
        optimiser.zero_grad(set_to_none=True)
        self._losses.append(self._train_step(batch))
        trained = [each for group in optimiser.param_groups for each in group["params"]]
        # A finite loss can have a gradient that is not; the adapter would be lost.
        self._refuse_nan(torch.nn.utils.clip_grad_norm_(trained, 1.0), "the norm of the gradients")
        optimiser.step()
        clamp_logit_scale(self.model, self._highest_factor)
        if self.settings.hold_updates and self.settings.max_update_ratio is not None:
            self._num_held = self._gauge.hold(self.settings.max_update_ratio)
        self.steps_done += 1
        timer.count(len(batch.clips))
        self.seconds = timer.seconds()

    def _save(self, state: dict[str, Any]) -> None:
        if self._checkpoint is not None and self._processes.is_first:
            self._checkpoint.save(state)

    def _train_step(self, batch: Batch) -> float:
        """Add the gradients of the batch's loss to the parameters and return the loss.

        Raises:
            GateFailed: the loss is not finite.
        """
        return add_gradients(
            batch, embed=self._embed, loss_of=partial(self._loss, batch=batch), model=self.model,
            chunk=self.settings.chunk, processes=self._processes,
        )

    def _embed(self, piece: Piece) -> Tensor:
        return embed_piece(self.model, piece, self.settings, in_bf16=self.in_bf16)

    def _loss(self, vectors: Tensor, batch: Batch) -> Tensor:
        loss = batch_loss(vectors, batch, self.model.logit_scale, self.bias)
        self._refuse_nan(loss, "the loss")
        return loss

    def _validate(self, rate: float, timer: StepTimer) -> None:
        """Compute validation figures, log them, and keep the adapter if it is the best so far."""
        figures = {
            "loss": float(np.mean(self._losses)), "learning_rate": rate,
            "logit_scale": float(self.model.logit_scale.detach().exp()), "epoch": round(self._epochs(self.steps_done), 3),
            "update_ratio": round(self._gauge_updates(), 4), "updates_held": self._num_held, **timer.figures(),
        }
        self._losses = []
        with timer.pausing():
            if len(self.data.validation):
                vectors = embed_pairs(
                    self.model, self.data.validation, rows=self._validation_rows, base=self.base_validation,
                    towers=self.settings.towers,
                )
                seen = judge(vectors, self._validation_table)
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
        """Measure the updates and return the largest ratio to a weight; warn once if it is over the limit."""
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
        if 2 * self._num_held > len(ratios) and not holds_as_preset(self.settings):
            self.warn(
                "held updates",
                f"{self._held(self.steps_done, self._num_held)}: learning_rate, alpha or epochs are high for this backbone",
            )
        return ratios[layer]

    def held_updates(self) -> str:
        """Return one line about the validation at which the updates of most layers were held; empty if there was none."""
        most = max(self.curves, key=lambda row: row["updates_held"], default={"updates_held": 0})
        return self._held(int(most["step"]), int(most["updates_held"])) if most["updates_held"] else ""

    def _held(self, step: int, count: int) -> str:
        limit = self.settings.max_update_ratio
        return f"after step {step} updates of {count} of {len(self._gauge)} layers are held at {limit:g} of their weights"

    def warn(self, kind: str, text: str) -> None:
        """Record a warning, once for each kind.

        Args:
            kind: Later warnings of the same kind are dropped.
            text: One line.
        """
        if kind not in self._warned:
            self._warned.append(kind)
            self.warnings.append(text)
            self._say(f"warning: {text}")

    def _remember(self, score: float) -> None:
        if self.best is not None and score <= self.best[0]:
            self._validations_without_gain += 1
            return
        self._validations_without_gain, self._best_step = 0, self.steps_done
        self.best = (score, lora.state_of(self.handle), float(self.model.logit_scale.detach()))

    def _has_stalled(self) -> bool:
        if self.best is None:
            return False
        waited: float = self._validations_without_gain
        if self.settings.patience_unit == "epochs":
            waited = self._epochs(self.steps_done - self._best_step)
        # The first process decides for all: GPUs may differ in the last bit, and all must stop at the same step.
        return bool(self._processes.agree(torch.tensor(float(waited >= self.settings.patience), device=self._device)))

    def _epochs(self, steps: int) -> float:
        return steps * min(self.settings.batch, len(self.data.train)) / len(self.data.train)

    def _mine(self, sampler: Sampler) -> None:
        """Find hard negatives with the current model, among at most `hard_clips` training clips."""
        settings, train = self.settings, self.data.train
        if not settings.hard_share:
            return
        # A separate seed, so that the number of rows changes no other random draw.
        rows = validation_rows(train, settings.hard_clips, seed=settings.seed + self.steps_done)
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
        """Return the state that the steps from `step` on depend on."""
        return {
            **self._about, "step": step, "steps_done": self.steps_done, "seconds": self.seconds, "curves": self.curves,
            "best": self.best, "validations_without_gain": self._validations_without_gain, "best_step": self._best_step,
            "trained": {name: each.detach() for name, each in self.model.named_parameters() if each.requires_grad},
            "bias": None if self.bias is None else self.bias.detach(), "optimiser": optimiser.state_dict(),
            "torch": self._processes.gather(random_state(self._device).to(self._device)).cpu(),
            # As text, because the generator's integers have 128 bits.
            "numpy": json.dumps(self._rng.bit_generator.state),
            **{name: None if rows is None else torch.from_numpy(rows) for name, rows in sampler.state().items()},
            "strongest": self.strongest, "warnings": self.warnings, "warned": self._warned,
        }

    def _first_bias(self) -> nn.Parameter:
        """Return the model's own bias, or one estimated from the base's vectors of one batch of training pairs."""
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
        """Restore the state; return the step to continue with.

        Raises:
            ArtifactError: `saved` is not a state of this training.
        """
        try:
            return self._restore(saved, sampler, optimiser)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, RuntimeError) as error:
            where = self._checkpoint.path if self._checkpoint else "given"
            raise ArtifactError(
                f"the checkpoint {where} is none of this training: {error!r}", code="checkpoint-broken", remedy=REMEDY,
            ) from error

    def _restore(self, saved: dict[str, Any], sampler: Sampler, optimiser: torch.optim.Optimizer) -> int:
        """Restore the state of `_state`; return the step to continue with."""
        parameters = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, value in saved["trained"].items():
                parameters[name].copy_(value)
            if self.bias is not None:
                self.bias.copy_(saved["bias"])
        optimiser.load_state_dict(saved["optimiser"])
        # A copy, because torch's generator misreads a row view that does not start at its storage's beginning.
        set_random_state(saved["torch"][self._processes.rank].clone(), self._device)
        self._rng.bit_generator.state = json.loads(saved["numpy"])
        sampler.restore({
            name: None if saved[name] is None else saved[name].numpy() for name in ("rows", "general_rows", "neighbours")
        })
        self.steps_done, self.seconds, self.curves = saved["steps_done"], saved["seconds"], list(saved["curves"])
        self.best = None if saved["best"] is None else tuple(saved["best"])
        self._validations_without_gain, self._best_step = saved["validations_without_gain"], saved["best_step"]
        ratio, layer = saved["strongest"]
        self.strongest = (ratio, layer)
        self.warnings, self._warned = list(saved["warnings"]), list(saved["warned"])
        return int(saved["step"])

    def _refuse_nan(self, value: Tensor, name: str) -> None:
        if torch.isfinite(value):
            return
        kept = self._checkpoint is not None and self._checkpoint.path.is_file()
        where = f"; the state at the last validation is in {self._checkpoint.path}" if self._checkpoint and kept else ""
        raise GateFailed(
            f"{name} is {float(value.detach())} at step {self.steps_done + 1}{where}", code="loss-not-finite",
            remedy="Lower train.settings.<name>.learning_rate; no adapter was written",
        )


def _cosine(num_steps: int, warmup_share: float, cycles: int) -> Callable[[int], float]:
    """Return the learning rate's factor by step: linear to 1 in the warm-up, then `cycles` cosines from 1 to 0."""
    warm = max(1, round(num_steps * warmup_share))

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * ((step - warm) * cycles / max(1, num_steps - warm) % 1)))

    return factor
