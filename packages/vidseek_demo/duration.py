"""Says how long the demo will take here, from a second of measurement."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

SIDE, TIMES = 64, 2000
"""Of the matrices that are multiplied for a measurement, and how often. The library multiplies ones so small on one core."""
REFERENCE_SECONDS = 0.0125
"""Of a core, for that many products on the machine below."""
STAGES_MINUTES, TRAINING_MINUTES = 3.8, 2.4
"""Of the demo on two cores of an AMD EPYC (Zen 5) that multiply in bf16 (docs/training.md)."""
WITHOUT_BF16 = 1.3
"""How much longer a step of the training takes in fp32 (docs/decisions/2026-11-28-adapted-layers.md)."""
USED_CORES = 2


def expected_minutes() -> float:
    """Return about how many minutes `make demo` takes on this machine; measures for under a second."""
    return minutes_of(products_seconds(), cores=len(os.sched_getaffinity(0)), has_bf16=_has_bf16())


def minutes_of(seconds: float, *, cores: int, has_bf16: bool) -> float:
    """Return the minutes of the demo on a machine.

    Args:
        seconds: What `products_seconds` measures there.
        cores: Of it, at least 1.
        has_bf16: Whether its processor multiplies in bf16.
    """
    slower = seconds / REFERENCE_SECONDS * USED_CORES / min(cores, USED_CORES)
    return slower * (STAGES_MINUTES + TRAINING_MINUTES * (1 if has_bf16 else WITHOUT_BF16))


def products_seconds() -> float:
    """Return the seconds of a core that some products of matrices take, whatever else runs on the machine."""
    matrices = np.random.default_rng(0).normal(size=(TIMES, SIDE, SIDE)).astype(np.float32)
    best = float("inf")
    for _ in range(3):
        began = time.process_time()
        matrices @ matrices[0]
        best = min(best, time.process_time() - began)
    return best


def _has_bf16() -> bool:
    try:
        return "avx512_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
