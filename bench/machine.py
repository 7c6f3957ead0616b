"""What a benchmark ran on."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

FLAGS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8")
"""What decides how fast 8-bit products are."""


def machine(threads: int, packages: Sequence[str]) -> dict[str, Any]:
    """The processor, those of `FLAGS` that it has, the load of the last minute, and versions."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    flags = set(facts.get("flags", "").split())
    return {
        "cpu": facts.get("model name", ""), "flags": [flag for flag in FLAGS if flag in flags], "threads": threads,
        "load_1min": round(float(Path("/proc/loadavg").read_text(encoding="ascii").split()[0]), 2),
        "versions": {name: version(name) for name in packages},
    }
