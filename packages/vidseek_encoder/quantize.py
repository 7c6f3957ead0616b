"""A tower's matrix products in 8 bits, and which of them had better stay as they are. Needs onnx, as `variants` does.

Products of pooled vectors (the exporter writes them as Gemm) stay in fp32 always: they are one row of each text or clip,
so that 8 bits would save nothing, and their error goes straight into the vector.
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
"""Of the weights of a tower's products: more in fp32, and it is hardly an int8 variant."""
_CALIBRATION_BATCH = 8
_TYPES = {"DefaultTensorType": 1}
"""Float (`onnx.TensorProto.FLOAT`): the quantizers cannot tell what attention as one operator gives."""


def to_int8(source: Path, *, leave: Collection[str] = ()) -> Any:
    """The model in the file `source` with its products in 8 bits, weights by channel, inputs measured at each run; but for
    those in `leave`.

    Weights get 7 of the 8 bits: two full products overflow the 16 bits in which a CPU without VNNI adds them up, and
    the bundle would then give other vectors there than where it was proven.
    """
    import onnx

    with _beside(source) as out:
        _quantize(source, [name for name in products_of(source) if name not in leave], out)
        return onnx.load(out)


def to_static_int8(source: Path, inputs: NDArray[Any]) -> Any:
    """The same with inputs of each product on a scale that is fixed: the range that it has over `inputs` of the model.

    A vector then does not depend on what goes through in the same batch.
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
    """The products with weights that could be in 8 bits: how many numbers each has, by the name of its node."""
    import onnx

    graph = onnx.load(source, load_external_data=False).graph
    sizes = {each.name: int(np.prod(each.dims)) for each in graph.initializer}
    return {
        node.name: sizes[node.input[1]] for node in graph.node if node.op_type == "MatMul" and node.input[1] in sizes
    }


def most_harmful(source: Path, inputs: NDArray[Any]) -> list[str]:
    """The products that had better stay in fp32: those that move the vectors of `inputs` most for their size when they
    alone are in 8 bits, until the others together do a quarter of the harm, or `MOST_LEFT` of the weights are reached."""
    products = products_of(source)
    exact = _vectors(source, inputs)
    harms = {}
    for name in products:
        with _beside(source) as out:
            _quantize(source, [name], out)
            harms[name] = float(np.square(_vectors(out, inputs) - exact).sum(1).mean())
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


def _quantize(source: Path, names: Collection[str], out: Path) -> None:
    """Write the model with the products `names` in 8 bits to `out`, its weights beside it where `source` has them so."""
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
    """A file in a folder of its own beside `source`, for the length of a block: a large model need not fit into /tmp."""
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
    """What onnxruntime calls a calibration data reader."""

    def __init__(self, name: str, inputs: NDArray[Any]) -> None:
        self._batches = ({name: part} for part in _parts(inputs))

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        return next(self._batches, None)
