"""How one contestant's turn is timed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

LEAST_SECONDS = 0.4


def turn(run: Callable[[], object]) -> float:
    """The seconds of `run`, the median of a turn of at least `LEAST_SECONDS`.

    The first call is left out where there are others: it finds another's weights in the caches, and another's threads
    that still spin on the cores.
    """
    end = time.perf_counter() + LEAST_SECONDS
    seconds = []
    while not seconds or time.perf_counter() < end:
        begin = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds[1:] or seconds)
