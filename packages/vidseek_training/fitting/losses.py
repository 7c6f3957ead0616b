"""Contrastive losses, and the loss that holds old vectors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def info_nce(videos: Tensor, texts: Tensor, logit_scale: Tensor, *, same: Tensor | None = None) -> Tensor:
    """Compute the symmetric InfoNCE loss (Radford et al. 2021), with extra texts as negatives.

    Args:
        videos: Unit rows of shape (n, dimension); row i belongs to row i of `texts`.
        texts: Unit rows of shape (m, dimension), m at least n; rows from n on are negatives of every video.
        logit_scale: Natural logarithm of the factor on cosines, a scalar.
        same: Boolean of shape (n, m): pairs off the diagonal that match too, and are left out of the negatives. None: none.

    Returns:
        The mean of both directions, a scalar.

    Examples:
        >>> vectors = torch.eye(2)
        >>> round(float(info_nce(vectors, vectors, torch.tensor(0.0))), 4)  # log(1 + 1 / e)
        0.3133
    """
    count = len(videos)
    logits = logit_scale.exp() * videos @ texts.T
    if same is not None:
        keep = torch.eye(count, texts.shape[0], dtype=torch.bool, device=logits.device)
        logits = logits.masked_fill(same & ~keep, float("-inf"))
    target = torch.arange(count, device=logits.device)
    to_text = F.cross_entropy(logits, target)
    to_video = F.cross_entropy(logits[:, :count].T, target)
    return (to_text + to_video) / 2


def sigmoid_loss(
    videos: Tensor, texts: Tensor, logit_scale: Tensor, bias: Tensor, *, same: Tensor | None = None
) -> Tensor:
    """Compute the sigmoid loss over all pairs (SigLIP, Zhai et al. 2023), with extra texts as negatives.

    Args:
        videos: Unit rows of shape (n, dimension); row i belongs to row i of `texts`.
        texts: Unit rows of shape (m, dimension), m at least n; rows from n on are negatives of every video.
        logit_scale: Natural logarithm of the factor on cosines, a scalar.
        bias: Added to the logits, a scalar. It is negative, since most pairs do not match.
        same: Boolean of shape (n, m): pairs off the diagonal that match too, and are left out of the loss. None: none.

    Returns:
        The negative log-likelihood, summed over texts and averaged over videos, a scalar.
    """
    count = len(videos)
    right = torch.eye(count, texts.shape[0], dtype=torch.bool, device=videos.device)
    logits = logit_scale.exp() * videos @ texts.T + bias
    terms = F.softplus(torch.where(right, -logits, logits))
    if same is not None:
        terms = terms.masked_fill(same & ~right, 0.0)
    return terms.sum() / count


def sigmoid_bias(videos: Tensor, texts: Tensor, logit_scale: Tensor) -> float:
    """Return the initial bias of `sigmoid_loss` for a model that was trained with a softmax.

    It is minus the mean log-sum-exp of each video's logits. The probability of a pair is then about that of the softmax.
    With SigLIP's own initial bias of -10, such a model first loses what it has learned.

    Args:
        videos: Unit rows of shape (n, dimension).
        texts: Unit rows of shape (m, dimension).
        logit_scale: Natural logarithm of the factor on cosines, a scalar.
    """
    with torch.no_grad():
        return -float((logit_scale.exp() * videos @ texts.T).logsumexp(1).mean())


def anchor_loss(vectors: Tensor, held: Tensor) -> Tensor:
    """Return the mean distance (1 - cosine) of unit rows from the vectors to hold, a scalar in [0, 2].

    Args:
        vectors: Unit rows (n, dimension).
        held: Unit rows (n, dimension).
    """
    return (1 - (vectors * held).sum(1)).mean()
