"""A tower's matrix products in 8 bits, and which of them had better stay as they are. Needs onnx, as `variants` does.

Products of pooled vectors (the exporter writes them as Gemm) stay in fp32 always: they are one row of each text or clip,
so that 8 bits would save nothing, and their error goes straight into the vector.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

MOST_LEFT = 1 / 3
"""Of the weights of a tower's products: more in fp32, and it is hardly an int8 variant."""
_CALIBRATION_BATCH = 8
_TYPES = {"DefaultTensorType": 1}
"""Float (`onnx.TensorProto.FLOAT`): the quantizers cannot tell what attention as one operator gives."""


def to_int8(model: Any, *, leave: Collection[str] = ()) -> Any:
    """The model with its products in 8 bits, weights by channel, inputs measured at each run; but for those in `leave`.

    Weights get 7 of the 8 bits: two full products overflow the 16 bits in which a CPU without VNNI adds them up, and
    the bundle would then give other vectors there than where it was proven.
    """
    return _quantized(model, [name for name in products_of(model) if name not in leave])


def to_static_int8(model: Any, inputs: NDArray[Any]) -> Any:
    """The same with inputs of each product on a scale that is fixed: the range that it has over `inputs` of the model.

    A vector then does not depend on what goes through in the same batch.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    name = model.graph.input[0].name
    with tempfile.TemporaryDirectory(prefix="vidseek-") as folder:
        out = Path(folder) / "model.onnx"
        quantize_static(
            _copy(model), str(out), _Batches(name, inputs), quant_format=QuantFormat.QDQ, op_types_to_quantize=["MatMul"],
            nodes_to_quantize=list(products_of(model)), per_channel=True, reduce_range=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, extra_options=_TYPES,
        )
        return onnx.load(out)


def products_of(model: Any) -> dict[str, int]:
    """The products with weights that could be in 8 bits: how many numbers each has, by the name of its node."""
    sizes = {each.name: int(np.prod(each.dims)) for each in model.graph.initializer}
    return {
        node.name: sizes[node.input[1]]
        for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in sizes
    }


def most_harmful(model: Any, inputs: NDArray[Any]) -> list[str]:
    """The products that had better stay in fp32: those that move the vectors of `inputs` most for their size when they
    alone are in 8 bits, until the others together do a quarter of the harm, or `MOST_LEFT` of the weights are reached."""
    products = products_of(model)
    exact = _vectors(model, inputs)
    harms = {
        name: float(np.square(_vectors(_quantized(model, [name]), inputs) - exact).sum(1).mean()) for name in products
    }
    return choose(harms, products)


def choose(harms: Mapping[str, float], sizes: Mapping[str, int]) -> list[str]:
    """Of products with these harms and sizes, the ones to leave: see `most_harmful`."""
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


def _quantized(model: Any, names: Collection[str]) -> Any:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    if not names:
        return _copy(model)
    with tempfile.TemporaryDirectory(prefix="vidseek-") as folder:
        out = Path(folder) / "model.onnx"
        quantize_dynamic(
            _copy(model), str(out), op_types_to_quantize=["MatMul"], nodes_to_quantize=list(names), per_channel=True,
            reduce_range=True, weight_type=QuantType.QInt8, extra_options=_TYPES,
        )
        return onnx.load(out)


def _copy(model: Any) -> Any:
    """The quantizers change what they are given."""
    copy = type(model)()
    copy.CopyFrom(model)
    return copy


def _vectors(model: Any, inputs: NDArray[Any]) -> NDArray[np.float64]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    parts = [session.run(None, {name: part})[0] for part in _parts(inputs)]
    return np.concatenate(parts).astype(np.float64)


def _parts(inputs: NDArray[Any]) -> Iterator[NDArray[Any]]:
    for start in range(0, len(inputs), _CALIBRATION_BATCH):
        yield inputs[start : start + _CALIBRATION_BATCH]


class _Batches:
    """What onnxruntime calls a calibration data reader."""

    def __init__(self, name: str, inputs: NDArray[Any]) -> None:
        self._batches = ({name: part} for part in _parts(inputs))

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        return next(self._batches, None)
