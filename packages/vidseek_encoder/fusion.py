"""Fuses attention into one operator and its projections into one product, for int8 on CPUs. Needs onnx and onnxscript.

The exporter writes thirty operators for the attention of a layer. onnxscript's fusions recognise this pattern,
onnxruntime's do not. The fused operator is onnxruntime's own and part of every build. TensorRT lacks it, so fp32 and fp16
keep the standard operators. A pattern that is not recognised stays as it is. The parity check tests that vectors are kept.

Two fusions are not used because they are slower on a CPU: onnxscript's fusion of LayerNormalization with the preceding
sum, which keeps biases from being fused with their products, and onnxruntime's QAttention.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


def fuse(model: Any) -> Any:
    """Fuse attention and projections of a `ModelProto`.

    Returns:
        The model with each recognised attention as one operator, and projections of the same input as one product.
    """
    import onnx_ir as ir
    from onnx_ir.passes.common import ShapeInferencePass
    from onnxscript.optimizer import optimize
    from onnxscript.rewriter.ort_fusions.mha import fuse_mha1, fuse_mha2
    from onnxscript.rewriter.ort_fusions.mha_scale import fuse_mha_scale
    from onnxscript.rewriter.ort_fusions.sdpa import fuse_sdpa
    from onnxscript.rewriter.ort_fusions.sdpa_via_mha import replace_sdpa_by_mha
    from onnxscript.rewriter.ort_fusions.shape_optimization import rules

    graph = ir.from_proto(model)
    ShapeInferencePass()(graph)
    optimize(graph)
    rules.apply_to_model(graph)
    optimize(graph)
    fuse_sdpa(graph, apply_shape_inference=True)
    for fusion in (fuse_mha1, fuse_mha2, fuse_mha_scale, replace_sdpa_by_mha):
        fusion(graph)
    optimize(graph)
    fused = ir.to_proto(graph)
    _merge_projections(fused.graph)
    return fused


class _Projection(NamedTuple):
    """A product with constant weights whose only consumer is the sum with a constant bias."""

    product: Any
    sum: Any
    weights: NDArray[Any]
    bias: NDArray[Any]


def _merge_projections(graph: Any) -> None:
    """Merge projections of the same input into one product and split its result, so that the input is quantised once."""
    for source, projections in _projections(graph).items():
        if len(projections) > 1:
            _merge(graph, source, projections)
    used = {value for node in graph.node for value in node.input}
    kept = [each for each in graph.initializer if each.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _projections(graph: Any) -> dict[str, list[_Projection]]:
    """Return all projections, grouped by their input."""
    from onnx.numpy_helper import to_array

    constants = {each.name: each for each in graph.initializer}
    results = {each.name for each in graph.output}
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for value in node.input:
            readers.setdefault(value, []).append(node)
    found: dict[str, list[_Projection]] = {}
    for node in graph.node:
        after = readers.get(node.output[0], [])
        if node.op_type != "MatMul" or node.input[1] not in constants or [each.op_type for each in after] != ["Add"]:
            continue
        biases = [value for value in after[0].input if value in constants]
        if biases and node.output[0] not in results:
            weights, bias = (to_array(constants[name]) for name in (node.input[1], biases[0]))
            if weights.ndim == 2 and bias.shape == weights.shape[1:]:
                found.setdefault(node.input[0], []).append(_Projection(node, after[0], weights, bias))
    return found


def _merge(graph: Any, source: str, projections: list[_Projection]) -> None:
    from onnx import helper
    from onnx.numpy_helper import from_array

    name = f"{projections[0].product.output[0]}_merged"
    constants = {
        "weights": np.concatenate([each.weights for each in projections], axis=1),
        "bias": np.concatenate([each.bias for each in projections]),
        "sizes": np.array([len(each.bias) for each in projections]),
    }
    graph.initializer.extend(from_array(value, f"{name}_{part}") for part, value in constants.items())
    nodes = [
        helper.make_node("MatMul", [source, f"{name}_weights"], [f"{name}_product"], name=name),
        helper.make_node("Add", [f"{name}_product", f"{name}_bias"], [f"{name}_sum"]),
        helper.make_node("Split", [f"{name}_sum", f"{name}_sizes"], [each.sum.output[0] for each in projections], axis=-1),
    ]
    place = list(graph.node).index(projections[0].product)
    for each in projections:
        graph.node.remove(each.product)
        graph.node.remove(each.sum)
    for node in reversed(nodes):
        graph.node.insert(place, node)
