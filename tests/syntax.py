"""Syntax trees of source text, each parsed once for the tests of a module (fixture `syntax_trees`)."""

from __future__ import annotations

import ast
import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache


@cache
def nodes_of(source: str) -> Sequence[ast.AST]:
    """Return all nodes of a module, the module first.

    Args:
        source: The text of the module.
    """
    return list(ast.walk(ast.parse(source)))


@contextmanager
def keeping_trees() -> Iterator[None]:
    """Keep trees until the end of the block, and collect no garbage meanwhile: to look for it among the millions of objects
    of large trees takes several times as long as to parse them."""
    gc.disable()
    try:
        yield
    finally:
        nodes_of.cache_clear()
        gc.enable()
