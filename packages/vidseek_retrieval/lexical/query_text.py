"""The text of a query: its words, and the phrases that stand in quotes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vidseek_retrieval.lexical.word_parts import plain, words_in

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


def has_phrase(text: str, phrase: str, *, run_together: bool = False) -> bool:
    """Return whether the words of `phrase` stand in `text`, one after the other, in any case and with any signs between.

    Args:
        text: The text of a segment.
        phrase: With at least one word.
        run_together: Whether the text may lack spaces.
    """
    there, wanted = _words(text), _words(phrase)
    if run_together:
        return "".join(wanted) in "".join(there)
    return any(there[at : at + len(wanted)] == wanted for at in range(len(there) - len(wanted) + 1)) or (
        _is_unspaced(phrase) and plain(phrase) in plain(text)
    )


def _words(text: str) -> list[str]:
    return [match[0] for match in words_in(plain(text))]


def _is_unspaced(text: str) -> bool:
    """Whether `text` is of a script that writes no spaces between words."""
    return any("\u0e00" <= letter <= "\u0eff" or "\u3040" <= letter <= "\u9fff" or "\uac00" <= letter <= "\ud7af" or
               "\U00020000" <= letter <= "\U0003ffff" for letter in text)
