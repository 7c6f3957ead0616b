"""Computes a backbone's unit vectors for many rows, in batches, without gradients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from vidseek_training.backbones import Backbone
from vidseek_training.dataset.pair_set import FramesOfPairs, PairSet, cut_padding, to_pixels
from vidseek_training.dataset.views import choose_frames
from vidseek_training.evaluation.retrieval_metrics import Vectors
from vidseek_training.settings import TOWERS

_BATCH = 32


def embed_clips(model: Backbone, pairs: PairSet, *, rows: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
    """Return the unit vector of each pair's clip, shape (n, dimension); a clip with several captions is computed once.

    Args:
        model: The backbone, in evaluation mode.
        pairs: The pairs.
        rows: Pairs to embed, in this order; None for all.
    """
    first, owner = pairs.clips()
    if rows is not None:
        wanted, owner = np.unique(owner[rows], return_inverse=True)
        first = first[wanted]
    vectors: NDArray[np.float32] = embed_frames(model, pairs.frames, rows=first)[owner]
    return vectors


def embed_frames(
    model: Backbone, frames: NDArray[np.uint8] | FramesOfPairs, *, rows: NDArray[np.int64] | None = None
) -> NDArray[np.float32]:
    """Return the unit vectors of clips, shape (n, dimension).

    Args:
        model: The backbone, in evaluation mode.
        frames: Resized frames, uint8 (n, N, side, side, 3), possibly on disk. Of more than T frames, those at the bin
            centres are used.
        rows: Rows to embed, in this order; None for all.
    """
    rows = np.arange(len(frames)) if rows is None else rows
    found = [np.empty((0, model.spec.dimension), np.float32)]
    with torch.inference_mode():
        for start in range(0, len(rows), _BATCH):
            part = frames[rows[start : start + _BATCH]]
            if part.shape[1] > model.spec.num_frames:
                part = choose_frames(part, model.spec.num_frames, None)
            pixels = to_pixels(part, model.spec, model.logit_scale.device)
            found.append(model.embed_videos(pixels).cpu().numpy())
    return np.concatenate(found)


def embed_ids(model: Backbone, ids: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the unit vectors of texts, shape (n, dimension).

    Args:
        model: The backbone, in evaluation mode.
        ids: Token ids, int64 (n, context).
    """
    rows = [np.empty((0, model.spec.dimension), np.float32)]
    with torch.inference_mode():
        for start in range(0, len(ids), 4 * _BATCH):
            part = ids[start : start + 4 * _BATCH]
            if not model.reads_padding:
                part = cut_padding(part, pad_id=model.spec.pad_id)
            rows.append(model.embed_texts(torch.from_numpy(part).to(model.logit_scale.device)).cpu().numpy())
    return np.concatenate(rows)


def embed_pairs(
    model: Backbone, pairs: PairSet, *, rows: NDArray[np.int64] | None = None, base: Vectors | None = None,
    towers: Sequence[str] = TOWERS,
) -> Vectors:
    """Return the vectors of clips, captions and contrasts of pairs; the model is left in evaluation mode.

    A caption without a contrast is used as its own contrast, and computed once.

    Args:
        model: The backbone, with or without an adapter.
        pairs: The pairs.
        rows: Pairs to embed, in this order; None for all.
        base: Vectors of all pairs by the base, which are reused for towers without an adapter; None for none.
        towers: Towers that have an adapter.
    """
    model.eval()
    rows = np.arange(len(pairs)) if rows is None else rows
    known = base is not None and "video" not in towers
    videos = base.videos[rows] if base is not None and known else embed_clips(model, pairs, rows=rows)
    if base is not None and "text" not in towers:
        return Vectors(videos, base.texts[rows], base.contrasts[rows])
    has = pairs.has_contrast[rows]
    said = embed_ids(model, np.concatenate([pairs.ids[rows], pairs.contrast_ids[rows[has]]]))
    texts = said[: len(rows)]
    contrasts = texts.copy()
    contrasts[has] = said[len(rows) :]
    return Vectors(videos, texts, contrasts)


def validation_rows(pairs: PairSet, most: int, *, seed: int) -> NDArray[np.int64]:
    """Return the rows that represent all pairs in a validation: at most `most` clips, and at most `most` of their captions.

    The choice is fixed by the seed, so that validations can be compared. Every chosen clip keeps its first caption.

    Args:
        pairs: The pairs.
        most: Most clips, and most captions. If there are no more pairs than this, all are returned.
        seed: Seed of the choice.
    """
    if len(pairs) <= most:
        return np.arange(len(pairs))
    rng = np.random.default_rng([seed, 2])
    first, owner = pairs.clips()
    chosen = rng.permutation(len(first))[:most]
    others = np.setdiff1d(np.flatnonzero(np.isin(owner, chosen)), first[chosen])
    more = rng.permutation(others)[: most - len(chosen)]
    return np.sort(np.concatenate([first[chosen], more]))
