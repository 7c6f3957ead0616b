"""Words as searches see them: one spelling, runs of letters, and numbers for parts of words to find misspelt ones by."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator
from itertools import pairwise

MIN_LETTERS = 5
"""Shorter words are not corrected: one letter of four changes too much."""
_END = 3
"""Letters of the beginning and of the end of a word. One edit leaves one of them whole: the two share no letter of a word of
six letters, and a word of five has parts of two letters too."""
_LETTER = (
    r"[\w\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06dc"
    r"\u0900-\u0963\u0966-\u0df3\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ece\u102b-\u103e\u17b4-\u17d3]"
)
"""Letters and digits, with the marks that stand on or beside letters: a pattern of letters alone breaks words there."""
_WORD = re.compile(rf"{_LETTER}+")
_THOUSANDS = r"(?<![\d.,])\d{1,3}(?:([.,'’])\d{3})(?:\1\d{3})*(?![.,'’]?\d)"
_TERM = re.compile(rf"{_THOUSANDS}|\d+(?:[.,:/-]\d+)+(?!\w)|{_LETTER}+(?:[-‐'’./&]{_LETTER}+)+|{_LETTER}+")
_SPACED_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?: \d{3})+(?![.,]?\d)")
_PLAIN_LETTERS = str.maketrans({"ł": "l", "ø": "o", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "ı": "i", "ё": "е",
                                "ـ": None, "ى": "ي", "ة": "ه"})
_MARKS = re.compile("[\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u064b-\u065f\u0670]")
"""Accents, and the points of Hebrew and Arabic. Other marks are vowels, or make another letter."""
_TWO_BY_TWO = "\u3005-\u3007\u3041-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\U00020000-\U0003ffff"
_THREE_BY_THREE = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
LINE_END = "; "
"""Between the title and the captions in the text of a clip."""
UNSPACED = re.compile(rf"[{_TWO_BY_TWO}]+|[{_THREE_BY_THREE}]+")
"""Runs of scripts that write no spaces between words, or (Korean) write particles behind them."""


def plain(text: str) -> str:
    """Return `text` in one spelling: compatible characters unified, without case, accents and vowel points."""
    if text.isascii():
        return text.casefold()
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(_bare(char) for char in unicodedata.normalize("NFC", folded)).translate(_PLAIN_LETTERS)


def _bare(char: str) -> str:
    if "\u0400" <= char <= "\u04ff" or char.isascii():  # accents of Cyrillic make other letters
        return char
    return unicodedata.normalize("NFC", _MARKS.sub("", unicodedata.normalize("NFD", char)))


def words_in(text: str) -> Iterator[re.Match[str]]:
    """Yield the runs of letters and digits of `text`, in order, as they are written."""
    return _WORD.finditer(text)


def terms_in(text: str) -> Iterator[re.Match[str]]:
    """Yield words as they are written, with what stands together as one: `co-operation`, `O'Brien`, `3,500`, `10:41`."""
    return _TERM.finditer(text)


def joined(term: str) -> str:
    """Return a term in plain spelling as one word; thousands without signs, other digits with one that stands for all.

    Examples:
        >>> joined("O'Brien"), joined("3,500"), joined("3'500"), joined("10:41")
        ('obrien', '3500', '3500', '10x41')
    """
    parts = [match[0] for match in words_in(plain(term))]
    return ("" if is_thousands(term) or not all(map(str.isdecimal, parts)) else "x").join(parts)


def is_thousands(term: str) -> bool:
    """Return whether a term is one number, written in groups of three digits."""
    return re.fullmatch(_THOUSANDS, term) is not None


def with_joined(text: str) -> str:
    """Return `text` in plain spelling, with the terms that are written together as further words behind it.

    Thousands become one number where they stand. This is what numbers of words are made from, of documents and of queries.
    """
    spelled = re.sub(_THOUSANDS, lambda match: joined(match[0]), plain(text))
    further = [joined(match[0]) for match in terms_in(spelled) if _WORD.fullmatch(match[0]) is None]
    further += [match[0].replace(" ", "") for match in _SPACED_THOUSANDS.finditer(spelled)]
    return " ".join([spelled, *further])


def parts_of_run(run: str) -> list[str]:
    """Return the parts of a run of `UNSPACED`: each two letters that follow each other, of scripts that write syllables each
    three; a shorter run whole."""
    size = 3 if re.match(f"[{_THREE_BY_THREE}]", run) else 2
    return [run[at : at + size] for at in range(len(run) - size + 1)] or [run]


def neighbours_joined(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield each two words that follow each other in `text`, in plain spelling, and what they make without the space."""
    words = [match[0] for match in words_in(plain(text))]
    for one, other in pairwise(words):
        yield one, other, one + other


def end_parts(word: str) -> tuple[int, ...]:
    """Return the numbers of the beginning and the end of a word; none for a word shorter than `MIN_LETTERS`."""
    if len(word) < MIN_LETTERS:
        return ()
    lengths = (_END, _END - 1) if len(word) <= 2 * _END else (_END,)
    return tuple(_number(part) for num in lengths for part in (f"^{word[:num]}", f"{word[-num:]}$"))


def run_parts(text: str) -> set[int]:
    """Return the numbers of all three letters that follow each other in `text`, whatever stands between them."""
    letters = "".join(match[0] for match in words_in(text))
    return {_number(letters[at : at + 3]) for at in range(len(letters) - 2)}


def document_parts(text: str, *, run_together: bool) -> set[int]:
    """Return the numbers under which the index finds the words of a text by their parts.

    Args:
        text: The text of a clip.
        run_together: Whether its words may lack the spaces between them, as those of on-screen text do.
    """
    spelled = plain(text)
    parts = {part for match in words_in(spelled) for part in end_parts(match[0])}
    return parts | run_parts(spelled) if run_together else parts


def _number(part: str) -> int:
    return int.from_bytes(hashlib.blake2b(part.encode("utf-8", "surrogatepass"), digest_size=4).digest(), "little")
