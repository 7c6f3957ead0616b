"""Files with holes, and what a digest tells apart."""

from __future__ import annotations

import mmap
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidseek_encoder.bundle import file_sha256
from vidseek_retrieval.index.edge.copying import copy_file
from vidseek_retrieval.index.edge.file_digests import BLOCK, digest_of

SIZES = st.integers(0, 5 * BLOCK)
WRITES = st.lists(st.tuples(st.integers(0, 5 * BLOCK), st.binary(max_size=40)), max_size=6)


def with_holes(path: Path, size: int, writes: list[tuple[int, bytes]]) -> bytes:
    """Write a file that has data where it was written alone; return its content."""
    with path.open("wb") as file:
        file.truncate(size)
        for place, data in writes:
            os.pwrite(file.fileno(), data, place)
    return path.read_bytes()


@given(size=SIZES, writes=WRITES)
def test_digest__does_not_depend_on_holes(size: int, writes: list[tuple[int, bytes]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        sparse, plain, copied = (Path(folder, name) for name in ("sparse", "plain", "copied"))
        plain.write_bytes(with_holes(sparse, size, writes))
        copy_file(sparse, copied)
        assert digest_of(sparse) == digest_of(plain) == digest_of(copied)


@given(one=st.tuples(SIZES, WRITES), other=st.tuples(SIZES, WRITES))
def test_digest__is_equal_for_equal_content_alone(
    one: tuple[int, list[tuple[int, bytes]]], other: tuple[int, list[tuple[int, bytes]]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        first, second = Path(folder, "first"), Path(folder, "second")
        are_equal = with_holes(first, *one) == with_holes(second, *other)
        assert (digest_of(first) == digest_of(second)) == are_equal


@pytest.mark.parametrize("place", [0, BLOCK - 1, BLOCK, 3 * BLOCK + 5, 4 * BLOCK + 99])
def test_digest__tells_each_changed_byte_of_a_hole(tmp_path: Path, place: int) -> None:
    path = tmp_path / "page_0.dat"
    with_holes(path, 4 * BLOCK + 100, [])
    before = digest_of(path)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:  # as Edge writes
        mapped[place] = 1
    after = digest_of(path)
    with path.open("r+b") as file:
        file.truncate(4 * BLOCK + 101)
    assert len({before, after, digest_of(path)}) == 3


def test_digest__moved_blocks_and_further_zeros_differ(tmp_path: Path) -> None:
    block = bytes([7]) * BLOCK
    contents = [block, block + bytes(BLOCK), bytes(BLOCK) + block, block + bytes(1), bytes(2 * BLOCK), bytes(BLOCK), b""]
    for number, content in enumerate(contents):
        (tmp_path / f"{number}.dat").write_bytes(content)
    assert len({digest_of(tmp_path / f"{number}.dat") for number in range(len(contents))}) == len(contents)


def test_digest__is_made_as_the_recorded_one_was(tmp_path: Path) -> None:
    path = tmp_path / "page_0.dat"
    with_holes(path, 3 * BLOCK, [(BLOCK, b"words")])
    earlier = file_sha256(path)
    assert digest_of(path, recorded=earlier) == earlier
    assert digest_of(path, recorded=digest_of(path)) == digest_of(path) != earlier
    assert digest_of(path, recorded=7) == digest_of(path)


def test_digest__of_json_is_of_what_it_says(tmp_path: Path) -> None:
    one, other, broken = (tmp_path / f"{name}.json" for name in ("one", "other", "broken"))
    one.write_text('{"a": 1, "b": 2}')
    other.write_text('{"b":2,"a":1}')
    broken.write_text("{")
    assert digest_of(one) == digest_of(other) != digest_of(broken) == ""
