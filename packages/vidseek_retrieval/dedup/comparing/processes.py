"""Runs a function over many inputs, in one process for each core."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

from vidseek_encoder.choices import usable_cores

Given = TypeVar("Given")
Found = TypeVar("Found")


def map_in_processes(
    function: Callable[[Given], Found], given: Iterable[Given], *, chunksize: int = 1
) -> Iterator[Found]:
    """Yield what a function makes of each input, in order; in this process where there is one core.

    Args:
        function: A function of a module.
        given: Its inputs.
        chunksize: How many of them a process gets at once.
    """
    num_cores = usable_cores()
    if num_cores == 1:
        yield from map(function, given)
        return
    with ProcessPoolExecutor(num_cores, mp_context=get_context("spawn")) as pool:
        yield from pool.map(function, given, chunksize=chunksize)
