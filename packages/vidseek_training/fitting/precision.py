"""Multiplies fast while an adapter is trained: adapted layers in fewer passes over memory, and in bf16 where that is wanted.

In bf16 are on a CPU only the towers' linear layers; on CUDA autocast decides.

Weights, activations between layers, attention, stem and loss stay in fp32. On a CPU, torch's attention, norms and
convolutions are several times slower in bf16 than in fp32, while a matrix product is four to five times faster.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.nn.functional as F
from peft.tuners.lora.layer import Linear as LoraLinear
from peft.tuners.lora.layer import LoraLayer
from peft.tuners.lora.layer import _ConvNd as LoraConv
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
    adapted = functools.partial(_adapted_forward, torch.bfloat16)
    with _forwards({layer: adapted if isinstance(layer, LoraLinear) else _plain_forward for layer in layers}):
        yield


@contextmanager
def training_products(model: Backbone, *, in_bf16: bool) -> Iterator[None]:
    """Let a model with an adapter run fast inside this block, for training; afterwards it is as before.

    Results may be differentiated outside of the block. On a CPU the adapted layers take fewer passes over memory than peft's
    (docs/decisions/2026-11-28-adapted-layers.md); in fp32 values and gradients are peft's but for rounding and for which
    elements dropout drops.

    Args:
        model: The backbone.
        in_bf16: Whether to multiply in bf16; see `bf16_products`.
    """
    fast: dict[nn.Module, _Forward] = {}
    if model.logit_scale.device.type == "cpu":
        for layer in model.modules():
            if isinstance(layer, LoraConv):
                fast[layer] = _adapted_convolution
            elif isinstance(layer, LoraLinear) and not in_bf16:
                fast[layer] = functools.partial(_adapted_forward, torch.float32)
    with bf16_products(model, wanted=in_bf16), _forwards(fast):
        yield


_Forward = Callable[[Any, Any, Tensor], Tensor]
"""Of a layer, its usual forward, and its input."""


@contextmanager
def _forwards(fast: Mapping[nn.Module, _Forward]) -> Iterator[None]:
    for layer, forward in fast.items():
        layer.forward = functools.partial(forward, layer, layer.forward)
    try:
        yield
    finally:
        for layer in fast:
            del layer.forward


def _plain_forward(layer: nn.Linear, _usual: Any, values: Tensor) -> Tensor:
    bias = None if layer.bias is None else layer.bias.bfloat16()
    return F.linear(values.bfloat16(), layer.weight.bfloat16(), bias).float()


def _is_plain(layer: LoraLayer) -> bool:
    """Whether a layer has one LoRA of the usual kind, switched on, over a frozen weight."""
    return not (
        layer.disable_adapters or layer.merged or layer.lora_variant or len(layer.active_adapters) != 1
        or layer.get_base_layer().weight.requires_grad
    )


def _adapted_convolution(layer: LoraConv, usual: Any, values: Tensor) -> Tensor:
    """Return a convolution with its LoRA as one convolution with W + s B A, which is small.

    peft's own takes three convolutions forward and five backward. Where dropout is drawn it goes the usual way.
    """
    names, base = layer.active_adapters, layer.get_base_layer()
    if not _is_plain(layer) or base.groups != 1 or isinstance(layer.lora_dropout[names[0]], nn.Dropout):
        result: Tensor = usual(values)
        return result
    down, up = layer.lora_A[names[0]].weight, layer.lora_B[names[0]].weight
    update = (up.flatten(1) @ down.flatten(1)).view(base.weight.shape)
    weight = torch.add(base.weight, update, alpha=layer.scaling[names[0]])
    result = base._conv_forward(values, weight, base.bias)
    return result


def _adapted_forward(product: torch.dtype, layer: LoraLinear, usual: Any, values: Tensor) -> Tensor:
    """Return the layer with its LoRA (Hu et al. 2021). What we do not train, an adapter of another kind, goes the usual way.
    """
    base, names = layer.base_layer, layer.active_adapters
    if not _is_plain(layer):
        result: Tensor = usual(values)
        return result
    dropout = layer.lora_dropout[names[0]]
    share = dropout.p if isinstance(dropout, nn.Dropout) and dropout.training else 0.0
    down, up = layer.lora_A[names[0]].weight, layer.lora_B[names[0]].weight
    result = _AdaptedLinear.apply(values, base.weight, base.bias, down, up, layer.scaling[names[0]], share, product)
    return result


class _AdaptedLinear(torch.autograd.Function):
    """`x W' + b + s drop(x) A' B'` with W and b frozen, in bf16 with sums in fp32, or all in fp32.

    One function because the pieces alone move more memory than they multiply: peft's own forward draws its dropout in
    fp32 (a fifth of a step), scales the widest tensor and adds it in a pass of its own.
    """

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float, share: float,
        product: torch.dtype,
    ) -> Tensor:
        # A copy where its elements are dropped in place.
        flat = values.reshape(-1, values.shape[-1]).to(product, copy=share > 0)
        weight, down, up = weight.to(product), down.to(product), up.to(product)
        result = F.linear(flat, weight, None if bias is None else bias.to(product))
        kept = None
        if share:
            kept, kept_share = _draw_kept(flat, share)
            # In place: only the adapter's side needs its input again, W is frozen.
            _keep(flat, kept)
            scale = scale / kept_share
        hidden = F.linear(flat, down)
        result.addmm_(hidden, up.T, alpha=scale)
        ctx.save_for_backward(flat, hidden, weight, down, up, *([] if kept is None else [kept]))
        ctx.scale, ctx.shape = scale, values.shape
        return result.float().view(*values.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, None, Tensor, Tensor, None, None, None]:
        flat, hidden, weight, down, up, *kept = ctx.saved_tensors
        gradient = gradient.reshape(-1, gradient.shape[-1]).to(flat.dtype)
        of_up = (gradient.T @ hidden).float() * ctx.scale
        of_hidden = (gradient @ up) * ctx.scale
        of_down = (of_hidden.T @ flat).float()
        of_values = None
        if ctx.needs_input_grad[0]:
            through = of_hidden @ down
            if kept:
                _keep(through, kept[0])
            of_values = through.addmm_(gradient, weight).float().view(ctx.shape)
        return of_values, None, None, of_down, of_up, None, None, None


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
    if values.dtype == torch.bfloat16:
        values.view(torch.int16).mul_(kept)
    else:
        values.view(torch.int32).mul_(kept.int())
