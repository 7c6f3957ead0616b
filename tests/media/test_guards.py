from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.raising import raises
from vidseek_media.errors import InputRejected
from vidseek_media.guards import is_broken, mended_text, moment_of, moment_or_empty, number_of, number_or_none, text_of
from vidseek_media.sources.manifest import read_manifest
from vidseek_media.text.sidecars import read_sidecar

ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(exclude_categories=[])), st.binary(),
    st.lists(st.none()), st.dates(), st.datetimes(),
)


@given(value=ANYTHING)
def test_guards__give_what_a_table_takes_or_refuse(value: object) -> None:
    for guard in (text_of, moment_of, number_of):
        try:
            given_back = guard(value, "it")
        except InputRejected as error:
            assert error.message.startswith("it ")
            continue
        if isinstance(given_back, float):
            assert math.isfinite(given_back)
        else:
            assert not is_broken(given_back)
            given_back.encode("utf-8")
    mended_text(value).encode("utf-8")
    assert moment_or_empty(value) == "" or 1678 <= datetime.fromisoformat(moment_or_empty(value)).year <= 2261
    assert number_or_none(value) is None or math.isfinite(number_or_none(value) or 0)


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("2026-03-01", "2026-03-01T00:00:00Z"), ("2026-03-01T12:00:00+02:00", "2026-03-01T10:00:00Z"),
        (" 20260301 ", "2026-03-01T00:00:00Z"), ("2026-03-01t12:00:00z", "2026-03-01T12:00:00Z"),
        (date(2026, 3, 1), "2026-03-01T00:00:00Z"),
        (datetime(2026, 3, 1, 12, tzinfo=UTC), "2026-03-01T12:00:00Z"), (0, "1970-01-01T00:00:00Z"),
    ],
)
def test_moment_of__is_utc(value: object, moment: str) -> None:
    assert moment_of(value, "it") == moment


@pytest.mark.parametrize(
    "value",
    ["0000-01-01", "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-05:00", "9999-12-31", "2016-12-31T23:59:60Z",
     1_772_366_400_000, "1712101212345", "1712101212345.5", "2026-03-01x12:00",
     float("inf"), float("nan"), -(10**30), None, True, [None], "yesterday", ""],
)
def test_moment_of__refuses_what_is_no_date(value: object) -> None:
    with raises(InputRejected, code="not-a-time"):
        moment_of(value, "it")


def test_mended_text__drops_half_a_character_and_keeps_the_rest() -> None:
    assert mended_text("a red circle \ud83d") == "a red circle"
    assert mended_text("two\x00 \x1b[31mwords\u2028here") == "two [31mwords here"


@pytest.mark.parametrize(
    "bad",
    [{"published_at": "9999-12-31T23:59:59-05:00"}, {"title": "\ud83d"}, {"title": [None]}, {"caption": "a\0b"},
     {"start": "1e400", "end": 2}, {"start": float("nan"), "end": 1}, {"start": 0, "end": float("inf")}],
)
def test_read_manifest__a_row_that_is_broken_is_rejected_alone(tmp_path: Path, bad: dict[str, object]) -> None:
    rows = [{"uri": f"{name}.mp4", "caption": f"of {name}", **(bad if name == "b" else {})} for name in "abc"]
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    kept, refused = read_manifest(tmp_path / "list.jsonl")
    assert [row.file for row in kept] == ["a.mp4", "c.mp4"]
    assert [each.id for each in refused] == ["list.jsonl:2"]


@pytest.mark.parametrize("bad", [b'"t\xffwo"', b'"t\xed\xa0\xbdwo"', b'"t\0wo"', b'"two", "published_at": 1712101212345'])
def test_read_manifest__bytes_that_are_no_text_cost_their_line_of_json_alone(tmp_path: Path, bad: bytes) -> None:
    titles = [b'"one"', bad, b'"three"']
    lines = [b'{"uri": "%d.mp4", "title": %s}' % (number, title) for number, title in enumerate(titles)]
    (tmp_path / "list.jsonl").write_bytes(b"\n".join(lines))
    kept, refused = read_manifest(tmp_path / "list.jsonl")
    assert [row.annotations["title"] for row in kept] == ["one", "three"]
    assert [each.id for each in refused] == ["list.jsonl:2"]


_BAD_TEXT = pa.Array.from_buffers(
    pa.string(), 2, [None, pa.array([0, 2, 4], pa.int32()).buffers()[1], pa.py_buffer(b"\xff\xfeok")]
)
_LATE = pa.array([2**60, 0], pa.timestamp("us"))


@pytest.mark.parametrize(("column", "cells", "num_refused"), [
    ("title", _BAD_TEXT, 1), ("note", _BAD_TEXT, 0), ("published_at", _LATE, 1), ("note", _LATE, 0),
    ("published_at", pa.array([2**30, 0], pa.date32()), 1), ("published_at", pa.array([1712101212345, 20260301]), 1),
    ("note", pa.array([0, 0], pa.timestamp("s", tz="Mars/Base")), 0),
    ("published_at", pa.array([0, 0], pa.timestamp("s", tz="Mars/Base")), 2),
])
def test_read_manifest__a_cell_of_parquet_that_python_cannot_hold_costs_its_row_alone(
    tmp_path: Path, column: str, cells: pa.Array[Any], num_refused: int
) -> None:
    pq.write_table(pa.table({"uri": ["a.mp4", "b.mp4"], column: cells}), tmp_path / "list.parquet")
    kept, refused = read_manifest(tmp_path / "list.parquet")
    assert [each.id for each in refused] == ["list.parquet:1", "list.parquet:2"][:num_refused]
    assert [row.file for row in kept] == ["a.mp4", "b.mp4"][num_refused:]


@pytest.mark.parametrize("bad", ["a\0.mp4,two", "b.mp4,t\0wo", "b.mp4,t\ud83dwo"])
def test_read_sidecar__a_null_byte_costs_its_row_alone(tmp_path: Path, bad: str) -> None:
    text = f"file,caption\na.mp4,one\n{bad}\nc.mp4,three\n"
    (tmp_path / "captions.csv").write_bytes(text.encode("utf-8", "surrogatepass"))
    said = read_sidecar(tmp_path)
    assert [caption.text for caption in said.captions] == ["one", "three"]
    assert [each.id for each in said.rejections] == ["captions.csv:3"]


@given(text=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).filter(lambda text: text.split()))
def test_read_sidecar__any_text_in_json_lines_is_one_caption(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.mktemp("said")
    row = json.dumps({"file": "a.mp4", "caption": f"say {text}"}, ensure_ascii=False)
    (folder / "captions.jsonl").write_text(row + "\n", encoding="utf-8", newline="")
    said = read_sidecar(folder)
    assert len(said.captions) == 1 and not said.rejections
