from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tests.training.tiny import write_clip, write_siglip, write_viclip, write_xclip
from vidseek_encoder.fusion import fuse

# How many attentions each tower has, and how many of them stay as they are (the pooling head's query is a constant).
FAMILIES = {
    "clip": (write_clip, {"text": (1, 0), "frame": (1, 0)}), "viclip": (write_viclip, {"text": (1, 0), "video": (1, 0)}),
    "xclip": (write_xclip, {"text": (1, 0), "video": (5, 0)}), "siglip": (write_siglip, {"text": (1, 0), "frame": (2, 1)}),
}


def kinds(model: Any) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def run(model: Any, **inputs: NDArray[Any]) -> list[NDArray[Any]]:
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, inputs)


@pytest.mark.parametrize("family", [
    pytest.param(name, marks=[] if name == "viclip" else pytest.mark.slow) for name in FAMILIES  # exporting takes seconds
])
def test_fuse__finds_the_attention_of_each_family_and_moves_no_vector(
    family: str, exported: Path, export_once: Callable[[str, Callable[[Path], Path]], Path]
) -> None:
    write: Callable[[Path], Path]
    write, towers = FAMILIES[family]
    folder = (exported if family == "viclip" else export_once(family, write)) / "encoder" / "fp32"
    assert {path.stem for path in folder.iterdir()} == set(towers)
    for tower, (num, left) in towers.items():
        model = onnx.load(folder / f"{tower}.onnx")
        assert kinds(model)["Softmax"] == num
        fused = fuse(model)
        assert (kinds(fused)["MultiHeadAttention"], kinds(fused)["Softmax"]) == (num - left, left)
        given = model.graph.input[0]
        shape = [each.dim_value or 4 for each in given.type.tensor_type.shape.dim]
        rng = np.random.default_rng(0)
        values = rng.integers(1, 5, shape) if tower == "text" else rng.normal(size=shape).astype(np.float32)
        np.testing.assert_allclose(run(fused, **{given.name: values})[0], run(model, **{given.name: values})[0], atol=1e-6)


def sums(*, results: tuple[str, ...], biased: bool = True, one_for_all: bool = False) -> onnx.ModelProto:
    """Two products of one input, of 3 and of 2 columns, each with its bias, which may be one number for all columns;
    `results` are what the model gives."""
    rng = np.random.default_rng(0)
    nodes, constants = [], []
    for name, width in (("a", 3), ("b", 2)):
        nodes.append(helper.make_node("MatMul", ["x", f"w_{name}"], [f"p_{name}"], name=f"product_{name}"))
        constants.append(numpy_helper.from_array(rng.normal(size=(4, width)).astype(np.float32), f"w_{name}"))
        if biased:
            nodes.append(helper.make_node("Add", [f"c_{name}", f"p_{name}"], [f"y_{name}"], name=f"sum_{name}"))
            bias = rng.normal(size=1 if one_for_all else width).astype(np.float32)
            constants.append(numpy_helper.from_array(bias, f"c_{name}"))
    graph = helper.make_graph(
        nodes, "sums", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in results], constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_fuse__products_of_one_input_are_one() -> None:
    model = sums(results=("y_a", "y_b"))
    fused = fuse(model)
    assert kinds(fused) == {"MatMul": 1, "Add": 1, "Split": 1}
    x = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
    for one, other in zip(run(fused, x=x), run(model, x=x), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("model", [
    sums(results=("y_a", "y_b", "p_b")), sums(results=("p_a", "p_b"), biased=False),
    sums(results=("y_a", "y_b"), one_for_all=True),
], ids=["one is needed without its bias", "there are no biases", "a bias is one number"])
def test_fuse__leaves_products_that_are_read_otherwise(model: onnx.ModelProto) -> None:
    assert kinds(fuse(model)) == kinds(model)
