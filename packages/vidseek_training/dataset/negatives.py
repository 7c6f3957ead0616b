"""Finds the false negatives of a batch, which must not be pushed apart, and hard negatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vidseek_training.dataset.pair_set import PairSet

Flags = NDArray[np.bool_]
Rows = NDArray[np.int64]

_BLOCK = 1024
"""Captions that are compared with all clips at once."""
_MOST_WORDS = 75
"""Of a text that was not tokenised: CLIP reads 77 tokens, start and end among them, and a word is at least one."""


class RightOnes:
    """The texts that match each clip of a PairSet, and so must not be negatives of it.

    A text matches a clip if it is a caption of that clip, or of a clip that shows the same: a clip of another video of its
    group (`groups.parquet`: near-duplicates), and optionally any clip of its video. Two texts are equal if the model reads
    the same tokens: case, spaces and text beyond the context length make no difference.
    """

    def __init__(self, pairs: PairSet, *, same_video: bool, overlap: float) -> None:
        """Index the captions and groups of `pairs`.

        Args:
            pairs: All captions of the clips that batches are drawn from.
            same_video: Whether clips of one video are kept apart from being negatives.
            overlap: Least share of common words (Jaccard) that makes two captions the same.
        """
        self._same_video, self._overlap = same_video, overlap
        table = pairs.table
        self._captions = table.caption.to_numpy()
        self._said, self._denied = _texts_of(pairs)
        self._clip, self._video = (pd.factorize(table[name])[0] for name in ("clip_id", "video_id"))
        self._group = pd.factorize(table["group"])[0] if "group" in table else self._video
        self._shown: dict[int, Rows] = {}
        self._rows_of_clip, self._rows_of_group, self._rows_of_text = (
            _Lists(numbers) for numbers in (self._clip, self._group, self._said)
        )

    def of(self, rows: Rows, contrasts: Rows) -> Flags:
        """Return which texts of a batch match which of its clips.

        Args:
            rows: The pairs of the batch, shape (n,).
            contrasts: Rows whose contrasts are texts of the batch too, after the captions, shape (m,).

        Returns:
            Boolean of shape (n, n + m), a row for each clip; the diagonal is true.
        """
        texts, column = np.unique(np.concatenate([self._said[rows], self._denied[contrasts]]), return_inverse=True)
        right = np.zeros((len(rows), len(texts)), np.bool_)
        for place, row in enumerate(rows):
            own = self._said[self._kin(int(row))]
            at = np.minimum(np.searchsorted(texts, own), len(texts) - 1)
            right[place, at[texts[at] == own]] = True
        found: Flags = right[:, column]
        if self._overlap < 1:
            captions = list(self._captions[rows])
            found[:, : len(rows)] |= word_overlap(captions, captions) >= self._overlap
        return found

    def of_all(self, rows: Rows, among: Rows) -> Flags:
        """Return which pairs are no hard negatives of others.

        A pair is excluded if its clip matches the caption of the row, or its caption matches the row's clip. The reason may
        be a
        pair outside of `among`, such as another caption of the clip.

        Args:
            rows: Pairs whose captions need negatives, shape (n,).
            among: Candidate pairs, shape (m,).

        Returns:
            Boolean of shape (n, m).
        """
        place = np.full(len(self._said), -1, np.int64)
        place[among] = np.arange(len(among))
        found = np.zeros((len(rows), len(among)), np.bool_)
        for number, row in enumerate(rows):
            own = [self._rows_of_text[text] for text in np.unique(self._said[self._kin(int(row))])]
            at = place[np.concatenate([self._shown_by(int(self._said[row])), *own])]
            found[number, at[at >= 0]] = True
        if self._overlap < 1:
            found |= word_overlap(list(self._captions[rows]), list(self._captions[among])) >= self._overlap
        return found

    def _shown_by(self, text: int) -> Rows:
        """Return the rows whose clips a text is right of; remembered, since a common one has thousands."""
        if text not in self._shown:
            self._shown[text] = np.unique(np.concatenate([self._kin(int(row)) for row in self._rows_of_text[text]]))
        return self._shown[text]

    def _kin(self, row: int) -> Rows:
        """Return the rows whose clips show what the clip of `row` shows, its own among them."""
        group = self._rows_of_group[self._group[row]]
        if self._same_video:
            return group
        others = group[self._video[group] != self._video[row]]
        return np.concatenate([self._rows_of_clip[self._clip[row]], others])


class _Lists:
    """The places of each number in a list of numbers from 0 on."""

    def __init__(self, numbers: Rows) -> None:
        self._order = np.argsort(numbers, kind="stable")
        self._starts = np.concatenate([[0], np.cumsum(np.bincount(numbers))])

    def __getitem__(self, number: int) -> Rows:
        # A contrast that is not the caption of any pair has no position in the list.
        if number + 1 >= len(self._starts):
            return self._order[:0]
        return self._order[self._starts[number] : self._starts[number + 1]]


def _texts_of(pairs: PairSet) -> tuple[Rows, Rows]:
    """Return a number for each caption and for each contrast: equal ones are one text, to the model or to a reader."""
    texts = [" ".join(str(text).casefold().split()) for text in (*pairs.table.caption, *pairs.table.contrast)]
    count, ids = len(pairs), getattr(pairs, "ids", None)
    if ids is None or not ids.shape[1]:
        numbers = _numbers_of([" ".join(text.split()[:_MOST_WORDS]) for text in texts])
    else:
        # A row without a contrast has its caption's tokens in that place, so its text there is no text of its own.
        texts[count:] = [text or texts[row] for row, text in enumerate(texts[count:])]
        both: NDArray[Any] = np.concatenate([ids, pairs.contrast_ids])
        numbers = _joined(np.unique(both, axis=0, return_inverse=True)[1].reshape(-1), _numbers_of(texts))
    return numbers[:count], numbers[count:]


def _numbers_of(texts: Sequence[str]) -> Rows:
    return pd.factorize(np.array(texts, dtype=object))[0].astype(np.int64)


def _joined(one: Rows, other: Rows) -> Rows:
    """Return numbers that are equal where either of two numberings says so, directly or by others between."""
    while True:
        joined = one
        for numbering in (other, one):
            least = np.full(int(numbering.max(initial=-1)) + 1, np.iinfo(np.int64).max, np.int64)
            np.minimum.at(least, numbering, joined)
            joined = least[numbering]
        if np.array_equal(joined, one):
            return joined
        one = joined


def word_overlap(left: Sequence[str], right: Sequence[str]) -> NDArray[np.float64]:
    """Return the Jaccard similarity of the words of each pair of texts; 0 for texts without words.

    Args:
        left: n texts.
        right: m texts.

    Returns:
        Shape (n, m), from 0 to 1.
    """
    words = [set(text.lower().split()) for text in (*left, *right)]
    numbers = {word: number for number, word in enumerate(sorted(set().union(*words)))}
    uses = np.zeros((len(words), max(1, len(numbers))), np.float32)
    for row, those in enumerate(words):
        uses[row, [numbers[word] for word in those]] = 1
    ours, theirs = uses[: len(left)], uses[len(left) :]
    common = (ours @ theirs.T).astype(np.float64)
    return common / np.maximum(ours.sum(1)[:, None] + theirs.sum(1)[None, :] - common, 1)


def hardest(
    texts: NDArray[np.float32], videos: NDArray[np.float32], right: RightOnes, rows: Rows, *, depth: int
) -> NDArray[np.int64]:
    """Return the wrong clips that score highest for each caption, best first.

    Args:
        texts: Unit rows (n, dimension) of the captions of `rows`.
        videos: Unit rows (n, dimension) of the clips of `rows`.
        right: Which clips match, over all training pairs, since a pair outside of `rows` may be the reason.
        rows: The pairs, shape (n,).
        depth: Clips for each caption.

    Returns:
        Shape (n, depth): positions in `rows`, -1 if there are fewer.
    """
    found = np.full((len(rows), depth), -1, np.int64)
    for start in range(0, len(rows), _BLOCK):
        block = slice(start, start + _BLOCK)
        scores = np.where(right.of_all(rows[block], rows), -np.inf, texts[block] @ videos.T)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :depth]
        wrong = np.isfinite(np.take_along_axis(scores, best, 1))
        found[block, : best.shape[1]] = np.where(wrong, best, -1)
    return found


def with_hard(
    rows: NDArray[np.int64], neighbours: NDArray[np.int64], share: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Replace the last rows of a batch by a hard negative of each of the first rows; no row occurs twice.

    Args:
        rows: The pairs of the batch, shape (n,).
        neighbours: Hard negatives of each pair, from `hardest`.
        share: Share of the batch that is replaced, from 0 to 1.
        rng: Draws the negatives.
    """
    result, taken = rows.copy(), set(rows.tolist())
    for place in range(round(share * len(rows))):
        choices = [int(row) for row in neighbours[rows[place]] if row >= 0 and int(row) not in taken]
        if choices:
            pick = choices[rng.integers(len(choices))]
            result[len(rows) - 1 - place] = pick
            taken.add(pick)
    return result
