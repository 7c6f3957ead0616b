from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vidseek_training.fitting.losses import anchor_loss, info_nce, sigmoid_bias, sigmoid_loss

SCALE = torch.tensor(math.log(7.0))


def unit(count: int, seed: int) -> NDArray[np.float64]:
    rows = np.random.default_rng(seed).normal(size=(count, 5))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def expected(videos: NDArray[np.float64], texts: NDArray[np.float64], keep: NDArray[np.bool_]) -> float:
    """Written out: the mean of -log p(own text) and -log p(own video) over what `keep` lets compete."""
    total, n = 0.0, len(videos)
    for i in range(n):
        row = [math.exp(7.0 * videos[i] @ texts[j]) for j in range(len(texts)) if keep[i, j]]
        column = [math.exp(7.0 * videos[j] @ texts[i]) for j in range(n) if keep[j, i]]
        own = math.exp(7.0 * videos[i] @ texts[i])
        total += -math.log(own / sum(row)) - math.log(own / sum(column))
    return total / (2 * n)


def loss_of(
    videos: NDArray[np.float64], texts: NDArray[np.float64], same: NDArray[np.bool_] | None = None
) -> float:
    mask = None if same is None else torch.from_numpy(same)
    return float(info_nce(torch.from_numpy(videos), torch.from_numpy(texts), SCALE, same=mask))


def test_info_nce__is_the_mean_of_both_directions() -> None:
    videos, texts = unit(4, 0), unit(4, 1)
    assert loss_of(videos, texts) == pytest.approx(expected(videos, texts, np.ones((4, 4), bool)))


def test_info_nce__extra_texts_are_negatives_of_every_video() -> None:
    videos, texts = unit(4, 0), unit(7, 1)
    assert loss_of(videos, texts) == pytest.approx(expected(videos, texts, np.ones((4, 7), bool)))
    assert loss_of(videos, texts) > loss_of(videos, texts[:4])


def test_info_nce__same_pairs_are_not_pushed_apart() -> None:
    videos, texts = unit(4, 0), unit(6, 1)
    same = np.zeros((4, 6), bool)
    same[0, 2] = same[2, 0] = same[1, 5] = True
    assert loss_of(videos, texts, same) == pytest.approx(expected(videos, texts, ~same))
    # What is masked gets no gradient.
    leaf = torch.from_numpy(texts).requires_grad_()
    mask = torch.zeros(4, 6, dtype=torch.bool)
    mask[:, 5] = True
    info_nce(torch.from_numpy(videos), leaf, SCALE, same=mask).backward()
    assert leaf.grad is not None
    assert not leaf.grad[5].any() and leaf.grad[4].any()


def test_info_nce__the_diagonal_is_never_masked() -> None:
    videos, texts = unit(3, 2), unit(3, 3)
    assert loss_of(videos, texts, np.eye(3, dtype=bool)) == pytest.approx(loss_of(videos, texts))


def test_info_nce__right_pairs_score_lower_than_wrong_ones() -> None:
    videos = unit(5, 4)
    assert loss_of(videos, videos) < loss_of(videos, videos[::-1].copy())


def test_drift__is_one_minus_the_mean_cosine() -> None:
    held = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert float(anchor_loss(held, held)) == 0
    turned = torch.tensor([[0.6, 0.8], [0.0, -1.0]])
    assert float(anchor_loss(turned, held)) == pytest.approx((1 - 0.6 + 1 + 1) / 2)


@pytest.mark.parametrize("masked", [False, True])
def test_sigmoid_loss__is_the_likelihood_of_each_pair_written_out(masked: bool) -> None:
    videos, texts = unit(4, 0), unit(6, 1)  # the last two are negatives for all
    same = np.zeros((4, 6), bool)
    same[0, 2] = same[1, 1] = masked  # the diagonal always counts
    total = 0.0
    for i in range(4):
        for j in range(6):
            logit = 7.0 * videos[i] @ texts[j] - 3.0
            if i == j:
                total += math.log(1 + math.exp(-logit))
            elif not same[i, j]:
                total += math.log(1 + math.exp(logit))
    found = sigmoid_loss(
        torch.from_numpy(videos), torch.from_numpy(texts), SCALE, torch.tensor(-3.0),
        same=torch.from_numpy(same) if masked else None,
    )
    assert float(found) == pytest.approx(total / 4)


def test_sigmoid_bias__of_texts_that_are_all_alike_makes_each_one_of_n() -> None:
    videos = torch.from_numpy(unit(5, 0))
    texts = videos[:1].repeat(8, 1)
    scores = 7.0 * videos @ texts[:1].T
    bias = sigmoid_bias(videos, texts, SCALE)
    assert bias == pytest.approx(-float(scores.mean()) - math.log(8))
