from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tests.raising import raises
from tests.tiny_bundle import write_tiny_bundle
from vidseek_encoder.encoder import Encoder
from vidseek_encoder.onnx_file import require_plain_model
from vidseek_media.errors import ArtifactError


def elsewhere(location: str) -> TensorProto:
    """Weights that lie in another file."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


def model_of(nodes: list[onnx.NodeProto], *weights: TensorProto) -> onnx.ModelProto:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy")
    return helper.make_model(helper.make_graph(nodes, "g", [x], [y], weights), opset_imports=[helper.make_opsetid("", 20)])


def add(*, domain: str = "") -> onnx.NodeProto:
    return helper.make_node("Add", ["x", "w"], ["y"], domain=domain)


def in_an_attribute() -> onnx.ModelProto:
    constant = helper.make_node("Constant", [], ["w"])
    constant.attribute.append(helper.make_attribute("value", numpy_helper.from_array(np.zeros(4, np.float32))))
    constant.attribute[0].t.CopyFrom(elsewhere("../secret"))
    return model_of([constant, add()])


def in_a_function() -> onnx.ModelProto:
    model = model_of([add()], numpy_helper.from_array(np.zeros(4, np.float32), "w"))
    loop = helper.make_node("Loop", ["n", "c"], ["y"])
    model.functions.append(helper.make_function("ours", "f", ["n", "c"], ["y"], [loop], [helper.make_opsetid("", 20)]))
    return model


def sparse() -> onnx.ModelProto:
    model = model_of([add()])
    values = elsewhere("/etc/passwd")
    model.graph.sparse_initializer.append(onnx.SparseTensorProto(values=values, dims=[4]))
    return model


BAD = {
    "another folder": (model_of([add()], elsewhere("../../secret")), "another file"),
    "an absolute path": (model_of([add()], elsewhere("/etc/passwd")), "another file"),
    "beside it": (model_of([add()], elsewhere("weights.bin")), "another file"),
    "in an attribute": (in_an_attribute(), "another file"),
    "sparse": (sparse(), "another file"),
    "a loop": (model_of([helper.make_node("Loop", ["n", "c"], ["y"])]), "Loop"),
    "a loop in a function": (in_a_function(), "Loop"),
    "operators of others": (model_of([add(domain="com.evil")]), "com.evil"),
}


@pytest.mark.parametrize("what", BAD)
def test_require_plain_model__refuses(tmp_path: Path, what: str) -> None:
    model, why = BAD[what]
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    with raises(ValueError, naming=why):
        require_plain_model(tmp_path / "a.onnx")


def test_load__a_model_that_names_other_files_is_an_error_of_ours(tmp_path: Path) -> None:
    spec = write_tiny_bundle(tmp_path / "b")
    (tmp_path / "secret").write_bytes(np.zeros(4, np.float32).tobytes())
    path = tmp_path / "b" / "fp32" / "text.onnx"
    model = onnx.load(path)
    model.graph.initializer.append(elsewhere("../../secret"))
    path.write_bytes(model.SerializeToString())
    spec.save(tmp_path / "b")
    with raises(ArtifactError, code="model-file-broken", naming="text.onnx"):
        Encoder.load(tmp_path / "b", threads=1)


def test_require_plain_model__weights_are_stepped_over(tmp_path: Path) -> None:
    weights = numpy_helper.from_array(np.zeros(25_000_000, np.float32), "w")
    (tmp_path / "a.onnx").write_bytes(model_of([add()] * 2000, weights).SerializeToString())
    began = time.process_time()
    require_plain_model(tmp_path / "a.onnx")
    assert time.process_time() - began < 0.5


@settings(deadline=None, max_examples=200)
@given(st.binary(min_size=1, max_size=300) | st.integers(0, 2**30).map(lambda seed: damaged(seed)))
def test_require_plain_model__of_anything_it_is_silent_or_a_value_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.onnx"
    path.write_bytes(content)
    try:
        require_plain_model(path)
    except ValueError as error:
        assert str(error).isprintable()


def damaged(seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    content = np.frombuffer(in_a_function().SerializeToString(), np.uint8).copy()
    content[rng.integers(0, len(content), 3)] = rng.integers(0, 256, 3)
    return content.tobytes()[: int(rng.integers(1, len(content) + 1))]
