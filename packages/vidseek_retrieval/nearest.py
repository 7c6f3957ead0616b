"""The moments nearest to a vector, from as few clips as settle them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vidseek_retrieval.filters import Condition
from vidseek_retrieval.index import Collection, Dense, Point
from vidseek_retrieval.moments import NUM_CLIPS, Moment, RankedClip, fold_duplicates, merge_moments, settled

STEPS = (100, 300, NUM_CLIPS)
"""Clips that are asked for, until the moments are settled. Most pages need no more than the first hundred, and a thousand
take ten times as long to fetch and to merge."""


@dataclass(frozen=True)
class Nearest:
    """A ranking by one vector of a collection.

    Its moments are those of `NUM_CLIPS` clips, however many are asked for. An approximate search for more clips finds
    some that a shorter one missed: so that a page is the same whichever search it came from, the first clips are always
    those of the shortest search, and a longer one only says what comes after them.
    """

    collection: Collection
    vector: NDArray[np.float32]
    """Shape (dimension,), unit."""
    margin: float
    """As `merge_moments` has it."""
    using: Dense = "video"
    conditions: Sequence[Condition] = ()
    examples: Sequence[Point] = ()
    """Clips that are no answer; nor is what overlaps them."""

    def moments(self, num: int) -> list[Moment]:
        """The first moments, best first: `num` or more, unless there are no more; duplicates are folded."""
        known: list[RankedClip] = []
        below = math.inf
        for limit in STEPS:
            found = self.collection.search(self.vector, limit=limit, using=self.using, conditions=self.conditions)
            fresh = [clip for clip in found if clip.score <= below]
            if len(found) < limit or limit == NUM_CLIPS:
                break
            # Of clips as good as the last some may be lacking: the next search has them all.
            below = found[-1].score
            known += [clip for clip in fresh if clip.score > below]
            moments = settled(self._merged(known), below, margin=self.margin) if num < len(known) else []
            # A duplicate's original may come later, and takes it from the answer.
            if len(moments) >= num and not any(moment.duplicate_of for moment in moments):
                return moments
        return fold_duplicates(self._merged(known + fresh))

    def _merged(self, ranked: Sequence[RankedClip]) -> list[Moment]:
        return merge_moments(without(ranked, self.examples), margin=self.margin)


def without(ranked: Sequence[RankedClip], examples: Sequence[Point]) -> list[RankedClip]:
    """The ranking without these clips, and without what overlaps them: nobody asks for what he has."""
    if not examples:
        return list(ranked)
    spans = [(each.payload["video_id"], each.payload["start_ms"], each.payload["end_ms"]) for each in examples]
    return [
        clip for clip in ranked
        if not any(
            clip.video_id == video_id and clip.start_ms < end_ms and start_ms < clip.end_ms
            for video_id, start_ms, end_ms in spans
        )
    ]
