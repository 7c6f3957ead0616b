"""Samples the batches of a training: views of clips and captions, and which of them are compared."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidseek_training.backbones import Backbone
from vidseek_training.dataset.negatives import RightOnes, with_hard
from vidseek_training.dataset.pair_set import Batches, PairSet, cut_padding
from vidseek_training.dataset.views import drop_words, make_views
from vidseek_training.fitting.cached_hidden_states import CachedHiddenStates
from vidseek_training.settings import TrainSettings


@dataclass(frozen=True)
class Data:
    """The pairs of all sides of a training."""

    train: PairSet
    validation: PairSet
    general: PairSet | None
    """Training pairs of the general world, for replay."""
    general_validation: PairSet | None = None
    """Of the general world, for the choice of the adapter's scale."""


@dataclass(frozen=True)
class Term:
    """One contrastive loss of a step, between rows of its vectors: clips come first, then texts."""

    left: slice
    right: slice
    same: NDArray[np.bool_]
    """See `losses.info_nce`."""
    weight: float
    of_views: bool = False
    """Whether both sides are of one kind, and not clips with their captions."""


@dataclass(frozen=True)
class Anchor:
    """Rows of a step's vectors that are to stay where they are."""

    rows: slice
    held: NDArray[np.float32]
    """Unit rows, as many as `rows`; see `losses.anchor_loss`."""
    weight: float


@dataclass(frozen=True)
class BaseVectors:
    """The base model's vectors of the training clips, and of the general clips and captions; unit rows of each PairSet."""

    clips: NDArray[np.float32]
    general_clips: NDArray[np.float32]
    general_texts: NDArray[np.float32]


Lower = tuple[CachedHiddenStates | None, CachedHiddenStates | None]
"""Of the domain's clips, and of the general world's."""


@dataclass(frozen=True)
class Batch:
    """The inputs of one training step."""

    clips: NDArray[Any]
    """Views, uint8 (m, T, side, side, 3); or views' `CachedHiddenStates`, float16 (m, ..., tokens, width); or the clips'
    vectors, float32 (m, dimension), where they do not change."""
    ids: NDArray[np.int64]
    """Shape (k, length)."""
    terms: tuple[Term, ...]
    anchors: tuple[Anchor, ...] = ()


@dataclass(frozen=True)
class _Side:
    """The domain's or the general world's part of a step."""

    pairs: PairSet
    rows: NDArray[np.int64]
    weight: float
    known: NDArray[np.float32] | None
    word_dropout: float
    lower: CachedHiddenStates | None
    right: RightOnes


class Sampler:
    """Draws batch after batch, from one random generator.

    Attributes:
        neighbours: Shape (n, depth): hard negatives of each training pair, by the model at the last look; None before.
        right: Which texts are right of which training clips.
    """

    def __init__(
        self, data: Data, settings: TrainSettings, model: Backbone, rng: np.random.Generator, *, size: int,
        base: BaseVectors | None = None, clips_are_known: bool = False, lower: Lower = (None, None),
    ) -> None:
        """Prepare batches of `size` pairs. `base` holds the general world's vectors, and the clips' if `clips_are_known`.

        `lower` stands for the frames of the domain's and of the general clips, where they are computed no further down.
        """
        self._lower = lower
        self._data, self._settings, self._rng, self._base = data, settings, rng, base
        self._known = base if clips_are_known else None
        self._spec, self._reads_padding = model.spec, model.reads_padding
        self.rows = Batches(len(data.train), size, rng)
        self.general_rows = Batches(len(data.general), settings.replay, rng) if data.general is not None else None
        self.neighbours: NDArray[np.int64] | None = None
        right = partial(RightOnes, same_video=settings.mask_same_video, overlap=settings.mask_overlap)
        self.right = right(data.train)
        self._general_right = None if data.general is None else right(data.general)

    def draw(self) -> Batch:
        """Return the next batch."""
        settings = self._settings
        known = None if self._known is None else self._known.clips
        rows = self.rows.draw()
        if self.neighbours is not None:
            rows = with_hard(rows, self.neighbours, settings.hard_share, self._rng)
        sides = [_Side(self._data.train, rows, 1.0, known, settings.word_dropout, self._lower[0], self.right)]
        if self._data.general is not None and self.general_rows is not None and self._general_right is not None:
            sides.append(self._general_side(self._data.general, self.general_rows.draw(), self._general_right))
        clips: list[NDArray[Any]] = [
            self._views(side) if side.known is None else side.known[side.rows] for side in sides
        ]
        second_clips = known is None and settings.clip_view_weight > 0
        if second_clips:
            clips.append(self._views(sides[0]))
        texts, contrasts = [], []
        for side in sides:
            contrasts.append(side.rows[side.pairs.has_contrast[side.rows]])
            # Dropped words could make a contrast true: it keeps all of its own.
            texts.append(np.concatenate([self._texts(side), side.pairs.contrast_ids[contrasts[-1]]]))
        if settings.text_view_weight:
            texts.append(self._texts(sides[0]))
        terms = self._terms(sides, contrasts, clips, texts, second_clips=second_clips)
        ids = np.concatenate(texts)
        if not self._reads_padding:
            ids = cut_padding(ids, pad_id=self._spec.pad_id)
        anchors = self._anchors(sides[1], terms[1]) if len(sides) > 1 else ()
        return Batch(np.concatenate(clips), ids, terms, anchors)

    def state(self) -> dict[str, NDArray[np.int64] | None]:
        """Return what later batches depend on beside the random generator: rows left to draw, and hard negatives."""
        return {
            "rows": self.rows.left.copy(),
            "general_rows": None if self.general_rows is None else self.general_rows.left.copy(),
            "neighbours": self.neighbours,
        }

    def restore(self, state: Mapping[str, NDArray[np.int64] | None]) -> None:
        """Continue from a state.

        Args:
            state: As `state` gives it.

        Raises:
            ValueError: it names rows that this sampler's tables do not have.
        """
        num = len(self._data.train)
        if state["rows"] is None:
            raise ValueError("it has no rows")
        self.rows.left = _checked_rows(state["rows"], num)
        if self.general_rows is not None and state["general_rows"] is not None:
            assert self._data.general is not None
            self.general_rows.left = _checked_rows(state["general_rows"], len(self._data.general))
        neighbours = state["neighbours"]
        self.neighbours = None if neighbours is None else _checked_rows(neighbours, num, least=-1)

    def _general_side(self, pairs: PairSet, rows: NDArray[np.int64], right: RightOnes) -> _Side:
        # A caption that lost words is not the one that the base's vector is of.
        dropout = 0.0 if self._settings.replay_anchor else self._settings.word_dropout
        known = None if self._known is None else self._known.general_clips
        return _Side(pairs, rows, self._settings.replay_weight, known, dropout, self._lower[1], right)

    def _anchors(self, side: _Side, term: Term) -> tuple[Anchor, ...]:
        """Return clips and captions of the general `side`, whose contrastive loss is `term`, held where the base has them.
        """
        if not self._settings.replay_anchor or self._base is None:
            return ()
        captions = slice(term.right.start, term.right.start + len(side.rows))
        weight = self._settings.replay_anchor
        texts = Anchor(captions, self._base.general_texts[side.rows], weight)
        if side.known is not None:
            return (texts,)
        return texts, Anchor(term.left, self._base.general_clips[side.rows], weight)

    def _views(self, side: _Side) -> NDArray[Any]:
        if side.lower is not None:
            return side.lower.draw(side.rows, self._rng)
        return make_views(side.pairs.frames[side.rows], self._spec.num_frames, self._settings, self._rng)

    def _texts(self, side: _Side) -> NDArray[np.int64]:
        return drop_words(side.pairs.ids[side.rows], self._rng, share=side.word_dropout, pad_id=self._spec.pad_id)

    def _terms(
        self, sides: list[_Side], contrasts: list[NDArray[np.int64]], clips: list[NDArray[Any]],
        texts: list[NDArray[np.int64]], *, second_clips: bool,
    ) -> tuple[Term, ...]:
        """Return the losses between clips and texts of each side, and those between two views of the domain's."""
        settings = self._settings
        starts = np.cumsum([0, *map(len, clips), *map(len, texts)])
        parts = [slice(int(start), int(end)) for start, end in itertools.pairwise(starts)]
        of_clips, of_texts = parts[: len(clips)], parts[len(clips) :]
        terms = []
        for number, side in enumerate(sides):
            terms.append(
                Term(of_clips[number], of_texts[number], side.right.of(side.rows, contrasts[number]), side.weight)
            )
        count = len(sides[0].rows)
        among = terms[0].same[:, :count]
        among = among | among.T  # clips with clips, and texts with texts: right one way is enough
        if second_clips:
            terms.append(Term(of_clips[0], of_clips[-1], among, settings.clip_view_weight, of_views=True))
        if settings.text_view_weight:
            captions = slice(of_texts[0].start, of_texts[0].start + count)
            terms.append(Term(captions, of_texts[-1], among, settings.text_view_weight, of_views=True))
        return tuple(terms)


def _checked_rows(rows: NDArray[np.int64], num: int, *, least: int = 0) -> NDArray[np.int64]:
    """Return row numbers of a table of `num` rows, checked; -1 means "no row" if `least` is -1.

    Raises:
        ValueError: a number is out of range or not an int64.
    """
    if rows.dtype != np.int64 or bool(((rows < least) | (rows >= num)).any()):
        raise ValueError(f"it names rows that are not among {num}")
    return rows
