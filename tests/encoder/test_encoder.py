from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from tests.raising import raises
from tests.tiny_bundle import COLOURS, DIMENSION, clip_of, colour_vector, write_tiny_bundle
from vidseek_encoder.bundle import EncoderSpec
from vidseek_encoder.encoder import Encoder
from vidseek_encoder.providers import BUCKETS
from vidseek_encoder.tokenize import Tokenizer
from vidseek_media.errors import ArtifactError, ConfigError, InputRejected


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    write_tiny_bundle(folder)
    return folder


@pytest.fixture(scope="module")
def encoder(bundle: Path) -> Encoder:
    return Encoder.load(bundle, threads=1)


def test_embed_frames__is_the_arithmetic(encoder: Encoder) -> None:
    clips = np.stack([clip_of(colour) for colour in COLOURS.values()])
    expected = np.stack([colour_vector(colour) for colour in COLOURS.values()])
    np.testing.assert_allclose(encoder.embed_frames(clips), expected, atol=1e-6)


def test_embed_texts__a_colour_is_near_its_clips(encoder: Encoder) -> None:
    texts = encoder.embed_texts(list(COLOURS))
    clips = encoder.embed_frames(np.stack([clip_of(colour) for colour in COLOURS.values()]))
    assert (texts @ clips.T).argmax(axis=1).tolist() == [0, 1, 2, 3]


def test_embed_frames__sizes_may_differ(encoder: Encoder) -> None:
    clips = [clip_of((255, 0, 0), height=20, width=30), clip_of((0, 0, 255), height=9, width=5)]
    expected = [colour_vector((255, 0, 0)), colour_vector((0, 0, 255))]
    np.testing.assert_allclose(encoder.embed_frames(clips), expected, atol=1e-6)


@pytest.mark.parametrize("num", [0, 1, 3, 4, 5])
def test_embed__any_number_in_batches(bundle: Path, num: int) -> None:
    encoder = Encoder.load(bundle, threads=1, batch=2)
    clips = np.random.default_rng(0).integers(0, 256, size=(num, 2, 8, 8, 3), dtype=np.uint8)
    embeddings = encoder.embed_frames(clips)
    assert embeddings.shape == (num, DIMENSION) and embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)
    alone = [encoder.embed_frames(clip[np.newaxis])[0] for clip in clips]
    np.testing.assert_allclose(embeddings, np.reshape(alone, (num, DIMENSION)), atol=1e-6)
    assert encoder.embed_texts(["red"] * num).shape == (num, DIMENSION)
    assert encoder.embed_images(clips[:, 0]).shape == (num, DIMENSION)


@pytest.mark.parametrize("lanes", [1, 2, 5])
def test_embed__lanes_change_neither_a_bit_nor_the_order(bundle: Path, encoder: Encoder, lanes: int) -> None:
    in_lanes = Encoder.load(bundle, threads=1, lanes=lanes)
    clips = np.random.default_rng(2).integers(0, 256, size=(9, 2, 8, 8, 3), dtype=np.uint8)
    alone = np.concatenate([encoder.embed_frames(clip[np.newaxis]) for clip in clips])
    assert np.array_equal(in_lanes.embed_frames(clips, steady=True), alone)
    texts = ["red", "blue", "red blue", "green", "yellow"]
    assert np.array_equal(in_lanes.embed_texts(texts, steady=True), encoder.embed_texts(texts, steady=True))


@pytest.mark.parametrize(
    ("lanes", "num", "sizes"), [(1, 9, [4, 4, 1]), (2, 9, [4, 4, 1]), (3, 7, [3, 3, 1]), (4, 3, [1, 1, 1])]
)
def test_embed__no_lane_is_without_a_batch(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, lanes: int, num: int, sizes: list[int]
) -> None:
    encoder, run = Encoder.load(bundle, threads=1, lanes=lanes, batch=4), Encoder._run_batch
    seen: list[int] = []

    def counted(self: Encoder, model: str, rows: NDArray[np.int64], *, least: int = 1) -> NDArray[np.float32]:
        seen.append(len(rows))
        return run(self, model, rows, least=least)

    monkeypatch.setattr(Encoder, "_run_batch", counted)
    encoder.embed_texts(["red"] * num)
    encoder.embed_frames(np.zeros((num, 2, 8, 8, 3), dtype=np.uint8))
    assert sorted(seen, reverse=True) == sorted(2 * sizes, reverse=True)


def test_embed_frames__a_steady_clip_of_single_frames_is_one_run_in_any_number_of_lanes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_bundle(tmp_path, frame=True)
    run, sizes = Encoder._run_batch, list[int]()

    def counted(self: Encoder, model: str, rows: NDArray[np.int64], *, least: int = 1) -> NDArray[np.float32]:
        sizes.append(len(rows))
        return run(self, model, rows, least=least)

    monkeypatch.setattr(Encoder, "_run_batch", counted)
    Encoder.load(tmp_path, threads=1, lanes=2).embed_frames(np.zeros((3, 2, 8, 8, 3), dtype=np.uint8), steady=True)
    assert sizes == [2, 2, 2]


@pytest.mark.parametrize("provider", ["cpu", "cuda"])
def test_embed_frames__pixels_are_prepared_on_the_threads_of_all_lanes(
    bundle: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    prepare, at_once = Encoder._prepare, threading.Barrier(3, timeout=120)

    def together(self: Encoder, row: NDArray[np.uint8], out: NDArray[np.float32]) -> None:
        at_once.wait()  # three at once, or this breaks
        prepare(self, row, out)

    monkeypatch.setattr(Encoder, "_prepare", together)
    in_lanes = Encoder(
        encoder.spec, tokenizer=encoder._tokenizer, sessions=encoder._sessions, provider=provider, variant="fp32", batch=9,
        threads=1, lanes=3,
    )
    clips = np.zeros((3 if provider == "cuda" else 9, 2, 8, 8, 3), dtype=np.uint8)
    assert in_lanes.embed_frames(clips).shape == (len(clips), DIMENSION)


def test_embed__a_lane_that_waits_neither_overtakes_nor_lets_the_batches_pile_up(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, started = Encoder.load(bundle, threads=1, lanes=2), threading.Barrier(2, timeout=120)
    run, encode = Encoder._run_batch, Tokenizer.encode
    made: list[int] = []
    seen: list[int] = []

    def slow_at_first(self: Encoder, model: str, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        seen.append(len(made))
        if len(seen) <= 2:
            started.wait()  # two run at once, or this breaks
        return run(self, model, rows)

    def counted(self: Tokenizer, texts: Sequence[str], *, trim: bool = False) -> NDArray[np.int64]:
        made.append(len(texts))
        return encode(self, texts, trim=trim)

    monkeypatch.setattr(Encoder, "_run_batch", slow_at_first)
    monkeypatch.setattr(Tokenizer, "encode", counted)
    texts = ["red", "blue", "green", "yellow"] * 5
    found = encoder.embed_texts(texts, steady=True)
    assert np.array_equal(found, np.tile(found[:4], (5, 1))) and len(np.unique(found, axis=0)) == 4
    assert max(count - place for place, count in enumerate(seen)) <= 4, "as many batches as lanes run, and one waits"


def test_embed_images__is_a_clip_of_equal_frames(encoder: Encoder) -> None:
    images = np.random.default_rng(1).integers(0, 256, size=(2, 12, 10, 3), dtype=np.uint8)
    clips = np.stack([images, images], axis=1)
    np.testing.assert_allclose(encoder.embed_images(images), encoder.embed_frames(clips), atol=1e-6)


@pytest.fixture(scope="module")
def by_frame(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    folder = tmp_path_factory.mktemp("by-frame")
    write_tiny_bundle(folder, frame=True)
    return Encoder.load(folder, threads=1, batch=3)


def test_embed_frames__frame_tower_gives_the_mean_of_unit_vectors(by_frame: Encoder) -> None:
    red, blue = COLOURS["red"], COLOURS["blue"]
    clips = [clip_of(red), np.concatenate([clip_of(red, frames=1), clip_of(blue, frames=1)]), clip_of(blue, frames=1)]
    middle = colour_vector(red) + colour_vector(blue)
    expected = [colour_vector(red), middle / np.linalg.norm(middle), colour_vector(blue)]
    np.testing.assert_allclose(by_frame.embed_frames(clips), expected, atol=1e-6)


def test_embed_images__frame_tower_looks_at_each_once(by_frame: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    run = Encoder._run_batch

    def noting(self: Encoder, model: str, rows: np.ndarray, **options: int) -> np.ndarray:
        seen.append(len(rows))
        return run(self, model, rows, **options)

    monkeypatch.setattr(Encoder, "_run_batch", noting)
    images = np.stack([clip_of(colour)[0] for colour in COLOURS.values()])
    expected = [colour_vector(colour) for colour in COLOURS.values()]
    np.testing.assert_allclose(by_frame.embed_images(images), expected, atol=1e-6)
    assert sum(seen) == len(images)
    assert by_frame.embed_images([]).shape == (0, DIMENSION)


@pytest.mark.parametrize(("vision", "variant", "wanted"), [
    ("video", "fp32", [5]), ("video", "int8", [4, 1]), ("frame", "fp32", [10]), ("frame", "int8", [8, 2]),
])
def test_embed_frames__int8_sees_eight_pictures_at_a_time(
    vision: str, variant: str, wanted: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = write_tiny_bundle(tmp_path, frame=vision == "frame")
    shutil.copytree(tmp_path / "fp32", tmp_path / "int8")
    replace(spec, variants=("fp32", "int8")).save(tmp_path)
    encoder = Encoder.load(tmp_path, threads=1, variant=variant)
    seen: list[int] = []
    run = Encoder._run_batch

    def noting(self: Encoder, model: str, rows: np.ndarray, **options: int) -> np.ndarray:
        seen.append(len(rows))
        return run(self, model, rows, **options)

    monkeypatch.setattr(Encoder, "_run_batch", noting)
    clips = np.stack([clip_of(colour) for colour in [*COLOURS.values(), (9, 9, 9)]])
    np.testing.assert_allclose(
        encoder.embed_frames(clips), np.stack([colour_vector(tuple(clip[0, 0, 0])) for clip in clips]), atol=1e-6
    )
    assert seen == wanted


def test_embed_frames__other_lengths_are_picked_at_bin_centres(encoder: Encoder) -> None:
    # Six frames for two bins: the centres are frames 1 and 4.
    clip = np.concatenate([clip_of((0, 0, 0), frames=6)])
    clip[1], clip[4] = (255, 0, 0), (255, 0, 0)
    np.testing.assert_allclose(encoder.embed_frames([clip])[0], colour_vector((255, 0, 0)), atol=1e-6)


@pytest.mark.parametrize("shape", [(0, 8, 8, 3), (2, 0, 8, 3), (8, 8, 3), (2, 8, 8, 4)])
def test_embed_frames__no_clip_is_rejected(encoder: Encoder, shape: tuple[int, ...]) -> None:
    with raises(InputRejected, code="bad-shape"):
        encoder.embed_frames([np.zeros(shape, dtype=np.uint8)])


def test_embed_images__a_clip_is_rejected(encoder: Encoder) -> None:
    with raises(InputRejected, code="bad-shape", naming="image"):
        encoder.embed_images(np.zeros((1, 2, 8, 8, 3), dtype=np.uint8))


def test_embed__threads_share_an_encoder(encoder: Encoder) -> None:
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda name: encoder.embed_texts([name])[0], list(COLOURS) * 10))
    np.testing.assert_allclose(answers, np.tile(encoder.embed_texts(list(COLOURS)), (10, 1)), atol=1e-6)


def test_load__one_tower(bundle: Path) -> None:
    encoder = Encoder.load(bundle, threads=1, towers=["text"])
    assert encoder.embed_texts(["red"]).shape == (1, DIMENSION)
    with raises(ConfigError, code="tower-not-open", naming="video"):
        encoder.embed_images(np.zeros((1, 8, 8, 3), dtype=np.uint8))


def test_warm_up__runs_every_open_tower_in_every_bucket(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, int]] = []
    monkeypatch.setattr(Encoder, "_run_batch", lambda self, model, rows: seen.append((model, len(rows))))
    assert Encoder.load(bundle, threads=1).warm_up() >= 0
    assert seen == [(model, bucket) for model in ("text", "video") for bucket in BUCKETS]


@pytest.mark.parametrize(("name", "value", "code"), [
    ("provider", "tpu", "unknown-choice"), ("threads", 0, "setting-out-of-range"), ("batch", 0, "setting-out-of-range"),
    ("lanes", 0, "setting-out-of-range"), ("towers", ["sound"], "unknown-choice"),
])
def test_load__argument_out_of_range(bundle: Path, name: str, value: Any, code: str) -> None:
    with raises(ConfigError, code=code, naming=(name, value)):
        Encoder.load(bundle, **{name: value})


def test_load__changed_file_is_refused(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path)
    (tmp_path / "fp32" / "text.onnx").write_bytes(b"other")
    with raises(ArtifactError, code="bundle-changed", naming="text.onnx"):
        Encoder.load(tmp_path)


def test_load__file_that_is_no_model(tmp_path: Path) -> None:
    spec = write_tiny_bundle(tmp_path)
    (tmp_path / "fp32" / "text.onnx").write_bytes(b"not a model")
    spec.save(tmp_path)
    with raises(ArtifactError, code="model-file-broken", naming="text.onnx"):
        Encoder.load(tmp_path)


def test_load__towers_swapped(tmp_path: Path) -> None:
    spec = write_tiny_bundle(tmp_path)
    text, video = tmp_path / "fp32" / "text.onnx", tmp_path / "fp32" / "video.onnx"
    contents = text.read_bytes(), video.read_bytes()
    text.write_bytes(contents[1])
    video.write_bytes(contents[0])
    spec.save(tmp_path)
    with raises(ArtifactError, code="bundle-signature", naming="inputs"):
        Encoder.load(tmp_path)


@pytest.mark.parametrize("wrong", [{"image_size_px": 16}, {"num_frames": 3}, {"dimension": 5}, {"context_length": 7}])
def test_load__spec_and_model_disagree(tmp_path: Path, wrong: dict[str, object]) -> None:
    write_tiny_bundle(tmp_path, **wrong)
    with raises(ArtifactError, code="bundle-signature", naming=("shape", "encoder.json")):
        Encoder.load(tmp_path)


def test_embed__model_without_unit_length_is_refused(tmp_path: Path) -> None:
    spec = write_tiny_bundle(tmp_path)
    model = onnx.load(tmp_path / "fp32" / "text.onnx")
    model.graph.node[-1].CopyFrom(onnx.helper.make_node("Identity", ["sum"], ["text_embeds"]))
    onnx.save(model, tmp_path / "fp32" / "text.onnx")
    EncoderSpec.save(spec, tmp_path)
    with raises(ArtifactError, code="not-unit-length", naming="wanted 1"):
        Encoder.load(tmp_path).embed_texts(["red white"])


def test_room__imports_without_torch(tmp_path: Path) -> None:
    script = """
import sys
for name in ("onnx", "torch", "transformers", "peft", "mlflow", "qdrant_edge", "pandas", "pyarrow", "av", "decord"):
    sys.modules[name] = None
import vidseek_encoder.bundle, vidseek_encoder.encoder, vidseek_encoder.preprocess, vidseek_encoder.providers
import vidseek_encoder.tokenize, vidseek_encoder.variants
"""
    done = subprocess.run([sys.executable, "-c", script], env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_embed_images__a_broken_one_among_many_is_refused_and_the_encoder_goes_on(bundle: Path) -> None:
    encoder = Encoder.load(bundle, threads=2, batch=2)
    pictures = [np.full((8, 8, 3), level, dtype=np.uint8) for level in range(7)]
    before = encoder.embed_images(pictures)
    with raises(InputRejected, code="bad-shape"):
        encoder.embed_images([*pictures[:4], np.empty((0, 8, 3), np.uint8), *pictures])
    np.testing.assert_array_equal(encoder.embed_images(pictures), before)
