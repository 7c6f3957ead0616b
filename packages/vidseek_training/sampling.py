"""What one step of a training sees: views of clips and of captions, and which of them are compared."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidseek_training.backbones import Backbone
from vidseek_training.data import Batches, PairSet, augment, choose_frames, cut_padding, drop_words
from vidseek_training.negatives import right_ones, with_hard
from vidseek_training.settings import TrainSettings


@dataclass(frozen=True)
class Data:
    """The pairs of all sides of a training."""

    train: PairSet
    validation: PairSet
    general: PairSet | None
    """Training pairs of the general world, for replay."""


@dataclass(frozen=True)
class Term:
    """One contrastive loss of a step, between rows of its vectors: clips come first, then texts."""

    left: slice
    right: slice
    same: NDArray[np.bool_]
    """See `losses.info_nce`."""
    weight: float


@dataclass(frozen=True)
class Batch:
    """What one step sees."""

    clips: NDArray[Any]
    """Views, uint8 (m, T, side, side, 3); or the clips' vectors, float32 (m, dimension), where they do not change."""
    ids: NDArray[np.int64]
    """Shape (k, length)."""
    terms: tuple[Term, ...]


@dataclass(frozen=True)
class _Side:
    """The domain's or the general world's part of a step."""

    pairs: PairSet
    rows: NDArray[np.int64]
    weight: float
    known: NDArray[np.float32] | None


class Sampler:
    """Draws batch after batch, from one random generator.

    Attributes:
        neighbours: Shape (n, depth): hard negatives of each training pair, by the model at the last look; None before.
    """

    def __init__(
        self, data: Data, settings: TrainSettings, model: Backbone, rng: np.random.Generator, *, size: int,
        known: tuple[NDArray[np.float32], NDArray[np.float32] | None] | None = None,
    ) -> None:
        """Of batches of `size` pairs; `known` are the vectors of all training and all general clips."""
        self._data, self._settings, self._rng, self._known = data, settings, rng, known
        self._spec, self._reads_padding = model.spec, model.reads_padding
        self.rows = Batches(len(data.train), size, rng)
        self.general_rows = Batches(len(data.general), settings.replay, rng) if data.general is not None else None
        self.neighbours: NDArray[np.int64] | None = None

    def draw(self) -> Batch:
        """The next batch."""
        settings = self._settings
        known, general_known = self._known or (None, None)
        rows = self.rows.draw()
        if self.neighbours is not None:
            rows = with_hard(rows, self.neighbours, settings.hard_share, self._rng)
        sides = [_Side(self._data.train, rows, 1.0, known)]
        if self._data.general is not None and self.general_rows is not None:
            sides.append(_Side(self._data.general, self.general_rows.draw(), settings.replay_weight, general_known))
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
        return Batch(np.concatenate(clips), ids, terms)

    def _views(self, side: _Side) -> NDArray[np.uint8]:
        settings = self._settings
        frames = choose_frames(
            side.pairs.frames[side.rows], self._spec.frames, self._rng if settings.random_frames else None
        )
        return augment(frames, self._rng, shift_share=settings.shift_share, brightness=settings.brightness)

    def _texts(self, side: _Side) -> NDArray[np.int64]:
        return drop_words(
            side.pairs.ids[side.rows], self._rng, share=self._settings.word_dropout, pad_id=self._spec.pad_id
        )

    def _terms(
        self, sides: list[_Side], contrasts: list[NDArray[np.int64]], clips: list[NDArray[Any]],
        texts: list[NDArray[np.int64]], *, second_clips: bool,
    ) -> tuple[Term, ...]:
        """The losses between clips and texts of each side, and those between two views of the domain's."""
        settings = self._settings
        starts = np.cumsum([0, *map(len, clips), *map(len, texts)])
        parts = [slice(int(start), int(end)) for start, end in itertools.pairwise(starts)]
        of_clips, of_texts = parts[: len(clips)], parts[len(clips) :]
        terms = []
        for number, side in enumerate(sides):
            same = right_ones(
                side.pairs, side.rows, contrasts[number], same_video=settings.mask_same_video, overlap=settings.mask_overlap
            )
            terms.append(Term(of_clips[number], of_texts[number], same, side.weight))
        among, count = terms[0].same[:, : len(sides[0].rows)], len(sides[0].rows)
        if second_clips:
            terms.append(Term(of_clips[0], of_clips[-1], among, settings.clip_view_weight))
        if settings.text_view_weight:
            captions = slice(of_texts[0].start, of_texts[0].start + count)
            terms.append(Term(captions, of_texts[-1], among, settings.text_view_weight))
        return tuple(terms)
