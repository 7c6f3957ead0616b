"""A backbone's unit vectors for many rows, in batches, without gradients."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from vidseek_training.backbones import Backbone
from vidseek_training.data import PairSet, choose_frames, to_pixels
from vidseek_training.judging import Vectors

_BATCH = 32


def embed_frames(model: Backbone, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Frames (n, T, side, side, 3), already resized, to unit rows (n, dimension); of more than T those at the centres."""
    rows = [np.empty((0, model.spec.dimension), np.float32)]
    with torch.inference_mode():
        for start in range(0, len(frames), _BATCH):
            part = frames[start : start + _BATCH]
            if part.shape[1] > model.spec.frames:
                part = choose_frames(part, model.spec.frames, None)
            pixels = to_pixels(part, model.spec)
            rows.append(model.embed_videos(pixels.to(model.logit_scale.device)).cpu().numpy())
    return np.concatenate(rows)


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
        embed_frames(model, pairs.frames), embed_ids(model, pairs.ids), embed_ids(model, pairs.contrast_ids)
    )
