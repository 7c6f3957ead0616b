"""How likely a clip's text is what a query means: odds, from the words that the two share.

BM25 says how many rare words are shared. That is not yet how likely the clip is meant: captions of one domain share most of
their words, and a query that describes a picture shares some words with many texts. Two things tell these cases apart: how
much of the query the text covers, and how far it leads over every other text of the archive. A logistic regression over both
gives the odds; docs/decisions/2026-11-27-words-and-pictures.md has its fit and its test.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vidseek_retrieval.lexical.word_index import WordIndex
from vidseek_retrieval.search.moments import RankedClip

BIAS, LEAD, BEHIND, COVERED, KNOWN_COVERED, WHOLE = -5.3, 5.1, 2.6, 1.1, 1.9, 1.8
"""The fit: of the constant; of the lead times the root of the covered share; of being behind; of the share of the query's
words that the text has; of the same among words that stand in the archive; of having all of them."""
MAX_LOG_ODDS = 5.0
MIN_ODDS = 0.02
"""Less says nothing."""
MAX_TEXTS = 50
"""Different texts that are judged, the best first."""
MAX_CLIPS = 400
"""Clips that these texts are looked for in: windows of one video often have one text."""
_ALL = 0.999


@dataclass(frozen=True)
class QueryWord:
    """One word of a query, with the words of the archive that may stand for it."""

    indices: tuple[int, ...]
    """The word itself, or its likely spellings; empty if nothing like it stands in the archive."""


def clip_odds(words: Sequence[QueryWord], index: WordIndex, *, weight: float = 1.0) -> dict[str, float]:
    """Return the odds that a clip's text is what the query means, by clip_id; clips below `MIN_ODDS` are left out.

    Args:
        words: The words of the query, each once.
        index: The words of the archive.
        weight: The odds are multiplied by it; above 0.
    """
    idf = index.idf({each for word in words for each in word.indices})
    costs = [min((idf[each] for each in word.indices if each in idf), default=None) for word in words]
    if not any(costs):
        return {}
    absent = math.log1p((index.num_clips + 0.5) / 0.5)
    ranked = index.ranked(dict.fromkeys(idf, 1.0), limit=MAX_CLIPS)
    texts = _different(ranked)
    shared = _shared(words, costs, texts, index)
    known = math.fsum(cost for cost in costs if cost is not None)
    whole = known + absent * costs.count(None)
    odds: dict[tuple[str, float], float] = {}
    for place, clip in enumerate(texts):
        lead = (clip.score - _rival(place, texts)) / texts[0].score
        covered = shared.get(clip.clip_id, 0.0)
        odds[clip.video_id, clip.score] = min(
            odds_of(lead, covered / whole, covered / known if known else 0.0), math.expm1(min(clip.score, 50.0))
        )
    found = {clip.clip_id: weight * odds.get((clip.video_id, clip.score), 0.0) for clip in ranked}
    return {clip_id: value for clip_id, value in found.items() if value >= MIN_ODDS}


def odds_of(lead: float, covered: float, known_covered: float) -> float:
    """Return the odds that a text is meant.

    Args:
        lead: How far its BM25 is above that of the best other text, as a share of the best of all; below 0 if it is behind.
        covered: Share of the query's words that it has, each counted by its rarity.
        known_covered: The same among words that stand in the archive.
    """
    logit = (
        BIAS + LEAD * max(lead, 0.0) * math.sqrt(covered) + BEHIND * min(lead, 0.0) + COVERED * covered
        + KNOWN_COVERED * known_covered + WHOLE * (covered > _ALL)
    )
    return math.exp(min(logit, MAX_LOG_ODDS))


def _different(ranked: Sequence[RankedClip]) -> list[RankedClip]:
    """Return one clip of each different text, best first: clips of a video with equal scores have one text."""
    texts: dict[tuple[str, float], RankedClip] = {}
    for clip in ranked:
        if len(texts) == MAX_TEXTS:
            break
        texts.setdefault((clip.video_id, clip.score), clip)
    return list(texts.values())


def _rival(place: int, texts: Sequence[RankedClip]) -> float:
    """Return the best score of another text: not one of the same video at the same time, nor of one that shows the same."""
    clip = texts[place]
    return next((
        each.score for other, each in enumerate(texts)
        if other != place and not _is_same_moment(clip, each) and not _is_duplicate(clip, each)
    ), 0.0)


def _is_same_moment(one: RankedClip, other: RankedClip) -> bool:
    return one.video_id == other.video_id and other.start_ms <= one.end_ms and one.start_ms <= other.end_ms


def _is_duplicate(one: RankedClip, other: RankedClip) -> bool:
    """Return whether two clips are of different videos of which it was decided that they show the same."""
    return one.video_id != other.video_id and (one.duplicate_of or one.video_id) == (other.duplicate_of or other.video_id)


def _shared(
    words: Sequence[QueryWord], costs: Sequence[float | None], texts: Sequence[RankedClip], index: WordIndex
) -> Mapping[str, float]:
    """Return how much of the query each text has, counted by rarity, by clip_id."""
    return {
        clip_id: math.fsum(
            cost for word, cost in zip(words, costs, strict=True) if cost is not None and not there.isdisjoint(word.indices)
        )
        for clip_id, there in index.words_of([clip.clip_id for clip in texts]).items()
    }
