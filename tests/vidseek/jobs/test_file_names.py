from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidseek.jobs.file_names import MOST_BYTES, free_name, safe_name


@pytest.mark.parametrize(("given_name", "wanted"), [
    ("harbour.mp4", "harbour.mp4"), ("../../etc/passwd.mp4", "passwd.mp4"), ("..\\..\\a.mp4", "a.mp4"),
    ("-rf.mp4", "rf.mp4"), (".hidden.mp4", "hidden.mp4"), ("a\nb\x00.mp4", "a_b_.mp4"), ("\u202egnp.mp4", "_gnp.mp4"),
    ("cafe\u0301.mp4", "café.mp4"), ("한강.mp4", "한강.mp4"), (".mp4", "mp4"), ("", "video"), ("///", "video"),
    ("a" * 300 + ".mp4", "a" * (MOST_BYTES - 4) + ".mp4"), ("a:b*c?.mov", "a_b_c_.mov"),
])
def test_safe_name__examples(given_name: str, wanted: str) -> None:
    assert safe_name(given_name) == wanted


@given(st.text(max_size=400))
def test_safe_name__is_a_name_that_stays_in_its_folder(name: str) -> None:
    found = safe_name(name)
    assert found == safe_name(found), "twice changes nothing"
    assert found and len(found.encode()) <= MOST_BYTES and found[0] not in ".-~ "
    assert Path("folder", found).parent == Path("folder")
    assert not {unicodedata.category(char) for char in found} & {"Cc", "Cs", "Zl", "Zp"}


@given(st.lists(st.sampled_from(["red.mp4", "RED.MP4", "Red-2.mp4", "straße.mp4", "STRASSE.mp4", "é.mp4"]), max_size=6))
def test_free_name__clashes_with_no_name_in_any_case(names: list[str]) -> None:
    taken: list[str] = []
    for name in names:
        taken.append(free_name(name, taken))
    assert len({unicodedata.normalize("NFC", each).casefold() for each in taken}) == len(names)
