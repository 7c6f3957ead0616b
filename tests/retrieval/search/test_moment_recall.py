from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.retrieval.archive import clip_row, unit_rows, video_row, write_archive
from vidseek_retrieval.search.moment_recall import PublishedWindows, Truth, iou, moment_recalls, recalls_of_all
from vidseek_retrieval.search.moments import Moment, RankedClip

A, B = "a" * 32, "b" * 32


def moment(start_ms: int, end_ms: int, video_id: str = A) -> Moment:
    return Moment(video_id, start_ms, end_ms, 0.5, "clip", (start_ms + end_ms) // 2, ("clip",))


@pytest.mark.parametrize(("start_ms", "end_ms", "wanted"), [
    (2000, 4000, 1.0),
    (2000, 3000, 0.5),  # 1 s of 2 s
    (3000, 5000, 1 / 3),  # 1 s shared, 3 s joined
    (0, 8000, 0.25),  # all of it, in a span four times as long
    (4000, 6000, 0.0),  # touches
    (9000, 9500, 0.0),
])
def test_iou__by_hand(start_ms: int, end_ms: int, wanted: float) -> None:
    assert iou(moment(start_ms, end_ms), Truth(A, 2000, 4000)) == pytest.approx(wanted)
    assert iou(moment(start_ms, end_ms, B), Truth(A, 2000, 4000)) == 0.0


def recalls(found: list[list[Moment]], truths: list[Truth]) -> dict[str, Any]:
    return moment_recalls(found, truths, [str(each) for each in range(len(truths))], resamples=50, seed=0)


def test_moment_recalls__by_hand() -> None:
    truth = Truth(A, 0, 1000)
    right, half, wrong, elsewhere = moment(0, 1000), moment(0, 2000), moment(0, 2001), moment(0, 1000, B)
    found = [
        [right, wrong],  # first
        [elsewhere, half],  # second: half is just enough
        [wrong] * 6 + [right],  # seventh; but the right video is first
        [elsewhere] * 10 + [right],  # beyond the tenth
        [],
    ]
    figures = recalls(found, [truth] * 5)
    assert {name: figures[name] for name in ("r1", "r5", "r10", "video_r1", "num_queries", "num_groups")} == {
        "r1": 0.2, "r5": 0.4, "r10": 0.6, "video_r1": 0.4, "num_queries": 5, "num_groups": 5,
    }
    assert figures["r1_interval"]["low"] is None and "too few videos" in figures["r1_interval"]["note"]
    assert recalls([], []) == {}


def test_moment_recalls__have_intervals_by_groups_of_videos() -> None:
    truths = [Truth(A, 0, 1000)] * 120
    found = [[moment(0, 1000)] if number % 4 else [moment(0, 1000, B)] for number in range(120)]
    apart = moment_recalls(found, truths, [str(each) for each in range(120)], resamples=500, seed=0)["r1_interval"]
    alike = moment_recalls(found, truths, [str(each % 24) for each in range(120)], resamples=500, seed=0)["r1_interval"]
    assert (apart["num_groups"], alike["num_groups"]) == (120, 24)
    assert alike["low"] < apart["low"] < apart["value"] < apart["high"] < alike["high"]


def test_moment_recalls__as_many_answers_as_questions() -> None:
    with pytest.raises(ValueError, match=r"shorter|longer"):
        recalls([[]], [Truth(A, 0, 1)] * 2)


def test_load__only_the_clips_of_the_published_cut_that_have_a_vector(tmp_path: Path) -> None:
    clips = [
        clip_row(A, 0, 0, 1000), clip_row(A, 1, 500, 900, cut=("captions",)),
        clip_row(A, 2, 1000, 2000, cut=("captions", "windows")),
    ]
    vectors = np.eye(3, dtype=np.float32)
    folders = write_archive(tmp_path, [video_row(A, "a.mp4")], clips, vectors)
    windows = PublishedWindows.load(folders["embed_dir"], folders["cut_dir"], cut="windows")
    assert sorted((clip.start_ms, clip.end_ms) for clip in windows.clips) == [(0, 1000), (1000, 2000)]
    found = windows.search(vectors[[0, 2]], margin=0.0)
    assert [(moments[0].start_ms, moments[0].end_ms) for moments in found] == [(0, 1000), (1000, 2000)]
    assert recalls(found, [Truth(A, 0, 1000), Truth(A, 1000, 2000)])["r1"] == 1.0


def test_search__neighbours_within_the_margin_are_one_moment(tmp_path: Path) -> None:
    clips = [clip_row(A, 0, 0, 1000), clip_row(A, 1, 1000, 2000), clip_row(A, 2, 2000, 3000)]
    vectors = np.array([[1, 0], [0.8, 0.6], [0, 1]], np.float32)
    folders = write_archive(tmp_path, [video_row(A, "a.mp4")], clips, vectors)
    windows = PublishedWindows.load(folders["embed_dir"], folders["cut_dir"], cut="windows")
    query = np.array([[1, 0]], np.float32)
    spans = {
        margin: [(each.start_ms, each.end_ms) for each in windows.search(query, margin=margin)[0]]
        for margin in (0.1, 0.2)
    }
    assert spans[0.1][0] == (0, 1000) and spans[0.2][0] == (0, 2000)


def archive_of(folder: Path, num_videos: int) -> dict[str, Path]:
    """Two clips of each of some videos, with random vectors."""
    names = [f"{number:032x}" for number in range(num_videos)]
    clips = [clip_row(name, at, 1000 * at, 1000 * (at + 1)) for name in names for at in (0, 1)]
    vectors = unit_rows(len(clips), 8, seed=0)
    return write_archive(folder, [video_row(name, f"{name}.mp4") for name in names], clips, vectors)


def test_load__a_sample_is_of_whole_videos_and_grows_with_the_archive(tmp_path: Path) -> None:
    drawn = {}
    for num_videos in (40, 42):
        folders = archive_of(tmp_path / str(num_videos), num_videos)
        windows = PublishedWindows.load(
            folders["embed_dir"], folders["cut_dir"], cut="windows", most=20, always=[f"{7:032x}"]
        )
        videos = [clip.video_id for clip in windows.clips]
        assert (len(videos), windows.num_published) == (20, 2 * num_videos)
        assert f"{7:032x}" in videos and all(videos.count(each) == 2 for each in videos)
        assert len(windows.half) == 5 and windows.half < set(videos)
        drawn[num_videos] = set(videos)
    assert len(drawn[40] & drawn[42]) >= 8  # two new ones take the place of at most two
    whole = PublishedWindows.load(folders["embed_dir"], folders["cut_dir"], cut="windows", most=84)
    assert len(whole.clips) == whole.num_published == 84 and not whole.half


def test_recalls_of_all__follow_the_line_through_the_sample_and_its_half() -> None:
    """Of 32 clips 16 are drawn, 8 of them in the half: R@1 is 0.5 in the sample, 0.75 in its half."""
    videos = [f"{number:032x}" for number in range(16)]
    clips = tuple(RankedClip(name, name, 0, 1000, 0.0) for name in videos)
    windows = PublishedWindows(clips, np.empty((16, 0), np.float32), num_published=32, half=frozenset(videos[:8]))
    truth, rival, near_rival = (moment(0, 1000, videos[at]) for at in (0, 15, 1))
    found = [[truth], [truth], [rival, truth], [near_rival, truth]]
    expected = recalls_of_all(found, [Truth(videos[0], 0, 1000)] * 4, windows)
    assert expected == {"r1": 0.25, "r5": 1.0, "r10": 1.0}
    whole = PublishedWindows(clips, np.empty((16, 0), np.float32), num_published=16)
    assert recalls_of_all(found, [Truth(videos[0], 0, 1000)] * 4, whole) == {}
    assert recalls_of_all([], [], windows) == {}
