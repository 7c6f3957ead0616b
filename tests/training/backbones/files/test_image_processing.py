from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.videomae.image_processing_pil_videomae import VideoMAEImageProcessorPil

from tests.raising import raises
from tests.training.tiny import write_clip, write_siglip, write_viclip, write_xclip
from vidseek_encoder.preprocess import Resample, Resize, Resizing, preprocess_frames
from vidseek_media.errors import ArtifactError, ConfigError
from vidseek_training import backbones
from vidseek_training.backbones.files.image_processing import ImageProcessing, published_processing, published_side

SIDE = 16
CLIP = ImageProcessing(Resizing(SIDE, "crop"), (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
HALF = (0.5, 0.5, 0.5)
USUAL: dict[type[Any], ImageProcessing] = {
    CLIPImageProcessorPil: CLIP, SiglipImageProcessorPil: ImageProcessing(Resizing(SIDE, "squash"), HALF, HALF),
    VideoMAEImageProcessorPil: ImageProcessing(Resizing(SIDE, "crop", "bilinear"), HALF, HALF),
}


def said(folder: Path, content: dict[str, Any], name: str = "preprocessor_config.json") -> Path:
    (folder / name).write_text(json.dumps(content))
    return folder


three = st.lists(st.floats(0.1, 0.9), min_size=3, max_size=3)


@st.composite
def configs(draw: st.DrawFn) -> tuple[type[Any], dict[str, Any]]:
    """A processor of transformers and a config of it that gives pictures of the side."""
    processor = draw(st.sampled_from(sorted(USUAL, key=str)))
    crops = draw(st.booleans())
    side = draw(st.integers(SIDE, SIDE + 9)) if crops else SIDE
    square = {"height": side, "width": side}
    config: dict[str, Any] = {
        "do_center_crop": crops, "size": draw(st.sampled_from([square, {"shortest_edge": side}])) if crops else square,
        "crop_size": {"height": SIDE, "width": SIDE},
    }
    choices = {
        "resample": st.integers(0, 5), "image_mean": three, "image_std": three, "do_normalize": st.booleans(),
        "do_rescale": st.booleans(), "rescale_factor": st.floats(1e-3, 1.0), "do_convert_rgb": st.booleans(),
    }
    chosen = draw(st.lists(st.sampled_from(sorted(choices)), unique=True))
    return processor, config | {key: draw(choices[key]) for key in chosen}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=configs(), height=st.integers(5, 60), width=st.integers(5, 60), seed=st.integers(0, 99))
def test_published__pixels_are_those_of_transformers_with_pillow(
    tmp_path: Path, drawn: tuple[type[Any], dict[str, Any]], height: int, width: int, seed: int
) -> None:
    processor, config = drawn
    frame = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    pictures: Any = [[frame]] if processor is VideoMAEImageProcessorPil else [frame]
    wanted = np.asarray(processor(**config)(pictures, return_tensors="np")["pixel_values"])[0].reshape(3, SIDE, SIDE)
    found = published_processing(said(tmp_path, config), USUAL[processor])
    pixels = preprocess_frames(
        frame[None, None], resizing=found.resizing, image_mean=found.image_mean, image_std=found.image_std
    )[0, 0]
    np.testing.assert_allclose(pixels, wanted, rtol=1e-5, atol=1e-5 * max(1.0, float(np.abs(wanted).max())))


@pytest.mark.parametrize(("content", "wanted"), [
    # As published: google/siglip2-base-patch16-224, openai/clip-vit-base-patch32, microsoft/xclip-base-patch32.
    ({"do_resize": True, "size": {"height": 16, "width": 16}, "resample": 2}, ("squash", "bilinear")),
    ({"crop_size": 16, "do_center_crop": True, "do_resize": True, "resample": 3, "size": 16}, ("crop", "bicubic")),
    ({"do_center_crop": True, "resample": 2, "size": {"shortest_edge": 16}}, ("crop", "bilinear")),
    ({"do_center_crop": False}, ("squash", "bicubic")), ({}, ("crop", "bicubic")),
    ({"resample": "lanczos"}, ("crop", "lanczos")), ({"size": [16, 16], "resample": 0}, ("squash", "nearest")),
])
def test_published__what_the_hub_s_files_say(
    tmp_path: Path, content: dict[str, Any], wanted: tuple[Resize, Resample]
) -> None:
    assert published_processing(said(tmp_path, content), CLIP).resizing == Resizing(SIDE, *wanted)


def test_published__a_margin_is_cut_off(tmp_path: Path) -> None:
    said(tmp_path, {"size": {"shortest_edge": 18}, "crop_size": {"height": 16, "width": 16}, "do_center_crop": True})
    resizing = published_processing(tmp_path, CLIP).resizing
    assert resizing == Resizing(SIDE, "crop", "bicubic", 18) and resizing.shorter_px == 18


def test_published__video_s_own_file_counts_for_a_family_of_videos(tmp_path: Path) -> None:
    said(tmp_path, {"resample": 2})
    said(tmp_path, {"resample": 1}, "video_preprocessor_config.json")
    assert published_processing(tmp_path, CLIP).resizing.resample == "bilinear"
    assert published_processing(tmp_path, CLIP, of_videos=True).resizing.resample == "lanczos"
    said(tmp_path, {"image_processor": {"resample": 4}, "video_processor": {"resample": 5}}, "processor_config.json")
    assert published_processing(tmp_path, CLIP).resizing.resample == "box"
    assert published_processing(tmp_path, CLIP, of_videos=True).resizing.resample == "hamming"


@pytest.mark.parametrize("content", [
    {"do_resize": False}, {"do_flip_channel_order": True}, {"do_pad": True}, {"size": {"height": 16, "width": 18}},
    {"size": {"longest_edge": 16}}, {"size": "16"}, {"size": 0}, {"size": {"shortest_edge": 16}, "do_center_crop": False},
    {"crop_size": 17, "do_center_crop": True}, {"size": 17, "do_center_crop": False}, {"size": 12, "do_center_crop": True},
    {"resample": 6}, {"resample": "sharp"}, {"resample": -1}, {"image_mean": [1, 2]}, {"image_std": [0.5, 0.0, 0.5]},
    {"image_mean": ["a", "b", "c"]}, {"rescale_factor": 0}, {"rescale_factor": "1/255"}, {"image_std": [float("nan")] * 3},
])
def test_published__what_would_be_done_otherwise_here_is_refused(tmp_path: Path, content: dict[str, Any]) -> None:
    with raises(ArtifactError, code="preprocessing-unknown") as caught:
        published_processing(said(tmp_path, content), CLIP)
    assert caught.value.code == "preprocessing-unknown" and "preprocessor_config.json" in caught.value.message


def test_load__spec_and_bundle_have_what_is_published(tmp_path: Path) -> None:
    folder = write_siglip(tmp_path)
    assert backbones.load(folder).spec.resizing == Resizing(32, "squash")
    spec = backbones.load(said(folder, {"resample": 2, "size": {"height": 32, "width": 32}})).spec
    assert spec.resizing == Resizing(32, "squash", "bilinear")
    with raises(ArtifactError, code="preprocessing-unknown"):
        backbones.load(said(folder, {"size": {"height": 48, "width": 48}}))
    assert backbones.load(write_xclip(tmp_path / "xclip")).spec.resample == "bilinear"  # that of VideoMAE's processor


@pytest.mark.parametrize("write", [write_clip, write_siglip, write_viclip, write_xclip])
def test_published_side__is_the_loaded_spec_s(tmp_path: Path, write: Any) -> None:
    folder = write(tmp_path)
    assert published_side(folder) == backbones.load(folder).spec.resizing.shorter_px


@pytest.mark.parametrize(("config", "beside", "wanted"), [
    ({"vision_config": {"image_size": 336}}, {}, 336), ({"vision_config": {"image_size": [384, 384]}}, {}, 384),
    ({"vision_config": {}}, {}, 224), ({"vision_config": {"image_size": 224}}, {"size": {"shortest_edge": 256}}, 256),
    ({"architectures": ["ViCLIP"], "size": "b"}, {}, 224), ({"anything": 1}, {"size": 96}, 96),
    ({"vision_config": {"image_size": 0}}, {"size": {"height": 48, "width": 48}}, 48),
])
def test_published_side__of_what_may_lie_on_the_hub(
    tmp_path: Path, config: dict[str, Any], beside: dict[str, Any], wanted: int
) -> None:
    said(said(tmp_path, config, "config.json"), beside)
    assert published_side(tmp_path) == wanted


def test_published_side__of_open_clip(tmp_path: Path) -> None:
    said(tmp_path, {"model_cfg": {"vision_cfg": {"image_size": 336}}}, "open_clip_config.json")
    assert published_side(tmp_path) == 336


def test_published_side__that_nothing_says_is_an_error_with_the_fix(tmp_path: Path) -> None:
    with raises(ConfigError, code="side-unknown") as caught:
        published_side(said(tmp_path, {"model_type": "other"}, "config.json"))
    assert caught.value.code == "side-unknown" and "frames.side_px" in caught.value.remedy
