"""Converts a tower from fp32 to fp16 or int8. Needs onnx, which only the export has."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidseek_encoder.external_data import save_model
from vidseek_encoder.fusion import fuse
from vidseek_encoder.quantize import most_harmful, to_int8, to_static_int8
from vidseek_media.errors import ArtifactError

RECIPES: Mapping[str, tuple[str, ...]] = {"fp16": ("all",), "int8": ("all", "sparing", "static")}
"""Ways to make a variant, fastest at run time first. int8: all products; all but the most harmful (`quantize.most_harmful`);
all, with fixed input ranges. All recipes but the first of each variant need example inputs.
"""


def convert(
    source: Path, out: Path, *, variant: str, recipe: str = "all", examples: NDArray[Any] | None = None
) -> None:
    """Convert a model from fp32 to another precision. The types of its inputs and outputs are kept.

    A model that is too large for one file is written with its weights beside it (`external_data`).

    Args:
        source: The ONNX model, fp32.
        out: The file to write.
        variant: `fp16` or `int8`.
        recipe: One of `RECIPES[variant]`.
        examples: Rows of the model's input; not needed by the recipe `all`.

    Raises:
        ArtifactError: the model cannot be converted.
        OSError: a file is missing, or the disk is full.
        KeyError: the variant or recipe does not exist.
    """
    converter = _CONVERTERS[variant, recipe]
    try:
        with tempfile.TemporaryDirectory(prefix=".vidseek-", dir=out.parent) as folder:
            prepared = Path(folder) / "model.onnx"
            _prepare(source, prepared, fused=variant == "int8")
            save_model(converter(prepared, np.empty(0) if examples is None else examples), out)
    except OSError:
        raise  # the disk, not the model
    except Exception as error:  # onnx and onnxruntime raise whatever a graph leads them to
        raise ArtifactError(
            f"{source} cannot be made {variant} ({recipe}): {error}",
            code="variant-not-made", remedy="Leave it out of export.variants"
        ) from error


def _prepare(source: Path, out: Path, *, fused: bool) -> None:
    """Write the model in the form that the converters need."""
    import onnx

    model = onnx.load(source)
    if fused:
        model = fuse(model)
    # Shapes that the exporter wrote down contradict those that the converters infer.
    del model.graph.value_info[:]
    for place, node in enumerate(model.graph.node):
        node.name = node.name or f"node_{place}"  # products are told apart by it
    save_model(model, out)


def _to_fp16(source: Path, _: NDArray[Any]) -> Any:
    """Convert all numbers to 16 bits. For GPUs only: a CPU converts them back and is slower than with fp32."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    return convert_float_to_float16(str(source), keep_io_types=True)


_CONVERTERS: Mapping[tuple[str, str], Callable[[Path, NDArray[Any]], Any]] = {
    ("fp16", "all"): _to_fp16,
    ("int8", "all"): lambda source, _: to_int8(source),
    ("int8", "sparing"): lambda source, examples: to_int8(source, leave=most_harmful(source, examples)),
    ("int8", "static"): to_static_int8,
}
