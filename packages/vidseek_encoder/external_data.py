"""Reads and writes ONNX models, with large weights in a file beside the model, since protobuf is limited to 2 GiB.

Needs the package onnx.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from vidseek_encoder.onnx_file import data_file

MOST_INLINE_BYTES = 3 * 2**29
"""Most bytes of weights in the model's own file. Protobuf's limit is 2 GiB, and programs that load the model add to its
size.
"""
_LEAST_OUTSIDE_BYTES = 1024
"""Smallest tensor that is written beside the model. Shapes and scalars stay inside, since shape inference needs them."""


def weights_bytes(model: Any) -> int:
    """Return the size in bytes of all weights of a `ModelProto`, inside and outside of it."""
    from onnx.helper import tensor_dtype_to_np_dtype

    return sum(math.prod(each.dims) * tensor_dtype_to_np_dtype(each.data_type).itemsize for each in model.graph.initializer)


def save_model(model: Any, path: Path) -> None:
    """Write a model to `path`, and its weights to `data_file(path)` if they are larger than `MOST_INLINE_BYTES`.

    Args:
        model: A `ModelProto`. It may be without its weights afterwards.
        path: The .onnx file to write.
    """
    import onnx

    data_file(path).unlink(missing_ok=True)  # onnx would write behind what is there
    onnx.save(
        model, path, save_as_external_data=weights_bytes(model) > MOST_INLINE_BYTES, location=data_file(path).name,
        size_threshold=_LEAST_OUTSIDE_BYTES,
    )
