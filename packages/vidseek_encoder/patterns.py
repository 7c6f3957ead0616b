"""Accepts the regular expressions of a tokenizer file whose run time is bounded for every text.

Tokenizers match with Oniguruma, which backtracks: `(a+)+b` takes 2^n steps for n letters. An accepted pattern has at most
one unbounded repetition on each path through it, and few paths, so a search takes at most quadratic time.
"""

from __future__ import annotations

import re

MOST_LETTERS = 1024
MOST_WAYS = 256
"""Most paths through a pattern, counting an unbounded repetition once."""
MOST_REPEATS = 64

KNOWN = frozenset({
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
})
"""Patterns of published tokenizers (Llama 3, Qwen 2) that the rule would refuse. They have two repetitions on one path, but
of disjoint classes of letters, or of line ends within white space, which is quadratic too.
"""

_QUANTIFIER = re.compile(r"(?:[*+?]|\{(\d{0,4})(,?)(\d{0,4})\})([?+]?)")
_ESCAPE = re.compile(
    r"\\(?:[pP]\{\^?[A-Za-z_ ]{1,40}\}|x\{[0-9A-Fa-f]{1,8}\}|x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|[^0-9kgXRKpPxu])"
)
_GROUP = re.compile(r"\((?:\?:|\?i:|\?=|\?!|(?!\?|\*))")


def require_tame(pattern: str) -> None:
    """Check that the run time of `pattern` is bounded for every text.

    Raises:
        ValueError: it is not bounded, or this cannot be decided.
    """
    if pattern in KNOWN:
        return
    if not 0 < len(pattern) <= MOST_LETTERS:
        raise ValueError(f"a pattern has {len(pattern)} letters, wanted 1 to {MOST_LETTERS}")
    ways, unbounded, end = _alternatives(pattern, 0, 0)
    if end != len(pattern):
        raise ValueError(f"the pattern {pattern!a} closes a group that it does not open")
    if unbounded > 1 or ways > MOST_WAYS:
        raise ValueError(
            f"the pattern {pattern!a} has {unbounded} repetitions without an end on one way and {ways} ways, wanted at most "
            f"1 and {MOST_WAYS}"
        )


def _alternatives(pattern: str, at: int, depth: int) -> tuple[int, int, int]:
    """Return paths and unbounded repetitions of a group from `at` on, and the offset of the group's end."""
    if depth > 8:
        raise ValueError("a pattern nests too deeply")
    ways, unbounded = 0, 0
    while True:
        branch_ways, branch_unbounded, at = _sequence(pattern, at, depth)
        ways, unbounded = ways + branch_ways, max(unbounded, branch_unbounded)
        if at == len(pattern) or pattern[at] == ")":
            return ways, unbounded, at
        at += 1  # past the |


def _sequence(pattern: str, at: int, depth: int) -> tuple[int, int, int]:
    ways, unbounded = 1, 0
    while at < len(pattern) and pattern[at] not in "|)":
        atom_ways, atom_unbounded, at = _atom(pattern, at, depth)
        if found := _QUANTIFIER.match(pattern, at):
            at = found.end()
            atom_ways, atom_unbounded = _repeated(pattern, found, atom_ways, atom_unbounded)
            if _QUANTIFIER.match(pattern, at):
                raise ValueError(f"the pattern {pattern!a} repeats a repetition")
        ways, unbounded = min(ways * atom_ways, 10**9), unbounded + atom_unbounded
    return ways, unbounded, at


def _repeated(pattern: str, found: re.Match[str], ways: int, unbounded: int) -> tuple[int, int]:
    if found[0].startswith("?"):
        return ways + 1, unbounded
    if ways > 1 or unbounded:
        raise ValueError(f"the pattern {pattern!a} repeats what can match in several ways")
    if found[0][0] in "*+":
        return 1, 1
    least, most = found[1], found[3] if found[2] else found[1]
    if not least and not most:
        raise ValueError(f"the pattern {pattern!a} has a brace that counts nothing")
    if found[4] == "+" or max(int(least or 0), int(most or 0)) > MOST_REPEATS:
        raise ValueError(f"the pattern {pattern!a} counts beyond {MOST_REPEATS}, or repeats a count")
    if not most:
        return 1, 1
    return max(1, int(most) - int(least or 0) + 1), 0


def _atom(pattern: str, at: int, depth: int) -> tuple[int, int, int]:
    letter = pattern[at]
    if letter == "\\":
        return 1, 0, _escaped(pattern, at)
    if letter == "[":
        return 1, 0, _class_end(pattern, at)
    if letter == "(":
        opened = _GROUP.match(pattern, at)
        if opened is None:
            raise ValueError(f"the pattern {pattern!a} has a group of a kind that is not let through")
        ways, unbounded, end = _alternatives(pattern, opened.end(), depth + 1)
        if end == len(pattern):
            raise ValueError(f"the pattern {pattern!a} does not close a group")
        return ways, unbounded, end + 1
    if letter in "*+?{":
        raise ValueError(f"the pattern {pattern!a} repeats nothing")
    return 1, 0, at + 1


def _escaped(pattern: str, at: int) -> int:
    found = _ESCAPE.match(pattern, at)
    if found is None:
        raise ValueError(f"the pattern {pattern!a} has an escape of a kind that is not let through")
    return found.end()


def _class_end(pattern: str, at: int) -> int:
    """Return the offset after the character class that begins at `at`."""
    start, at, depth = at, at + 1, 1
    if pattern[at : at + 1] == "^":
        at += 1
    if pattern[at : at + 1] == "]":
        at += 1
    while at < len(pattern):
        if pattern[at] == "\\":
            at = _escaped(pattern, at)
            continue
        depth += {"[": 1, "]": -1}.get(pattern[at], 0)
        at += 1
        if depth == 0:
            return at
    raise ValueError(f"the pattern {pattern!a} does not close the class at {start}")
