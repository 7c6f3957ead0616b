"""Finds the moments nearest to a vector with as few clips as their spans need."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vidseek_retrieval.index.backend import Collection, Point, TimeRange
from vidseek_retrieval.index.values import Dense
from vidseek_retrieval.search.filters import Condition
from vidseek_retrieval.search.moments import (
    NUM_CLIPS,
    Moment,
    RankedClip,
    floor_of,
    fold_duplicates,
    merge_moments,
    moment_order,
)

STEPS = (40, 100, 300, NUM_CLIPS)
"""Clips that are asked for, until enough moments begin in them: a thousand take ten times as long as a hundred, to fetch and
to merge."""
CLIPS_OF_A_MOMENT = 3
"""So many of a ranking's clips make a moment, in round numbers."""
MOST_AROUND = 10 * NUM_CLIPS
"""Clips that widen moments, at most."""
FOREVER_MS = 10**12
"""Longer than any video."""


@dataclass(frozen=True)
class Nearest:
    """A ranking of a collection by one vector.

    Moments begin in the first `NUM_CLIPS` clips. Other clips that score high enough widen them: they are found by exact
    searches around the moments, repeated around what has grown. An approximate search for more clips may find some that a
    shorter search missed. To keep pages consistent, each longer search only adds clips that score below all clips of the
    shorter one, and a moment is only widened by clips that score below all clips of the search it begins in.
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
    num_least: int = 0
    """Moments that every page of this ranking takes: shorter searches are left out."""

    def moments(self, num: int) -> list[Moment]:
        """Return the first `num` moments (or all, if there are fewer), best first, with duplicates folded."""
        listed: list[RankedClip] = []
        ends: list[float] = []  # the least score of each search
        shortest = min(CLIPS_OF_A_MOMENT * self.num_least, NUM_CLIPS)
        for limit in (step for step in STEPS if step >= shortest):
            found = self.collection.search(self.vector, limit=limit, using=self.using, conditions=self.conditions)
            is_whole = len(found) < limit
            is_last = is_whole or limit == NUM_CLIPS
            below = ends[-1] if ends else math.inf
            ends.append(-math.inf if is_whole else found[-1].score)
            # Of clips as good as the last some may be lacking: the next search has them all.
            listed += [clip for clip in found if clip.score <= below and (clip.score > ends[-1] or is_last)]
            moments = self._first(num, listed, () if is_whole else ends, is_last=is_last)
            # A duplicate's original may come later, and takes it from the answer.
            if is_last or (len(moments) == num and not any(moment.duplicate_of for moment in moments)):
                break
        return moments

    def _first(self, num: int, listed: Sequence[RankedClip], ends: Sequence[float], *, is_last: bool) -> list[Moment]:
        """Return the first `num` moments that begin in `listed`; those that there are, where it is not the last.

        Where no search has an end, no clip is lacking.
        """
        of_video: dict[str, dict[str, RankedClip]] = {}
        for clip in listed:
            of_video.setdefault(clip.video_id, {})[clip.clip_id] = clip
        begins = {clip.clip_id for clip in listed}
        moments = self._merged(listed)
        asked: set[tuple[str, TimeRange]] = set()
        while True:
            first = (fold_duplicates(moments) if is_last else moments)[:num]
            if len(first) < num and not is_last:
                return first
            lacking = {}
            for moment in first:
                floor, end = floor_of(moment.score, self.margin), _end_before(moment, ends)
                if floor <= end:
                    chain = _chain(moment, floor, of_video[moment.video_id].values())
                    lacking[moment.best_clip_id, chain] = _Lacking(chain, floor, end)
            found = self._joining([each for key, each in lacking.items() if key not in asked])
            joining = [clip for clip in found if clip.clip_id not in of_video[clip.video_id]]
            if not joining:
                return first
            asked |= set(lacking)
            for clip in joining:
                of_video[clip.video_id][clip.clip_id] = clip
            videos = {clip.video_id for clip in joining}
            again = self._merged(clip for video_id in videos for clip in of_video[video_id].values())
            kept = [each for each in moments if each.video_id not in videos]
            moments = sorted(kept + [each for each in again if each.best_clip_id in begins], key=moment_order)

    def _joining(self, all_lacking: Sequence[_Lacking]) -> list[RankedClip]:
        """Return the clips that are lacking, searched for exactly."""
        if not all_lacking:
            return []
        of_video: dict[str, list[_Lacking]] = {}
        for lacking in all_lacking:
            of_video.setdefault(lacking.around.video_id, []).append(lacking)
        reach = self.collection.metadata.longest_ms or FOREVER_MS
        found = self.collection.search(
            self.vector, limit=MOST_AROUND, exact=True, using=self.using, conditions=self.conditions,
            score_threshold=min(lacking.floor for lacking in all_lacking),
            time_ranges=[around._replace(first_ms=around.first_ms - reach) for around, _, _ in all_lacking],
        )
        return [clip for clip in found if any(lacking.has(clip) for lacking in of_video[clip.video_id])]

    def _merged(self, ranked: Iterable[RankedClip]) -> list[Moment]:
        return merge_moments(without(ranked, self.examples), margin=self.margin)


class _Lacking(NamedTuple):
    """The clips that a moment may lack."""

    around: TimeRange
    """They overlap or touch this."""
    floor: float
    """They score no less than this,"""
    end: float
    """and no more than the last clip of the search that the moment begins in."""

    def has(self, clip: RankedClip) -> bool:
        _, first_ms, last_ms = self.around
        return clip.end_ms >= first_ms and clip.start_ms <= last_ms and self.floor <= clip.score <= self.end


def _end_before(moment: Moment, ends: Sequence[float]) -> float:
    """Return the end of the search that `moment` begins in; if no search has an end, no clip follows."""
    return next((end for end in ends if end < moment.score), ends[-1] if ends else -math.inf)


def _chain(moment: Moment, floor: float, clips: Iterable[RankedClip]) -> TimeRange:
    """From where to where `moment` goes, with all of `clips` that it hangs together with and that are no lower than `floor`.

    More than the moment itself: what lies between two moments may be part of neither, and what joins on to that decides.
    """
    first_ms, last_ms = moment.start_ms, moment.end_ms
    beside = [clip for clip in clips if clip.score >= floor]
    if len(beside) > len(moment.clip_ids):
        # One way after the other: to the left what ends later, to the right what begins earlier, is nearer.
        for clip in sorted(beside, key=lambda clip: -clip.end_ms):
            if clip.end_ms >= first_ms and clip.start_ms <= last_ms:
                first_ms = min(first_ms, clip.start_ms)
        for clip in sorted(beside, key=lambda clip: clip.start_ms):
            if clip.start_ms <= last_ms and clip.end_ms >= first_ms:
                last_ms = max(last_ms, clip.end_ms)
    return TimeRange(moment.video_id, first_ms, last_ms)


def without(ranked: Iterable[RankedClip], examples: Sequence[Point]) -> list[RankedClip]:
    """Remove clips given as examples, and clips that overlap them, from a ranking.

    Args:
        ranked: The clips of the ranking.
        examples: The points of the example clips.
    """
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
