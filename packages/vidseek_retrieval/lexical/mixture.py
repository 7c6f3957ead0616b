"""One ranking of what pictures and words say: a mixture of the two, on the scale of the pictures' scores."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vidseek_retrieval.search.moments import (
    NUM_CLIPS,
    SCORE_DIGITS,
    Moment,
    RankedClip,
    first_moments,
    fold_duplicates,
    merge_moments,
    rank_order,
)
from vidseek_retrieval.search.nearest import Nearest, without

_MERGED = 0.05
"""How far below the best clip a neighbour may score and still widen a moment, where words alone count."""


def mix(picture: Sequence[RankedClip], odds: Mapping[str, float], *, slope: float) -> list[RankedClip]:
    """Return the clips of a ranking by pictures, with what their words say added to their scores, best first.

    By pictures alone a clip's share of the likelihood is exp(slope score) of the sum Z of all. A clip with odds r that its
    words are meant gets r Z more, and its new score is the logarithm of that sum over the slope. So a clip without words
    keeps its score, a clip with odds of 1 is as good as all pictures together, and a ranking by pictures that is sure of its
    first clip yields to sure words alone. Clips of a video with equal odds have one text: there pictures decide among them.

    Args:
        picture: Clips with their cosines, in any order, with all clips that have odds.
        odds: Odds by clip_id.
        slope: How much the logarithm of a clip's likelihood grows with its cosine; above 0.
    """
    if not odds or not picture:
        return sorted(picture, key=rank_order)
    ordered = sorted(picture, key=rank_order)
    scores = worded_scores(ordered, odds, log_total=_log_total(ordered, slope=slope), slope=slope)
    mixed = (clip._replace(score=scores.get(clip.clip_id, clip.score)) for clip in ordered)
    return sorted(mixed, key=rank_order)


def worded_scores(
    clips: Iterable[RankedClip], odds: Mapping[str, float], *, log_total: float, slope: float
) -> dict[str, float]:
    """Return the new scores of clips that have odds, by clip_id: see `mix`.

    Args:
        clips: All clips that have odds, with their cosines; others are ignored.
        odds: Odds by clip_id.
        log_total: Of `log_total_of`.
        slope: As `mix` has it.
    """
    worded = [(clip, value) for clip in clips if (value := odds.get(clip.clip_id))]
    best: dict[tuple[str, float], float] = {}
    for clip, value in worded:
        key = clip.video_id, value
        best[key] = max(best.get(key, -math.inf), clip.score)
    scores = {}
    for clip, value in worded:
        shown, said = slope * clip.score, log_total + math.log(value) + slope * (clip.score - best[clip.video_id, value])
        both = max(shown, said) + math.log1p(math.exp(-abs(shown - said)))
        scores[clip.clip_id] = round(both / slope, SCORE_DIGITS)
    return scores


def by_words(clips: Sequence[RankedClip], odds: Mapping[str, float]) -> list[RankedClip]:
    """Return the clips that have odds, best first, each with the probability of its words as its score.

    Args:
        clips: Clips in any order.
        odds: Odds by clip_id.
    """
    found = [clip._replace(score=round(odds[clip.clip_id] / (1 + odds[clip.clip_id]), SCORE_DIGITS))
             for clip in clips if clip.clip_id in odds]
    return sorted(found, key=rank_order)


def overtaking_weight(picture: Sequence[RankedClip], odds: Mapping[str, float], *, slope: float) -> float:
    """Return the weight of odds from which another clip comes before the first one by pictures; infinite if none can.

    Args:
        picture: Clips with their cosines, at least one.
        odds: Odds by clip_id; the first clip has none.
        slope: As `mix` has it.
    """
    log_total = _log_total(sorted(picture, key=rank_order), slope=slope)
    shares = {clip.clip_id: math.exp(slope * clip.score - log_total) for clip in picture}
    first = max(shares.values())
    return min(((first - shares.get(clip_id, 0.0)) / value for clip_id, value in odds.items()), default=math.inf)


def log_total_of(spans: Iterable[tuple[Hashable, int, int, float]], *, slope: float) -> float:
    """Return the logarithm of the sum of exp(slope score) over clips that do not overlap: windows over one moment say one
    thing, once.

    Args:
        spans: Video, start, end and score of each clip, best first; at least one.
        slope: As `mix` has it.
    """
    kept: dict[Hashable, list[tuple[int, int]]] = {}
    scores = []
    for video, start, end, score in spans:
        others = kept.setdefault(video, [])
        for first, last in others:
            if start < last and first < end:
                break
        else:
            others.append((start, end))
            scores.append(score)
    top = scores[0]
    return slope * top + math.log(math.fsum(math.exp(slope * (score - top)) for score in scores))


def _log_total(ordered: Iterable[RankedClip], *, slope: float) -> float:
    return log_total_of(((clip.video_id, clip.start_ms, clip.end_ms, clip.score) for clip in ordered), slope=slope)


@dataclass(frozen=True)
class MixedRanking:
    """A ranking of a collection by pictures and words."""

    nearest: Nearest
    """The ranking by pictures; its margin merges moments of this one too."""
    odds: Mapping[str, float]
    """Odds of the clips that meet the conditions, by clip_id."""
    slope: float
    """As `mix` has it."""
    is_visual: bool = True
    """Whether pictures count; else only clips with odds are listed."""
    only: frozenset[str] | None = None
    """Clips that alone may be listed: those with a phrase; None for all."""

    def moments(self, num: int) -> list[Moment]:
        """Return the first `num` moments (or all, if there are fewer), best first, with duplicates folded."""
        clips = without(self._clips, self.nearest.examples)
        margin = self.nearest.margin if self.is_visual else _MERGED
        if any(clip.duplicate_of for clip in clips):  # its original may come later, and takes it from the answer
            return fold_duplicates(merge_moments(clips, margin=margin))[:num]
        return first_moments(clips, margin=margin, num=num)

    @cached_property
    def _clips(self) -> list[RankedClip]:
        nearest = self.nearest
        found = nearest.collection.search(
            nearest.vector, limit=NUM_CLIPS, using=nearest.using, conditions=nearest.conditions
        ) if self.is_visual else []
        there = {clip.clip_id for clip in found}
        wanted = {*self.odds, *(self.only or ())} - there
        found += [
            RankedClip(
                point.clip_id, str(point.payload["video_id"]), int(point.payload["start_ms"]), int(point.payload["end_ms"]),
                round(float(np.dot(point.vectors[nearest.using], nearest.vector)), SCORE_DIGITS),
                str(point.payload.get("duplicate_of", "")),
            )
            for point in nearest.collection.points(sorted(wanted))
        ]
        clips = mix(found, self.odds, slope=self.slope) if self.is_visual else by_words(found, self.odds)
        return clips if self.only is None else [clip for clip in clips if clip.clip_id in self.only]
