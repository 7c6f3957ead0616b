"""A backbone's unit vectors for many rows, in batches, without gradients."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from vidseek_training.backbones import Backbone
from vidseek_training.data import PairSet, choose_frames, to_pixels
from vidseek_training.judging import Vectors

_BATCH = 32


def embed_clips(model: Backbone, pairs: PairSet) -> NDArray[np.float32]:
    """The clip of each of `pairs` to unit rows (pairs, dimension); a clip of several captions is computed once."""
    first, owner = pairs.clips()
    vectors: NDArray[np.float32] = embed_frames(model, pairs.frames, rows=first)[owner]
    return vectors


def embed_frames(
    model: Backbone, frames: NDArray[np.uint8], *, rows: NDArray[np.int64] | None = None
) -> NDArray[np.float32]:
    """Frames (n, T, side, side, 3), already resized, to unit rows (n, dimension); of more than T those at the centres.

    Args:
        model: In evaluation mode.
        frames: May lie on disk: a batch at a time is read.
        rows: Which of them, in which order; None for all.
    """
    rows = np.arange(len(frames)) if rows is None else rows
    found = [np.empty((0, model.spec.dimension), np.float32)]
    with torch.inference_mode():
        for start in range(0, len(rows), _BATCH):
            part = frames[rows[start : start + _BATCH]]
            if part.shape[1] > model.spec.frames:
                part = choose_frames(part, model.spec.frames, None)
            pixels = to_pixels(part, model.spec, model.logit_scale.device)
            found.append(model.embed_videos(pixels).cpu().numpy())
    return np.concatenate(found)


def embed_ids(model: Backbone, ids: NDArray[np.int64]) -> NDArray[np.float32]:
    """Token ids (n, context) to unit rows (n, dimension)."""
    rows = [np.empty((0, model.spec.dimension), np.float32)]
    with torch.inference_mode():
        for start in range(0, len(ids), 4 * _BATCH):
            texts = torch.from_numpy(ids[start : start + 4 * _BATCH]).to(model.logit_scale.device)
            rows.append(model.embed_texts(texts).cpu().numpy())
    return np.concatenate(rows)


def embed_pairs(model: Backbone, pairs: PairSet) -> Vectors:
    """Clips, captions and contrasts of `pairs`; leaves `model` in evaluation mode."""
    model.eval()
    return Vectors(
        embed_clips(model, pairs), embed_ids(model, pairs.ids), embed_ids(model, pairs.contrast_ids)
    )
