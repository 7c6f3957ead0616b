"""Keeps freed memory in the process, so that the next tensor of its size needs no new pages."""

from __future__ import annotations

import ctypes
from functools import lru_cache

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h."""
_LARGEST_KEPT_BYTES = 256 << 20
_MOST_KEPT_BYTES = 1 << 30


@lru_cache(1)
def keep_freed_memory() -> bool:
    """Let malloc keep up to 1 GiB that was freed, in blocks of up to 256 MiB, for as long as the process lives.

    A step allocates and frees the same large tensors each time. By itself glibc gives memory of tensors over 32 MiB, and
    what is free at the end of its heap, back to the system at once, and the system clears every page anew: a sixth to a
    quarter of the processor time of a step (docs/decisions/2026-11-28-freed-memory.md). No result changes.

    Returns:
        Whether the C library took both; one that is not glibc goes on as before.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES)) and bool(mallopt(_M_TRIM_THRESHOLD, _MOST_KEPT_BYTES))
