"""Which pairs of a batch are no wrong ones, and which wrong ones are hard."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vidseek_training.data import PairSet

Flags = NDArray[np.bool_]

_BLOCK = 1024
"""Captions that are compared with all clips at once."""


def right_ones(
    pairs: PairSet, rows: NDArray[np.int64], contrasts: NDArray[np.int64], *, same_video: bool, overlap: float
) -> Flags:
    """Which texts of a batch are not wrong of which of its clips, and must not be pushed apart.

    Captions of one clip are none, and captions that say the same; by choice clips of one video, and captions whose words
    overlap. A contrast is wrong of every clip but one that has the same words for its caption.

    Args:
        pairs: What the batch is drawn from.
        rows: Of `pairs`, shape (n,).
        contrasts: Of `pairs`, shape (m,): rows whose contrasts are texts of the batch too, after the captions.
        same_video: Whether clips of one video are kept apart from being negatives.
        overlap: Least share of common words (Jaccard) that makes two captions the same.

    Returns:
        Shape (n, n + m); the diagonal is true.
    """
    among = _alike(pairs, rows, rows, same_video=same_video, overlap=overlap)
    captions = pairs.table.caption.iloc[rows].to_numpy()
    return np.concatenate([among, captions[:, None] == pairs.table.contrast.iloc[contrasts].to_numpy()[None, :]], axis=1)


def _alike(
    pairs: PairSet, left: NDArray[np.int64], right: NDArray[np.int64], *, same_video: bool, overlap: float
) -> Flags:
    """Which of the rows `right` are right of the rows `left` too: shape (left, right)."""
    columns = ["caption", "clip_id", *(["video_id"] if same_video else [])]
    alike = np.zeros((len(left), len(right)), np.bool_)
    for column in columns:
        values = pairs.table[column].to_numpy()
        alike |= values[left][:, None] == values[right][None, :]
    if overlap < 1:
        captions = pairs.table.caption.to_numpy()
        alike |= word_overlap(list(captions[left]), list(captions[right])) >= overlap
    return alike


def word_overlap(left: Sequence[str], right: Sequence[str]) -> NDArray[np.float64]:
    """Common words by all words of each two texts (Jaccard), shape (left, right); without a word there is no overlap."""
    words = [set(text.lower().split()) for text in (*left, *right)]
    numbers = {word: number for number, word in enumerate(sorted(set().union(*words)))}
    uses = np.zeros((len(words), max(1, len(numbers))), np.float32)
    for row, those in enumerate(words):
        uses[row, [numbers[word] for word in those]] = 1
    ours, theirs = uses[: len(left)], uses[len(left) :]
    common = (ours @ theirs.T).astype(np.float64)
    return common / np.maximum(ours.sum(1)[:, None] + theirs.sum(1)[None, :] - common, 1)


def hardest(
    texts: NDArray[np.float32], videos: NDArray[np.float32], pairs: PairSet, *, depth: int, same_video: bool, overlap: float
) -> NDArray[np.int64]:
    """For each caption the rows of its best wrong clips, best first.

    Args:
        texts: Unit rows (n, dimension) of the captions of `pairs`.
        videos: Unit rows (n, dimension) of its clips.
        pairs: Says which clips are not wrong, as `right_ones`.
        depth: How many.
        same_video: See `right_ones`.
        overlap: See `right_ones`.

    Returns:
        Shape (n, depth), -1 where there are fewer.
    """
    everything = np.arange(len(pairs))
    found = np.full((len(pairs), depth), -1, np.int64)
    for start in range(0, len(pairs), _BLOCK):
        block = everything[start : start + _BLOCK]
        right = _alike(pairs, block, everything, same_video=same_video, overlap=overlap)
        scores = np.where(right, -np.inf, texts[block] @ videos.T)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :depth]
        wrong = np.isfinite(np.take_along_axis(scores, best, 1))
        found[block, : best.shape[1]] = np.where(wrong, best, -1)
    return found


def with_hard(
    rows: NDArray[np.int64], neighbours: NDArray[np.int64], share: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """`rows` with the last ones replaced by a hard negative of each of the first; none comes twice."""
    result, taken = rows.copy(), set(rows.tolist())
    for place in range(round(share * len(rows))):
        choices = [int(row) for row in neighbours[rows[place]] if row >= 0 and int(row) not in taken]
        if choices:
            pick = choices[rng.integers(len(choices))]
            result[len(rows) - 1 - place] = pick
            taken.add(pick)
    return result
