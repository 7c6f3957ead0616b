"""From a tower in fp32 to the same tower in fp16 or int8. Needs onnx, which only who exports has."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vidseek_media.errors import ArtifactError


def convert(source: Path, out: Path, *, variant: str) -> None:
    """Write the model at `source` (fp32) as `variant` (fp16 or int8) to `out`. Inputs and outputs keep their types.

    Raises:
        ArtifactError: the model cannot be converted.
        KeyError: there is no such variant.
    """
    converter = _CONVERTERS[variant]
    import onnx

    try:
        model = onnx.load(source)
        # Shapes that the exporter wrote down contradict those that the converters infer (trials.md, D2).
        del model.graph.value_info[:]
        onnx.save(converter(model), out)
    except Exception as error:  # onnx and onnxruntime raise whatever a graph leads them to
        raise ArtifactError(
            f"{source} cannot be made {variant}: {error}", remedy="Leave it out of export.variants"
        ) from error


def _to_fp16(model: Any) -> Any:
    """Every number in 16 bits, for GPUs: a CPU turns them back and is slower than with fp32."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    return convert_float_to_float16(model, keep_io_types=True)


def _to_int8(model: Any) -> Any:
    """Matrix products in 8 bits, weights by channel, inputs measured at each run; for CPUs.

    Weights get 7 of the 8 bits: two full products overflow the 16 bits in which a CPU without VNNI adds them up, and
    the bundle would then give other vectors there than where it was proven.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory(prefix="vidseek-") as folder:
        out = Path(folder) / "model.onnx"
        quantize_dynamic(
            model, str(out), op_types_to_quantize=["MatMul", "Gemm"], per_channel=True, reduce_range=True,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(out)


_CONVERTERS: Mapping[str, Callable[[Any], Any]] = {"fp16": _to_fp16, "int8": _to_int8}
