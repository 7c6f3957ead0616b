"""Two-tower models of transformers against transformers' own outputs, and what of them is declined."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.raising import raises
from tests.training.tiny import CONTEXT, FRAMES_OF_CLIP, SIDE, WORDS, ids_of, random_pixels, write_tensors
from tests.training.tiny_dual import KINDS, reference_of, write_dual
from vidseek_media.errors import ArtifactError, ConfigError
from vidseek_training import backbones
from vidseek_training.backbones import Backbone, dual

GROUPS = ("attention", "mlp", "projections", "token_embedding", "stem")
TEXTS = ["a red video", "cyan", "a dark black video"]


@pytest.fixture(scope="module", params=sorted(KINDS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dual(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def model(folder: Path) -> Backbone:
    return backbones.load(folder)


def theirs(model: Backbone, pixels: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of the first frame or of the clip, and of texts, as transformers computes them from a processor's inputs."""
    kind = model.spec.family
    reference = reference_of(kind)
    mask = {} if kind == "siglip2" else {"attention_mask": (ids != 0).long()}
    texts = reference.get_text_features(input_ids=ids, **mask).pooler_output
    if kind == "videoprism":
        return reference.get_video_features(pixels).pooler_output[:, 0], texts
    if kind == "siglip2":
        from transformers.models.siglip2.image_processing_pil_siglip2 import convert_image_to_patches

        rows = [convert_image_to_patches(picture.numpy(), 16) for picture in pixels[:, 0]]
        patches = torch.from_numpy(np.stack(rows))
        count, places = patches.shape[:2]
        shapes = torch.tensor([[SIDE // 16, SIDE // 16]] * count)
        seen = reference.get_image_features(
            patches, pixel_attention_mask=torch.ones(count, places), spatial_shapes=shapes
        )
        return seen.pooler_output, texts
    return reference.get_image_features(pixels[:, 0]).pooler_output, texts


def test_features__are_transformers(model: Backbone) -> None:
    pixels, ids = random_pixels(3), ids_of(model, TEXTS)
    with torch.inference_mode():
        videos, texts = theirs(model, pixels, ids)
        ours = model.picture_features(pixels[:, 0]) if model.averages_frames else model.video_features(pixels)  # type: ignore[operator]
        assert torch.allclose(ours, videos, atol=1e-5) and torch.allclose(model.text_features(ids), texts, atol=1e-5)
    assert ours.shape[1] == model.spec.dimension == texts.shape[1]
    assert (model.spec.context_length, model.spec.image_size_px, model.spec.num_frames) == (CONTEXT, SIDE, FRAMES_OF_CLIP)
    assert float(texts.std(0).min()) > 1e-4 and float(videos.std(0).min()) > 1e-4


def test_scale__is_the_logarithm_of_the_factor_and_the_bias_is_found(model: Backbone) -> None:
    reference = reference_of(model.spec.family)
    if hasattr(reference, "logit_scale"):
        wanted = float(reference.logit_scale.detach())
    elif hasattr(reference, "temperature"):
        wanted = -float(reference.temperature.detach().log())
    else:
        wanted = dual._START_SCALE
    assert float(model.logit_scale.detach()) == pytest.approx(wanted, abs=1e-5)
    bias = getattr(reference, "logit_bias", None)
    assert model.logit_bias == (None if bias is None else pytest.approx(float(bias.detach())))


def test_texts__padding_is_trimmed_only_where_it_moves_no_vector(model: Backbone) -> None:
    ids = ids_of(model, ["a red video"])
    with torch.inference_mode():
        apart = float((model.embed_texts(ids) - model.embed_texts(ids[:, :6])).abs().max())
    assert apart < 1e-5 or model.reads_padding
    assert model.reads_padding == (model.spec.family in ("siglip2", "videoprism"))


def test_lora_targets__what_they_name_moves_the_vectors_of_their_tower(model: Backbone) -> None:
    pixels, ids = random_pixels(2), ids_of(model, TEXTS[:2])
    modules = dict(model.named_modules())
    groups = {group: model.lora_targets((group,)) for group in GROUPS}
    assert len(groups["token_embedding"]) == 1 and len(groups["stem"]) == 1
    assert modules[groups["token_embedding"][0]].num_embeddings == len(WORDS)
    # q, k, v, out of each layer of each tower; ALIGN sees by convolutions, which take no adapter.
    assert len(groups["attention"]) >= (4 if model.spec.family == "align" else 8) and len(groups["mlp"]) >= 2
    with torch.no_grad():
        before = (model.embed_videos(pixels), model.embed_texts(ids))
        for name in [name for names in groups.values() for name in names]:
            handle = modules[name].register_forward_hook(lambda _, __, result: result + torch.randn_like(result))
            after = (model.embed_videos(pixels), model.embed_texts(ids))
            handle.remove()
            moved = [not torch.equal(one, other) for one, other in zip(before, after, strict=True)]
            assert moved == [model.tower_of(name) == "video", model.tower_of(name) == "text"], name


def test_train__running_means_of_batches_stay(tmp_path: Path) -> None:
    model = backbones.load(write_dual(tmp_path, "align")).train()
    before = {name: tensor.clone() for name, tensor in model.named_buffers()}
    model.embed_videos(random_pixels(2))
    assert model.training and all(torch.equal(tensor, before[name]) for name, tensor in model.named_buffers())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["chinese_clip", "videoprism"])
def test_load__a_missing_and_an_unexpected_tensor_are_named(kind: str, tmp_path: Path) -> None:
    folder = write_dual(tmp_path, kind)
    tensors = load_file(folder / "model.safetensors")
    lost = next(name for name in sorted(tensors) if name.endswith("weight"))
    write_tensors(folder, {name: t for name, t in tensors.items() if name != lost} | {"stranger": torch.zeros(2)})
    with raises(ArtifactError, code="backbone-broken", naming=(lost, "stranger")):
        backbones.load(folder)


def test_load__a_tensor_of_another_shape_is_named_with_both(tmp_path: Path) -> None:
    folder = write_dual(tmp_path, "chinese_clip")
    tensors = load_file(folder / "model.safetensors")
    write_tensors(folder, tensors | {"text_projection.weight": torch.zeros(7, 32)})
    with raises(ArtifactError, code="backbone-broken", naming=("(7, 32)", "(16, 32)")):
        backbones.load(folder)


@pytest.mark.parametrize(("config", "code", "facts"), [
    ({"model_type": "jina_clip", "auto_map": {"AutoModel": "jinaai/jina-clip-implementation--modeling_clip.JinaCLIPModel"}},
     "backbone-needs-code", ("jina_clip", "modeling_clip.JinaCLIPModel")),
    ({"model_type": "bert"}, "backbone-not-two-towers", ("BertModel", "neither", "get_text_features")),
    ({"model_type": "dinov2"}, "backbone-not-two-towers", ("Dinov2Model", "neither")),
    ({"model_type": "clap"}, "backbone-not-two-towers",
     ("ClapModel", "get_text_features and get_audio_features", "get_image_features")),
    ({"model_type": "siglip_vision_model"}, "backbone-not-two-towers", ("SiglipVisionModel", "wanted get_text_features")),
    ({"model_type": "never_heard_of"}, "unknown-family", ("never_heard_of", "dual")),
])
def test_load__what_is_of_another_kind_is_declined_by_name(
    config: dict[str, object], code: str, facts: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with raises(ConfigError, code=code, naming=facts):
        backbones.load(tmp_path)


def test_load__a_kind_never_compared_needs_its_preprocessor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_dual(tmp_path, "metaclip_2")
    monkeypatch.setattr(dual, "KINDS", {})
    with raises(ArtifactError, code="backbone-broken", naming="preprocessor_config"):
        backbones.load(folder)
    levels = {"do_normalize": False, "rescale_factor": 1 / 127.5, "rescale_offset": True}
    said = {"size": {"height": SIDE, "width": SIDE}, **levels}
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    model = backbones.load(folder)
    assert model.reads_padding and model.spec.image_size_px == SIDE
    # 0 becomes -1 and 255 becomes 1.
    assert model.spec.image_mean == pytest.approx((0.5,) * 3) and model.spec.image_std == pytest.approx((0.5,) * 3)


def test_text_features__an_end_token_that_also_pads_is_read_once(tmp_path: Path) -> None:
    folder = write_dual(tmp_path, "chinese_clip")
    config = json.loads((folder / "config.json").read_text())
    end = len(WORDS) - 1
    (folder / "config.json").write_text(json.dumps({**config, "pad_id": end}))
    model, plain = backbones.load(folder), backbones.load(write_dual(tmp_path / "plain", "chinese_clip"))
    ids = ids_of(model, ["a red video"])
    assert (ids[0, 4:] == end).all()
    with torch.inference_mode():
        assert torch.allclose(model.text_features(ids), plain.text_features(ids_of(plain, ["a red video"])), atol=1e-5)
