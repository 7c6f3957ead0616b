"""Freed memory is used again, and not cleared page by page by the system each time."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys

import pytest

NUMBERS = (3_000_000, 12_000_000, 1_000_000)
PAGES_OF = f"""
import resource, torch
from vidseek_training.freed_memory import keep_freed_memory
def pages():
    for _ in range(4):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        tensors = [torch.ones(numbers) for numbers in {NUMBERS}]
        del tensors
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(pages(), keep_freed_memory(), pages())
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc is told")
def test_keep_freed_memory__later_steps_of_the_same_sizes_take_hardly_a_new_page() -> None:
    pages = 4 * sum(NUMBERS) // resource.getpagesize()
    usual, taken, kept = subprocess.run(
        [sys.executable, "-c", PAGES_OF], check=True, capture_output=True, text=True
    ).stdout.split()
    assert taken == "True"
    assert int(usual) > pages / 2, "the system takes them back by itself no more: the module can go"
    assert int(kept) < pages / 100
