from __future__ import annotations

import os
from pathlib import Path

import pytest

from vidseek.feedback import Feedback, append, freeze
from vidseek_media.errors import ArtifactError
from vidseek_media.tables import FEEDBACK, read_table

CLIP = "1157d38b-4691-5e61-ba0c-ad2b11241343"


def said(query: str, relevant: bool, time: str, *, clip_id: str = CLIP) -> Feedback:
    return Feedback(query, clip_id, relevant, "0123456789abcdef", f"2026-11-{time}+00:00")


def test_freeze__the_last_word_on_a_query_and_a_clip_counts(tmp_path: Path) -> None:
    for each in (said("red", True, "02T10:00:00"), said("red", False, "01T10:00:00"), said("blue", False, "02T09:00:00")):
        append(tmp_path / "feedback", each)
    assert sorted(path.name for path in (tmp_path / "feedback").iterdir()) == ["2026-11-01.jsonl", "2026-11-02.jsonl"]
    report = freeze(tmp_path / "feedback", tmp_path / "out" / "feedback.parquet")
    assert (report.num_said, report.num_rows, report.num_broken) == (3, 2, 0)
    table = read_table(tmp_path / "out" / "feedback.parquet", FEEDBACK)
    assert list(zip(table["query"], table["relevant"], strict=True)) == [("blue", False), ("red", True)]


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
    with pytest.raises(ArtifactError, match="No space left"):
        append(tmp_path, said("red", True, "01T10:00:00"))
