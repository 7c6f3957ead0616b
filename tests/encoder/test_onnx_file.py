from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tests.raising import raises
from tests.tiny_bundle import COLOURS, write_tiny_bundle
from vidseek_encoder.encoder import Encoder
from vidseek_encoder.onnx_file import require_plain_model
from vidseek_media.errors import ArtifactError


def elsewhere(location: str, **more: object) -> TensorProto:
    """Weights that lie in another file."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **more}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def twice() -> TensorProto:
    tensor = elsewhere("a.onnx.data")
    tensor.external_data.add(key="location", value="/etc/passwd")
    return tensor


def nowhere() -> TensorProto:
    return TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)


def model_of(nodes: list[onnx.NodeProto], *weights: TensorProto) -> onnx.ModelProto:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy")
    return helper.make_model(helper.make_graph(nodes, "g", [x], [y], weights), opset_imports=[helper.make_opsetid("", 20)])


def add(*, domain: str = "") -> onnx.NodeProto:
    return helper.make_node("Add", ["x", "w"], ["y"], domain=domain)


def in_an_attribute(location: str) -> onnx.ModelProto:
    constant = helper.make_node("Constant", [], ["w"])
    constant.attribute.append(helper.make_attribute("value", numpy_helper.from_array(np.zeros(4, np.float32))))
    constant.attribute[0].t.CopyFrom(elsewhere(location))
    return model_of([constant, add()])


def in_a_function() -> onnx.ModelProto:
    model = model_of([add()], numpy_helper.from_array(np.zeros(4, np.float32), "w"))
    loop = helper.make_node("Loop", ["n", "c"], ["y"])
    model.functions.append(helper.make_function("ours", "f", ["n", "c"], ["y"], [loop], [helper.make_opsetid("", 20)]))
    return model


def sparse(location: str) -> onnx.ModelProto:
    model = model_of([add()])
    values = elsewhere(location)
    model.graph.sparse_initializer.append(onnx.SparseTensorProto(values=values, dims=[4]))
    return model


BAD = {
    "another folder": (model_of([add()], elsewhere("../../secret")), "another file"),
    "an absolute path": (model_of([add()], elsewhere("/etc/passwd")), "another file"),
    "beside it": (model_of([add()], elsewhere("weights.bin")), "another file"),
    "another model's": (model_of([add()], elsewhere("b.onnx.data")), "another file"),
    "its own by a longer way": (model_of([add()], elsewhere("./a.onnx.data")), "another file"),
    "memory of the process": (model_of([add()], elsewhere("*/_ORT_MEM_ADDR_/*", offset=140000000)), "another file"),
    "no file at all": (model_of([add()], nowhere()), "another file"),
    "in an attribute": (in_an_attribute("../secret"), "another file"),
    "its own in an attribute": (in_an_attribute("a.onnx.data"), "no weights"),
    "sparse": (sparse("/etc/passwd"), "another file"),
    "its own, sparse": (sparse("a.onnx.data"), "no weights"),
    "two files": (model_of([add()], twice()), "twice"),
    "behind the end": (model_of([add()], elsewhere("a.onnx.data", offset=16, length=17)), "up to byte 33"),
    "before the beginning": (model_of([add()], elsewhere("a.onnx.data", offset=-16, length=16)), "numbers of bytes"),
    "a number too large": (model_of([add()], elsewhere("a.onnx.data", offset=10**17)), "numbers of bytes"),
    "more than places": (model_of([add()], elsewhere("a.onnx.data", prepacked_0="x|1|2")), "wanted location"),
    "a loop": (model_of([helper.make_node("Loop", ["n", "c"], ["y"])]), "Loop"),
    "a loop in a function": (in_a_function(), "Loop"),
    "operators of others": (model_of([add(domain="com.evil")]), "com.evil"),
}


@pytest.mark.parametrize("what", BAD)
def test_require_plain_model__refuses(tmp_path: Path, what: str) -> None:
    model, why = BAD[what]
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    (tmp_path / "a.onnx.data").write_bytes(bytes(32))
    with raises(ValueError, naming=why):
        require_plain_model(tmp_path / "a.onnx")


def test_require_plain_model__weights_may_lie_in_the_one_file_beside_it(tmp_path: Path) -> None:
    path, data = tmp_path / "a.onnx", tmp_path / "a.onnx.data"
    path.write_bytes(model_of([add()], elsewhere("a.onnx.data", offset=16, length=16)).SerializeToString())
    with raises(ValueError, naming="a.onnx.data"):
        require_plain_model(path)
    data.write_bytes(bytes(32))
    assert require_plain_model(path)
    path.write_bytes(model_of([add()], numpy_helper.from_array(np.zeros(4, np.float32), "w")).SerializeToString())
    assert not require_plain_model(path)


def test_require_plain_model__weights_that_are_a_link_to_elsewhere_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "a.onnx.data").write_bytes(bytes(32))
    (tmp_path / "b").mkdir()
    path = tmp_path / "b" / "a.onnx"
    path.write_bytes(model_of([add()], elsewhere("a.onnx.data")).SerializeToString())
    (tmp_path / "b" / "a.onnx.data").symlink_to(tmp_path / "secret" / "a.onnx.data")
    with raises(ValueError, naming="a link"):
        require_plain_model(path)
    # A folder that is a link, or a model and its weights in one other folder, are what ONNX Runtime takes too.
    (tmp_path / "c").symlink_to(tmp_path / "secret")
    (tmp_path / "secret" / "a.onnx").write_bytes(path.read_bytes())
    assert require_plain_model(tmp_path / "c" / "a.onnx")


@pytest.mark.parametrize("change", ["other", "short", "gone", "unrecorded"])
def test_load__weights_beside_a_model_are_checked_as_it_is(tmp_path: Path, change: str) -> None:
    spec = write_tiny_bundle(tmp_path, beside=True)
    assert set(spec.files) >= {"fp32/text.onnx.data", "fp32/video.onnx.data"}
    wanted = write_tiny_bundle(tmp_path / "whole")
    assert spec.encoder_version == wanted.encoder_version
    texts = list(COLOURS)
    np.testing.assert_array_equal(
        Encoder.load(tmp_path, threads=1).embed_texts(texts), Encoder.load(tmp_path / "whole", threads=1).embed_texts(texts)
    )
    data = tmp_path / "fp32" / "text.onnx.data"
    if change == "other":
        data.write_bytes(data.read_bytes()[:-1] + b"x")
    elif change == "short":
        data.write_bytes(data.read_bytes()[:-1])
        spec.save(tmp_path)  # the hashes fit
    elif change == "gone":
        data.unlink()
    else:
        files = {name: digest for name, digest in spec.files.items() if not name.endswith("text.onnx.data")}
        content = json.loads((tmp_path / "encoder.json").read_text())
        (tmp_path / "encoder.json").write_text(json.dumps(content | {"files": files}))
    codes = {"other": "bundle-changed", "short": "model-file-broken", "gone": "file-absent", "unrecorded": "bundle-broken"}
    with raises(ArtifactError, code=codes[change], naming="text.onnx"):
        Encoder.load(tmp_path, threads=1)


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
