"""One moment for one text: windows that overlap share what is said in them and what they show."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from vidseek_retrieval.lexical.hit_evidence import Evidence, caption_lines, is_long, spoken_texts
from vidseek_retrieval.lexical.mixture import MixedRanking
from vidseek_retrieval.lexical.query_evidence import QueryEvidence
from vidseek_retrieval.search.moments import Moment


@dataclass(frozen=True)
class TextMoments:
    """A ranking by pictures and words in which a text that is said or shown gives one moment: the best that has it.

    A moment that was found for texts of better moments alone is left out. Where pictures count, a text that is there for
    longer than a minute (`hit_evidence.LONG_TEXT_MS`) gives several: pictures tell them apart. Captions have the spans of
    their clips: of moments that overlap, those with no other line than a better one are left out.
    """

    ranking: MixedRanking
    evidence: QueryEvidence
    """What the words say; of the same conditions as the ranking."""
    _read: dict[Moment, tuple[Evidence, ...]] = field(default_factory=dict)
    """The texts of moments, the best first."""
    _own: dict[Moment, tuple[Evidence, ...]] = field(default_factory=dict)
    """The same without those that gave a better moment."""

    def moments(self, num: int) -> list[Moment]:
        """Return the first `num` moments (or all, if there are fewer), best first."""
        asked = num
        while True:
            found = self.ranking.moments(asked)
            kept = self._without_repeated(found)
            if len(kept) >= num or len(found) < asked:
                return kept[:num]
            asked *= 2

    def texts_of(self, moments: Sequence[Moment]) -> list[tuple[Evidence, ...]]:
        """Return the texts for which moments were found, the best first, without those that gave a better moment.

        Args:
            moments: Moments that `moments` gave.
        """
        self._read_texts(moments)
        return [self._own.get(moment, self._read[moment]) for moment in moments]

    def _without_repeated(self, moments: Sequence[Moment]) -> list[Moment]:
        worded = [moment for moment in moments if self.evidence.has_words(moment)]
        num_of = Counter(moment.video_id for moment in worded)
        several = [moment for moment in worded if num_of[moment.video_id] > 1]
        self._read_texts(several)
        given: dict[str, _Given] = defaultdict(_Given)
        repeated = {moment for moment in several if self._is_repeated(moment, given[moment.video_id])}
        return [moment for moment in moments if moment not in repeated]

    def _is_repeated(self, moment: Moment, given: _Given) -> bool:
        """Return whether a moment was found for texts that gave better moments; if it was not, note what it gives."""
        texts = self._read[moment]
        found_for, lines = spoken_texts(texts, moment.start_ms, moment.end_ms), caption_lines(texts)
        own = [text for text in found_for if text not in given.texts]
        if not own and (found_for or (lines and lines <= given.lines_around(moment))):
            return True
        self._own[moment] = tuple(text for text in texts if text not in given.texts)
        given.texts.update(text for text in own if not (self.ranking.is_visual and is_long(text)))
        given.captioned.append((moment, lines))
        return False

    def _read_texts(self, moments: Sequence[Moment]) -> None:
        unread = [moment for moment in moments if moment not in self._read]
        self._read.update(zip(unread, self.evidence.texts_of(self.ranking.nearest.collection, unread), strict=True))


@dataclass(frozen=True)
class _Given:
    """What gave the better moments of one video."""

    texts: set[Evidence] = field(default_factory=set)
    captioned: list[tuple[Moment, set[str]]] = field(default_factory=list)
    """Moments with the lines of their captions."""

    def lines_around(self, moment: Moment) -> set[str]:
        """Return the lines of captions of the better moments that overlap a moment."""
        return {
            line for other, lines in self.captioned
            if other.start_ms < moment.end_ms and moment.start_ms < other.end_ms for line in lines
        }
