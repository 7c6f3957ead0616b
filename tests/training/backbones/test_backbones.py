from __future__ import annotations

import dataclasses
import json
import math
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import SiglipConfig, SiglipModel, XCLIPConfig, XCLIPModel

from tests.raising import raises
from tests.training.tiny import (
    CONTEXT,
    DIMENSION,
    FRAMES_OF_CLIP,
    SIDE,
    TEXT,
    VISION,
    clip_config,
    ids_of,
    random_pixels,
    siglip_config,
    write_clip,
    write_siglip,
    write_tensors,
    write_viclip,
    write_xclip,
    xclip_config,
)
from vidseek_demo.train_backbones import to_clip
from vidseek_media.errors import ArtifactError, ConfigError
from vidseek_training import backbones
from vidseek_training.backbones import Backbone, loading
from vidseek_training.backbones.base import clamp_logit_scale
from vidseek_training.backbones.clip import build_clip
from vidseek_training.backbones.loading import _NoDraws
from vidseek_training.backbones.modules.stem import ConvStem, MotionStem, ResidualStem, _Residual
from vidseek_training.backbones.viclip import from_checkpoint
from vidseek_training.hub.faults import HubNotCached

WRITERS = {"viclip": write_viclip, "clip": write_clip, "xclip": write_xclip, "siglip": write_siglip}
GROUPS = ("attention", "mlp", "projections", "token_embedding")


@pytest.fixture(scope="module", params=sorted(WRITERS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return WRITERS[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture
def model(folder: Path) -> Backbone:
    return backbones.load(folder)


@pytest.fixture
def viclip(tmp_path: Path) -> Path:
    return write_viclip(tmp_path / "viclip")


def test_load__gives_unit_vectors_of_the_spec(model: Backbone) -> None:
    spec = model.spec
    dimension = 32 if spec.family == "siglip" else DIMENSION  # SigLIP's is its vision tower's width
    assert (spec.dimension, spec.context_length) == (dimension, CONTEXT)
    assert (spec.num_frames, spec.image_size_px) == (FRAMES_OF_CLIP, SIDE)
    assert not model.training
    with torch.inference_mode():
        videos = model.embed_videos(random_pixels(3))
        texts = model.embed_texts(ids_of(model, ["a red video", "blue"]))
    assert videos.shape == (3, dimension) and texts.shape == (2, dimension)
    assert torch.allclose(videos.norm(dim=1), torch.ones(3)) and torch.allclose(texts.norm(dim=1), torch.ones(2))
    assert videos.dtype == torch.float32
    assert model.num_parameters() == sum(p.numel() for p in model.parameters())


def test_load__twice_is_the_same_model(folder: Path) -> None:
    one, other = backbones.load(folder).state_dict(), backbones.load(str(folder)).state_dict()
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_load__half_precision_weights_become_fp32(folder: Path, tmp_path: Path) -> None:
    half = WRITERS[backbones.load(folder).spec.family](tmp_path)
    write_tensors(half, {name: tensor.half() for name, tensor in load_file(half / "model.safetensors").items()})
    model = backbones.load(half)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize(("change", "said"), [
    (lambda tensor: tensor * float("nan"), "no numbers"), (lambda tensor: tensor.sign() * float("inf"), "infinite"),
    (lambda tensor: tensor.to(torch.int8), "torch.int8"), (lambda tensor: tensor > 0, "torch.bool"),
    (lambda tensor: tensor.to(torch.float8_e4m3fn), "torch.float8"), (lambda tensor: tensor.to(torch.complex64), "complex"),
])
def test_load__weights_that_are_no_numbers_are_an_error_that_names_them(
    tmp_path: Path, change: Callable[[torch.Tensor], torch.Tensor], said: str
) -> None:
    folder = write_clip(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in sorted(tensors) if name.endswith("q_proj.weight"))
    write_tensors(folder, {**tensors, name: change(tensors[name])})
    with raises(ArtifactError, code="backbone-broken", naming=("q_proj.weight", said)):
        backbones.load(folder)


def test_load__a_part_of_the_weights_that_is_missing_is_named(tmp_path: Path) -> None:
    folder = write_clip(tmp_path)
    places = dict.fromkeys(load_file(folder / "model.safetensors"), "model-00002-of-00002.safetensors")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    index = {"weight_map": {**places, "logit_scale": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with raises(ArtifactError, code="backbone-broken", naming="model-00002-of-00002.safetensors"):
        backbones.load(folder)


def test_load__a_missing_and_an_unexpected_tensor_are_named(folder: Path, tmp_path: Path) -> None:
    family = backbones.load(folder).spec.family
    broken = WRITERS[family](tmp_path)
    tensors = load_file(broken / "model.safetensors")
    lost = next(name for name in sorted(tensors) if "token_embedding" in name)
    write_tensors(broken, {name: t for name, t in tensors.items() if name != lost} | {"stranger": torch.zeros(2)})
    with raises(ArtifactError, code="backbone-broken") as caught:
        backbones.load(broken)
    assert f"1 missing: {lost}" in caught.value.message.replace(f" {family}.", " ")
    assert "1 unexpected: " in caught.value.message and "stranger" in caught.value.message


def test_load__a_tensor_of_another_shape_is_named_with_both(viclip: Path) -> None:
    tensors = load_file(viclip / "model.safetensors")
    write_tensors(viclip, tensors | {"vision_encoder.ln_post.bias": torch.zeros(7)})
    with raises(ArtifactError, code="backbone-broken", naming=("vision_encoder.ln_post.bias (7,)", "(32,)")):
        backbones.load(viclip)


def test_load__without_its_scale_is_an_artifact_error(folder: Path, tmp_path: Path) -> None:
    broken = WRITERS[backbones.load(folder).spec.family](tmp_path)
    tensors = load_file(broken / "model.safetensors")
    write_tensors(broken, {name: tensor for name, tensor in tensors.items() if name != "logit_scale"})
    with raises(ArtifactError, code="backbone-broken", naming="logit_scale"):
        backbones.load(broken)


def test_load__positions_that_older_checkpoints_number_are_no_weights(tmp_path: Path) -> None:
    folder = write_clip(tmp_path)
    numbers = {
        "text_model.embeddings.position_ids": torch.arange(CONTEXT)[None],
        "vision_model.embeddings.position_ids": torch.arange(5)[None],
    }
    before = backbones.load(folder).state_dict()
    write_tensors(folder, load_file(folder / "model.safetensors") | numbers)
    assert backbones.load(folder).state_dict().keys() == before.keys()


@pytest.mark.parametrize(("name", "kind", "code"), [
    ("config.json", ConfigError, "unknown-backbone"), ("model.safetensors", ArtifactError, "backbone-broken"),
    ("tokenizer.json", ArtifactError, "tokenizer-absent"),
])
def test_load__a_missing_file_is_an_error_that_names_it(
    viclip: Path, name: str, kind: type[Exception], code: str
) -> None:
    (viclip / name).unlink()
    with raises(kind, code=code, naming=name):
        backbones.load(viclip)


@pytest.mark.parametrize(("content", "error", "code", "fact"), [
    ("{ no", ArtifactError, "backbone-config-broken", "config.json"),
    ('{"model_type": "bert"}', ConfigError, "backbone-not-two-towers", "model_type"),
    ('{"model_type": "viclip"}', ArtifactError, "backbone-broken", "config.json"),
    ('{"model_type": "clip", "vision_config": 3}', ArtifactError, "backbone-broken", "config.json"),
    ("[]", ArtifactError, "backbone-config-broken", "config.json"),
])
def test_load__a_config_that_cannot_be_is_an_error(
    viclip: Path, content: str, error: type[Exception], code: str, fact: str
) -> None:
    (viclip / "config.json").write_text(content)
    with raises(error, code=code, naming=fact):
        backbones.load(viclip)


def test_load__sizes_that_we_do_not_know_are_an_error(viclip: Path) -> None:
    config = json.loads((viclip / "config.json").read_text())
    config["vision"]["depth"] = 3
    (viclip / "config.json").write_text(json.dumps(config))
    with raises(ArtifactError, code="backbone-broken", naming="depth"):
        backbones.load(viclip)


def test_load__broken_weights_are_an_error(viclip: Path) -> None:
    (viclip / "model.safetensors").write_bytes(b"no tensors")
    with raises(ArtifactError, code="backbone-broken", naming="model.safetensors"):
        backbones.load(viclip)


@pytest.mark.parametrize("name", ["vidseek/no-such", "no/such/folder"])
def test_resolve__what_is_not_there_says_what_to_name(name: str) -> None:
    with raises(ConfigError, code="unknown-backbone", naming=name) as caught:
        backbones.resolve(name)
    assert caught.value.remedy


def test_lora_targets__are_modules_of_both_towers(model: Backbone) -> None:
    modules = dict(model.named_modules())
    counts = {group: model.lora_targets((group,)) for group in GROUPS}
    assert model.lora_targets(()) == []
    assert sorted(model.lora_targets(GROUPS)) == sorted(name for names in counts.values() for name in names)
    assert len(set(model.lora_targets(GROUPS))) == len(model.lora_targets(GROUPS))
    for group, names in counts.items():
        kinds = {type(modules[name]) for name in names}
        assert kinds == {nn.Embedding if group == "token_embedding" else nn.Linear}
        towers = {"text" if "text" in name else "vision" for name in names}
        assert towers == ({"text"} if group == "token_embedding" else {"text", "vision"})
    assert len(counts["projections"]) == 2 and len(counts["token_embedding"]) == 1
    # X-CLIP's joining transformer and its messages, SigLIP's pooling head, and two layers of each tower's one block.
    assert len(counts["mlp"]) == {"viclip": 4, "clip": 4, "xclip": 8, "siglip": 5}[model.spec.family]
    assert len(counts["attention"]) == {"viclip": 4, "clip": 8, "xclip": 24, "siglip": 8}[model.spec.family]


def test_lora_targets__of_one_tower_move_its_vectors_alone(model: Backbone) -> None:
    pixels, ids = random_pixels(2), ids_of(model, ["a red video", "blue"])
    everything = model.lora_targets((*GROUPS, "stem"))
    parts = [model.lora_targets((*GROUPS, "stem"), towers=(tower,)) for tower in ("video", "text")]
    assert sorted(parts[0] + parts[1]) == sorted(everything) and all(parts)
    with torch.no_grad():
        for mine, (moves, stays) in zip(parts, ((0, 1), (1, 0)), strict=True):
            before = (model.embed_videos(pixels), model.embed_texts(ids))
            for name in mine:
                model.get_submodule(name).weight.add_(0.05)
            after = (model.embed_videos(pixels), model.embed_texts(ids))
            assert torch.equal(before[stays], after[stays]) and not torch.equal(before[moves], after[moves])


def test_lora_targets__the_stem_is_what_sees_the_pixels_first(model: Backbone, tmp_path: Path) -> None:
    (only,) = model.lora_targets(("stem",))
    assert only.endswith({"viclip": "vision_encoder.conv1"}.get(model.spec.family, ".patch_embedding"))
    motion = backbones.load(write_viclip(tmp_path, vision=dataclasses.replace(VISION, stem="motion")))
    # Four convolutions, one to the width, and two that compare neighbours.
    assert len(motion.lora_targets(("stem",))) == 7
    assert all(name.startswith("vision_encoder.conv1.") for name in motion.lora_targets(("stem",)))


def test_lora_targets__what_they_name_moves_the_vectors(model: Backbone) -> None:
    """A module that runs past its own `forward` would take an adapter and never use it."""
    pixels, ids = random_pixels(2), ids_of(model, ["a red video", "blue"])
    modules = dict(model.named_modules())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))  # biases and new layers begin at zero
        before = (model.embed_videos(pixels), model.embed_texts(ids))
        for name in model.lora_targets(GROUPS):
            if "layers.0.message_attn" in name and name.endswith(("q_proj", "k_proj")):
                continue  # before the first layer all frames' class tokens are equal, and so are their messages
            handle = modules[name].register_forward_hook(lambda _, __, result: result + torch.randn_like(result))
            after = (model.embed_videos(pixels), model.embed_texts(ids))
            handle.remove()
            assert any(not torch.equal(one, other) for one, other in zip(before, after, strict=True)), name


def test_text_features__what_follows_the_end_token_changes_nothing(model: Backbone) -> None:
    ids = ids_of(model, ["a red video"])
    if model.reads_padding:
        with torch.inference_mode():
            assert not torch.allclose(model.text_features(ids), model.text_features(ids[:, :6]), atol=1e-4)
        return
    end = int(ids.argmax(1))
    assert end == 4 and (ids[0, end + 1 :] == 0).all()
    other = ids.clone()
    other[0, end + 1 :] = torch.tensor([3, 5, 7])
    with torch.inference_mode():
        assert torch.allclose(model.text_features(ids), model.text_features(other), atol=1e-6)
        before_end = ids.clone()
        before_end[0, end - 1] = 2
        assert not torch.allclose(model.text_features(ids), model.text_features(before_end), atol=1e-3)


def test_video_features__temporal_backbones_see_the_order_of_frames(model: Backbone) -> None:
    pixels = random_pixels(2)
    with torch.no_grad():
        if model.spec.family == "viclip":  # as published checkpoints have it; new ones begin with zeros
            model.vision_encoder.temporal_positional_embedding.normal_()  # type: ignore[union-attr, operator]
        apart = (model.embed_videos(pixels) - model.embed_videos(pixels.flip(1))).abs().max()
    assert apart < 1e-5 if model.spec.family in ("clip", "siglip") else apart > 1e-4


def test_video_features__clip_is_the_mean_of_unit_frames(tmp_path: Path) -> None:
    model = backbones.load(write_clip(tmp_path))
    pixels = random_pixels(2)
    with torch.inference_mode():
        frames = torch.stack([model.embed_videos(pixels[:, t : t + 1]) for t in range(FRAMES_OF_CLIP)])
        assert torch.allclose(model.embed_videos(pixels), F.normalize(frames.mean(0), dim=-1), atol=1e-6)


def test_viclip__attention_is_softmax_of_scaled_products(viclip: Path) -> None:
    """One layer of the text tower against the formula written out."""
    model = backbones.load(viclip)
    block = model.text_encoder.transformer.resblocks[0].attn  # type: ignore[union-attr, index]
    tokens = torch.randn(2, 5, 32)
    with torch.no_grad():
        mixed = torch.empty(2, 5, 32)
        qkv = block.in_proj(tokens)
        for head in range(2):
            q, k, v = (qkv[..., 32 * part + 16 * head :][..., :16] for part in range(3))
            logits = q @ k.transpose(1, 2) / math.sqrt(16)
            logits = logits.masked_fill(torch.ones(5, 5).triu(1).bool(), float("-inf"))
            mixed[..., 16 * head : 16 * head + 16] = logits.softmax(-1) @ v
        assert torch.allclose(block(tokens), block.out_proj(mixed), atol=1e-5)


def published(ours: dict[str, Tensor], temperature: float) -> dict[str, Tensor]:
    """A state dict under the names and in the forms of the published ViCLIP checkpoints."""
    theirs: dict[str, Tensor] = {}
    for name, tensor in ours.items():
        if name == "logit_scale":
            theirs["temp"] = torch.tensor(temperature)
        elif name in ("vision_encoder.proj.weight", "text_encoder.text_projection.weight"):
            theirs[name.removesuffix(".weight")] = tensor.T.contiguous()
        else:
            theirs[name.replace("in_proj.weight", "in_proj_weight").replace("in_proj.bias", "in_proj_bias")] = tensor
    return theirs


@pytest.mark.parametrize("prefix", ["", "model."])
def test_from_checkpoint__published_names_become_ours(viclip: Path, prefix: str) -> None:
    ours = load_file(viclip / "model.safetensors")
    theirs = {prefix + name: tensor for name, tensor in published(ours, 0.01).items()}
    assert f"{prefix}vision_encoder.transformer.resblocks.0.attn.in_proj_weight" in theirs
    mapped = from_checkpoint(theirs)
    assert mapped.keys() == ours.keys()
    assert all(torch.equal(mapped[name], ours[name]) for name in ours if name != "logit_scale")
    assert float(mapped["logit_scale"].exp()) == pytest.approx(100.0, rel=1e-5)
    assert all(torch.equal(from_checkpoint(ours)[name], ours[name]) for name in ours)


def test_load__a_published_checkpoint_is_the_same_function(viclip: Path, tmp_path: Path) -> None:
    ours = load_file(viclip / "model.safetensors")
    other = write_viclip(tmp_path / "published", seed=5)
    write_tensors(other, published(ours, 0.07))
    with torch.inference_mode():
        wanted = backbones.load(viclip).embed_videos(random_pixels(2))
        assert torch.equal(backbones.load(other).embed_videos(random_pixels(2)), wanted)


@pytest.mark.slow
@pytest.mark.parametrize("stem", ["patch", "conv", "motion"])
def test_to_clip__is_the_same_function_of_one_frame(tmp_path: Path, stem: str) -> None:
    vision = dataclasses.replace(VISION, stem=stem, layers=2)
    viclip = backbones.load(write_viclip(tmp_path / "viclip", vision=vision))
    with torch.no_grad():
        viclip.vision_encoder.temporal_positional_embedding.normal_()  # type: ignore[union-attr, operator]
    clip_folder = write_clip(tmp_path / "clip")
    config = clip_config() | {"stem": "patch" if stem == "patch" else "conv"}
    config["vision_config"]["num_hidden_layers"] = 2
    (clip_folder / "config.json").write_text(json.dumps(config))
    state = dict(viclip.state_dict())
    if stem == "patch":  # a Conv3d over one frame is a Conv2d
        state["vision_encoder.conv1.weight"] = state["vision_encoder.conv1.weight"][:, :, 0]
    write_tensors(clip_folder, to_clip(state))
    clip = backbones.load(clip_folder)
    with torch.inference_mode():
        pixels = random_pixels(3, frames=1)
        assert torch.allclose(clip.embed_videos(pixels), viclip.embed_videos(pixels), atol=1e-5)
        ids = ids_of(clip, ["a dark red video", "cyan"])
        assert torch.allclose(clip.embed_texts(ids), viclip.embed_texts(ids), atol=1e-5)
    assert float(clip.logit_scale.detach()) == float(viclip.logit_scale.detach())


@pytest.mark.parametrize(("width", "patch"), [(32, 16), (48, 8), (16, 2)])
def test_stem__gives_a_grid_of_patches(width: int, patch: int) -> None:
    assert ConvStem(width, patch=patch)(torch.zeros(2, 3, 32, 32)).shape == (2, width, 32 // patch, 32 // patch)


@pytest.mark.parametrize("patch", [12, 1])
def test_stem__a_patch_that_is_no_power_of_two_is_an_error(patch: int) -> None:
    with raises(ConfigError, code="bad-patch", naming=patch):
        ConvStem(32, patch=patch)


def test_residual_stem__begins_as_the_plain_one_and_a_clip_with_it_loads(tmp_path: Path) -> None:
    stem, plain = ResidualStem(32, patch=8), ConvStem(32, patch=8)
    pairs = zip([m for m in stem.layers if not isinstance(m, _Residual)], plain.layers, strict=True)
    for ours, other in pairs:
        other.load_state_dict(ours.state_dict())
    pictures = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(stem(pictures), plain(pictures), atol=1e-6)
        assert sum(isinstance(m, _Residual) for m in stem.layers) == 2
        for module in stem.layers:
            if isinstance(module, _Residual):
                module.layers[-1].weight.fill_(1.0)
        assert not torch.allclose(stem(pictures), plain(pictures), atol=1e-2)
    config = clip_config() | {"stem": "residual"}
    spec = backbones.load(write_clip(tmp_path)).spec
    built = build_clip(config, spec)
    (tmp_path / "config.json").write_text(json.dumps(config))
    write_tensors(tmp_path, built.clip.state_dict())
    pixels = random_pixels(2)
    with torch.no_grad():
        assert torch.allclose(backbones.load(tmp_path).embed_videos(pixels), built.eval().embed_videos(pixels), atol=1e-6)


def test_motion_stem__begins_as_the_stem_of_pictures_and_then_tells_directions_apart() -> None:
    torch.manual_seed(0)
    stem, plain = MotionStem(32, patch=16), ConvStem(32, patch=16)
    plain.load_state_dict({name: tensor for name, tensor in stem.state_dict().items() if not name.startswith("compare")})
    clips = torch.rand(2, 4, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(stem(clips.flatten(0, 1), 4), plain(clips.flatten(0, 1)))
        for tensor in stem.compare.parameters():
            tensor.normal_()
        forth = stem(clips.flatten(0, 1), 4).unflatten(0, (2, 4))
        back = stem(clips.flip(1).flatten(0, 1), 4).unflatten(0, (2, 4)).flip(1)
        assert not torch.allclose(forth, back, atol=1e-3)
        # Clips do not see each other, and a picture alone passes the comparison by.
        assert torch.allclose(forth[1], stem(clips[1], 4), atol=1e-5)
        assert torch.equal(stem(clips[:, 0]), plain(clips[:, 0]))


def test_motion_stem__a_patch_too_small_is_an_error() -> None:
    with raises(ConfigError, code="bad-patch", naming="patch 2"):
        MotionStem(32, patch=2)


def test_clamp_logit_scale__keeps_the_factor_between_1_and_100(model: Backbone) -> None:
    for value, wanted in ((9.0, math.log(100)), (-1.0, 0.0), (3.0, 3.0)):
        model.logit_scale.data.fill_(value)
        clamp_logit_scale(model)
        assert float(model.logit_scale.detach()) == pytest.approx(wanted)


def test_text_shape__longer_than_the_text_is_no_matter(tmp_path: Path) -> None:
    """A batch cut to its longest text has the vectors of the padded one: training cuts, serving pads."""
    model = backbones.load(write_viclip(tmp_path, text=dataclasses.replace(TEXT, layers=2)))
    ids = ids_of(model, ["a red video"])
    with torch.inference_mode():
        assert torch.allclose(model.embed_texts(ids), model.embed_texts(ids[:, :6]), atol=1e-6)


def test_xclip__texts_never_see_clips_and_vectors_are_transformers(tmp_path: Path) -> None:
    folder = write_xclip(tmp_path)
    model = backbones.load(folder)
    config = {key: value for key, value in xclip_config().items() if key != "model_type"}
    reference = XCLIPModel(XCLIPConfig(**config)).eval()
    reference.load_state_dict(load_file(folder / "model.safetensors"))
    pixels, ids = random_pixels(3), ids_of(model, ["a red video", "cyan"])
    with torch.inference_mode():
        wanted = reference.get_video_features(pixel_values=pixels).pooler_output
        assert torch.allclose(model.video_features(pixels), wanted, atol=1e-6)
        wanted = reference.get_text_features(input_ids=ids, attention_mask=(ids != 0).long()).pooler_output
        assert torch.allclose(model.text_features(ids), wanted, atol=1e-6)
    assert not any("prompts" in name for name, _ in model.named_parameters())


def test_siglip__vectors_are_transformers(tmp_path: Path) -> None:
    folder = write_siglip(tmp_path)
    model = backbones.load(folder)
    config = {key: value for key, value in siglip_config().items() if key != "model_type"}
    reference = SiglipModel(SiglipConfig(**config)).eval()
    reference.load_state_dict(load_file(folder / "model.safetensors"))
    pixels, ids = random_pixels(3, frames=1), ids_of(model, ["a red video", "cyan"])
    with torch.inference_mode():
        wanted = F.normalize(reference.get_image_features(pixel_values=pixels[:, 0]).pooler_output, dim=-1)
        assert torch.allclose(model.embed_videos(pixels), wanted, atol=1e-6)
        assert torch.allclose(model.text_features(ids), reference.get_text_features(ids).pooler_output, atol=1e-6)


def test_load__weights_of_the_older_kind_are_read(folder: Path, tmp_path: Path) -> None:
    older = WRITERS[backbones.load(folder).spec.family](tmp_path)
    torch.save(load_file(older / "model.safetensors"), older / "pytorch_model.bin")
    wanted = backbones.load(older).state_dict()
    (older / "model.safetensors").unlink()
    found = backbones.load(older).state_dict()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    (older / "pytorch_model.bin").write_bytes(b"no tensors")
    with raises(ArtifactError, code="backbone-broken", naming="pytorch_model.bin"):
        backbones.load(older)


def test_load__published_preprocessing_counts(tmp_path: Path) -> None:
    folder = write_xclip(tmp_path)
    assert backbones.load(folder).spec.image_mean == pytest.approx((0.485, 0.456, 0.406))
    said = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "do_center_crop": True}
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    (folder / "config.json").write_text(json.dumps({**xclip_config(), "resize": "squash"}))
    spec = backbones.load(folder).spec
    assert (spec.image_mean, spec.image_std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert spec.resize == "squash"  # config.json has the last word


def test_load__the_padding_token_is_the_tokenizer_s(tmp_path: Path) -> None:
    folder = write_siglip(tmp_path)
    config = siglip_config()
    del config["pad_id"]
    config["text_config"]["pad_token_id"] = 1
    (folder / "config.json").write_text(json.dumps(config))
    assert backbones.load(folder).spec.pad_id == 1
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "<pad>"}))
    assert backbones.load(folder).spec.pad_id == 0


def test_load__viclip_s_published_sizes_are_known_by_their_letter(tmp_path: Path) -> None:
    """The hub's config.json names a size; the weights' shapes say that it was understood."""
    write_viclip(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["ViCLIP"], "size": "b"}))
    with raises(ArtifactError, code="backbone-broken", naming=("text_encoder.transformer.resblocks", "1.attn")):
        backbones.load(tmp_path)


def _snapshot(cache: Path, name: str, revision: str) -> Path:
    """An empty snapshot of `name` as the hub's client keeps it."""
    repository = cache / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(revision)
    (repository / "snapshots" / revision).mkdir(parents=True)
    return repository / "snapshots" / revision


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def test_load__a_hub_id_is_read_from_the_local_cache(hub: Path) -> None:
    revision = "0123456789abcdef0123456789abcdef01234567"
    write_clip(_snapshot(hub, "someone/tiny-clip", revision))
    model = backbones.load("someone/tiny-clip")
    assert model.spec.name == f"someone/tiny-clip@{revision}" and model.spec.family == "clip"
    assert backbones.revision_of("someone/tiny-clip") == revision
    assert backbones.revision_of("vidseek/clip-tiny") == ""


def test_resolve__a_hub_id_that_is_not_here_and_no_network_says_what_to_do(hub: Path) -> None:
    names, command = ("someone/unknown", hub), "fetch someone/unknown"
    with raises(HubNotCached, code="hub-not-cached", naming=names, remedy=command):
        backbones.resolve("someone/unknown")
    # Half a download is none.
    (_snapshot(hub, "someone/half", "f" * 40) / "config.json").write_text("{}")
    with raises(HubNotCached, code="hub-not-cached", naming="weights, tokenizer missing"):
        backbones.resolve("someone/half")


def test_load__draws_no_random_number(folder: Path) -> None:
    """Weights that are overwritten are not made up first: it took most of the time, and moved the seed's stream."""
    torch.manual_seed(5)
    before = torch.get_rng_state()
    model = backbones.load(folder)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(bool(tensor.isfinite().all()) for tensor in (*model.parameters(), *model.buffers()))
    torch.manual_seed(6)
    again = backbones.load(folder)
    pairs = zip((*model.parameters(), *model.buffers()), (*again.parameters(), *again.buffers()), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("draw", [
    torch.nn.init.normal_, torch.nn.init.uniform_, torch.nn.init.trunc_normal_,
    lambda tensor: torch.nn.init.trunc_normal_(tensor, std=1.0, a=2.5, b=9.0),
])
def test_load__what_memory_held_does_not_make_it_endless(draw: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """torch draws a truncated normal anew while a number lies outside of its bounds."""
    held = torch.full((3, 4), 77.0)
    with stopped_after(20), _NoDraws():
        assert draw(held).abs().max() < 10


@contextmanager
def stopped_after(seconds: float) -> Iterator[None]:
    """TimeoutError in what computes for longer."""
    def stop(*_: object) -> None:
        raise TimeoutError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 2), (8, 3)])
def test_load__torch_takes_no_more_threads_than_the_container_has_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, threads: int
) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr(loading, "usable_cores", lambda: cores)
    try:
        torch.set_num_threads(3)
        loading.load("vidseek/clip-tiny")
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
