from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vidseek_training.evaluation.retrieval_metrics import Vectors
from vidseek_training.fitting.pictures import draw_map, on_a_plane


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_on_a_plane__keeps_the_largest_spread_of_both_together() -> None:
    rng = np.random.default_rng(0)
    # A gap between the modalities along the first axis, a little spread elsewhere.
    videos = unit(np.array([1.0, 0, 0, 0]) + 0.1 * rng.normal(size=(20, 4)))
    texts = unit(np.array([-1.0, 0, 0, 0]) + 0.1 * rng.normal(size=(20, 4)))
    flat_videos, flat_texts = on_a_plane(Vectors(videos, texts, texts))
    assert flat_videos.shape == flat_texts.shape == (20, 2)
    gap = np.linalg.norm(flat_videos.mean(0) - flat_texts.mean(0))
    assert gap == pytest.approx(np.linalg.norm(videos.mean(0) - texts.mean(0)), rel=0.01)
    # The second axis is where the rest spreads most.
    rest = np.concatenate([videos, texts])[:, 1:]
    assert np.concatenate([flat_videos, flat_texts])[:, 1].std() >= rest.std(0).mean()


def test_draw_map__writes_a_picture(tmp_path: Path) -> None:
    few = Vectors(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32))
    draw_map({"before": few, "after": few}, tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes()[:4] == b"\x89PNG"
