"""Waiting for what comes to pass, however long other work on the machine delays it: only what never comes fails a test."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

PATIENCE_SECONDS = 120.0


def wait_until(holds: Callable[[], object], what: str = "it did not come to pass") -> None:
    """Wait until `holds()` is true.

    Args:
        holds: Asked again and again.
        what: The failure if it never is.
    """
    end = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.01)


async def until(holds: Callable[[], object], what: str = "it did not come to pass") -> None:
    """Do as `wait_until`, and let other tasks of the loop go on."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < end, what
        await asyncio.sleep(0.002)


def is_gone(pid: int) -> bool:
    """Whether a process has ended and was waited for."""
    return not Path(f"/proc/{pid}").exists()
