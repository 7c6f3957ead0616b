from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, normalizers

from tests.raising import raises
from vidseek_encoder.patterns import KNOWN, require_tame
from vidseek_encoder.tokenizer_file import _USUAL

SLOW = [
    "(a+)+b", "(a|a)*b", "(a|aa)+$", "(a*)*b", "a*a*b", "(?:a?){40}a{40}", "(a?a?a?a?a?a?a?a?a?a?)b", "((a+))+",
    "(a{1,60}){1,60}b",
    "(x+x+)+y", r"(\w+\s?)*$", "(?:a+){2}", "a**", "a+*", "a{2}{3}", "(?=a+)*b", "a{1,9999}", "[ab]+[ab]+c",
]
ODD = [r"(a)\1", r"\k<a>", r"\g<0>", "(?<n>a)", "(?<=a+)b", "(?~a)", "(*FAIL)", "(?(1)a|b)", "(", ")", "[", "a)", "*", "",
       "x" * 2000,
       r"\R", r"\X", r"\K", "{", "(?>a)", "a{,}"]
FINE = [r"\s+", " {2,}", "[!\"#$%&'()]", "a|b|c+", r"\p{L}+|\p{N}{1,3}", "(?:ab|cd)?e+", r"[^\s\p{L}]+",
        "a?b?c?", "[[:alpha:]]+"]


@pytest.mark.parametrize("pattern", [*FINE, *sorted(KNOWN), *sorted(_USUAL)])
def test_require_tame__lets_through_what_tokenizers_use(pattern: str) -> None:
    require_tame(pattern)
    Regex(pattern)


@pytest.mark.parametrize("pattern", [*SLOW, *ODD])
def test_require_tame__refuses(pattern: str) -> None:
    with raises(ValueError, naming="pattern"):
        require_tame(pattern)


ATOMS = st.sampled_from(["a", "b", "ab", ".", "[ab]", "[^b]", r"\w", r"\s"])
PATTERNS = st.recursive(
    ATOMS,
    lambda inner: st.tuples(inner, st.sampled_from(["*", "+", "?", "{1,3}", "{2,}", "+?", ""])).map("".join)
    | st.lists(inner, min_size=2, max_size=4).map("".join)
    | st.lists(inner, min_size=2, max_size=3).map(lambda each: f"(?:{'|'.join(each)})")
    | inner.map(lambda each: f"({each})"),
    max_leaves=8,
)


@settings(deadline=None, max_examples=150)
@given(PATTERNS)
def test_require_tame__what_is_let_through_is_quick_on_the_worst_text(pattern: str) -> None:
    try:
        require_tame(pattern)
    except ValueError:
        return
    normalizer = normalizers.Replace(Regex(pattern), "")
    for text in ("a" * 1500 + "!", "ab" * 700 + "!", "b" * 1500 + "\n"):
        began = time.process_time()  # of this process alone, whatever else runs
        normalizer.normalize_str(text)
        assert time.process_time() - began < 3, (pattern, text[:4])
