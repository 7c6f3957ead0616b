"""open_clip's configs and weights against open_clip 3.3.0 and timm, which `make open-clip-check` installs in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.champions import write_champion
from tests.training.tiny import DIMENSION, Archive, ids_of
from tests.training.tiny_open_clip import PLAIN, TEXT, write_checkpoint
from vidseek_training import backbones
from vidseek_training.backbones import registry
from vidseek_training.backbones.modules import timm_tower
from vidseek_training.backbones.open_clip import OpenCLIP
from vidseek_training.export.onnx_export import export_champion
from vidseek_training.settings import ParitySettings

TEXTS = ["a red video", "cyan", "a dark black video"]
TIMM: dict[str, dict[str, Any]] = {
    "PE-Core": {"timm_model_name": "vit_pe_core_tiny_patch16_384", "timm_pool": "map", "timm_proj": None, "image_size": 384},
    "EVA-02": {"timm_model_name": "eva02_tiny_patch14_224", "timm_pool": "token", "timm_proj": None, "image_size": 224},
    "MobileCLIP2": {"timm_model_name": "fastvit_mci0", "timm_pool": "avg", "timm_proj": None, "image_size": 64,
                    "timm_drop": 0.0, "timm_drop_path": 0.0},
}


def config_of(name: str) -> dict[str, Any]:
    """A plain model, or a tower of timm beside a tiny text tower."""
    return PLAIN.get(name) or {
        "embed_dim": DIMENSION, "custom_text": True, "vision_cfg": TIMM[name],
        "text_cfg": {**TEXT, "no_causal_mask": name == "MobileCLIP2"},
    }


def theirs_of(model: dict[str, Any]) -> Any:
    """open_clip's own model."""
    timm_tower.import_timm()
    with timm_tower.torchvision_or_none():
        import open_clip  # type: ignore[import-not-found]
    made = open_clip.CustomTextCLIP if model.get("custom_text") else open_clip.CLIP
    return made(**{key: value for key, value in model.items() if key != "custom_text"})


@pytest.mark.parametrize("name", [*PLAIN, *TIMM])
def test_features__are_open_clip_s(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = config_of(name)
    theirs = theirs_of(model).eval()
    ours = backbones.load(write_checkpoint(tmp_path, model, theirs.state_dict()))
    ids, pictures = ids_of(ours, TEXTS), torch.randn(2, 3, ours.spec.image_size_px, ours.spec.image_size_px)
    with torch.inference_mode():
        assert isinstance(ours, OpenCLIP)
        assert torch.allclose(ours.picture_features(pictures), theirs.encode_image(pictures), atol=1e-5)
        assert torch.allclose(ours.text_features(ids), theirs.encode_text(ids), atol=1e-5)
    targets = ours.lora_targets(("attention", "mlp", "projections"), towers=("video",))
    assert targets and not any(target.endswith("patch_embed.proj") for target in targets)


@pytest.mark.parametrize("name", sorted(TIMM))
def test_timm__goes_from_a_folder_over_an_adapter_to_a_proven_bundle(name: str, archive: Archive, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = config_of(name)
    folder = write_checkpoint(tmp_path / "backbone", model, theirs_of(model).state_dict())
    champion = write_champion(tmp_path / "champion", folder, seed=3)
    spec, parities = export_champion(
        champion, backbone=str(folder), pairs=archive.pairs, frames=archive.frames, out=tmp_path / "encoder",
        limits={"fp32": ParitySettings().fp32}, max_clips=16,
    )
    assert (spec.family, spec.vision) == ("open_clip", "frame") and not parities["fp32"].failed


PUBLISHED = (
    "ViT-B-16", "ViT-B-16-quickgelu", "ViT-L-14-quickgelu", "ViT-H-14-378-quickgelu", "PE-Core-B-16", "PE-Core-L-14-336",
    "MobileCLIP2-S0", "MobileCLIP2-S2", "MobileCLIP2-B", "EVA02-B-16", "EVA02-L-14-336",
)


@pytest.mark.parametrize("name", PUBLISHED)
def test_build__has_the_tensors_of_open_clip_s_model_at_published_size(name: str, tmp_path: Path) -> None:
    timm_tower.import_timm()
    with timm_tower.torchvision_or_none():
        import open_clip
    model = open_clip.get_model_config(name)
    write_checkpoint(tmp_path, model, {})
    family, config = registry.family_of(tmp_path)
    spec = family.spec_of(config, tmp_path, name=name)
    with torch.device("meta"):
        ours = family.build(config, spec)
        wanted = family.renamed(config, theirs_of(model).state_dict())
    assert {n: tuple(t.shape) for n, t in ours.state_dict().items()} == {n: tuple(t.shape) for n, t in wanted.items()}
