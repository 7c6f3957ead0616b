"""The text of a query: its words, and the phrases that stand in quotes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vidseek_retrieval.lexical.word_parts import words_in

_QUOTED = re.compile(r'"([^"]*)"|“([^”]*)”|„([^“”]*)[“”]|«([^»]*)»')


@dataclass(frozen=True)
class QueryText:
    """A query's text, parsed."""

    text: str
    """Without the quotes: what encoders read."""
    phrases: tuple[str, ...] = ()
    """What stood in quotes: a clip must have these words, one after the other."""

    @staticmethod
    def of(text: str) -> QueryText:
        """Parse a text. A quote that is not closed, or has no word in it, is no phrase."""
        quoted = ("".join(filter(None, match.groups())).strip() for match in _QUOTED.finditer(text))
        phrases = tuple(phrase for phrase in quoted if next(words_in(phrase), None))
        if not phrases:
            return QueryText(text)
        return QueryText(" ".join(re.sub(r'["“”„«»]', " ", text).split()), phrases)


def without_quotes(text: str) -> str:
    """Return the text that encoders read: without the quotes of phrases."""
    return QueryText.of(text).text
