"""open_clip's configs and weights, against towers as open_clip computes them; test_open_clip_itself.py asks open_clip."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.raising import raises
from tests.training.tiny import CONTEXT, DIMENSION, FRAMES_OF_CLIP, SIDE, ids_of, random_pixels, write_clip
from tests.training.tiny_open_clip import PLAIN, reference_of, write_checkpoint, write_open_clip
from vidseek_media.errors import ArtifactError, ConfigError
from vidseek_training import backbones
from vidseek_training.backbones.modules import timm_tower

TEXTS = ["a red video", "cyan", "a dark black video"]

@pytest.mark.parametrize("name", sorted(PLAIN))
def test_features__are_those_of_the_towers_as_open_clip_computes_them(name: str, tmp_path: Path) -> None:
    model, reference = backbones.load(write_open_clip(tmp_path, name)), reference_of(name)
    pixels, ids = random_pixels(3), ids_of(model, TEXTS)
    with torch.inference_mode():
        assert torch.allclose(model.picture_features(pixels[:, 0]), reference.encode_image(pixels[:, 0]), atol=1e-5)  # type: ignore[operator]
        assert torch.allclose(model.text_features(ids), reference.encode_text(ids), atol=1e-5)
        trimmed = torch.allclose(model.text_features(ids), model.text_features(ids[:, :6]), atol=1e-5)
    assert trimmed != model.reads_padding and model.reads_padding == (name == "custom")
    assert float(model.logit_scale.detach().exp()) == pytest.approx(30.0)
    assert model.logit_bias == (-9.5 if name == "custom" else None)
    spec = model.spec
    assert (spec.dimension, spec.context_length) == (DIMENSION, CONTEXT)
    assert (spec.image_size_px, spec.num_frames) == (SIDE, FRAMES_OF_CLIP)
    assert (spec.resize, spec.resample) == ("squash", "bilinear")
    assert (spec.image_mean, spec.image_std) == ((0.5,) * 3, (0.25,) * 3)


def test_tokens__of_any_depth_go_on_to_the_same_features(tmp_path: Path) -> None:
    model, pixels = backbones.load(write_open_clip(tmp_path)), random_pixels(3)
    with torch.inference_mode():
        for depth in range(3):
            found = model.features_of_tokens(model.video_tokens(pixels, depth), depth)
            assert torch.allclose(found, model.video_features(pixels), atol=1e-6)


def test_lora_targets__are_attention_and_mlp_of_both_towers(tmp_path: Path) -> None:
    model = backbones.load(write_open_clip(tmp_path))
    assert {group: len(model.lora_targets((group,))) for group in ("attention", "mlp", "projections")} == {
        "attention": 6, "mlp": 6, "projections": 2,
    }
    assert model.lora_targets(("stem", "token_embedding")) == ["visual.conv1", "text.token_embedding"]
    last = model.lora_targets(("attention",), last_layers=1, towers=("video",))
    assert last == [f"visual.transformer.resblocks.1.attn.{each}" for each in ("in_proj", "out_proj")]


def test_load__a_config_json_of_transformers_beside_it_has_the_word(tmp_path: Path) -> None:
    write_open_clip(tmp_path)
    write_clip(tmp_path)
    assert backbones.load(tmp_path).spec.family == "clip"
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "vit_base", "num_classes": 0}))  # as timm writes one
    assert backbones.load(tmp_path).spec.family == "open_clip"


def test_load__a_tensor_too_few_or_too_many_is_named(tmp_path: Path) -> None:
    path = write_open_clip(tmp_path) / "open_clip_model.safetensors"
    tensors = load_file(path)
    del tensors["visual.ln_post.bias"]
    save_file(tensors | {"text_decoder.stranger": torch.zeros(2)}, path)
    with raises(ArtifactError, code="backbone-broken") as caught:
        backbones.load(tmp_path)
    assert "visual.ln_post.bias" in caught.value.message and "text_decoder.stranger" in caught.value.message
    path.unlink()
    with raises(ArtifactError, code="backbone-broken", naming="open_clip_model.safetensors"):
        backbones.load(tmp_path)


@pytest.mark.parametrize(("section", "key", "value"), [
    ("vision_cfg", "layers", [3, 4, 6, 3]), ("vision_cfg", "ls_init_value", 1e-5), ("vision_cfg", "attentional_pool", True),
    ("vision_cfg", "no_ln_pre", True), ("vision_cfg", "image_size", [32, 64]), ("vision_cfg", "pool_type", "none"),
    ("text_cfg", "hf_model_name", "roberta-base"), ("text_cfg", "embed_cls", True), ("text_cfg", "pool_type", "none"),
    ("text_cfg", "tokenizer_kwargs", {"clean": "canonicalize"}),
])
def test_load__what_is_not_built_is_declined_by_its_key(section: str, key: str, value: object, tmp_path: Path) -> None:
    model = {**PLAIN["quick"], section: {**PLAIN["quick"][section], key: value}}
    write_checkpoint(tmp_path, model, {})
    with raises(ConfigError, code="backbone-not-built") as caught:
        backbones.load(tmp_path)
    assert f"{section}.{key}" in caught.value.message and str(value) in caught.value.message


@pytest.mark.parametrize(("key", "value"), [("resize_mode", "longest"), ("interpolation", "random")])
def test_load__preprocessing_that_is_not_built_is_declined(key: str, value: str, tmp_path: Path) -> None:
    path = write_open_clip(tmp_path) / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["preprocess_cfg"][key] = value
    path.write_text(json.dumps(config))
    with raises(ConfigError, code="backbone-not-built", naming=(f"preprocess_cfg.{key}", value)):
        backbones.load(tmp_path)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that Python looks into first; what is imported from it is forgotten after the test."""
    loaded = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "timm"}
    for name in loaded:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    yield tmp_path / "site"
    for name in [name for name in sys.modules if name.partition(".")[0] == "timm"]:
        del sys.modules[name]


FAKE_TIMM = """
import torchvision.transforms as T
from torchvision.ops.misc import FrozenBatchNorm2d
from torchvision.transforms.functional import InterpolationMode
from torch import nn

__version__ = "0"
MODES = {InterpolationMode.BICUBIC: 3}

class Trunk(nn.Sequential):
    def __init__(self, classes):
        super().__init__(nn.Conv2d(3, 8, 16, 16), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes or 8))
        self.num_features = 8

def is_model(name): return name == "vit_fake"
def get_pretrained_cfg(name): return None
def create_model(name, pretrained, num_classes, global_pool): return Trunk(num_classes)
"""


@pytest.mark.parametrize(("projection", "names"), [(None, {"trunk"}), ("none", {"trunk"}), ("linear", {"trunk", "head"})])
def test_timm_tower__is_built_where_torchvision_is_absent(site: Path, projection: str | None, names: set[str]) -> None:
    (site / "timm").mkdir(parents=True)
    (site / "timm" / "__init__.py").write_text(FAKE_TIMM)
    config = {"timm_model_name": "vit_fake", "timm_pool": "avg", "timm_proj": projection, "image_size": SIDE}
    tower = timm_tower.TimmTower(config, 8 if projection == "none" else 12)
    assert tower(torch.zeros(2, 3, SIDE, SIDE)).shape == (2, 8 if projection == "none" else 12)
    assert {name.partition(".")[0] for name, _ in tower.named_parameters()} == names
    assert importlib.util.find_spec("torchvision") is not None or "torchvision.ops" not in sys.modules
    with raises(ConfigError, code="backbone-not-built", naming="vit_unknown"):
        timm_tower.TimmTower({**config, "timm_model_name": "vit_unknown"}, 8)
    with raises(ConfigError, code="backbone-not-built", naming="rot_attn"):
        timm_tower.TimmTower({**config, "timm_pool": "rot_attn"}, 8)


def test_timm_tower__without_timm_says_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    vision = {"timm_model_name": "vit_pe_core_tiny_patch16_384"}
    write_checkpoint(tmp_path, {**PLAIN["quick"], "vision_cfg": vision}, {"logit_scale": torch.zeros(())})
    with raises(ConfigError, code="not-installed") as caught:
        backbones.load(tmp_path)
    assert "timm" in caught.value.message and "make open-clip" in caught.value.remedy
