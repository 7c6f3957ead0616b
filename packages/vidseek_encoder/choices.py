"""How an encoder runs where nothing else is said: device, precision, batch."""

from __future__ import annotations

from typing import Literal

Provider = Literal["cpu", "cuda", "tensorrt"]
"""Names of devices, as in the settings."""

Variant = Literal["fp32", "fp16", "int8"]
"""Precisions of an exported bundle."""

PROVIDER: Provider = "cpu"
VARIANT: Variant = "fp32"
BATCH = 32
"""Most texts or clips in one run."""
