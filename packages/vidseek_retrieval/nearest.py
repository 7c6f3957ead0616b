"""The moments nearest to a vector, from as few clips as settle them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vidseek_retrieval.filters import Condition
from vidseek_retrieval.index import Collection, Dense, Point
from vidseek_retrieval.moments import NUM_CLIPS, Moment, RankedClip, floor_of, fold_duplicates, merge_moments

STEPS = (100, 300, NUM_CLIPS)
"""Clips that are asked for, until enough moments begin in them. Most pages need no more than the first hundred, and a
thousand take ten times as long to fetch and to merge."""
MOST_OF_VIDEOS = 10 * NUM_CLIPS
"""Clips that widen moments, at most."""


@dataclass(frozen=True)
class Nearest:
    """A ranking by one vector of a collection.

    Its moments begin in the first `NUM_CLIPS` clips, and are widened by whichever other clips of their videos score well
    enough: those are searched for exactly, among these videos alone. An approximate search for more clips finds some that
    a shorter one missed. So that a page is the same whichever search it came from, a video's clips are always those of
    the shortest search that found it, and what is worse than all of that search.
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
        """The first `num` moments, best first, or all where there are no more; duplicates are folded."""
        listed: list[RankedClip] = []
        ends: dict[str, float] = {}  # the least score of the search that found a video first
        below = math.inf
        for limit in STEPS:
            found = self._search(limit)
            is_last = len(found) < limit or limit == NUM_CLIPS
            end = found[-1].score if len(found) == limit else -math.inf
            earlier = set(ends)
            # Of clips as good as the last some may be lacking: the next search has them all.
            fresh = [
                clip for clip in found
                if clip.score <= below and clip.video_id not in earlier and (clip.score > end or is_last)
            ]
            listed += fresh
            ends |= {clip.video_id: end for clip in fresh}
            moments = self._first(num, listed, ends, earlier, end, is_last=is_last)
            # A duplicate's original may come later, and takes it from the answer.
            if is_last or (len(moments) == num and not any(moment.duplicate_of for moment in moments)):
                break
            below = end
        return moments

    def _first(
        self, num: int, listed: Sequence[RankedClip], ends: Mapping[str, float], earlier: AbstractSet[str], end: float,
        *, is_last: bool,
    ) -> list[Moment]:
        """The first `num` moments that begin in `listed`, or in the videos of earlier searches, no lower than `end`."""
        at_least = floor_of(end, self.margin)  # nothing lower widens what begins above the end
        clips = {clip.clip_id: clip for clip in (*listed, *self._rest(earlier, ends, at_least))}
        whole = set(earlier)
        while True:
            moments = self._merged(clips.values())
            moments = [each for each in moments if each.score > end or (is_last and each.score == end)]
            if is_last:
                moments = fold_duplicates(moments)
            elif len(moments) < num:
                return moments
            first = moments[:num]
            narrow = {each.video_id for each in first if floor_of(each.score, self.margin) <= end} - whole
            if not narrow:
                return first
            clips |= {clip.clip_id: clip for clip in self._rest(narrow, ends, at_least)}
            whole |= narrow

    def _rest(self, videos: AbstractSet[str], ends: Mapping[str, float], at_least: float) -> list[RankedClip]:
        """The clips of `videos` that are no better than where the search ended that found these first."""
        if not videos:
            return []
        these = Condition("video_id", any_of=tuple(sorted(videos)))
        found = self._search(MOST_OF_VIDEOS, exact=True, at_least=at_least, these=[these])
        return [clip for clip in found if clip.score <= ends[clip.video_id]]

    def _search(
        self, limit: int, *, exact: bool = False, at_least: float = -math.inf, these: Sequence[Condition] = ()
    ) -> list[RankedClip]:
        return self.collection.search(
            self.vector, limit=limit, exact=exact, at_least=at_least, using=self.using,
            conditions=(*self.conditions, *these),
        )

    def _merged(self, ranked: Iterable[RankedClip]) -> list[Moment]:
        return merge_moments(without(ranked, self.examples), margin=self.margin)


def without(ranked: Iterable[RankedClip], examples: Sequence[Point]) -> list[RankedClip]:
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
