"""What a model can do on pairs that it has not seen: recall in each gallery, and two-way choices against contrasts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vidseek_training.metrics import Ranks, ranks_of, summarise

Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class Vectors:
    """The unit vectors of a set of pairs, row by row as their table."""

    videos: Matrix
    texts: Matrix
    contrasts: Matrix
    """Of the contrasts; rows without one hold the caption's."""


@dataclass(frozen=True)
class Judgement:
    """One model on one set of pairs."""

    text_ranks: Ranks
    """For each caption, the rank of its clip within its gallery."""
    video_ranks: Ranks
    """For each clip, the rank of its caption within its gallery."""
    choices: NDArray[np.float64]
    """1 where the clip is nearer to its caption than to the contrast, else 0 (a tie is 0); NaN without a contrast."""

    def figures(self, table: pd.DataFrame) -> dict[str, dict[str, float]]:
        """For each gallery, text to video and back; and the share of right choices for each axis."""
        result = {}
        for gallery in sorted(set(table.gallery)):
            rows = (table.gallery == gallery).to_numpy()
            result[gallery] = summarise(self.text_ranks[rows]) | {
                f"video_to_text_{name}": value for name, value in summarise(self.video_ranks[rows]).items()
            }
        for axis, share in self.choice_shares(table).items():
            result.setdefault("two_way", {})[axis] = share
        return result

    def choice_shares(self, table: pd.DataFrame) -> dict[str, float]:
        """The share of right two-way choices for each axis."""
        shares = {}
        for axis in sorted(set(table.axis) - {""}):
            rows = (table.axis == axis).to_numpy() & ~np.isnan(self.choices)
            if rows.any():
                shares[axis] = round(float(self.choices[rows].mean()), 4)
        return shares


def judge(vectors: Vectors, table: pd.DataFrame) -> Judgement:
    """Rank within each gallery, and choose between caption and contrast. Captions of one clip do not compete.

    Args:
        vectors: Of the rows of `table`.
        table: Pairs, with the columns clip_id, gallery and contrast.
    """
    text_ranks, video_ranks = np.zeros(len(table), np.int64), np.zeros(len(table), np.int64)
    for gallery in set(table.gallery):
        rows = (table.gallery == gallery).to_numpy()
        scores = vectors.texts[rows] @ vectors.videos[rows].T
        clips = table.clip_id[rows].to_numpy()
        same = clips[:, None] == clips[None, :]
        text_ranks[rows], video_ranks[rows] = ranks_of(scores, same=same), ranks_of(scores.T, same=same)
    own = (vectors.videos * vectors.texts).sum(1)
    other = (vectors.videos * vectors.contrasts).sum(1)
    choices = np.where((table.contrast != "").to_numpy(), (own > other).astype(np.float64), np.nan)
    return Judgement(text_ranks, video_ranks, choices)
