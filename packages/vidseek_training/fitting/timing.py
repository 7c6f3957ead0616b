"""Measures the duration of training steps, and the share spent waiting for data."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class StepTimer:
    """How long steps take, validations left out, and how much of it is waiting for data."""

    def __init__(self, before: float) -> None:
        """`before`: seconds that the steps of the same run took until it was stopped."""
        self._before, self._began = before, time.monotonic()
        self._paused = self._waited = 0.0
        self._clips, self._since = 0, self._began

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count this block as waiting for data."""
        began = time.monotonic()
        yield
        self._waited += time.monotonic() - began

    @contextmanager
    def pausing(self) -> Iterator[None]:
        """Exclude this block from the training time."""
        began = time.monotonic()
        yield
        self._paused += time.monotonic() - began
        self._since, self._clips, self._waited = time.monotonic(), 0, 0.0

    def count(self, clips: int) -> None:
        """Add a number of processed clips."""
        self._clips += clips

    def figures(self) -> dict[str, float]:
        """Return the figures of the steps since the last pause."""
        passed = max(1e-9, time.monotonic() - self._since)
        return {"clips_per_second": round(self._clips / passed, 2), "data_share": round(self._waited / passed, 4)}

    def seconds(self) -> float:
        """Return the seconds of all steps."""
        return self._before + time.monotonic() - self._began - self._paused
