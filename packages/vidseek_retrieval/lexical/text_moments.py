"""One moment for one text: windows that overlap share what is said in them and what they show."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from vidseek_retrieval.lexical.hit_evidence import Evidence, is_long, spoken_texts
from vidseek_retrieval.lexical.mixture import MixedRanking
from vidseek_retrieval.lexical.query_evidence import QueryEvidence
from vidseek_retrieval.search.moments import Moment


@dataclass(frozen=True)
class TextMoments:
    """A ranking by pictures and words in which a text that is said or shown gives one moment: the best that has it.

    A moment that was found for texts of better moments alone is left out. Where pictures count, a text that is there for
    longer than a minute (`hit_evidence.LONG_TEXT_MS`) gives several: pictures tell them apart.
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
        given: dict[str, set[Evidence]] = defaultdict(set)
        repeated = {moment for moment in several if self._is_repeated(moment, given[moment.video_id])}
        return [moment for moment in moments if moment not in repeated]

    def _is_repeated(self, moment: Moment, given: set[Evidence]) -> bool:
        """Return whether a moment was found for texts that gave better moments; if it was not, note what it gives."""
        texts = self._read[moment]
        found_for = spoken_texts(texts, moment.start_ms, moment.end_ms)
        own = [text for text in found_for if text not in given]
        if found_for and not own:
            return True
        self._own[moment] = tuple(text for text in texts if text not in given)
        given.update(text for text in own if not (self.ranking.is_visual and is_long(text)))
        return False

    def _read_texts(self, moments: Sequence[Moment]) -> None:
        unread = [moment for moment in moments if moment not in self._read]
        self._read.update(zip(unread, self.evidence.texts_of(self.ranking.nearest.collection, unread), strict=True))
