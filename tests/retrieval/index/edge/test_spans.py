"""The table beside a shard: found by clip and by video, and refused where it is broken."""

from __future__ import annotations

import uuid
from pathlib import Path

import numpy as np
import pytest

from tests.raising import raises
from vidseek_retrieval.index.backend import Point, TimeRange
from vidseek_retrieval.index.edge.spans import ROW, SPANS_FILE, Spans, order_of, row_of, write_spans

NUM = 60


def points() -> list[Point]:
    """Of seven videos, in no order."""
    draws = np.random.default_rng(3)
    return [
        Point(
            str(uuid.UUID(int=int.from_bytes(draws.bytes(16)), version=5)), np.zeros(2, np.float32),
            {"video_id": f"{int(draws.integers(7)):032x}", "start_ms": place * 500, "end_ms": 99_000,
             **({"duplicate_of": f"{1:032x}"} if place % 3 == 0 else {})},
        )
        for place in range(NUM)
    ]


def written(path: Path, content: list[Point]) -> Path:
    rows = np.array([row_of(point) for point in content], dtype=ROW)
    write_spans(path / SPANS_FILE, rows[order_of(rows)])
    return path / SPANS_FILE


def test_of__is_the_row_of_each_clip(tmp_path: Path) -> None:
    content = points()
    spans = Spans.read(written(tmp_path, content), NUM)
    rows = spans.of(b"".join(uuid.UUID(point.clip_id).bytes for point in content))
    for point, row in zip(content, rows, strict=True):
        assert (row["clip_id"].decode(), row["video_id"].decode()) == (point.clip_id, point.payload["video_id"])
        assert (row["start_ms"], row["end_ms"]) == (point.payload["start_ms"], 99_000)
        assert row["duplicate_of"].decode() == point.payload.get("duplicate_of", "")
    with raises(LookupError, naming="lacks clips"):
        spans.of(uuid.UUID(int=5).bytes)


def test_within__is_what_begins_there(tmp_path: Path) -> None:
    content = points()
    spans = Spans.read(written(tmp_path, content), NUM)
    time_ranges = [TimeRange(f"{3:032x}", 2000, 19_000), TimeRange(f"{3:032x}", 9000, 25_000), TimeRange(f"{5:032x}", -5, 0),
                 TimeRange("a", 0, 99_000), TimeRange("f" * 32, 0, 99_000)]
    wanted = {
        point.clip_id for point in content for video_id, first_ms, last_ms in time_ranges
        if point.payload["video_id"] == video_id and first_ms <= point.payload["start_ms"] <= last_ms
    }
    assert spans.within(time_ranges) == wanted and len(wanted) == 3
    assert spans.within(time_ranges[-2:]) == spans.within([]) == set()


def test_read__an_empty_table(tmp_path: Path) -> None:
    spans = Spans.read(written(tmp_path, []), 0)
    assert spans.within([TimeRange("a", 0, 1)]) == set()


def _rows_in_another_order(rows: np.ndarray) -> np.ndarray:
    return rows[::-1]


def _by_id_in_another_order(rows: np.ndarray) -> np.ndarray:
    rows["by_id"] = rows["by_id"][::-1].copy()
    return rows


def _by_id_out_of_range(rows: np.ndarray) -> np.ndarray:
    rows["by_id"][3] = NUM
    return rows


def _of_another_version(rows: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(rows[list(ROW.names or ())[:-1]])


@pytest.mark.parametrize(("spoil", "said"), [
    (_rows_in_another_order, "out of order"),
    (_by_id_in_another_order, "out of order"),
    (_by_id_out_of_range, "not there"),
    (_of_another_version, "another version of vidseek"),
    (lambda rows: rows[:-1], "(59,) rows"),
])
def test_read__a_broken_table_says_what_is_wrong(tmp_path: Path, spoil, said: str) -> None:  # type: ignore[no-untyped-def]
    path = written(tmp_path, points())
    np.save(path, spoil(np.load(path)))
    with raises(ValueError, naming=said):
        Spans.read(path, NUM)


def test_read__a_truncated_or_missing_file(tmp_path: Path) -> None:
    path = written(tmp_path, points())
    path.write_bytes(path.read_bytes()[:-9])
    with raises(ValueError, naming="broken"):
        Spans.read(path, NUM)
    path.unlink()
    with raises(ValueError, naming="broken"):
        Spans.read(path, NUM)
