"""How far from the CPU in fp32 a GPU may be in `bench.gpu.check`. Wide: a fault is orders of magnitude beyond them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

GRADIENTS: Mapping[str, float] = {"fp32": 1e-3, "fp32_as_torch_comes": 1e-2, "tf32": 3e-2, "bf16_autocast": 0.15}
"""Norm of the differences, as a share of the norm."""
CHUNKS: Mapping[str, float] = {"fp32": 1e-3, "bf16": 0.1}
CURVES: Mapping[str, float] = {"fp32": 0.05, "bf16": 0.5}
"""Of a loss in nats. AdamW turns a gradient that is nearly nothing into a whole step, whatever its sign."""
PATH, RESUME, ADAPTER = 0.1, 1e-2, 0.9999
COSINES: Mapping[str, float] = {"fp32": 0.99999, "tf32": 0.999, "bf16": 0.98, "fp16": 0.999}
"""Least cosine of clips' vectors."""


def beyond(parts: Mapping[str, Any]) -> Iterator[str]:
    """What is further away than it may be, a sentence each."""
    training = parts.get("training", {})
    for name, limit in GRADIENTS.items():
        yield from _over(f"gradients, {name}", training.get("gradients", {}).get(name, {}).get("relative_difference"), limit)
    for name, limit in CHUNKS.items():
        yield from _over(f"in chunks, {name}", training.get("chunks", {}).get(name, {}).get("relative_difference"), limit)
    for name, limit in CURVES.items():
        yield from _over(f"curve, {name}", training.get("loss_curves", {}).get("largest_difference", {}).get(name), limit)
    for name, each in parts.get("paths", {}).items():
        yield from _over(f"curve, {name}", each.get("largest_difference"), PATH)
    yield from _over("curve, gone on", parts.get("resume", {}).get("largest_difference"), RESUME)
    yield from _under("merged on the CPU", training.get("adapter", {}).get("least_cosine"), ADAPTER)
    for key, cosine in {(r["shape"], r["precision"]): r.get("least_cosine") for r in parts.get("towers", [])}.items():
        yield from _under(f"towers, {' '.join(key)}", cosine, COSINES.get(key[1], 0.0))
    for name, each in parts.get("exported", {}).items():
        if name.endswith("fp32") and each.get("admitted") is False:
            yield f"exported, {name}: its vectors are not torch's"


def _over(what: str, value: float | None, limit: float) -> Iterator[str]:
    if value is not None and not value <= limit:
        yield f"{what}: {value:.2g}, wanted at most {limit}"


def _under(what: str, value: float | None, limit: float) -> Iterator[str]:
    if value is not None and not value >= limit:
        yield f"{what}: {value:.7f}, wanted at least {limit}"
