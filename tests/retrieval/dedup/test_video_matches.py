from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.raising import raises
from tests.retrieval.archive import clip_row, unit_rows, video_row, write_archive
from tests.retrieval.pictures import moving_frames
from vidseek_media.errors import ArtifactError
from vidseek_media.records import Video
from vidseek_retrieval.dedup.alignment import Alignment, Limits, align, likeness_of
from vidseek_retrieval.dedup.picture_likeness import VideoFingerprint, fingerprint_of
from vidseek_retrieval.dedup.video_matches import (
    Duplicate,
    Match,
    candidates,
    decide,
    duplicate_of,
    find_matches,
    read_duplicates,
    same_videos,
    write_duplicates,
)
from vidseek_retrieval.index.edge.backend import EdgeBackend
from vidseek_retrieval.index.publish import publish

STEP_MS = 500


def video(name: str, *, seconds: float = 20, width: int = 64, published_at: str = "") -> Video:
    return Video(name * 32, (f"{name}.mp4",), int(seconds * 1000), 25.0, width, 48, "h264", published_at=published_at)


def fingerprints(frames: list[np.ndarray], *, step_ms: int = STEP_MS) -> VideoFingerprint:
    return VideoFingerprint(
        np.arange(len(frames), dtype=np.int64) * step_ms, np.stack([fingerprint_of(frame) for frame in frames])
    )


def match_of(one: list[np.ndarray], other: list[np.ndarray], middles: list[tuple[int, int]], *, step_ms: int = STEP_MS,
             threshold: float = 0.9) -> list[Match]:
    """What is found between two videos whose clips are near at these times."""
    named = {"a" * 32: fingerprints(one), "b" * 32: fingerprints(other, step_ms=step_ms)}
    videos = {"a" * 32: video("a", seconds=len(one) / 2), "b" * 32: video("b", seconds=len(other) * step_ms / 1000)}
    return find_matches(align({("a" * 32, "b" * 32): middles}, named), named, videos, limits=Limits(threshold, threshold))


def test_match__a_whole_copy() -> None:
    (match,) = match_of(moving_frames(1, num=40), moving_frames(1, num=40), [(3000, 3000), (9000, 9000), (5000, 14_000)])
    assert match.is_whole and match.score > 0.99
    assert match.one_ms == match.other_ms == (0, 20_000)


def test_match__a_part_gives_both_ranges() -> None:
    one = moving_frames(1, num=40)
    other = moving_frames(2, num=12) + one[10:26] + moving_frames(3, num=12)
    (match,) = match_of(one, other, [(8000, 9000), (10_000, 11_000)])
    assert not match.is_whole
    assert abs(match.one_ms[0] - 5000) <= 1000 and abs(match.one_ms[1] - 13_000) <= 1000
    assert abs(match.other_ms[0] - 6000) <= 1000 and abs(match.other_ms[1] - 14_000) <= 1000


def test_match__a_shared_intro_is_a_part_and_a_fade_is_nothing() -> None:
    intro, black = moving_frames(9, num=10), [np.zeros((90, 120, 3), np.uint8)] * 10
    (match,) = match_of(intro + moving_frames(1, num=30), intro + moving_frames(2, num=30), [(2000, 2000), (12_000, 12_000)])
    assert not match.is_whole and match.one_ms[1] <= 6000
    assert (
        match_of(black + moving_frames(1, num=30), black + moving_frames(2, num=30), [(2000, 2000), (12_000, 12_000)]) == []
    )


def test_match__sped_up() -> None:
    one = moving_frames(1, num=40)
    faster = one[::2]  # twice as fast, a frame each 500 ms
    (match,) = match_of(one, faster, [(2000, 1000), (8000, 4000), (16_000, 8000), (12_000, 6000)])
    assert match.is_whole and match.other_ms[1] == pytest.approx(10_000, abs=600)


def test_match__different_videos_are_none() -> None:
    assert match_of(moving_frames(1, num=40), moving_frames(2, num=40), [(3000, 3000), (9000, 12_000)]) == []


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


def test_match__weaker_frames_beside_strong_ones_belong_to_the_span() -> None:
    one = moving_frames(1, num=40)
    marked = one[:12] + [np.where(np.arange(120)[:, np.newaxis] > 112, 250, frame).astype(np.uint8) for frame in one[12:]]
    own = {place: float(np.diag(likeness_of(fingerprints(one), fingerprints(marked)))[place]) for place in range(12, 40)}
    least, most = min(own.values()), max(own.values())
    assert most < 0.999  # the mark shows in all of them
    (match,) = match_of(one, marked, [(3000, 3000), (9000, 9000)], threshold=least + 0.04)
    assert match.is_whole


def test_find_matches__below_the_limit_is_nothing() -> None:
    named = {"a" * 32: fingerprints(moving_frames(1, num=10)), "b" * 32: fingerprints(moving_frames(1, num=10))}
    videos = {key: video(key[0], seconds=5) for key in named}
    limits = Limits(moving=0.8, still=0.95)
    for found, num in (((0.9, 0.6), 0), ((0.9, 0.8), 1), ((0.9, None), 0), ((0.96, None), 1)):
        weighed = {("a" * 32, "b" * 32): Alignment(1.0, 0.0, *found)}
        assert len(find_matches(weighed, named, videos, limits=limits)) == num


def test_match__two_recordings_of_a_still_camera_are_not_one() -> None:
    """A room, and a person who walks from left to right in one, and back and forth in the other."""
    room = moving_frames(3, num=1, scene=1)[0]

    def walk(*places: int) -> list[np.ndarray]:
        frames = [room.copy() for _ in places]
        for frame, place in zip(frames, places, strict=True):
            frame[40:70, place : place + 10] = (220, 200, 170)
        return frames

    once, again = walk(*range(0, 96, 8)), walk(*[88, 40, 8, 64, 24, 80, 0, 56, 16, 72, 32, 48])
    middles = [(time, time) for time in range(0, 6000, 500)]
    (found,) = align({("a" * 32, "b" * 32): middles}, {"a" * 32: fingerprints(once), "b" * 32: fingerprints(again)}).values()
    assert found.strength > 0.8 and found.motion is not None and found.motion < 0.6
    assert match_of(once, again, middles, threshold=0.75) == []
    (match,) = match_of(once, [(frame * 0.8).astype(np.uint8) for frame in once], middles, threshold=0.75)
    assert match.is_whole


def test_candidates__a_still_camera_does_not_hide_its_copy(tmp_path: Path) -> None:
    """A video of 58 clips that are all alike, and one a little off them in another video."""
    videos = [video_row("a" * 32, "a.mp4"), video_row("b" * 32, "b.mp4")]
    clips = [clip_row("a" * 32, index, 1000 * index, 1000 * index + 3000) for index in range(58)]
    clips.append(clip_row("b" * 32, 0, 0, 3000))
    (alike, other) = unit_rows(2, 8)
    vectors = np.stack([alike] * 58 + [other + 9 * alike])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    publish(**write_archive(tmp_path, videos, clips, vectors), index=tmp_path / "index")
    backend = EdgeBackend(tmp_path / "index")
    near = candidates(backend.open(backend.aliases()["clips"].collection))
    assert list(near) == [("a" * 32, "b" * 32)] and len(near["a" * 32, "b" * 32]) == 58
