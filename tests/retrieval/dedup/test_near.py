"""The benchmark of near-duplicates: that it measures what it says."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from bench.searching.near import judge_all, report_of, see_all
from bench.searching.near_score import (
    WAYS,
    Judged,
    area_under_curve,
    average_precision,
    choose_limit,
    figures,
    from_on,
    nearest_clips,
    split,
)
from bench.searching.near_seen import HASHES, TIMES, Cut, hashes_of, sample, see
from bench.videos.rendered import join_scenes, rendered_scene
from vidseek_retrieval.dedup.alignment import Alignment
from vidseek_retrieval.dedup.made_copies import CHANGES

CUT = Cut(length_ms=3000, stride_ms=1000, num_frames=8, side_px=64)


class MeanColours:
    """A clip's vector is its mean picture of 2 x 2, made unit."""

    def embed_frames(self, clips: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        small = [Image.fromarray(clip.mean(axis=0).astype(np.uint8)).resize((2, 2)) for clip in clips]
        rows = np.array([np.asarray(each, dtype=np.float32).ravel() for each in small])
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Six originals of two scenes, 4 to 8 s long."""
    root = tmp_path_factory.mktemp("originals")
    paths = {f"{number}.mp4": root / f"{number}.mp4" for number in range(6)}
    for number, path in enumerate(paths.values()):
        join_scenes(path, [rendered_scene(2 * number), rendered_scene(2 * number + 1)], ["cut"], seed=number)
    return paths


def blocks(seed: int) -> NDArray[np.uint8]:
    """A picture with something in every frequency: 90 x 120, of squares of 5 pixels."""
    coarse = np.random.default_rng(seed).integers(20, 236, (18, 24, 3))
    return np.kron(coarse, np.ones((5, 5, 1), np.int64)).astype(np.uint8)


def judged(kind: str, *scores: float, videos: tuple[str, ...] = ("a",)) -> list[Judged]:
    """Pairs of one kind with these scores in the form `vidseek`."""
    return [Judged(kind, videos, Alignment(1.0, 0.0, score, None), {"vidseek": score}) for score in scores]


@pytest.mark.slow
def test_measure__every_way_and_change_on_a_few_videos(originals: Mapping[str, Path]) -> None:
    pairs = list(judge_all(see_all(originals, MeanColours(), CUT)))
    report = report_of(pairs, list(originals))
    assert report["num_pairs"] == {**dict.fromkeys(CHANGES, 6), "moments": 6, "chance": 15}
    assert list(report["ways"]) == list(WAYS)
    for way, found in report["ways"].items():
        for seed in found["seeds"]:
            assert set(seed["recall_by_change"]) == set(CHANGES) and seed["form"].startswith(way)
            assert seed["recall"] == pytest.approx(np.mean(list(seed["recall_by_change"].values())), abs=1e-3)
        # A copy that is only re-encoded is nearer than another video: a way that does not see that is not measured rightly.
        best = max(found["average_precision_of_forms"], key=found["average_precision_of_forms"].__getitem__)
        easy = [each.scores[best] for each in pairs if each.kind == "re-encoded"]
        assert np.median(easy) > max(np.median([each.scores[best] for each in pairs if each.kind == "chance"]), 0.8)


def test_sample__a_copy_of_another_speed_shows_what_the_original_does(originals: Mapping[str, Path]) -> None:
    path = originals["0.mp4"]
    plain = sample(path, CUT, start_ms=0, end_ms=4000)
    fast = sample(path, CUT, start_ms=1000, end_ms=4000, speed=2.0)
    assert fast.spans == [(0, 1500)] and len(fast.clips[0]) == 8 and plain.spans == [(0, 3000), (1000, 4000)]
    seen = see(fast, MeanColours())
    assert len(seen.vectors) == 1 and seen.fingerprints.times_ms[0] == fast.times_ms[0]
    # At 281 ms the copy shows 1562, and the second clip of the original has 1563, which is the same frame.
    (same,) = np.flatnonzero(plain.times_ms == 1563)
    np.testing.assert_array_equal(fast.frames[1], plain.frames[same])
    assert not np.array_equal(fast.frames[1], plain.frames[0])
    assert nearest_clips(see(plain, MeanColours()), seen)[0][1] == 750
    assert TIMES.keys() < CHANGES.keys()


@pytest.mark.parametrize("name", HASHES)
def test_hashes__are_the_signs_of_a_cosine_transform(name: str) -> None:
    dctn = pytest.importorskip("scipy.fft").dctn
    num, side, first = HASHES[name]
    frame = blocks(3)
    grey = Image.fromarray(frame.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32))
    low = dctn(np.asarray(grey.resize((side, side), Image.Resampling.BOX), np.float64))
    low = low[first : first + num, first : first + num]
    (bits,) = hashes_of(frame[np.newaxis], name)
    assert bits.shape == (num * num,) and (bits == np.where(low > np.median(low), 1, -1).ravel()).all()


def test_hashes__brightness_changes_few_bits_and_another_picture_many() -> None:
    frame, other = blocks(3), blocks(4)
    for name in HASHES:
        bits, darker, another = hashes_of(np.stack([frame, (frame * 0.6 + 10).astype(np.uint8), other]), name)
        assert (bits != darker).mean() < 0.05 < 0.25 < (bits != another).mean()


def test_average_precision__by_hand() -> None:
    pairs = [*judged("scaled", 0.9, 0.5), *judged("chance", 0.7, 0.1)]
    # At 0.9: half of the copies, nothing wrong: 1. At 0.5: all of them, half of the others: 1 / 1.5.
    assert average_precision(pairs, "vidseek") == pytest.approx(0.5 * 1 + 0.5 / 1.5)
    assert area_under_curve(pairs, "vidseek") == pytest.approx(0.75)
    # Two kinds of pairs that are none count alike, however many they are.
    pairs += judged("moments", *[0.95] * 9)
    assert area_under_curve(pairs, "vidseek") == pytest.approx(0.75 / 2)


def test_choose_limit__the_least_that_is_precise() -> None:
    pairs = [*judged("scaled", 0.9, 0.8, 0.6, 0.4), *judged("chance", 0.7, *[0.1] * 9)]
    assert choose_limit(pairs, "vidseek", target=0.95) == 0.8  # at 0.6: 0.75 / (0.75 + 0.1)
    assert choose_limit(pairs, "vidseek", target=0.85) == 0.4  # 1 / 1.1
    found = figures(pairs, from_on("vidseek", 0.6))
    assert found["precision"] == round(0.75 / 0.85, 4) and found["recall_by_change"] == {"scaled": 0.75}
    assert choose_limit(judged("chance", 0.5), "vidseek", target=0.95) == float("inf")


def test_split__no_video_is_on_both_sides() -> None:
    videos = [str(number) for number in range(10)]
    pairs = [each for video in videos for each in judged("scaled", 1.0, videos=(video,))]
    for pair in combinations(videos, 2):
        pairs += judged("chance", 0.1, videos=pair)
    chosen_on, measured_on = split(pairs, videos, 0)
    assert len(chosen_on) + len(measured_on) == len(pairs)
    own = {each.videos for each in chosen_on if each.kind == "scaled"}
    assert len(own) == 5 and not own & {(video,) for each in measured_on for video in each.videos}
