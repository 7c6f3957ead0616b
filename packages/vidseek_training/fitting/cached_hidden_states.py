"""Computes the outputs of the frozen layers below the adapters once for each clip, since they are equal in every epoch."""

from __future__ import annotations

import hashlib
import math
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vidseek_media.errors import ArtifactError
from vidseek_media.files.folders import whole_file
from vidseek_media.terminal.progress import Progress
from vidseek_training.backbones import Backbone
from vidseek_training.dataset.pair_set import PairSet, to_pixels
from vidseek_training.dataset.views import choose_frames, make_views
from vidseek_training.fitting.precision import bf16_products
from vidseek_training.settings import TrainSettings

_BATCH = 16
"""Clips that are computed at once."""


@dataclass(frozen=True)
class CachedHiddenStates:
    """The tokens of views of clips; each clip once, however many captions it has."""

    values: NDArray[np.float16]
    """Shape (clips, views, ..., tokens, width): see `Backbone.video_tokens`. A memory map on disk."""
    owner: NDArray[np.int64]
    """The clip of each pair, shape (pairs,)."""

    def draw(self, rows: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.float16]:
        """Return one random view of the clip of each row.

        Args:
            rows: Pairs, shape (n,).
            rng: Draws the views.
        """
        picks = rng.integers(self.values.shape[1], size=len(rows))
        return self.values[self.owner[rows], picks]


def depth_of(model: Backbone, settings: TrainSettings) -> int:
    """Return the index of the vision tower's first layer with an adapter.

    Args:
        model: The backbone.
        settings: The training settings.

    Raises:
        ConfigError: the family's tower cannot be split.
    """
    return max(0, len(model.video_layers) - (settings.last_layers or len(model.video_layers)))


def lower_tokens(
    model: Backbone, pairs: PairSet, settings: TrainSettings, *, in_bf16: bool, folder: Path | None, side: str
) -> CachedHiddenStates:
    """Compute the hidden states of some views of each clip, or read them from disk.

    Args:
        model: The backbone; its layers below the adapters are frozen.
        pairs: The pairs whose clips are used.
        settings: Number and augmentation of the views, and the layers with adapters.
        in_bf16: Whether to multiply in bf16, as the training does.
        folder: Folder for `<side>-<digits>.npy`, named by a hash of everything that determines the states; older files of
            `side` are removed. None uses a temporary file of the process.
        side: `domain` or `general`.

    Raises:
        ConfigError: the family's tower cannot be split.
        ArtifactError: the disk cannot hold them, or a value is too large for half precision.
    """
    depth = depth_of(model, settings)
    first, owner = pairs.clips()
    mark = _mark(model, pairs, first, settings, depth, in_bf16=in_bf16)

    def fill(path: Path) -> None:
        _fill(path, model, pairs, first, settings, depth, in_bf16=in_bf16)

    try:
        if folder is None:
            return CachedHiddenStates(_vanishing(fill), owner)
        path = folder / f"{side}-{mark}.npy"
        if not path.is_file():
            for old in folder.glob(f"{side}-*.npy"):
                old.unlink(missing_ok=True)
            with whole_file(path) as beside:
                fill(beside)
        return CachedHiddenStates(np.load(path, mmap_mode="r"), owner)
    except (OSError, ValueError) as error:
        where = folder or tempfile.gettempdir()
        raise ArtifactError(
            f"the lower layers' features of {len(first)} clips cannot be kept in {where}: {error}", code="not-writable",
            remedy="Make room there, or set train.settings.<name>.cached_views to fewer, or to 0",
        ) from error


def _fill(
    path: Path, model: Backbone, pairs: PairSet, first: NDArray[np.int64], settings: TrainSettings, depth: int, *,
    in_bf16: bool,
) -> None:
    """Compute the tokens into a new .npy at `path`, one view after the other."""
    rng = np.random.default_rng([settings.seed, 1])  # its own: the steps' draws are the same with and without a cache
    out: NDArray[np.float16] | None = None
    model.eval()
    batches = math.ceil(len(first) / _BATCH)
    with Progress("lower layers", unit="batch", total=settings.cached_views * batches) as bar:
        for view in range(settings.cached_views):
            for start in range(0, len(first), _BATCH):
                rows = first[start : start + _BATCH]
                found = _tokens(model, _view(pairs.frames[rows], view, model, settings, rng), depth, in_bf16=in_bf16)
                if out is None:
                    shape = (len(first), settings.cached_views, *found.shape[1:])
                    out = np.lib.format.open_memmap(path, "w+", np.float16, shape)
                    # A memory map on a full disk ends in a signal: take the room first.
                    with path.open("r+b") as file:
                        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
                out[start : start + len(rows), view] = found
                bar.update()
    if isinstance(out, np.memmap):
        out.flush()


def _view(
    frames: NDArray[np.uint8], view: int, model: Backbone, settings: TrainSettings, rng: np.random.Generator
) -> NDArray[np.uint8]:
    if view == 0:
        return choose_frames(frames, model.spec.num_frames, None)
    return make_views(frames, model.spec.num_frames, settings, rng)


def _tokens(model: Backbone, views: NDArray[np.uint8], depth: int, *, in_bf16: bool) -> NDArray[np.float16]:
    with torch.inference_mode(), bf16_products(model, wanted=in_bf16):
        pixels = to_pixels(views, model.spec, model.logit_scale.device)
        tokens = model.video_tokens(pixels, depth).float().cpu()
    highest = float(tokens.abs().max())
    if not highest < 65504:
        raise ArtifactError(
            f"below layer {depth} of {model.spec.name} a feature is {highest}, half precision ends at 65,504",
            code="not-half-precision",
            remedy="Set train.settings.<name>.cached_views to 0",
        )
    result: NDArray[np.float16] = tokens.half().numpy()
    return result


def _mark(
    model: Backbone, pairs: PairSet, first: NDArray[np.int64], settings: TrainSettings, depth: int, *, in_bf16: bool
) -> str:
    """16 hex digits of all that decides the tokens: frames, the layers below, and how views are drawn."""
    digest = hashlib.sha256()
    how = (depth, in_bf16, settings.cached_views, settings.seed, settings.shift_share, settings.brightness,
           settings.random_frames, model.spec.image_mean, model.spec.image_std, pairs.frames.shape)
    digest.update(repr(how).encode())
    above = {id(parameter) for layer in model.video_layers[depth:] for parameter in layer.parameters()}
    for parameter in model.parameters():
        if id(parameter) not in above and not parameter.requires_grad:
            digest.update(parameter.detach().cpu().numpy().tobytes())
    for row in first:
        digest.update(pairs.frames[row].tobytes())
    return digest.hexdigest()[:16]


def _vanishing(fill: Callable[[Path], None]) -> NDArray[np.float16]:
    """Map the output of `fill` from a file that is already unlinked."""
    with tempfile.TemporaryDirectory(prefix="vidseek-lower-") as name:
        path = Path(name) / "tokens.npy"
        fill(path)
        values: NDArray[np.float16] = np.load(path, mmap_mode="r")
    return values
