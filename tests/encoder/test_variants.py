from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
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


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(1, 6), max_size=4), seed=st.integers(0, 2**32 - 1))
@pytest.mark.parametrize("variant", ["fp32", "fp16", "int8"])
def test_embed__steady_vectors_do_not_depend_on_what_is_embedded_with_them(
    bundle: Path, variant: str, cuts: list[int], seed: int
) -> None:
    """int8 chooses the range of a product's inputs in each run: without `steady`, a bright clip changes its neighbours."""
    rng = np.random.default_rng(seed)
    clips = [rng.integers(0, 256, (int(rng.integers(1, 4)), 8, 8, 3), dtype=np.uint8) for _ in range(8)]
    texts = [" ".join(rng.choice(list(COLOURS), int(rng.integers(1, 5)))) for _ in range(8)]
    encoder = Encoder.load(bundle, threads=1, variant=variant, batch=3)
    alone = [encoder.embed_frames([clip], steady=True)[0].tobytes() for clip in clips]
    alone_texts = [encoder.embed_texts([text], steady=True)[0].tobytes() for text in texts]
    order = rng.permutation(8)
    for places in np.split(order, np.cumsum(cuts)):
        together = encoder.embed_frames([clips[place] for place in places], steady=True)
        assert [row.tobytes() for row in together] == [alone[place] for place in places]
        together = encoder.embed_texts([texts[place] for place in places], steady=True)
        assert [row.tobytes() for row in together] == [alone_texts[place] for place in places]


def test_embed__without_steady_an_int8_vector_depends_on_the_others(bundle: Path) -> None:
    grey, bright = np.full((2, 8, 8, 3), 130, np.uint8), np.full((2, 8, 8, 3), 255, np.uint8)
    encoder = Encoder.load(bundle, threads=1, variant="int8")
    assert (encoder.embed_frames([grey, bright])[0] != encoder.embed_frames([grey])[0]).any()
    assert (encoder.embed_frames([grey, bright], steady=True)[0] == encoder.embed_frames([grey])[0]).all()


def test_embed__steady_vectors_of_a_frame_tower(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path, frame=True)
    encoder = Encoder.load(tmp_path, threads=1, batch=3)
    rng = np.random.default_rng(0)
    clips = [rng.integers(0, 256, (num, 8, 8, 3), dtype=np.uint8) for num in (1, 2, 1, 2, 5)]
    together = encoder.embed_frames(clips, steady=True)
    for clip, vector in zip(clips, together, strict=True):
        assert encoder.embed_frames([clip], steady=True)[0].tobytes() == vector.tobytes()


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_embed__on_a_gpu_steady_runs_have_one_size(
    tmp_path: Path, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_bundle(tmp_path)
    encoder = Encoder.load(tmp_path, threads=1, batch=3)
    encoder.provider = provider  # the session stays the CPU's
    shapes: set[tuple[int, ...]] = set()
    run = encoder._sessions["video"].run

    class Session:
        def run(self, outputs: list[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
            shapes.add(inputs["pixel_values"].shape)
            return run(outputs, inputs)

    monkeypatch.setitem(encoder._sessions, "video", Session())
    clips = [clip_of(colour) for colour in COLOURS.values()]
    vectors = encoder.embed_frames(clips, steady=True)
    assert len(shapes) == 1 and len(vectors) == len(clips)
    np.testing.assert_array_equal(vectors[:1], encoder.embed_frames(clips[:1], steady=True))
    assert len(shapes) == 1
