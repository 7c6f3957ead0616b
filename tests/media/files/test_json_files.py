from __future__ import annotations

import json
import math
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.raising import raises
from vidseek_media.files.json_files import parse_json, read_json, read_memory, write_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=20,
)


@given(VALUES)
def test_parse_json__is_what_was_written(value: Any) -> None:
    assert parse_json(json.dumps(value)) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value


@given(st.binary(max_size=200) | st.text(alphabet='[]{}",:0123456789eE.-+\\ud8').map(str.encode))
def test_parse_json__of_anything_is_a_value_or_a_value_error(content: bytes) -> None:
    try:
        value = parse_json(content)
    except ValueError:
        return
    json.dumps(value, ensure_ascii=False).encode()
    assert not isinstance(value, float) or not math.isinf(value)


@pytest.mark.parametrize(("content", "why"), [
    ("[" * 200_000, "deeply"), ('{"a":' * 100_000, "deeply"), ("9" * 5000, "64 bits"), (str(2**64), "64 bits"),
    ("1e999", "too large"), (r'"\ud800"', "Unicode"), (b"\xff", "utf-8"), ("", "Expecting"),
])
def test_parse_json__refuses(content: str | bytes, why: str) -> None:
    with raises(ValueError, naming=why):
        parse_json(content)


def test_read_json__is_bounded_by_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps("x" * 98))
    assert len(read_json(path, most_bytes=100)) == 98
    path.write_text(json.dumps("x" * 99))
    with raises(ValueError, naming="100 bytes"):
        read_json(path, most_bytes=100)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "missing.json")


def test_read_memory__of_another_version_or_broken_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "memory.json"
    assert read_memory(path, version=2) == {}
    write_json(path, {"version": 2, "found": [1]}, indent=None)
    assert read_memory(path, version=2) == {"version": 2, "found": [1]} and read_memory(path, version=3) == {}
    for content in ("", "{", "[2]", '{"found": [1]}'):
        path.write_text(content)
        assert read_memory(path, version=2) == {}


def test_read_json__a_pipe_and_limits(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    threading.Thread(target=pipe.write_bytes, args=(b'{"a": 1}',), daemon=True).start()
    assert read_json(pipe) == {"a": 1}
    file = tmp_path / "file.json"
    file.write_bytes(b"[1, 2]")
    assert read_json(file, most_bytes=6) == [1, 2]
    with pytest.raises(ValueError):
        read_json(file, most_bytes=5)
