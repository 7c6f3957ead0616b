from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from tests.raising import raises
from tests.tiny_bundle import SIDE, write_tiny_bundle
from vidseek_encoder.bundle import FORMAT, EncoderSpec, encoder_version_of
from vidseek_encoder.preprocess import Resizing
from vidseek_media.errors import ArtifactError


def test_spec__save_then_load_is_equal(tmp_path: Path) -> None:
    written = write_tiny_bundle(tmp_path)
    assert EncoderSpec.load(tmp_path) == written
    assert set(written.files) == {"tokenizer.json", "fp32/text.onnx", "fp32/video.onnx"}
    content = json.loads((tmp_path / "encoder.json").read_text())
    assert content["variants"] == ["fp32"] and content["format"] == 4


def test_save__twice_is_bit_equal(tmp_path: Path) -> None:
    spec = write_tiny_bundle(tmp_path)
    first = (tmp_path / "encoder.json").read_bytes()
    spec.save(tmp_path)
    assert (tmp_path / "encoder.json").read_bytes() == first


@pytest.mark.parametrize(
    "wrong",
    [
        {"resize": "stretch"},
        {"resample": "sharp"},
        {"resize_side": 7},
        {"resize_side": 8.5},
        {"image_size_px": 0},
        {"num_frames": 2.5},
        {"image_mean": (0.5, 0.5)},
        {"image_std": (0.5, 0.0, 0.5)},
        {"encoder_version": "latest"},
        {"variants": ()},
        {"pad_id": -1},
    ],
)
def test_spec__refuses_what_it_cannot_mean(tmp_path: Path, wrong: dict[str, object]) -> None:
    with raises(ValueError, naming=next(iter(wrong))):
        write_tiny_bundle(tmp_path, **wrong)
    assert not (tmp_path / "encoder.json").exists()


def test_save__missing_tower_is_named(tmp_path: Path) -> None:
    with raises(ArtifactError, code="file-absent", naming="int8/text.onnx"):
        write_tiny_bundle(tmp_path, variants=("fp32", "int8"))


def test_load__no_bundle(tmp_path: Path) -> None:
    with raises(ArtifactError, code="bundle-absent", naming=tmp_path / "none", remedy="dvc repro export"):
        EncoderSpec.load(tmp_path / "none")


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (lambda content: content.pop("image_size_px"), "'resize'"),
        (lambda content: content.update(more=1), "keys"),
        (lambda content: content.update(image_size_px="big"), "image_size_px is 'big'"),
        (lambda content: content.update(image_mean=0.5), "image_mean is 0.5"),
        (lambda content: content.update(image_mean=["a", "b", "c"]), "image_mean"),
        (lambda content: content.update(files=["a"]), "files"),
    ],
)
def test_load__wrong_content_is_named(tmp_path: Path, change: object, fact: str) -> None:
    write_tiny_bundle(tmp_path)
    content = json.loads((tmp_path / "encoder.json").read_text())
    change(content)  # type: ignore[operator]
    (tmp_path / "encoder.json").write_text(json.dumps(content))
    with raises(ArtifactError, code="bundle-broken", naming=("encoder.json", fact)):
        EncoderSpec.load(tmp_path)


def test_load__of_an_old_format_says_which_is_wanted(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path)
    content = json.loads((tmp_path / "encoder.json").read_text())
    (tmp_path / "encoder.json").write_text(json.dumps(content | {"format": 1}))
    with raises(ArtifactError, code="bundle-old-format", naming=("format 1", f"wanted {FORMAT}")):
        EncoderSpec.load(tmp_path)


@pytest.mark.parametrize(("content", "code"), [
    ("", "bundle-broken"), ("{", "bundle-broken"), ("[]", "bundle-old-format"), ("null", "bundle-old-format"),
    ('"text"', "bundle-old-format"),
])
def test_load__no_json_object(tmp_path: Path, content: str, code: str) -> None:
    (tmp_path / "encoder.json").write_text(content)
    with raises(ArtifactError, code=code, naming="encoder.json"):
        EncoderSpec.load(tmp_path)


@pytest.mark.parametrize("name", ["tokenizer.json", "fp32/text.onnx", "fp32/video.onnx"])
def test_check_files__changed_or_missing_is_named(tmp_path: Path, name: str) -> None:
    spec = write_tiny_bundle(tmp_path)
    spec.check_files(tmp_path, "fp32")
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes() + b" ")
    with raises(ArtifactError, code="bundle-changed", naming=name):
        spec.check_files(tmp_path, "fp32")
    (tmp_path / name).unlink()
    with raises(ArtifactError, code="file-absent", naming=name):
        spec.check_files(tmp_path, "fp32")


def test_check_files__variant_that_is_not_there(tmp_path: Path) -> None:
    spec = write_tiny_bundle(tmp_path)
    with raises(ArtifactError, code="no-such-variant", naming=("fp32", "'int8'")):
        spec.check_files(tmp_path, "int8")


def version_of(tmp_path: Path, **changes: object) -> str:
    (tmp_path / "tokenizer.json").write_text(str(changes.pop("tokens", "a b c")))
    arguments: dict[str, object] = {
        "family": "clip",
        "tensors": {"weight": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.zeros(2, dtype=np.float32)},
        "context_length": 8,
        "num_frames": 2,
        "image_size_px": 16,
        "resize": "crop",
        "image_mean": (0.5, 0.5, 0.5),
        "image_std": (0.5, 0.5, 0.5),
        "dimension": 4,
    }
    return encoder_version_of(tokenizer=tmp_path / "tokenizer.json", **{**arguments, **changes})  # type: ignore[arg-type]


def test_encoder_version__does_not_hang_on_order_or_type(tmp_path: Path) -> None:
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    reordered = {"bias": np.zeros(2, dtype=np.float16), "weight": np.asfortranarray(weight.astype(np.float64))}
    version = version_of(tmp_path)
    assert version_of(tmp_path, tensors=reordered) == version
    assert version_of(tmp_path, image_mean=[0.5, 0.5, 0.5]) == version
    assert len(version) == 16 and int(version, 16) >= 0


def test_encoder_version__changes_with_each_part_of_the_space(tmp_path: Path) -> None:
    weight = np.arange(6, dtype=np.float32)
    bias = np.zeros(2, dtype=np.float32)
    nudged = weight.copy()
    nudged[3] = np.nextafter(nudged[3], np.float32(9))
    versions = {
        version_of(tmp_path),
        version_of(tmp_path, family="xclip"),
        version_of(tmp_path, tokens="a b d"),
        version_of(tmp_path, context_length=9),
        version_of(tmp_path, num_frames=3),
        version_of(tmp_path, image_size_px=17),
        version_of(tmp_path, resize="squash"),
        version_of(tmp_path, resample="bilinear"),
        version_of(tmp_path, resize_side=18),
        version_of(tmp_path, image_mean=(0.5, 0.5, 0.4)),
        version_of(tmp_path, image_std=(0.5, 0.5, 0.4)),
        version_of(tmp_path, dimension=5),
        version_of(tmp_path, tensors={"weight": weight.reshape(3, 2), "bias": bias}),
        version_of(tmp_path, tensors={"weight": nudged.reshape(2, 3), "bias": bias}),
        version_of(tmp_path, tensors={"other": weight.reshape(2, 3), "bias": bias}),
    }
    assert len(versions) == 15


def test_encoder_version__of_spaces_that_were_named_before_there_was_a_filter_stays(tmp_path: Path) -> None:
    """What an encoder of format 2 was called, computed as it was then."""
    (tmp_path / "tokenizer.json").write_text("a b c")
    digest = hashlib.sha256((tmp_path / "tokenizer.json").read_bytes()).hexdigest()
    content = {
        "family": "clip", "tensors": {}, "tokenizer": digest, "context": 8, "frames": 2, "side": 16, "resize": "crop",
        "mean": [0.5, 0.5, 0.5], "deviation": [0.5, 0.5, 0.5], "dimension": 4,
    }
    then = hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]
    assert version_of(tmp_path, tensors={}) == then == version_of(tmp_path, tensors={}, resample="bicubic", resize_side=None)


FORMER_NAMES = {
    "context_length": "context", "num_frames": "frames", "image_size_px": "side", "image_mean": "mean",
    "image_std": "deviation",
}


def test_load__a_bundle_of_format_3_has_other_names_and_means_the_same(tmp_path: Path) -> None:
    spec = write_tiny_bundle(tmp_path, resample="bilinear", resize_side=SIDE + 2)
    content = json.loads((tmp_path / "encoder.json").read_text())
    former = {FORMER_NAMES.get(key, key): value for key, value in content.items()} | {"format": 3}
    (tmp_path / "encoder.json").write_text(json.dumps(former))
    assert EncoderSpec.load(tmp_path) == spec
    # With names of both formats it is of neither.
    (tmp_path / "encoder.json").write_text(json.dumps(former | {"image_mean": former["mean"]}))
    with raises(ArtifactError, code="bundle-old-format"):
        EncoderSpec.load(tmp_path)


def test_load__a_bundle_of_format_2_means_what_it_meant(tmp_path: Path) -> None:
    spec = write_tiny_bundle(tmp_path)
    content = json.loads((tmp_path / "encoder.json").read_text())
    former = {
        FORMER_NAMES.get(key, key): value for key, value in content.items() if key not in ("resample", "resize_side")
    } | {"format": 2}
    (tmp_path / "encoder.json").write_text(json.dumps(former))
    assert EncoderSpec.load(tmp_path) == spec
    assert spec.resizing == Resizing(SIDE, "squash", "bicubic")
    # A file of format 2 with keys that it cannot have is neither.
    (tmp_path / "encoder.json").write_text(json.dumps(former | {"resample": "bilinear"}))
    with raises(ArtifactError, code="bundle-old-format"):
        EncoderSpec.load(tmp_path)
