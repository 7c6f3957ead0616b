"""A backbone's unit vectors for many rows, in batches, without gradients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from vidseek_training.backbones import Backbone
from vidseek_training.dataset.pair_set import FramesOfPairs, PairSet, choose_frames, cut_padding, to_pixels
from vidseek_training.evaluation.retrieval_metrics import Vectors

_BATCH = 32


def embed_clips(model: Backbone, pairs: PairSet, *, rows: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
    """The clip of each of `pairs` to unit rows (pairs, dimension); a clip of several captions is computed once.

    Args:
        model: In evaluation mode.
        pairs: Whose clips.
        rows: Which of them, in which order; None for all.
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
            part = ids[start : start + 4 * _BATCH]
            if not model.reads_padding:
                part = cut_padding(part, pad_id=model.spec.pad_id)
            rows.append(model.embed_texts(torch.from_numpy(part).to(model.logit_scale.device)).cpu().numpy())
    return np.concatenate(rows)


def embed_pairs(
    model: Backbone, pairs: PairSet, *, rows: NDArray[np.int64] | None = None, base: Vectors | None = None,
    towers: Sequence[str] = ("video", "text"),
) -> Vectors:
    """Clips, captions and contrasts of `pairs`; leaves `model` in evaluation mode.

    A caption without a contrast stands for its contrast too, and is computed once.

    Args:
        model: With or without an adapter.
        pairs: What to embed.
        rows: Which of them, in which order; None for all.
        base: What the base makes of all `pairs`; taken for the towers that have no adapter.
        towers: Those that have one.
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


def look_rows(pairs: PairSet, most: int, *, seed: int) -> NDArray[np.int64]:
    """The rows of `pairs` that stand for all in a validation: at most `most` clips, and at most `most` captions of them.

    Which ones is fixed by `seed`, so that one validation can be compared with the next. Every chosen clip keeps its first
    caption. Of no more pairs than `most`, all.
    """
    if len(pairs) <= most:
        return np.arange(len(pairs))
    rng = np.random.default_rng([seed, 2])
    first, owner = pairs.clips()
    chosen = rng.permutation(len(first))[:most]
    others = np.setdiff1d(np.flatnonzero(np.isin(owner, chosen)), first[chosen])
    more = rng.permutation(others)[: most - len(chosen)]
    return np.sort(np.concatenate([first[chosen], more]))
