"""How one contestant's turn is timed."""

from __future__ import annotations

import time
from collections.abc import Callable

LEAST_SECONDS = 0.4


def turn(run: Callable[[], object]) -> float:
    """The seconds of `run`, the fastest of a turn of at least `LEAST_SECONDS`: what else happens only adds to them.

    One call alone finds another's weights in the caches, and another's threads that still spin on the cores.
    """
    end = time.perf_counter() + LEAST_SECONDS
    fastest = float("inf")
    while fastest == float("inf") or time.perf_counter() < end:
        begin = time.perf_counter()
        run()
        fastest = min(fastest, time.perf_counter() - begin)
    return fastest
