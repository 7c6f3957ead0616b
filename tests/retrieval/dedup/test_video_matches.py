from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.raising import raises
from tests.retrieval.dedup.comparing.videos import CHANGES, STEP_MS, of_frames, shown
from tests.retrieval.pictures import picture
from vidseek_media.errors import ArtifactError
from vidseek_media.records import Video
from vidseek_retrieval.dedup.comparing.alignment import align
from vidseek_retrieval.dedup.comparing.fingerprints import fingerprint_of, picture_of
from vidseek_retrieval.dedup.judging.scoring import log_odds
from vidseek_retrieval.dedup.video_matches import (
    Duplicate,
    Match,
    decide,
    duplicate_of,
    find_matches,
    match_of,
    read_duplicates,
    same_videos,
    write_duplicates,
)

Frames = list[np.ndarray]
BLACK = [np.full((90, 120, 3), 16, np.uint8)] * 12
CARD = [np.repeat(np.repeat(np.arange(30, 240, 35, dtype=np.uint8)[np.newaxis, :, np.newaxis], 20, 1), 3, 2)] * 12


def video(name: str, *, seconds: float = 20, width: int = 64, published_at: str = "") -> Video:
    return Video(name * 32, (f"{name}.mp4",), int(seconds * 1000), 25.0, width, 48, "h264", published_at=published_at)


def frames(seed: int, start_ms: float, length_ms: float) -> Frames:
    return shown(seed, [start_ms + time for time in range(0, int(length_ms), STEP_MS)])


def matches_of(one: Frames, other: Frames, *, least_odds: float = 0.5) -> list[Match]:
    """What is found between two videos of these frames."""
    pair = "a" * 32, "b" * 32
    videos = {key: video(key[0], seconds=len(of) * STEP_MS / 1000) for key, of in zip(pair, (one, other), strict=True)}
    found = align(of_frames(one), of_frames(other))
    return find_matches({} if found is None else {pair: found}, videos, least_odds=least_odds)


def test_match__a_whole_copy_is_whole_to_its_ends() -> None:
    for name in ("letterboxed", "mirrored", "cropped"):
        (match,) = matches_of([CHANGES[name](frame) for frame in frames(1, 0, 8000)], frames(1, 0, 8000))
        assert match.is_whole and match.score > 0.8
        # To half the time between two frames.
        for start_ms, end_ms in (match.one_ms, match.other_ms):
            assert start_ms == pytest.approx(0, abs=150) and end_ms == pytest.approx(8000, abs=150)


@pytest.mark.parametrize(("lost_ms", "is_whole"), [(1250, True), (3000, False)])
def test_match__a_trim_is_whole_where_four_fifths_are_left(lost_ms: int, is_whole: bool) -> None:
    for start_ms in (lost_ms, 0):  # at the beginning, at the end
        (match,) = matches_of(frames(2, start_ms, 8000 - lost_ms), frames(2, 0, 8000))
        assert match.is_whole == is_whole and match.one_ms == (0, 8000 - lost_ms)
        assert match.other_ms == (pytest.approx(start_ms, abs=100), pytest.approx(start_ms + 8000 - lost_ms, abs=100))


def windows(length_ms: int) -> list[int]:
    """Times as the stage `frames` samples overlapping windows: far apart at both ends of a video, close in between."""
    return [160, 560, 920, *range(1160, length_ms - 1200, 120), *(length_ms - each for each in (960, 560, 160))]


@pytest.mark.slow
@given(st.integers(0, 1500), st.sampled_from([6400, 6720, 7000, 7600]), st.booleans(), st.integers(0, 9))
@settings(max_examples=8, deadline=None)
def test_match__of_uneven_frames_a_trim_reaches_the_ends_of_both(
    start_ms: int, length_ms: int, is_turned: bool, seed: int
) -> None:
    start_ms = min(start_ms, 8000 - length_ms)
    sampled = {}
    for name, begin, duration in (("a", start_ms, length_ms), ("b", 0, 8000)):
        times = windows(duration)
        pictures = [picture_of(frame) for frame in shown(seed, [begin + time for time in times])]
        sampled[name] = fingerprint_of(times, pictures), video(name, seconds=duration / 1000)
    keys = ("b", "a") if is_turned else ("a", "b")
    (one, first), (other, second) = (sampled[key] for key in keys)
    found = align(one, other)
    assert found is not None
    match = match_of(first, second, found, score=0.9)
    assert match.is_whole
    trim, whole = (match.other_ms, match.one_ms) if is_turned else (match.one_ms, match.other_ms)
    assert list(trim) == pytest.approx([0, length_ms], abs=130)
    assert list(whole) == pytest.approx([start_ms, start_ms + length_ms], abs=130)


def test_match__a_part_gives_both_ranges() -> None:
    other = frames(2, 0, 3000) + frames(1, 2000, 5000) + frames(3, 0, 3000)
    (match,) = matches_of(frames(1, 0, 10_000), other)
    assert not match.is_whole
    assert match.one_ms == (pytest.approx(2000, abs=400), pytest.approx(7000, abs=400))
    assert match.other_ms == (pytest.approx(3000, abs=400), pytest.approx(8000, abs=400))


@pytest.mark.parametrize(
    "shared", [BLACK, CARD, frames(9, 0, 3000), [picture(5)] * 12], ids=["black", "card", "intro", "slide"]
)
def test_match__what_two_videos_only_begin_or_end_with_joins_nothing(shared: Frames) -> None:
    one, other = frames(1, 0, 7000), frames(2, 0, 9000)
    assert matches_of(shared + one, shared + other) == [] and matches_of(one + shared, other + shared) == []


def test_match__a_still_in_the_middle_of_both_is_nothing() -> None:
    assert matches_of(frames(1, 0, 3000) + CARD + frames(3, 0, 3000), frames(2, 0, 4000) + CARD + frames(4, 0, 3000)) == []


def test_match__two_stills_are_one_only_if_they_are_the_same() -> None:
    (match,) = matches_of([picture(5)] * 16, [CHANGES["darker"](picture(5))] * 16)
    assert match.is_whole
    assert matches_of([picture(5)] * 16, [picture(6)] * 16) == []


def test_match__different_videos_are_none() -> None:
    assert matches_of(frames(1, 0, 8000), frames(2, 0, 8000)) == []


def test_find_matches__below_the_limit_is_nothing() -> None:
    found = align(of_frames(frames(1, 0, 4000)), of_frames(frames(1, 0, 4000)))
    assert found is not None
    odds = log_odds(found.evidence)
    assert len(matches_of(frames(1, 0, 4000), frames(1, 0, 4000), least_odds=odds - 1e-6)) == 1
    assert matches_of(frames(1, 0, 4000), frames(1, 0, 4000), least_odds=odds + 1e-6) == []


def whole(one: str, other: str, score: float = 0.95) -> Match:
    return Match(one * 32, other * 32, (0, 20_000), (0, 20_000), score, is_whole=True)


def test_decide__a_chain_is_a_group_and_the_rule_says_who_stays() -> None:
    videos = [video("a"), video("b", width=128), video("c", seconds=20.05, width=32), video("d"), video("e")]
    by_id = {each.video_id: each for each in videos}
    rows = decide([whole("a", "b"), whole("b", "c", 0.9)], by_id)
    # Equally long to a tenth of a second, so b is the sharpest; d and e match nothing.
    assert [(row.video_id[0], row.duplicate_of[0], row.kind) for row in rows] == [("a", "b", "whole"), ("c", "b", "whole")]
    assert [row.score for row in rows] == [0.95, 0.9]
    longer = {**by_id, "a" * 32: video("a", seconds=21)}
    assert {row.duplicate_of[0] for row in decide([whole("a", "b"), whole("b", "c")], longer)} == {"a"}
    dated = {"d" * 32: video("d"), "e" * 32: video("e", published_at="2020-01-01T00:00:00Z")}
    assert [row.duplicate_of[0] for row in decide([whole("d", "e")], dated)] == ["e"]
    assert [row.duplicate_of[0] for row in decide([whole("d", "e")], {key: video(key[0]) for key in dated})] == ["d"]
    assert decide([], by_id) == []


def test_decide__a_shared_span_is_a_part_of_who_would_not_stay() -> None:
    videos = {"a" * 32: video("a"), "b" * 32: video("b", seconds=60)}
    part = Match("a" * 32, "b" * 32, (2000, 6000), (30_000, 34_000), 0.93, is_whole=False)
    assert decide([part], videos) == [Duplicate("a" * 32, 2000, 6000, "b" * 32, 30_000, 34_000, "part", 0.93)]
    grouped = decide([part, whole("a", "b")], videos)
    assert [row.kind for row in grouped] == ["whole"]  # within a group a part says nothing more


def test_duplicate_of__half_of_a_clip() -> None:
    rows = [Duplicate("a" * 32, 2000, 6000, "b" * 32, 0, 4000, "part", 0.9)]
    spans = [(0, 3000), (500, 3500), (2000, 5000), (4500, 7500), (5000, 8000)]
    assert [duplicate_of(rows, *span)[:1] for span in spans] == ["", "b", "b", "b", ""]
    assert duplicate_of([], 0, 1) == ""


def test_same_videos__whole_or_most_of_one_of_them() -> None:
    videos = [video("a", seconds=10), video("b", seconds=100), video("c", seconds=100)]
    ids = [each.video_id for each in videos]
    whole = Duplicate(ids[0], 0, 10_000, ids[1], 0, 100_000, "whole", 0.9)
    trailer = Duplicate(ids[0], 2000, 8000, ids[2], 40_000, 46_000, "part", 0.9)
    intro = Duplicate(ids[1], 0, 6000, ids[2], 0, 6000, "part", 0.9)
    gone = Duplicate(ids[0], 0, 10_000, "d" * 32, 0, 10_000, "whole", 0.9)
    assert same_videos([whole, trailer, intro, gone], videos, min_share=0.5) == [(ids[0], ids[1]), (ids[0], ids[2])]


def test_decisions__are_read_back(tmp_path: Path) -> None:
    rows = [Duplicate("a" * 32, 2000, 6000, "b" * 32, 0, 4000, "part", 0.9)]
    path = tmp_path / "decisions" / "duplicates.parquet"
    assert read_duplicates(path) == []
    for wanted in (rows, []):
        write_duplicates(path, wanted)
        assert read_duplicates(path) == wanted
    path.write_bytes(b"nothing")
    with raises(ArtifactError, code="not-parquet", naming="duplicates.parquet"):
        read_duplicates(path)
