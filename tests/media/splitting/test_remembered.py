from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vidseek_media.splitting import perceptual_hashes, remembered
from vidseek_media.splitting.both_sides import find_both_sides, hashes_of
from vidseek_media.splitting.perceptual_hashes import compare
from vidseek_media.splitting.remembered import (
    BOTH_SIDES_FILE,
    GROUPS_FILE,
    remembered_both_sides,
    remembered_near_duplicates,
)

_HASHES = st.lists(st.integers(0, 60) | st.integers(2**40, 2**40 + 9), max_size=4)
_VIDEOS = st.dictionaries(st.sampled_from("abcdefgh"), _HASHES, max_size=8)


@pytest.mark.slow
@given(st.lists(_VIDEOS, min_size=1, max_size=4), st.integers(0, 2), st.sampled_from([0.3, 0.5, 1.0]))
def test_compare__from_run_to_run_finds_what_comparing_all_finds(
    runs: list[dict[str, list[int]]], max_bits: int, min_share: float
) -> None:
    before = None
    for hashes in runs:
        before = compare(hashes, max_bits=max_bits, min_share=min_share, before=before)
        assert before.similar == compare(hashes, max_bits=max_bits, min_share=min_share).similar


def test_compare__by_another_measure_begins_anew() -> None:
    hashes = {"a": [0], "b": [1], "c": [3]}
    before = compare(hashes, max_bits=1, min_share=0.5)
    assert before.similar == [("a", "b"), ("b", "c")]
    assert compare(hashes, max_bits=2, min_share=0.5, before=before).similar == [("a", "b"), ("a", "c"), ("b", "c")]


def test_compare__looks_only_at_what_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    close = perceptual_hashes._close

    def counting(values, max_bits, of):  # type: ignore[no-untyped-def]
        looked.append(len(of))
        return close(values, max_bits, of)

    monkeypatch.setattr(perceptual_hashes, "_close", counting)
    hashes = {f"{number}": [number * 1000, number * 1000 + 1] for number in range(50)}
    before = compare(hashes, max_bits=1, min_share=0.5)
    again = compare({**hashes, "new": [5001]}, max_bits=1, min_share=0.5, before=before)
    compare({**hashes, "new": [5001]}, max_bits=1, min_share=0.5, before=again)
    assert looked == [100, 1] and again.similar == [("5", "new")]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)
@given(runs=st.lists(_VIDEOS, min_size=2, max_size=3))
def test_memory__is_never_seen_in_the_result(tmp_path: Path, runs: list[dict[str, list[int]]]) -> None:
    (tmp_path / GROUPS_FILE).unlink(missing_ok=True)
    for hashes in [*runs, runs[0]]:
        found = remembered_near_duplicates(hashes, max_bits=1, min_share=0.5, memory=tmp_path)
        assert found == compare(hashes, max_bits=1, min_share=0.5).similar


@pytest.mark.parametrize("content", ["", "[]", "{", '{"version": 1}', '{"version": 0, "digests": {}}',
                                     '{"version": 1, "max_bits": "x", "min_share": 1, "digests": 3, "similar": [1]}',
                                     '{"version": 1, "max_bits": 0, "min_share": 1, "digests": 3, "similar": []}'])
def test_memory__that_is_broken_is_as_none(tmp_path: Path, content: str) -> None:
    for name in (GROUPS_FILE, BOTH_SIDES_FILE):
        (tmp_path / name).write_text(content)
    assert remembered_near_duplicates({"a": [1], "b": [1]}, max_bits=0, min_share=1.0, memory=tmp_path) == [("a", "b")]
    assert json.loads((tmp_path / GROUPS_FILE).read_text())["similar"] == [["a", "b"]]
    pairs, frames = leaking(3)
    found = remembered_both_sides(pairs, frames, max_bits=0, min_share=0.5, memory=tmp_path)
    assert found["clip_id"].tolist() == ["held"]


def leaking(value: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A clip of training and one of test that show the same if `value` is 3, and one of neither."""
    pairs = pd.DataFrame({"clip_id": ["learned", "held"], "caption": ["a dog", "a cat"], "split": ["train", "test"]})
    frames = pd.DataFrame({"clip_id": ["learned", "held", "other"], "hashes": [np.array([3]), np.array([value]), None]})
    return pairs, frames


def test_both_sides__are_looked_for_again_only_where_pairs_or_their_frames_are_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []

    def counting(*arguments, **options):  # type: ignore[no-untyped-def]
        looks.append(1)
        return find_both_sides(*arguments, **options)

    monkeypatch.setattr(remembered, "find_both_sides", counting)
    for value, num_looks in ((3, 1), (3, 1), (4, 2), (4, 2), (3, 3)):
        pairs, frames = leaking(value)
        frames = pd.concat([frames, pd.DataFrame({"clip_id": [f"more {len(looks)}"], "hashes": [np.array([value])]})])
        found = remembered_both_sides(pairs, frames, max_bits=0, min_share=0.5, memory=tmp_path)
        wanted = find_both_sides(pairs, hashes_of(frames), max_bits=0, min_share=0.5)
        assert found.to_dict("records") == wanted.to_dict("records") and len(looks) == num_looks
        assert found["same_frames"].dtype == bool
