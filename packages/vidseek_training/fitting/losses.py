"""The contrastive loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def info_nce(videos: Tensor, texts: Tensor, logit_scale: Tensor, *, same: Tensor | None = None) -> Tensor:
    """Symmetric InfoNCE (Radford et al. 2021), with extra texts as negatives.

    Args:
        videos: Unit rows (n, dimension); row i belongs to row i of `texts`.
        texts: Unit rows (m, dimension), m at least n; rows from n on are negatives for every video.
        logit_scale: Natural logarithm of the factor on cosines.
        same: Boolean (n, m): off the diagonal, pairs that are not wrong and must not be pushed apart.

    Returns:
        The mean of both directions, a scalar.
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
    """Sigmoid loss of all pairs (Zhai et al. 2023, SigLIP), with extra texts as negatives.

    Args:
        videos: See `info_nce`.
        texts: See `info_nce`.
        logit_scale: See `info_nce`.
        bias: Added to the logits, a scalar: most pairs are wrong.
        same: See `info_nce`.

    Returns:
        The sum over all texts of the negative log-likelihood, as a mean over the clips; a scalar.
    """
    count = len(videos)
    right = torch.eye(count, texts.shape[0], dtype=torch.bool, device=videos.device)
    logits = logit_scale.exp() * videos @ texts.T + bias
    terms = F.softplus(torch.where(right, -logits, logits))
    if same is not None:
        terms = terms.masked_fill(same & ~right, 0.0)
    return terms.sum() / count


def sigmoid_bias(videos: Tensor, texts: Tensor, logit_scale: Tensor) -> float:
    """The bias with which a model that was trained by a softmax begins: minus the mean logarithm of its denominators.

    A pair is then as likely as the softmax says it is of its clip; from SigLIP's own -10 such a model first forgets.
    """
    with torch.no_grad():
        return -float((logit_scale.exp() * videos @ texts.T).logsumexp(1).mean())


def drift(vectors: Tensor, held: Tensor) -> Tensor:
    """How far unit rows have moved from where they are to be held: the mean of 1 - cosine, a scalar in [0, 2].

    Args:
        vectors: Unit rows (n, dimension).
        held: Unit rows (n, dimension).
    """
    return (1 - (vectors * held).sum(1)).mean()
