"""What this machine offers: cores, memory, vector instructions, GPU, free disk."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from vidseek_encoder.choices import usable_cores

FLAGS = ("avx2", "avx512f", "avx512_vnni", "amx_int8")
"""Vector instructions on which the speed of the encoder hangs, the slowest first."""


@dataclass(frozen=True)
class Machine:
    """The machine that an archive is made on."""

    cores: int
    memory_gb: float
    flags: tuple[str, ...]
    """Of `FLAGS`, those that the processor has."""
    has_gpu: bool
    """Whether an NVIDIA GPU is there, by its device file."""


def this_machine() -> Machine:
    """Look at this machine."""
    return Machine(usable_cores(), _memory_gb(), cpu_flags(), Path("/dev/nvidia0").exists())


def cpu_flags() -> tuple[str, ...]:
    """Return those of `FLAGS` that the processor has; empty where the machine does not tell."""
    words = cpu_fact("flags").split()
    return tuple(flag for flag in FLAGS if flag in words)


def cpu_fact(name: str) -> str:
    """Return what /proc/cpuinfo says of the first processor under a name; empty where it says nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def free_bytes(folder: Path) -> int:
    """Return the free bytes of the disk that a folder is on, or will be on.

    Args:
        folder: It may be missing.
    """
    there = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    return shutil.disk_usage(there).free


def _memory_gb() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
