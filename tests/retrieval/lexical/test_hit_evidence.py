from __future__ import annotations

import pytest

from vidseek_retrieval.index.bm25 import WordEncoder
from vidseek_retrieval.lexical.hit_evidence import evidence_of

ENCODER = WordEncoder()


@pytest.mark.parametrize(("text", "query", "matches"), [
    ("Anna Bergström, Minister", "bergstrom minister", ("Bergström", "Minister")),
    ("paid 3,500 to O'Brien", "3500 obrien", ("3,500", "O'Brien")),
    ("a long co-operation", "operation", ("operation",)),
    ("東京駅の天気予報", "天気予報", ("天気予報",)),
    ("at 10:41 sharp", "10:41", ("10:41",)),
    ("nothing", "else", ()),
])
def test_evidence_of__matches_are_as_they_are_written(text: str, query: str, matches: tuple[str, ...]) -> None:
    payload = {"ocr": [[0, 1000, text]]}
    found = evidence_of([payload], {"ocr": frozenset(ENCODER.query(query).indices)}, ENCODER)
    assert tuple(match for each in found for match in each.matches) == matches
