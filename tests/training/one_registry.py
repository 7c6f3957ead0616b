"""torch.onnx builds its table of operators anew for each tower that it exports: a fifth of the time of a tiny one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import pytest


@contextmanager
def sharing_registry() -> Iterator[None]:
    """Within the block exports share a table; nothing is added to it by us."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(cache(ONNXRegistry.from_torchlib)))
        yield
