"""Multiplies in bf16 while an adapter is trained: on a CPU only in the towers' linear layers, on CUDA by autocast.

Weights, activations between layers, attention, stem and loss stay in fp32. On a CPU, torch's attention, norms and
convolutions are several times slower in bf16 than in fp32, while a matrix product is four to five times faster.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.nn.functional as F
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn

from vidseek_media.errors import DeviceError
from vidseek_training.backbones import Backbone

Precision = Literal["auto", "fp32", "bf16"]

_CHANCES = 1 << 16
"""Dropout is drawn from 16 random bits an element."""


def multiplies_in_bf16(precision: Precision, device: torch.device) -> bool:
    """Whether a precision means bf16 on a device; `auto` does if the processor supports it.

    Args:
        precision: `auto`, `fp32` or `bf16`.
        device: The device.

    Raises:
        DeviceError: bf16 is requested, and the processor lacks it: it would be slower than fp32.
    """
    if precision == "fp32":
        return False
    able = _has_bf16(device)
    if precision == "bf16" and not able:
        raise DeviceError(
            f"precision is bf16, and this {device.type} does not multiply in it", code="no-bf16",
            remedy="Set train.settings.<name>.precision to auto or fp32",
        )
    return able


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


@contextmanager
def bf16_products(model: Backbone, *, wanted: bool) -> Iterator[None]:
    """Let a model multiply in bf16 inside this block; afterwards it is as before.

    Results may be differentiated outside of the block. On a CPU this affects the linear layers of attention and MLP, with
    and
    without an adapter; the projections to the common space stay in fp32.

    Args:
        model: The backbone.
        wanted: Whether to change anything.
    """
    if not wanted:
        yield
        return
    if model.logit_scale.device.type == "cuda":
        with torch.autocast("cuda", torch.bfloat16):
            yield
        return
    layers = [model.get_submodule(name) for name in model.lora_targets(("attention", "mlp"))]
    for layer in layers:
        fast = _adapted_forward if isinstance(layer, LoraLinear) else _plain_forward
        layer.forward = functools.partial(fast, layer, layer.forward)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _plain_forward(layer: nn.Linear, _usual: Any, values: Tensor) -> Tensor:
    bias = None if layer.bias is None else layer.bias.bfloat16()
    return F.linear(values.bfloat16(), layer.weight.bfloat16(), bias).float()


def _adapted_forward(layer: LoraLinear, usual: Any, values: Tensor) -> Tensor:
    """Return the layer with its LoRA (Hu et al. 2021). What we do not train, an adapter of another kind, goes the usual way.
    """
    base, names = layer.base_layer, layer.active_adapters
    if layer.disable_adapters or layer.merged or layer.lora_variant or len(names) != 1 or base.weight.requires_grad:
        result: Tensor = usual(values)
        return result
    dropout = layer.lora_dropout[names[0]]
    share = dropout.p if isinstance(dropout, nn.Dropout) and dropout.training else 0.0
    down, up = layer.lora_A[names[0]].weight, layer.lora_B[names[0]].weight
    result = _AdaptedLinear.apply(values, base.weight, base.bias, down, up, layer.scaling[names[0]], share)
    return result


class _AdaptedLinear(torch.autograd.Function):
    """`x W' + b + s drop(x) A' B'` with W and b frozen, in bf16 with sums in fp32.

    One function because the pieces alone move more memory than they multiply: peft's own forward draws its dropout in
    fp32 (a fifth of a step), scales the widest tensor and adds it in a pass of its own.
    """

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float, share: float,
    ) -> Tensor:
        flat = values.reshape(-1, values.shape[-1]).to(torch.bfloat16, copy=True)
        weight, down, up = weight.bfloat16(), down.bfloat16(), up.bfloat16()
        result = F.linear(flat, weight, None if bias is None else bias.bfloat16())
        kept = None
        if share:
            kept, kept_share = _draw_kept(flat, share)
            # In place: only the adapter's side needs its input again, W is frozen.
            _keep(flat, kept)
            scale = scale / kept_share
        hidden = F.linear(flat, down)
        result = torch.addmm(result, hidden, up.T, alpha=scale)
        ctx.save_for_backward(flat, hidden, weight, down, up, *([] if kept is None else [kept]))
        ctx.scale, ctx.shape = scale, values.shape
        return result.float().view(*values.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, None, Tensor, Tensor, None, None]:
        flat, hidden, weight, down, up, *kept = ctx.saved_tensors
        gradient = gradient.reshape(-1, gradient.shape[-1]).bfloat16()
        of_up = (gradient.T @ hidden).float() * ctx.scale
        of_hidden = (gradient @ up) * ctx.scale
        of_down = (of_hidden.T @ flat).float()
        of_values = None
        if ctx.needs_input_grad[0]:
            through = of_hidden @ down
            if kept:
                _keep(through, kept[0])
            of_values = torch.addmm(through, gradient, weight).float().view(ctx.shape)
        return of_values, None, None, of_down, of_up, None, None


def _draw_kept(values: Tensor, share: float) -> tuple[Tensor, float]:
    """1 for each element that is kept, 0 where it is dropped (a chance of `share` to 1 / 65,536); and the share kept."""
    count = values.numel()
    # 64 bits a draw are four elements; torch's Bernoulli takes one draw for each.
    draws = torch.empty((count + 3) // 4, dtype=torch.int64, device=values.device).random_(-(2**63), None)
    draws = draws.view(torch.int16)[:count].view(values.shape)
    limit = round(share * _CHANCES)
    return torch.ge(draws, limit - _CHANCES // 2, out=draws), 1 - limit / _CHANCES


def _keep(values: Tensor, kept: Tensor) -> None:
    """Set to 0 what is not kept, in place: products of the bits as whole numbers, a tenth of a masked fill's time."""
    values.view(torch.int16).mul_(kept)
