from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.retrieval.archive import unit_rows
from vidseek_retrieval.index.score_spread import evenly, score_spread
from vidseek_retrieval.search.moments import RankedClip, merge_moments
from vidseek_retrieval.settings import SearchSettings


def narrowed(rows: np.ndarray, share: float) -> np.ndarray:
    """The same rows as an encoder of a narrower cone has them: each dot product times `share`, plus 1 - `share`."""
    extra = np.full((len(rows), 1), np.sqrt(1 - share))
    return np.concatenate([np.sqrt(share) * rows, extra], axis=1).astype(np.float32)


def test_score_spread__is_that_of_a_queries_scores() -> None:
    clips, texts = unit_rows(50, 8, seed=0), unit_rows(20, 8, seed=1)
    assert score_spread(clips, texts) == pytest.approx(np.sqrt((texts @ clips.T).astype(float).var(axis=1).mean()), abs=1e-6)
    # Without texts a clip asks all the others, and not itself.
    scores = (clips @ clips.T).astype(float)[~np.eye(50, dtype=bool)].reshape(50, 49)
    assert score_spread(clips, texts[:3]) == pytest.approx(np.sqrt(scores.var(axis=1).mean()), abs=1e-6)
    assert score_spread(clips[:1], texts) == 0.0


@given(share=st.floats(0.05, 1.0))
def test_score_spread__narrower_scores_spread_less_by_the_same_factor(share: float) -> None:
    clips, texts = unit_rows(60, 8, seed=0), unit_rows(20, 8, seed=1)
    for asked in (texts, texts[:0]):
        narrow = score_spread(narrowed(clips, share), narrowed(asked, share))
        assert narrow == pytest.approx(share * score_spread(clips, asked), abs=1e-5)


@given(factor=st.floats(0.05, 20.0), shift=st.floats(-5, 5), margin_sd=st.floats(0, 2), seed=st.integers(0, 20))
def test_moments__scores_that_are_scaled_and_shifted_give_the_same_moments(
    factor: float, shift: float, margin_sd: float, seed: int
) -> None:
    """An even grid of scores, so that no score lies so near to a limit that rounding decides."""
    draws = np.random.default_rng(seed)
    scores = draws.permutation(60) / 60
    limit = np.floor(margin_sd * scores.std() * 60) + 0.5  # between two steps of the grid

    def moments(values: np.ndarray) -> list[tuple[str, ...]]:
        clips = [
            RankedClip(f"{row:03d}", f"{row // 20}", 1000 * (row % 20), 1000 * (row % 20) + 3000, round(float(score), 6))
            for row, score in enumerate(values)
        ]
        margin = SearchSettings(merge_margin_sd=float(limit / 60 / scores.std())).margin(float(values.std()))
        return [moment.clip_ids for moment in merge_moments(clips, margin=margin)]

    assert moments(factor * scores + shift) == moments(scores)


def test_evenly() -> None:
    assert evenly("abc", 3) == ["a", "b", "c"] and evenly(range(100), 3) == [0, 49, 99]
