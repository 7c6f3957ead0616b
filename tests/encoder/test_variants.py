from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from tests.raising import raises
from tests.tiny_bundle import COLOURS, clip_of, write_tiny_bundle
from vidseek_encoder import external_data
from vidseek_encoder.encoder import Encoder
from vidseek_encoder.variants import convert
from vidseek_media.errors import ArtifactError


@pytest.fixture(scope="module", params=["inside", "beside"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All variants, their weights in the models or, as those of large towers, beside them."""
    folder = tmp_path_factory.mktemp("bundle")
    spec = write_tiny_bundle(folder)
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "beside":
            patch.setattr(external_data, "MOST_INLINE_BYTES", 0)
            patch.setattr(external_data, "_LEAST_OUTSIDE_BYTES", 64)
        for variant in ("fp16", "int8"):
            (folder / variant).mkdir()
            for tower in spec.towers:
                convert(folder / "fp32" / f"{tower}.onnx", folder / variant / f"{tower}.onnx", variant=variant)
    saved = replace(spec, variants=("fp32", "fp16", "int8")).save(folder)
    beside = {f"{variant}/text.onnx.data" for variant in ("fp16", "int8")}  # other weights are too small
    assert beside & set(saved.files) == (beside if request.param == "beside" else set())
    return folder


@pytest.mark.parametrize(("variant", "least"), [("fp16", 0.9999), ("int8", 0.995)])
def test_convert__gives_nearly_the_same_vectors(bundle: Path, variant: str, least: float) -> None:
    clips = np.stack([clip_of(colour) for colour in COLOURS.values()])
    exact, near = (Encoder.load(bundle, threads=1, variant=name) for name in ("fp32", variant))
    for one, other in (
        (exact.embed_frames(clips), near.embed_frames(clips)),
        (exact.embed_texts(list(COLOURS)), near.embed_texts(list(COLOURS))),
    ):
        assert (one * other).sum(1).min() > least
        np.testing.assert_allclose(np.linalg.norm(other, axis=1), 1, atol=1e-6)


def test_convert__int8_leaves_a_bit_free_so_that_no_cpu_overflows(bundle: Path) -> None:
    model = onnx.load(bundle / "int8" / "video.onnx")
    quantized = [each for each in model.graph.initializer if each.data_type == TensorProto.INT8 and each.dims]
    assert quantized
    assert all(np.abs(numpy_helper.to_array(each).astype(int)).max() <= 64 for each in quantized)


def test_convert__fp16_keeps_the_types_of_inputs_and_outputs(bundle: Path) -> None:
    graph = onnx.load(bundle / "fp16" / "video.onnx").graph
    assert [each.type.tensor_type.elem_type for each in (*graph.input, *graph.output)] == [TensorProto.FLOAT] * 2
    assert any(each.data_type == TensorProto.FLOAT16 for each in graph.initializer)


@pytest.mark.parametrize("variant", ["fp16", "int8"])
def test_convert__what_is_no_model_is_an_artifact_error(tmp_path: Path, variant: str) -> None:
    (tmp_path / "text.onnx").write_bytes(b"not a model")
    with raises(ArtifactError, code="variant-not-made", naming=variant):
        convert(tmp_path / "text.onnx", tmp_path / "out.onnx", variant=variant)
