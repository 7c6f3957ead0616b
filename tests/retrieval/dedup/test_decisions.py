"""Accepting and refusing near-duplicates, also by two people at once."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.raising import raises
from vidseek_media.errors import InputRejected
from vidseek_retrieval.dedup.decisions import DecisionsChanged, decide_rows, key_of, read_decisions, without_refused
from vidseek_retrieval.dedup.video_matches import Duplicate, read_duplicates

ONE = Duplicate("a" * 32, 0, 5000, "b" * 32, 0, 5000, "whole", 0.97)
OTHER = Duplicate("c" * 32, 1000, 3000, "b" * 32, 4000, 6000, "part", 0.91)
FOUND = (ONE, OTHER)


def test_decide__accepted_rows_are_what_publish_reads(tmp_path: Path) -> None:
    before = read_decisions(tmp_path)
    after = decide_rows(tmp_path, revision=before.revision, found=FOUND, accept=[key_of(ONE)], refuse=[key_of(OTHER)])
    assert read_duplicates(tmp_path / "duplicates.parquet") == [ONE] == list(after.accepted)
    assert after.refused == {("b" * 32, "c" * 32)}
    assert after.revision != before.revision


def test_decide__refused_pair_stays_out_of_what_is_found_later_with_other_spans(tmp_path: Path) -> None:
    done = decide_rows(
        tmp_path, revision=read_decisions(tmp_path).revision, found=FOUND, accept=[], refuse=[key_of(OTHER)]
    )
    later = Duplicate("c" * 32, 1500, 3500, "b" * 32, 4500, 6500, "part", 0.9)
    assert without_refused([ONE, later], done) == [ONE]


def test_decide__mind_can_be_changed_both_ways(tmp_path: Path) -> None:
    decided = read_decisions(tmp_path)
    for accept, refuse, accepted in (([ONE], [], 1), ([], [ONE], 0), ([ONE], [], 1)):
        decided = decide_rows(
            tmp_path, revision=decided.revision, found=FOUND, accept=[key_of(row) for row in accept],
            refuse=[key_of(row) for row in refuse],
        )
        assert (len(decided.accepted), len(decided.refused)) == (accepted, 1 - accepted)


def test_decide__who_saw_an_older_state_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    seen = read_decisions(tmp_path).revision
    first = decide_rows(tmp_path, revision=seen, found=FOUND, accept=[key_of(ONE)], refuse=[])
    with raises(DecisionsChanged, code="decisions-changed"):
        decide_rows(tmp_path, revision=seen, found=FOUND, accept=[], refuse=[key_of(ONE)])
    assert read_decisions(tmp_path) == first


def test_decide__of_many_at_once_one_wins(tmp_path: Path) -> None:
    seen, won = read_decisions(tmp_path).revision, []

    def decide(number: int) -> None:
        try:
            decide_rows(tmp_path, revision=seen, found=FOUND, accept=[key_of(FOUND[number % 2])], refuse=[])
            won.append(number)
        except DecisionsChanged:
            pass

    threads = [threading.Thread(target=decide, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert read_decisions(tmp_path).accepted == (FOUND[won[0] % 2],)


@pytest.mark.parametrize(("accept", "refuse", "fact"), [
    (["nonsense"], [], "nonsense"), ([key_of(ONE)], [key_of(ONE)], "both"),
])
def test_decide__keys_that_cannot_be(tmp_path: Path, accept: list[str], refuse: list[str], fact: str) -> None:
    with raises(InputRejected, code="bad-decision", naming=fact):
        decide_rows(tmp_path, revision=read_decisions(tmp_path).revision, found=FOUND, accept=accept, refuse=refuse)
    assert not (tmp_path / "duplicates.parquet").exists()
