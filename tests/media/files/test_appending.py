from __future__ import annotations

import os
import resource
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.media.at_once import run_at_once
from tests.raising import raises
from vidseek_media.files.appending import append_line, locked, read_lines

FAULTS = int(os.environ.get("VIDSEEK_FAULTS", "0"))
"""More of them in `make faults`."""
TEXTS = st.text(max_size=40)
CONTENTS = st.lists(st.dictionaries(TEXTS, st.none() | st.booleans() | st.integers() | TEXTS, max_size=3), max_size=5)


@contextmanager
def room_for(num_bytes: int) -> Iterator[None]:
    """No file may be larger: what a full disk looks like to a write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


@settings(max_examples=max(60, 10 * FAULTS), deadline=None)
@given(contents=CONTENTS, torn=st.dictionaries(TEXTS, TEXTS, min_size=1), data=st.data())
def test_append__after_a_death_at_any_byte_every_other_line_is_whole(
    folder: Path, contents: list[dict[str, object]], torn: dict[str, str], data: st.DataObject
) -> None:
    path = folder / "torn.jsonl"
    path.unlink(missing_ok=True)
    for each in contents:
        append_line(path, each, sync=False)
    whole = path.read_bytes() if path.exists() else b""
    append_line(path, torn, sync=False)
    line = path.read_bytes()[len(whole):]
    kept = data.draw(st.integers(0, len(line)))
    path.write_bytes(whole + line[:kept])
    append_line(path, {"after": 1}, sync=False)
    survived = [torn] if kept >= len(line) - 1 else []  # all but its line end
    lines = read_lines(path)
    assert list(lines.values) == [*contents, *survived, {"after": 1}]
    assert lines.num_broken == (0 < kept < len(line) - 1)


@settings(max_examples=max(40, 10 * FAULTS), deadline=None)
@given(contents=CONTENTS, room=st.integers(0, 120))
def test_append__a_disk_with_any_room_keeps_all_or_nothing(
    folder: Path, contents: list[dict[str, object]], room: int
) -> None:
    path = folder / "full.jsonl"
    path.unlink(missing_ok=True)
    append_line(path, {"first": 0}, sync=False)
    kept: list[dict[str, object]] = [{"first": 0}]
    with room_for(path.stat().st_size + room):
        for each in contents:
            before = path.read_bytes()
            try:
                append_line(path, each)
            except OSError:
                assert path.read_bytes() == before
            else:
                kept.append(each)
    append_line(path, {"last": 1})
    lines = read_lines(path)
    assert (list(lines.values), lines.num_broken) == ([*kept, {"last": 1}], 0)


def test_append__when_the_disk_does_not_confirm_the_line_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jsonl"
    append_line(path, {"a": 1})
    asked = []

    def fail(descriptor: int) -> None:
        asked.append(descriptor)
        if len(asked) == 1:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with raises(OSError, naming="Input/output"):
        append_line(path, {"a": 2})
    monkeypatch.undo()
    assert read_lines(path).values == ({"a": 1},)


def _append_many(path: Path, name: str, num: int) -> None:
    for number in range(num):
        append_line(path, {"name": name, "number": number, "filling": name * 5000}, sync=False)


def test_append__two_processes_do_not_mix_and_keep_their_order(tmp_path: Path) -> None:
    path = tmp_path / "both.jsonl"
    run_at_once(_append_many, [(path, name, 60) for name in "ab"])
    lines = read_lines(path)
    assert lines.num_broken == 0 and len(lines.values) == 120
    for name in "ab":
        assert [line["number"] for line in lines.values if line["name"] == name] == list(range(60))


@pytest.mark.parametrize(("content", "values", "num_broken"), [
    (b"", (), 0),
    (b'{"a": 1}', ({"a": 1},), 0),
    (b'{"a": 1}\r\n\n{"a": 2}\n', ({"a": 1}, {"a": 2}), 0),
    (b'{"a": "\xff"}\n{"a": 2}\n', ({"a": 2},), 1),
    (b'{"a": "\xe2\x80', (), 1),
    (b"\0\0\0\0{\"a\": 2}\n", ({"a": 2},), 0),
    (b"\0\0\0\0\n" + b"[" * 100_000 + b'\n[1]\n"x"\n{"a": 2}\n', ({"a": 2},), 4),
    ('{"a": "\u2028\x85"}\n'.encode(), ({"a": "\u2028\x85"},), 0),
])
def test_read__what_is_no_object_is_counted_and_spoils_no_other(
    tmp_path: Path, content: bytes, values: tuple[dict[str, object], ...], num_broken: int
) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)
    lines = read_lines(tmp_path / "a.jsonl")
    assert (lines.values, lines.num_broken) == (values, num_broken)
    assert read_lines(tmp_path / "none.jsonl").values == ()


def _count_up(folder: Path) -> None:
    for _ in range(50):
        with locked(folder):
            count = int((folder / "count").read_text())
            (folder / "count").write_text(str(count + 1))


def test_locked__nobody_reads_between_anothers_read_and_write(tmp_path: Path) -> None:
    (tmp_path / "count").write_text("0")
    run_at_once(_count_up, [(tmp_path,)] * 2)
    assert (tmp_path / "count").read_text() == "100"
