"""Numbers for parts of words: an index of words then also finds misspelt words, beginnings, and words run together."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator

MIN_LETTERS = 5
"""Shorter words are not corrected: one letter of four changes too much."""
_END = 3
"""Letters of the beginning and of the end of a word. One edit leaves one of them whole: the two share no letter of a word of
six letters, and a word of five has parts of two letters too."""
_WORD = re.compile(r"\w+")


def plain(text: str) -> str:
    """Return `text` in one spelling: compatible characters unified, without case."""
    return unicodedata.normalize("NFKC", text).casefold()


def words_in(text: str) -> Iterator[re.Match[str]]:
    """Yield the runs of letters and digits of `text`, in order, as they are written."""
    return _WORD.finditer(text)


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
