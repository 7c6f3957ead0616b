"""Processes that do the same at once."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable
from typing import Any


def run_at_once(function: Callable[..., None], calls: Iterable[tuple[Any, ...]]) -> None:
    """Call a function in a fork of its own for each of several sets of arguments, and wait for all.

    Args:
        function: What each does.
        calls: The arguments of each.
    """
    forks = multiprocessing.get_context("fork")  # takes no second to start
    processes = [forks.Process(target=function, args=arguments) for arguments in calls]
    for each in processes:
        each.start()
    for each in processes:
        each.join()
    assert [each.exitcode for each in processes] == [0] * len(processes)
