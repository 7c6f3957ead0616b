"""Fold low-rank updates of another project into a backbone's weights: `W + s A B`, whatever its modules are called."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from vidseek_media.errors import ArtifactError, ConfigError
from vidseek_media.names import shown
from vidseek_training.importing.pickled import FlatModule

ORDERS = ("A B", "B A", "(A B)^T", "(B A)^T")
"""How two matrices make an update of W, best first where the shapes allow several."""

_FIRST = frozenset({"a", "lora_a", "loraa", "lora_embedding_a", "lora_down", "w_a", "wa", "lora_a_weight"})
_SECOND = frozenset({"b", "lora_b", "lorab", "lora_embedding_b", "lora_up", "w_b", "wb", "lora_b_weight"})
_SCALES = ("s", "scale", "scaling", "lora_scale", "lora_scaling", "multiplier")
_ALPHAS = ("alpha", "lora_alpha")
_RANKS = ("r", "rank", "lora_r", "lora_rank", "lora_dim")
_FOR_ALL = frozenset({
    "", "config", "lora", "lora_config", "peft_config", "args", "hparams", "hyper_parameters", "params", "meta",
})
"""Where a file says what holds for all its modules."""
_WRAPPERS = frozenset({
    "linear", "base", "base_layer", "base_linear", "orig", "original", "original_layer", "orig_layer", "layer", "module",
    "wrapped", "inner", "fc", "lin", "frozen", "pretrained", "org_module",
})
"""What the layer inside a low-rank module is called."""
_WEIGHTS = frozenset({"weight", "w", "w0", "base_weight", "original", "weight_orig"})
_BIASES = frozenset({"bias", "base_bias"})
_JUNK = frozenset({"lora", "adapter", "adapters", "parametrizations", "weight", "default", "lora_layer"})
"""Parts of a module's name that the layer itself has not."""
_NO_WEIGHTS = re.compile(r"(?:^|\.)(?:position_ids|num_batches_tracked|lora_dropout.*)$")
_MAGNITUDE = re.compile(r"magnitude|lora_m$|dora", re.IGNORECASE)
_MOST_NAMED = 5
_MOST_DROPPED = 4
"""Parts before a name that the base does not have: `base_model.model.`, `module.`"""


@dataclass(frozen=True)
class Folded:
    """Weights with the updates in them."""

    tensors: dict[str, Tensor]
    """All of the backbone's, by its own names."""
    num_folded: int
    """Weights that got an update."""
    num_taken: int
    """Others that the file had."""
    orders: tuple[str, ...]
    """How A and B were multiplied; where shapes left a choice, it says so."""


@dataclass(frozen=True)
class _Update:
    module: str
    a: Tensor
    b: Tensor


def fold(
    module: FlatModule, base: Mapping[str, Tensor], *, scale: float | None = None, product: str | None = None
) -> Folded:
    """Return the weights of `base` with those of `module`, and `s A B` added where it has a low-rank update.

    W is the file's own where it has one, else the base's. The scale is the module's `s`, `scale` or `scaling`, or else its
    alpha over its rank, or else those that the file has for all.

    Args:
        module: What was read; a state dict or a whole module.
        base: The backbone's weights by its own names, fp32.
        scale: In the place of what the file says.
        product: One of `ORDERS`, in the place of the first that fits the shapes.

    Raises:
        ConfigError: `product` is none of them.
        ArtifactError: there is no update in it, one has no place in the base, a scale is missing, or a sum is not finite.
    """
    if product is not None and product not in ORDERS:
        raise ConfigError(f"the product is {shown(product)}, wanted one of {', '.join(ORDERS)}", code="unknown-choice")
    tensors = {name: tensor for name, tensor in module.tensors.items() if not _NO_WEIGHTS.search(name)}
    if odd := [name for name in tensors if _MAGNITUDE.search(name)]:
        raise ArtifactError(f"{shown(odd[0])} belongs to DoRA, wanted plain W + s A B", code="lora-other-kind",
                            remedy="Merge it where it was made")
    updates, rest = _updates_of(tensors)
    if not updates:
        raise ArtifactError(
            f"it has no low-rank update (A and B, lora_A and lora_B): its names are {_some(sorted(tensors))}",
            code="lora-missing", remedy="Where it is a whole model without one, name its folder in backbone.name",
        )
    places = {update.module: _place_of(update.module, base) for update in updates}
    taken = _taken_of(rest, updates, base)
    result = {**base, **taken}
    orders = _orders_of(updates, places, result, ORDERS if product is None else (product,))
    for update in updates:
        target = places[update.module]
        factor = scale if scale is not None else _scale_of(update, module)
        result[target] = result[target].float() + factor * _product(update, orders[update.module][0]).float()
        if not torch.isfinite(result[target]).all():
            raise ArtifactError(f"{update.module}: W + s A B is not finite (s is {factor})", code="lora-not-finite")
    told = sorted({_told(allowed) for allowed in orders.values()})
    return Folded(result, len(updates), len(taken.keys() - set(places.values())), tuple(told))


def _taken_of(rest: Mapping[str, Tensor], updates: Sequence[_Update], base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the file's other weights by the base's names."""
    modules = {name for update in updates for name in (update.module, _layer_of(update.module))}
    layers = sorted(modules, key=len, reverse=True)
    taken: dict[str, Tensor] = {}
    for name, tensor in rest.items():
        if name.rpartition(".")[2].lower() in (*_SCALES, *_ALPHAS, *_RANKS):
            if tensor.numel() != 1:
                raise ArtifactError(f"{shown(name)} has {tensor.numel()} numbers; wanted one scale for a module",
                                    code="lora-other-kind", remedy="Merge it where it was made")
            continue
        target = _target_of(_outside(name, layers), base)
        if target is None or base[target].shape != tensor.shape or target in taken:
            raise _no_place(name, tensor, base, target)
        taken[target] = tensor.float()
    return taken


def _told(allowed: Sequence[str]) -> str:
    others = " and ".join(allowed[1:])
    return f"{allowed[0]} (the shapes allow {others} too)" if others else allowed[0]


def _updates_of(tensors: Mapping[str, Tensor]) -> tuple[list[_Update], dict[str, Tensor]]:
    """Return pairs of A and B, and everything else."""
    halves: dict[str, dict[str, Tensor]] = {}
    rest: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        found = _half_of(name)
        if found is None or tensor.ndim != 2:
            rest[name] = tensor
        else:
            halves.setdefault(found[0], {})[found[1]] = tensor
    if alone := sorted(module for module, half in halves.items() if len(half) != 2):
        raise ArtifactError(f"{shown(alone[0])} has only one of A and B", code="lora-missing",
                            remedy="Save all of the module")
    return [_Update(module, half["a"], half["b"]) for module, half in sorted(halves.items())], rest


def _half_of(name: str) -> tuple[str, Literal["a", "b"]] | None:
    """Return the module and the half that a tensor is; None where it is none."""
    parts = name.split(".")
    while len(parts) > 1 and parts[-1] in ("weight", "default", "0"):
        parts = parts[:-1]
    last = parts[-1].lower()
    half: Literal["a", "b"] | None = "a" if last in _FIRST else "b" if last in _SECOND else None
    return (".".join(parts[:-1]), half) if half is not None else None


def _place_of(module: str, base: Mapping[str, Tensor]) -> str:
    """Return the weight of the base that a module's update belongs to."""
    parts = module.split(".")
    while parts:
        target = _target_of(f"{'.'.join(parts)}.weight", base)
        if target is not None:
            return target
        if parts[-1].lower() not in _JUNK | _WRAPPERS and not parts[-1].isdigit():
            break
        parts = parts[:-1]
    raise ArtifactError(
        f"the update of {shown(module)} has no place in the base: its weights are {_some(sorted(base))}",
        code="lora-does-not-fit", remedy="Name the backbone that it was trained on in --base",
    )


def _outside(name: str, modules: Sequence[str]) -> str:
    """Return the name of a tensor as it is without the low-rank module around it: `q.linear.weight` to `q.weight`."""
    for module in modules:
        if name.startswith(f"{module}.") or module == "":
            inside = name.removeprefix(f"{module}.").split(".")
            last = inside[-1].lower()
            kind = "weight" if last in _WEIGHTS else "bias" if last in _BIASES else None
            if kind is not None and all(part.lower() in _WRAPPERS for part in inside[:-1]):
                return f"{_layer_of(module)}.{kind}"
    parts = name.split(".")
    if "parametrizations" in parts and parts[-1] == "original":
        return ".".join(part for part in parts[:-1] if part != "parametrizations")
    return name


def _layer_of(module: str) -> str:
    parts = module.split(".")
    while len(parts) > 1 and parts[-1].lower() in _JUNK:
        parts = parts[:-1]
    return ".".join(parts)


def _target_of(name: str, base: Mapping[str, Tensor]) -> str | None:
    """Return the name in the base: the file's may have more or fewer parts before it."""
    parts = name.split(".")
    for start in range(min(len(parts), _MOST_DROPPED + 1)):
        tail = ".".join(parts[start:]).replace("in_proj_weight", "in_proj.weight").replace("in_proj_bias", "in_proj.bias")
        is_short = len(parts) - start == 1
        if parts[start].isdigit() or (is_short and tail in ("weight", "bias")):
            continue
        if tail in base:
            return tail
        # A name of one part, such as logit_scale, belongs to the whole model.
        longer = [each for each in base if each.endswith(f".{tail}") and (each.count(".") == 1 or not is_short)]
        if len(longer) == 1:
            return longer[0]
    return None


def _scale_of(update: _Update, module: FlatModule) -> float:
    """s of one update. Its rank is that of its matrices."""
    rank = min(*update.a.shape, *update.b.shape)
    said = _numbers(module)
    for prefix in (f"{update.module}.", *_outer(update.module), None):
        for names, divide in ((_SCALES, 1), (_ALPHAS, rank)):
            found = _said(said, prefix, names)
            if found is not None:
                return found / divide
    raise ArtifactError(
        f"{shown(update.module)}: the file does not say its scale s, nor alpha",
        code="lora-scale-missing", remedy="Say it: --scale S, with the s of W + s A B (alpha over rank)",
    )


def _outer(module: str) -> list[str]:
    """Return the module without the parts that the layer has not, as a beginning of names."""
    layer = _layer_of(module)
    return [f"{layer}."] if layer != module else []


def _numbers(module: FlatModule) -> dict[str, float]:
    """Return numbers, and tensors of one number: a scale may be a buffer."""
    single = {name: float(tensor) for name, tensor in module.tensors.items() if tensor.numel() == 1}
    return {**single, **module.numbers}


def _said(numbers: Mapping[str, float], prefix: str | None, names: Sequence[str]) -> float | None:
    """Return the numbers that the file states under `prefix`; with None, those that it states once for all."""
    for name in names:
        for ending in (name, f"{name}.default", f"{name}.weight"):
            if prefix is not None and f"{prefix}{ending}" in numbers:
                return numbers[f"{prefix}{ending}"]
        if prefix is None:
            found = {value for key, value in numbers.items()
                     if key.rpartition(".")[2].lower() == name and key.rpartition(".")[0].lower() in _FOR_ALL}
            if len(found) == 1:
                return found.pop()
    return None


def _orders_of(
    updates: Sequence[_Update], places: Mapping[str, str], weights: Mapping[str, Tensor], orders: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """Return the orders that the shapes allow each update, best first: those that fit all linear layers, where there are
    such.
    """
    allowed = {update.module: _allowed(update, weights[places[update.module]], orders) for update in updates}
    for update in updates:
        if not allowed[update.module]:
            weight = weights[places[update.module]]
            raise ArtifactError(
                f"{shown(update.module)}: A {tuple(update.a.shape)} and B {tuple(update.b.shape)} make no update of a "
                f"weight {tuple(weight.shape)}",
                code="lora-does-not-fit", remedy="Name the backbone that it was trained on in --base",
            )
    for is_table in (True, False):
        group = [each.module for each in updates if ("embed" in each.module) == is_table]
        common = [order for order in orders if all(order in allowed[module] for module in group)]
        if common:
            allowed |= dict.fromkeys(group, tuple(common))
    return allowed


def _allowed(update: _Update, weight: Tensor, orders: Sequence[str]) -> tuple[str, ...]:
    if weight.ndim != 2:
        return ()
    found = []
    for order in orders:
        first, second = (update.a, update.b) if order in ("A B", "(A B)^T") else (update.b, update.a)
        shape = (first.shape[0], second.shape[1])
        is_low_rank = first.shape[1] == second.shape[0] and first.shape[1] <= min(weight.shape)
        if is_low_rank and (shape[::-1] if "^T" in order else shape) == tuple(weight.shape):
            found.append(order)
    return tuple(found)


def _product(update: _Update, order: str) -> Tensor:
    a, b = update.a.double(), update.b.double()
    product = a @ b if order in ("A B", "(A B)^T") else b @ a
    return product.T if "^T" in order else product


def _no_place(name: str, tensor: Tensor, base: Mapping[str, Tensor], target: str | None) -> ArtifactError:
    wanted = f"{target} is {tuple(base[target].shape)}" if target is not None else f"its weights are {_some(sorted(base))}"
    return ArtifactError(
        f"{shown(name)} {tuple(tensor.shape)} has no place in the base: {wanted}",
        code="lora-does-not-fit", remedy="Name the backbone that it was trained on in --base",
    )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f"{', '.join(shown(name).strip(chr(39)) for name in names[:_MOST_NAMED])}{more}"
