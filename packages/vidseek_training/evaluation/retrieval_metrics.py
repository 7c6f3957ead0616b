"""Retrieval metrics on unseen pairs: recall in each gallery, and two-way choices against contrasts."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vidseek_training.evaluation.metrics import (
    Groups,
    Ranks,
    average_precision,
    figures_of,
    ndcg_at,
    paired_gain,
    rank_values,
    ranks_of_owned,
)

Matrix = NDArray[np.float32]

_DEPTH = 10
"""Places that nDCG looks at."""


@dataclass(frozen=True)
class Vectors:
    """The unit vectors of a set of pairs, row by row as their table."""

    videos: Matrix
    texts: Matrix
    contrasts: Matrix
    """Of the contrasts; rows without one hold the caption's."""


@dataclass(frozen=True)
class Direction:
    """The results of each query in one direction; every array has shape (n,)."""

    ranks: Ranks
    """Of the query's own candidate, from 1; of its best one where it has several."""
    precision: NDArray[np.float64]
    """Average precision over all its right candidates."""
    gain: NDArray[np.float64]
    """Normalised discounted cumulative gain of the first 10."""

    def __getitem__(self, rows: NDArray[np.bool_]) -> Direction:
        return Direction(self.ranks[rows], self.precision[rows], self.gain[rows])

    def figures(self) -> dict[str, float]:
        """Return recalls, median, mean and reciprocal rank, mAP and nDCG@10; empty if there are no queries."""
        return figures_of(self.per_query())

    def per_query(self) -> dict[str, NDArray[np.float64]]:
        """Return each figure's value for each query, shape (n,); `figures_of` makes the figures of them."""
        return {**rank_values(self.ranks), "map": self.precision, "ndcg10": self.gain}

    def gain_over(self, base: Direction, groups: Groups, *, resamples: int, seed: int) -> dict[str, dict[str, Any]]:
        """Return each figure minus that of the base, paired by query, with its interval; lower ranks are better.

        Args:
            base: Results of the base for the same queries.
            groups: Shape (n,): the group of videos of each query.
            resamples: Number of bootstrap resamples of groups.
            seed: Seed of the bootstrap.
        """
        return {
            name: paired_gain(before, after, groups, resamples=resamples, seed=seed, median=name == "mdr").to_json()
            for (name, before), after in zip(base.per_query().items(), self.per_query().values(), strict=True)
        }


@dataclass(frozen=True)
class RetrievalMetrics:
    """One model on one set of pairs."""

    text: Direction
    """Row by row: each caption among the clips of its gallery."""
    video: Direction
    """Row by row: the row's clip among the captions of its gallery. Rows of one clip say the same."""
    choices: NDArray[np.float64]
    """1 where the clip is nearer to its caption than to the contrast, else 0 (a tie is 0); NaN without a contrast."""

    @property
    def text_ranks(self) -> Ranks:
        """For each caption, the rank of its clip within its gallery."""
        return self.text.ranks

    @property
    def video_ranks(self) -> Ranks:
        """For each row, the rank of its clip's best caption within its gallery."""
        return self.video.ranks

    def figures(self, table: pd.DataFrame) -> dict[str, dict[str, float]]:
        """Return the figures of each gallery, text to video and back, and the share of right choices for each axis."""
        result = {}
        for gallery in sorted(set(table.gallery)):
            rows = (table.gallery == gallery).to_numpy()
            result[gallery] = self.text[rows].figures() | {
                f"video_to_text_{name}": value for name, value in self.video[rows & one_a_clip(table)].figures().items()
            }
        for axis, share in self.choice_shares(table).items():
            result.setdefault("two_way", {})[axis] = share
        return result

    def gain_over(
        self, base: RetrievalMetrics, table: pd.DataFrame, gallery: str, groups: NDArray[np.str_], *, resamples: int,
        seed: int,
    ) -> dict[str, dict[str, Any]]:
        """Return each figure of a gallery minus that of the base, in both directions, paired by query, with its interval.

        Args:
            base: Metrics of the base for the same pairs.
            table: Table of the pairs.
            gallery: Name of the gallery.
            groups: Shape (n,): the group of videos of each pair.
            resamples: Number of bootstrap resamples of groups.
            seed: Seed of the bootstrap.
        """
        rows = (table.gallery == gallery).to_numpy()
        once = rows & one_a_clip(table)
        text = self.text[rows].gain_over(base.text[rows], groups[rows], resamples=resamples, seed=seed)
        video = self.video[once].gain_over(base.video[once], groups[once], resamples=resamples, seed=seed)
        return text | {f"video_to_text_{name}": value for name, value in video.items()}

    def choice_shares(self, table: pd.DataFrame) -> dict[str, float]:
        """Return the share of right two-way choices for each axis."""
        shares = {}
        for axis in sorted(set(table.axis) - {""}):
            rows = (table.axis == axis).to_numpy() & ~np.isnan(self.choices)
            if rows.any():
                shares[axis] = round(float(self.choices[rows].mean()), 4)
        return shares


def one_a_clip(table: pd.DataFrame) -> NDArray[np.bool_]:
    """Shape (n,): the first row of each clip in each gallery; a clip is one query, however many captions it has."""
    first: NDArray[np.bool_] = ~table.duplicated(["gallery", "clip_id"]).to_numpy(bool)
    return first


def judge(vectors: Vectors, table: pd.DataFrame) -> RetrievalMetrics:
    """Rank within each gallery, and choose between caption and contrast.

    Several captions a clip are counted as CLIP4Clip counts them (Luo et al. 2022): each caption looks for its clip among
    the clips, each once; a clip looks for its captions, and its rank is that of its set of captions among the other clips'
    sets, a set being as near as its nearest caption. mAP and nDCG@10 of that direction are over single captions.

    Args:
        vectors: Of the rows of `table`.
        table: Pairs, with the columns clip_id, gallery and contrast.
    """
    text, video = _nothing(len(table)), _nothing(len(table))
    for gallery in set(table.gallery):
        rows = np.flatnonzero((table.gallery == gallery).to_numpy())
        clips = table.clip_id.to_numpy()[rows].astype(str)
        _, first, owner = np.unique(clips, return_index=True, return_inverse=True)
        scores = vectors.texts[rows] @ vectors.videos[rows[first]].T
        _write(text, rows, _text_to_video(scores, owner))
        _write(video, rows, _video_to_text(scores, owner), owner)
    own = (vectors.videos * vectors.texts).sum(1)
    other = (vectors.videos * vectors.contrasts).sum(1)
    choices = np.where((table.contrast != "").to_numpy(), (own > other).astype(np.float64), np.nan)
    return RetrievalMetrics(text, video, choices)


def _text_to_video(scores: Matrix, owner: NDArray[np.int64]) -> Direction:
    """Return the results of captions (rows) against clips (columns); `owner` is each caption's clip."""
    ranks = ranks_of_owned(scores, owner)
    # With one right candidate its rank says all.
    return Direction(ranks, 1 / ranks, np.where(ranks <= _DEPTH, 1 / np.log2(1 + ranks), 0.0))


def _video_to_text(scores: Matrix, owner: NDArray[np.int64]) -> Direction:
    """Return the results of clips against captions, from the same `scores`; one row for each clip."""
    count = scores.shape[1]
    nearest = np.full((count, count), -np.inf, scores.dtype)  # of each set of captions (row) to each clip
    np.maximum.at(nearest, owner, scores)
    relevant = owner[None, :] == np.arange(count)[:, None]
    return Direction(
        ranks_of_owned(nearest.T, np.arange(count)), average_precision(scores.T, relevant),
        ndcg_at(scores.T, relevant, _DEPTH),
    )


def _nothing(count: int) -> Direction:
    return Direction(np.zeros(count, np.int64), np.zeros(count), np.zeros(count))


def _write(into: Direction, rows: NDArray[np.int64], found: Direction, owner: NDArray[np.int64] | None = None) -> None:
    """Put what was found for a gallery's queries into its rows."""
    for each in fields(Direction):
        values = getattr(found, each.name)
        getattr(into, each.name)[rows] = values if owner is None else values[owner]
