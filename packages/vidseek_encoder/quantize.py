"""Quantises the matrix products of a tower to 8 bits, and chooses products that stay in fp32. Needs onnx.

Products of pooled vectors (the exporter writes them as Gemm) always stay in fp32. They have one row for each text or clip,
so 8 bits would save nothing, and their error would go directly into the vector.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from vidseek_encoder.external_data import save_model
from vidseek_encoder.onnx_file import data_file

MOST_LEFT = 1 / 3
"""Largest share of a tower's weights that may stay in fp32."""
_CALIBRATION_BATCH = 8
_TYPES = {"DefaultTensorType": 1}
"""Type of unknown tensors (`onnx.TensorProto.FLOAT`): the quantizers cannot infer the type of the fused attention's
output.
"""


def to_int8(source: Path, *, leave: Collection[str] = ()) -> Any:
    """Quantise the products of a model dynamically: weights by channel, inputs by their range in each run.

    Weights use 7 of 8 bits. Two full products overflow the 16 bits in which a CPU without VNNI adds them, and vectors there
    would differ from those that were checked.

    Args:
        source: The ONNX model, fp32.
        leave: Names of nodes that stay in fp32.

    Returns:
        The quantised `ModelProto`.
    """
    import onnx

    with _beside(source) as out:
        _quantize(source, [name for name in products_of(source) if name not in leave], out)
        return onnx.load(out)


def to_static_int8(source: Path, inputs: NDArray[Any]) -> Any:
    """Quantise the products of a model with fixed input ranges, so that a vector does not depend on the rest of its batch.

    Args:
        source: The ONNX model, fp32.
        inputs: Rows of the model's input; the ranges of the products are measured on them.

    Returns:
        The quantised `ModelProto`.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    name = onnx.load(source, load_external_data=False).graph.input[0].name
    with _beside(source) as out:
        quantize_static(
            source, out, _Batches(name, inputs), quant_format=QuantFormat.QDQ, op_types_to_quantize=["MatMul"],
            nodes_to_quantize=list(products_of(source)), per_channel=True, reduce_range=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            use_external_data_format=data_file(source).is_file(), extra_options=dict(_TYPES),
        )
        return onnx.load(out)


def products_of(source: Path) -> dict[str, int]:
    """Return the products with constant weights that can be quantised: the number of weights by the name of the node."""
    import onnx

    graph = onnx.load(source, load_external_data=False).graph
    sizes = {each.name: int(np.prod(each.dims)) for each in graph.initializer}
    return {
        node.name: sizes[node.input[1]] for node in graph.node if node.op_type == "MatMul" and node.input[1] in sizes
    }


def most_harmful(source: Path, inputs: NDArray[Any]) -> list[str]:
    """Return the products that should stay in fp32.

    Each product is quantised alone, and the change of the vectors is measured. Products with the largest change for their
    size
    are chosen first, until the others together cause a quarter of the change, or `MOST_LEFT` of the weights is reached.

    Args:
        source: The ONNX model, fp32.
        inputs: Rows of the model's input.

    Returns:
        Names of nodes.
    """
    products = products_of(source)
    exact = _vectors(source, inputs)
    harms = {}
    for name in products:
        with _beside(source) as out:
            _quantize(source, [name], out)
            harms[name] = float(np.square(_vectors(out, inputs) - exact).sum(1).mean())
    return choose(harms, products)


def choose(harms: Mapping[str, float], sizes: Mapping[str, int]) -> list[str]:
    """Choose the products that stay in fp32, by the rule of `most_harmful`.

    Args:
        harms: Change of the vectors when a product is quantised, by name of the node.
        sizes: Number of weights of a product, by name of the node.
    """
    still, left, num_left = sum(harms.values()), [], 0
    enough, most = still / 4, MOST_LEFT * sum(sizes.values())
    for name in sorted(harms, key=lambda each: -harms[each] / sizes[each]):
        if still <= enough:
            break
        if num_left + sizes[name] <= most:
            left.append(name)
            num_left += sizes[name]
            still -= harms[name]
    return left


def _quantize(source: Path, names: Collection[str], out: Path) -> None:
    """Write the model with the products `names` in 8 bits to `out`, with its weights beside it if `source` has them
    there.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    if not names:  # the quantizer takes no names for all names
        save_model(onnx.load(source), out)
        return
    quantize_dynamic(
        source, out, op_types_to_quantize=["MatMul"], nodes_to_quantize=list(names), per_channel=True, reduce_range=True,
        weight_type=QuantType.QInt8, use_external_data_format=data_file(source).is_file(), extra_options=dict(_TYPES),
    )


@contextmanager
def _beside(source: Path) -> Iterator[Path]:
    """Yield a temporary file in a folder beside `source`, since a large model may not fit into /tmp."""
    with tempfile.TemporaryDirectory(prefix="vidseek-", dir=source.parent) as folder:
        yield Path(folder) / "model.onnx"


def _vectors(source: Path, inputs: NDArray[Any]) -> NDArray[np.float64]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    parts = [session.run(None, {name: part})[0] for part in _parts(inputs)]
    return np.concatenate(parts).astype(np.float64)


def _parts(inputs: NDArray[Any]) -> Iterator[NDArray[Any]]:
    for start in range(0, len(inputs), _CALIBRATION_BATCH):
        yield inputs[start : start + _CALIBRATION_BATCH]


class _Batches:
    """A calibration data reader, in onnxruntime's terms."""

    def __init__(self, name: str, inputs: NDArray[Any]) -> None:
        self._batches = ({name: part} for part in _parts(inputs))

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        return next(self._batches, None)
