"""How an encoder runs where nothing else is said: device, precision, batch, and on how many cores."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Literal

Provider = Literal["cpu", "cuda", "tensorrt"]
"""Names of devices, as in the settings."""

Variant = Literal["fp32", "fp16", "int8"]
"""Precisions of an exported bundle."""

PROVIDER: Provider = "cpu"
VARIANT: Variant = "fp32"
BATCH = 32
"""Most texts or clips in one run."""


def usable_cores(cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the number of cores that this process may use: its CPU affinity, or the container's CPU limit if that is less.

    Args:
        cgroups: Where the control groups of the system are mounted.
    """
    bound = len(os.sched_getaffinity(0))
    return max(1, min(bound, math.ceil(_container_cores(cgroups) or bound)))


def _container_cores(cgroups: Path) -> float | None:
    """Return the CPU limit of the container in cores, from control groups v1 or v2; None if there is none."""
    try:
        if (cgroups / "cpu.max").is_file():
            quota, period = (cgroups / "cpu.max").read_text().split()
        else:
            quota, period = ((cgroups / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        cores = float(quota) / float(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None
    return cores if cores > 0 else None
