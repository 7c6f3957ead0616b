from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from vidseek_encoder import external_data
from vidseek_encoder.onnx_file import data_file
from vidseek_encoder.quantize import choose, most_harmful, products_of, to_int8, to_static_int8

WIDTH = 16
NAMES = ("even_1", "even_2", "rough", "even_3")


def summing_model() -> onnx.ModelProto:
    """Four products of one input, summed. Weights of 0 and 64 fit 7 bits exactly, those of `rough` do not; a Gemm last."""
    rng = np.random.default_rng(0)
    weights = {name: 64.0 * rng.integers(0, 2, (WIDTH, WIDTH)) for name in NAMES}
    weights["rough"] = 64 * rng.normal(size=(WIDTH, WIDTH))
    for name in NAMES:
        weights[name][0] = 64  # every channel has the same scale
    nodes = [helper.make_node("MatMul", ["x", f"w_{name}"], [f"y_{name}"], name=name) for name in NAMES]
    nodes.append(helper.make_node("Sum", [f"y_{name}" for name in NAMES], ["sum"], name="sum"))
    nodes.append(helper.make_node("Gemm", ["sum", "w_last"], ["y"], name="last"))
    weights["last"] = rng.normal(size=(WIDTH, WIDTH))
    graph = helper.make_graph(
        nodes, "summing", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", WIDTH])],
        [numpy_helper.from_array(value.astype(np.float32), f"w_{name}") for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def whole_inputs(*, num_rows: int = 4, largest: int = 255) -> NDArray[np.float32]:
    """Whole numbers from 0 to 255, both ends among them, so that 8 bits hold them exactly."""
    inputs = np.random.default_rng(1).integers(0, largest + 1, (num_rows, WIDTH)).astype(np.float32)
    inputs[:, :2] = 0, largest
    return inputs


def run(model: Any, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (values,) = session.run(None, {"x": inputs})
    return np.asarray(values)


@pytest.fixture(params=["inside", "beside"])
def source(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The model in a file, its weights in it or, as those of a large tower, beside it."""
    if request.param == "beside":
        monkeypatch.setattr(external_data, "MOST_INLINE_BYTES", 0)
    external_data.save_model(summing_model(), tmp_path / "a.onnx")
    assert data_file(tmp_path / "a.onnx").exists() == (request.param == "beside")
    return tmp_path / "a.onnx"


def kinds(model: Any) -> list[str]:
    return [node.op_type for node in model.graph.node]


def test_products_of__are_those_with_weights_but_not_the_pooled_ones(source: Path) -> None:
    assert products_of(source) == dict.fromkeys(NAMES, WIDTH * WIDTH)


def test_to_int8__leaves_what_it_is_told_and_the_pooled_product(source: Path) -> None:
    quantized = kinds(to_int8(source, leave=["rough"]))
    # The quantizer writes a Gemm without bias as MatMul.
    assert (quantized.count("MatMulInteger"), quantized.count("MatMul") + quantized.count("Gemm")) == (3, 2)
    assert kinds(to_int8(source, leave=NAMES)) == kinds(summing_model())
    assert {path.name for path in source.parent.iterdir()} <= {"a.onnx", "a.onnx.data"}  # nothing is left behind


def test_most_harmful__finds_the_product_that_8_bits_do_not_hold(source: Path) -> None:
    inputs = whole_inputs()
    assert most_harmful(source, inputs) == ["rough"]
    exact = run(summing_model(), inputs)
    plain, sparing = run(to_int8(source), inputs), run(to_int8(source, leave=["rough"]), inputs)
    np.testing.assert_allclose(sparing, exact, rtol=1e-5, atol=1e-5 * np.abs(exact).max())
    assert np.abs(plain - exact).max() > 100 * np.abs(sparing - exact).max()


def test_to_static_int8__a_row_does_not_depend_on_the_others(source: Path) -> None:
    inputs = whole_inputs()
    loud = np.concatenate([inputs[:1] / 3, inputs])
    static, dynamic = to_static_int8(source, inputs), to_int8(source)
    np.testing.assert_array_equal(run(static, loud)[0], run(static, loud[:1])[0])
    assert np.abs(run(dynamic, loud)[0] - run(dynamic, loud[:1])[0]).max() > 0


@pytest.mark.parametrize(("harms", "wanted"), [
    ({"a": 8.0, "b": 4.0, "c": 1.0, "d": 1.0}, ["a"]),  # b would be too much of the weights
    ({"a": 1.0, "b": 1.0, "c": 1.0, "d": 1.0}, ["a"]),
    ({"a": 0.0, "b": 0.0, "c": 0.0, "d": 9.0}, ["d"]),
    ({"a": 0.0, "b": 0.0, "c": 0.0, "d": 0.0}, []),
])
def test_choose__most_harm_for_its_size_first_within_a_third(harms: dict[str, float], wanted: list[str]) -> None:
    assert choose(harms, dict.fromkeys(harms, 10)) == wanted


def test_choose__small_products_before_large_ones_and_no_more_than_needed() -> None:
    assert choose({"small": 3.0, "large": 4.0, "other": 1.0}, {"small": 1, "large": 4, "other": 10}) == ["small", "large"]
