"""Gradients of a large batch in small pieces (GradCache), on one process or several.

Each process embeds its share of the batch's pieces, all processes get all vectors and compute the loss of the whole batch,
and each sends the loss's gradients with respect to its own vectors back through the model. With a chunk size a piece is
embedded twice: first without a graph, then again with one, from the same random state, so that dropout is the same.
Gao et al., 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vidseek_training.backbones import Backbone
from vidseek_training.dataset.pair_set import to_pixels
from vidseek_training.dataset.sampling import Batch
from vidseek_training.fitting.cached_hidden_states import depth_of
from vidseek_training.fitting.distributed import DistributedContext
from vidseek_training.fitting.losses import anchor_loss, info_nce, sigmoid_loss
from vidseek_training.fitting.precision import training_products
from vidseek_training.settings import TrainSettings

Piece = tuple[str, NDArray[Any]]
"""A kind (views, tokens, ids or known) and its rows, as `Batch` has them."""


def add_gradients(
    batch: Batch, *, embed: Callable[[Piece], Tensor], loss_of: Callable[[Tensor], Tensor], model: Backbone,
    chunk: int | None, processes: DistributedContext,
) -> float:
    """Add the gradients of a batch's loss to the model's parameters and return the loss.

    Args:
        batch: The whole batch, equal on all processes.
        embed: Unit rows of a piece, float32, shape (rows, dimension).
        loss_of: The scalar loss of all vectors of the batch, shape (clips + texts, dimension).
        model: Its trainable parameters receive the gradients.
        chunk: Rows that are embedded with a graph at once, at least 1; None for the whole share of a process.
        processes: Those that train together.
    """
    device = model.logit_scale.device
    pieces = list(split_batch(batch, chunk, processes.count))
    ends = np.cumsum([len(rows) for _, rows in pieces])
    own = range(processes.rank, len(pieces), processes.count)
    again = chunk is not None
    states, made = {}, {}
    for number in own:
        states[number] = random_state(device)
        with torch.set_grad_enabled(not again):
            made[number] = embed(pieces[number])
    vectors = torch.zeros(int(ends[-1]), model.spec.dimension, device=device)
    for number, part in made.items():
        vectors[ends[number] - len(part) : ends[number]] = part.detach()
    processes.add(vectors).requires_grad_()
    loss = loss_of(vectors)
    loss.backward()  # type: ignore[no-untyped-call]
    assert vectors.grad is not None
    for number in own:
        part = made.pop(number)
        if again:
            set_random_state(states[number], device)
            part = embed(pieces[number])
        if part.requires_grad:
            part.backward(vectors.grad[ends[number] - len(part) : ends[number]])  # type: ignore[no-untyped-call]
    _sum_gradients(model, processes)
    return float(loss.detach())


def split_batch(batch: Batch, chunk: int | None, count: int) -> Iterator[Piece]:
    """Yield the pieces of a batch in the order of its vectors: clips, then texts.

    Args:
        batch: The whole batch.
        chunk: Rows of a piece at most; None for one piece a process.
        count: Processes, at least 1. Each kind has as many pieces for each process.
    """
    kind = {np.dtype(np.uint8): "views", np.dtype(np.float16): "tokens"}.get(batch.clips.dtype, "known")
    for name, rows in ((kind, batch.clips), ("ids", batch.ids)):
        rounds = math.ceil(len(rows) / (count * chunk)) if chunk else 1
        for part in np.array_split(rows, min(rounds * count, len(rows))):
            yield name, part


def embed_piece(model: Backbone, piece: Piece, settings: TrainSettings, *, in_bf16: bool) -> Tensor:
    """Return the unit rows of a piece, float32, shape (rows, dimension).

    Args:
        model: Embeds views, cached hidden states and token ids.
        piece: Rows of one kind.
        settings: Say which layers' hidden states are cached.
        in_bf16: Whether matrix products are computed in bf16.
    """
    kind, values = piece
    device = model.logit_scale.device
    if kind == "known":
        return torch.from_numpy(values).to(device)
    with training_products(model, in_bf16=in_bf16):
        if kind == "tokens":
            tokens = torch.from_numpy(values).to(device).float()
            return model.embed_tokens(tokens, depth_of(model, settings)).float()
        if kind == "views":
            return model.embed_videos(to_pixels(values, model.spec, device)).float()
        return model.embed_texts(torch.from_numpy(values).to(device)).float()


def batch_loss(vectors: Tensor, batch: Batch, logit_scale: Tensor, bias: nn.Parameter | None) -> Tensor:
    """Return the weighted sum of a batch's contrastive terms and anchors, a scalar.

    Args:
        vectors: Unit rows of the batch, clips then texts, float32, shape (clips + texts, dimension).
        batch: Its terms and anchors name rows of `vectors`.
        logit_scale: The logarithm of the factor of cosines, a scalar.
        bias: Of the sigmoid loss, a scalar; None for InfoNCE.
    """
    device = vectors.device
    total = torch.zeros((), device=device)
    for term in batch.terms:
        same = torch.from_numpy(term.same).to(device)
        left, right = vectors[term.left], vectors[term.right]
        if bias is None or term.of_views:
            loss = info_nce(left, right, logit_scale, same=same)
        else:
            loss = sigmoid_loss(left, right, logit_scale, bias, same=same)
        total = total + term.weight * loss
    for anchor in batch.anchors:
        total = total + anchor.weight * anchor_loss(vectors[anchor.rows], torch.from_numpy(anchor.held).to(device))
    return total


def random_state(device: torch.device) -> Tensor:
    """Return the state of torch's random generator, uint8.

    Args:
        device: That dropout runs on.
    """
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def set_random_state(state: Tensor, device: torch.device) -> None:
    """Set the state of torch's random generator.

    Args:
        state: As `random_state` gives it, on the CPU.
        device: That dropout runs on.
    """
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)


def _sum_gradients(model: Backbone, processes: DistributedContext) -> None:
    """Sum the gradients over all processes, except that of the logit scale: every process has the whole of it."""
    if processes.count == 1:
        return
    for parameter in model.parameters():
        if parameter.requires_grad and parameter is not model.logit_scale:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            processes.add(parameter.grad)
