from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from tests.retrieval.dedup.comparing.videos import CHANGES, of_frames, video
from vidseek_retrieval.dedup.comparing import sifting
from vidseek_retrieval.dedup.comparing.fingerprints import VideoFingerprint
from vidseek_retrieval.dedup.comparing.probes import compare_views, probes_of
from vidseek_retrieval.dedup.comparing.sift_weights import LIMIT
from vidseek_retrieval.dedup.comparing.sifting import likeliness, sift


@pytest.fixture(scope="module")
def videos() -> dict[str, VideoFingerprint]:
    """Six videos, and a changed copy of four of them."""
    originals = {f"original-{seed}": video(seed, length_ms=4000) for seed in range(6)}
    names = ("mirrored", "cropped", "darker", "letterboxed")
    return originals | {
        f"copy-{seed}": video(seed, start_ms=500 * seed, length_ms=3000, change=CHANGES[name])
        for seed, name in enumerate(names)
    }


@pytest.fixture
def scores(videos: dict[str, VideoFingerprint]) -> dict[tuple[str, str], float]:
    return dict.fromkeys(combinations(sorted(videos), 2), 0.1)


def test_sift__of_few_pairs_leaves_all(
    videos: dict[str, VideoFingerprint], scores: dict[tuple[str, str], float]
) -> None:
    assert sift(scores, videos) == dict.fromkeys(scores, 1.0)


@pytest.mark.parametrize(("num_aligned", "num_sampled"), [(8, 3), (20, 5), (5, 0), (44, 1)])
def test_sift__of_many_pairs_leaves_likely_ones_and_a_sample_that_stands_for_all(
    videos: dict[str, VideoFingerprint], scores: dict[tuple[str, str], float], num_aligned: int, num_sampled: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sifting, "NUM_ALIGNED", num_aligned)
    monkeypatch.setattr(sifting, "NUM_SAMPLED", num_sampled)
    monkeypatch.setattr(sifting, "_CHUNK", 7)
    monkeypatch.setattr(sifting, "map_in_processes", map)
    left = sift(scores, videos)
    assert list(left) == sorted(left) and left.keys() <= scores.keys()
    assert {(f"copy-{seed}", f"original-{seed}") for seed in range(4)} <= {pair for pair, num in left.items() if num == 1}
    sampled = [num for num in left.values() if num > 1]
    likely = [pair for pair in scores if likeliness(0.1, *(probes_of(videos[each]) for each in pair)) >= LIMIT]
    assert len(sampled) <= num_sampled and len(left) <= max(num_aligned, len(likely) + num_sampled)
    assert set(likely) <= left.keys()
    assert not num_sampled or sum(left.values()) == pytest.approx(len(scores))


def test_likeliness__of_copies_is_above_that_of_all_others(videos: dict[str, VideoFingerprint]) -> None:
    probes = {name: probes_of(of) for name, of in videos.items()}
    likely = {pair: likeliness(0.1, probes[pair[0]], probes[pair[1]]) for pair in combinations(sorted(videos), 2)}
    copies = [likely.pop((f"copy-{seed}", f"original-{seed}")) for seed in range(4)]
    assert min(copies) > max(likely.values())


def test_terms__of_videos_that_show_nothing_are_zero() -> None:
    black = probes_of(of_frames([np.zeros((90, 120, 3), np.uint8)] * 12))
    assert sifting.terms_of(black, probes_of(video(1))) == sifting.terms_of(black, black) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("is_turned", [False, True])
def test_compare_views__finds_the_mirrored_and_the_cropped(is_turned: bool) -> None:
    plain = probes_of(video(3))
    for name in ("mirrored", "cropped"):
        pair = (plain, probes_of(video(3, change=CHANGES[name])))
        best = compare_views(*(pair[::-1] if is_turned else pair))[0]
        assert best.view.is_mirrored == (name == "mirrored") and best.score > 0.9
        parts = best.view.mine.area, best.view.theirs.area
        assert name == "mirrored" or (parts[1] < parts[0] if is_turned else parts[0] < parts[1])


def test_lines__are_as_long_as_they_say() -> None:
    weights, lengths = sifting._lines(5, 12)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose((weights > 0).sum(axis=1) / 12, lengths)
    assert lengths.min() >= 0.25 and lengths.max() == 1
