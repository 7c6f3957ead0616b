from __future__ import annotations

import os
import tempfile
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.raising import raises
from vidseek.actions.feedback import Feedback, append, freeze, read, read_frozen
from vidseek_media.errors import ArtifactError
from vidseek_media.tables import FEEDBACK, read_table

CLIP = "1157d38b-4691-5e61-ba0c-ad2b11241343"


def said(query: str, relevant: bool, time: str, *, clip_id: str = CLIP) -> Feedback:
    return Feedback(query, clip_id, relevant, "0123456789abcdef", f"2026-11-{time}+00:00")


def test_freeze__the_last_word_on_a_query_and_a_clip_counts(tmp_path: Path) -> None:
    for each in (said("red", False, "01T10:00:00"), said("red", True, "02T10:00:00"), said("blue", False, "02T09:00:00")):
        append(tmp_path / "feedback", each)
    names = sorted(path.name for path in (tmp_path / "feedback").glob("*.jsonl"))
    assert names == ["2026-11-01.jsonl", "2026-11-02.jsonl"]
    report = freeze(tmp_path / "feedback", tmp_path / "out" / "feedback.parquet")
    assert (report.num_said, report.num_rows, report.num_broken) == (3, 2, 0)
    table = read_table(tmp_path / "out" / "feedback.parquet", FEEDBACK)
    assert list(zip(table["query"], table["relevant"], strict=True)) == [("blue", False), ("red", True)]


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(verdicts=st.lists(st.tuples(st.booleans(), st.datetimes(datetime(2025, 1, 1), datetime(2027, 1, 1))), min_size=1))
def test_freeze__what_was_said_last_counts_whatever_the_clock_said(verdicts: list[tuple[bool, datetime]]) -> None:
    with tempfile.TemporaryDirectory() as made:
        for relevant, time in verdicts:
            append(Path(made), Feedback("red", CLIP, relevant, "v", time.isoformat()))
        freeze(Path(made), Path(made) / "out.parquet")
        assert [each.relevant for each in read_frozen(Path(made) / "out.parquet")] == [verdicts[-1][0]]
        assert [each.relevant for each in read(Path(made))[0]] == [relevant for relevant, _ in verdicts]


@pytest.mark.parametrize("line", [
    b'{"query": "red", "clip_id": "c", "relevant": "yes", "encoder_version": "v", "said_at": "t"}',
    b'{"query": "red", "clip_id": "c", "relevant": true, "encoder_version": "v"}',
    b'{"query": "red", "clip_id": "c", "relevant": true, "encoder_version": "v", "said_at": "t", "more": 1}',
    b'{"query": "\xff', b"[]", b"\0\0\0",
])
def test_read__what_is_no_feedback_is_counted(tmp_path: Path, line: bytes) -> None:
    append(tmp_path, said("red", True, "01T10:00:00"))
    with (tmp_path / "2026-11-01.jsonl").open("ab") as file:
        file.write(line)
    append(tmp_path, said("blue", True, "01T11:00:00"))
    heard, num_broken = read(tmp_path)
    assert ([each.query for each in heard], num_broken) == (["red", "blue"], 1)


def test_freeze__twice_is_byte_identical(tmp_path: Path) -> None:
    append(tmp_path, said("red", True, "01T10:00:00"))
    freeze(tmp_path, tmp_path / "a.parquet")
    freeze(tmp_path, tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_freeze__a_line_that_broke_off_costs_that_line(tmp_path: Path) -> None:
    append(tmp_path, said("red", True, "01T10:00:00"))
    with (tmp_path / "2026-11-01.jsonl").open("a") as file:
        file.write('{"query": "gre\n')
    append(tmp_path, said("blue", True, "01T11:00:00"))
    report = freeze(tmp_path, tmp_path / "out.parquet")
    assert (report.num_rows, report.num_broken) == (2, 1)


def test_freeze__nothing_said_is_an_empty_table(tmp_path: Path) -> None:
    assert freeze(tmp_path / "none", tmp_path / "out.parquet").num_rows == 0
    assert len(read_table(tmp_path / "out.parquet", FEEDBACK)) == 0


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/dev/full").exists(), reason="no device that is full")
def test_append__full_disk_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "2026-11-01.jsonl").symlink_to("/dev/full")
    with raises(ArtifactError, code="not-writable", naming="No space left"):
        append(tmp_path, said("red", True, "01T10:00:00"))
