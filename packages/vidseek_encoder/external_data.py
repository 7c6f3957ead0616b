"""ONNX models read and written: whole in one file, or with their weights beside it where protobuf could not hold them.

Needs onnx, as all that makes variants does.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from vidseek_encoder.onnx_file import data_file

MOST_INLINE_BYTES = 3 * 2**29
"""Of weights in a model's own file. Protobuf ends at 2 GiB, and what reads the model adds to it."""
_LEAST_OUTSIDE_BYTES = 1024
"""Of a tensor that is written beside: shapes and scalars stay, so that shapes can be inferred."""


def weights_bytes(model: Any) -> int:
    """Of all weights of a `ModelProto`, wherever they lie."""
    from onnx.helper import tensor_dtype_to_np_dtype

    return sum(math.prod(each.dims) * tensor_dtype_to_np_dtype(each.data_type).itemsize for each in model.graph.initializer)


def save_model(model: Any, path: Path) -> None:
    """Write a `ModelProto` to `path`, and its weights to `data_file(path)` where there are more than `MOST_INLINE_BYTES`.

    `model` may be without its weights afterwards.
    """
    import onnx

    data_file(path).unlink(missing_ok=True)  # onnx would write behind what is there
    onnx.save(
        model, path, save_as_external_data=weights_bytes(model) > MOST_INLINE_BYTES, location=data_file(path).name,
        size_threshold=_LEAST_OUTSIDE_BYTES,
    )
