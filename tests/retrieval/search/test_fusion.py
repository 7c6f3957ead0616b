from __future__ import annotations

import numpy as np
import pytest

from vidseek_retrieval.search.fusion import diversify, fuse
from vidseek_retrieval.search.moments import RankedClip


def ranking(*clips: str) -> list[RankedClip]:
    """Clips of falling score, best first."""
    return [RankedClip(clip, "v", 0, 1, 1 - place / 10) for place, clip in enumerate(clips)]


def test_fuse__is_the_papers_formula() -> None:
    fused = fuse([(1.0, ranking("a", "b", "c")), (2.0, ranking("c", "d"))])
    best = 3 / 61
    expected = {"a": 1 / 61, "b": 1 / 62, "c": 1 / 63 + 2 / 61, "d": 2 / 62}
    assert {clip.clip_id: clip.score for clip in fused} == {
        name: pytest.approx(score / best, abs=1e-6) for name, score in expected.items()
    }
    assert [clip.clip_id for clip in fused] == ["c", "d", "a", "b"]


def test_fuse__first_everywhere_is_one_and_the_scale_of_scores_counts_nothing() -> None:
    one, other = ranking("a", "b"), [clip._replace(score=clip.score * 1000) for clip in ranking("a", "b")]
    assert fuse([(1.0, one), (1.0, other)])[0].score == 1.0
    assert fuse([(1.0, one), (1.0, other)]) == fuse([(1.0, other), (1.0, one)])
    assert fuse([(1.0, []), (1.0, ranking("a"))])[0].score == 0.5 and fuse([(1.0, [])]) == []


def test_fuse__ties_by_clip_id() -> None:
    assert [clip.clip_id for clip in fuse([(1.0, ranking("b")), (1.0, ranking("a"))])] == ["a", "b"]


def test_diversify__takes_the_different_one_first() -> None:
    vectors = np.array([[1, 0], [1, 0], [0, 1]], dtype=np.float32)
    scores = [0.9, 0.8, 0.5]
    assert diversify(scores, vectors, diversity=0.0) == [0, 1, 2]
    # Second: 0.5 * 0.8 - 0.5 * 1 against 0.5 * 0.5 - 0.5 * 0.
    assert diversify(scores, vectors, diversity=0.5) == [0, 2, 1]
    assert diversify(scores, vectors, diversity=0.1) == [0, 1, 2]
    assert diversify([], np.empty((0, 2), np.float32), diversity=0.5) == []


def test_diversify__is_the_definition_on_random_vectors() -> None:
    draws = np.random.default_rng(0)
    vectors = draws.normal(size=(12, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = sorted(draws.uniform(size=12), reverse=True)
    taken: list[int] = []
    while len(taken) < 12:
        def value(place: int) -> float:
            nearest = max(float(vectors[place] @ vectors[other]) for other in taken) if taken else 0.0
            return 0.4 * scores[place] - 0.6 * nearest

        taken.append(max((place for place in range(12) if place not in taken), key=value))
    assert diversify(scores, vectors, diversity=0.6) == taken
