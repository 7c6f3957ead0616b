"""Says how long the demo will take here, from a second of measurement."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from vidseek_encoder.choices import usable_cores

SIDE, TIMES = 64, 2000
"""Of the matrices that are multiplied for a measurement, and how often. The library multiplies ones so small on one core."""
REFERENCE_SECONDS = 0.0125
"""Of a core, for that many products on the machine below. With AVX2 alone it takes as long there, and so do the stages."""
STAGES_SECONDS, TRAINING_SECONDS = 198.0, 185.0
"""Of a core of an AMD EPYC (Zen 5) that multiplies in bf16, for the demo (docs/training.md)."""
WITHOUT_BF16 = 1.35
"""How much longer the training takes in fp32, with AVX-512 or with AVX2 (docs/decisions/2026-11-28-ten-minutes.md)."""
CORES_IN_USE = 1.5
"""On average, of two or more: a third of the work waits for something else."""
_TOPOLOGY = Path("/sys/devices/system/cpu")


def expected_minutes() -> float:
    """Return about how many minutes `make demo` takes on this machine; measures for under a second."""
    cores = min(count_cores(os.sched_getaffinity(0)), usable_cores())
    return minutes_of(products_seconds(), cores=cores, has_bf16=_has_bf16())


def minutes_of(seconds: float, *, cores: int, has_bf16: bool) -> float:
    """Return the minutes of the demo on a machine.

    Args:
        seconds: What `products_seconds` measures there.
        cores: Of it, at least 1.
        has_bf16: Whether its processor multiplies in bf16.
    """
    work = STAGES_SECONDS + TRAINING_SECONDS * (1 if has_bf16 else WITHOUT_BF16)
    return seconds / REFERENCE_SECONDS * work / min(cores, CORES_IN_USE) / 60


def products_seconds() -> float:
    """Return the seconds of a core that some products of matrices take, whatever else runs on the machine."""
    matrices = np.random.default_rng(0).normal(size=(TIMES, SIDE, SIDE)).astype(np.float32)
    best = float("inf")
    for _ in range(3):
        began = time.process_time()
        matrices @ matrices[0]
        best = min(best, time.process_time() - began)
    return best


def count_cores(processors: Iterable[int], topology: Path = _TOPOLOGY) -> int:
    """Return how many cores some logical processors are: two threads of one core do little more than one.

    Args:
        processors: Their numbers.
        topology: Linux's folder about them; a processor that it does not name is a core.
    """
    siblings = set()
    for number in processors:
        try:
            siblings.add((topology / f"cpu{number}/topology/thread_siblings_list").read_text(encoding="utf-8").strip())
        except OSError:
            siblings.add(str(number))
    return len(siblings)


def _has_bf16() -> bool:
    try:
        return "avx512_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
