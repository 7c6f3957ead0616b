"""Two-tower models of transformers at reduced sizes with random weights, as `save_pretrained` leaves them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tests.training.tiny import CONTEXT, DIMENSION, FRAMES_OF_CLIP, SIDE, WORDS, told_apart, write_folder

_TEXT: dict[str, Any] = {
    "vocab_size": len(WORDS), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
    "max_position_embeddings": CONTEXT, "pad_token_id": 0, "bos_token_id": len(WORDS) - 2, "eos_token_id": len(WORDS) - 1,
}
_VISION: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": SIDE,
    "patch_size": 16,
}
_BOTH = {"text_config": _TEXT, "vision_config": _VISION, "projection_dim": DIMENSION}
_CLIP_LIKE = {
    "text_config": {**_TEXT, "projection_dim": DIMENSION}, "vision_config": {**_VISION, "projection_dim": DIMENSION},
    "projection_dim": DIMENSION,
}
KINDS: dict[str, dict[str, Any]] = {
    "metaclip_2": _CLIP_LIKE,
    "clipseg": _BOTH,
    "chinese_clip": _BOTH,
    "altclip": {
        **_CLIP_LIKE, "text_config": {**_TEXT, "project_dim": 24, "max_position_embeddings": CONTEXT + 1},
    },
    "align": {
        "text_config": _TEXT, "projection_dim": 32, "vision_config": {
            "image_size": SIDE, "width_coefficient": 1.0, "depth_coefficient": 0.3, "hidden_dim": 32,
            "kernel_sizes": [3, 3], "in_channels": [32, 16], "out_channels": [16, 32], "strides": [1, 2],
            "expand_ratios": [1, 2], "num_block_repeats": [1, 1], "depthwise_padding": [],
        },
    },
    "aimv2": {**_BOTH, "vision_config": {**_VISION, "is_native": False}},
    "tipsv2": {"text_config": _TEXT, "vision_config": _VISION},
    "videoprism": {
        "text_config": _TEXT, "vision_config": {
            "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "image_size": SIDE,
            "num_frames": FRAMES_OF_CLIP, "tubelet_size": [1, 16, 16], "num_spatial_layers": 1, "num_temporal_layers": 1,
            "num_auxiliary_layers": 1,
        },
    },
    "siglip2": {
        "text_config": {**_TEXT, "projection_size": 32},
        "vision_config": {**{k: v for k, v in _VISION.items() if k != "image_size"}, "num_patches": (SIDE // 16) ** 2},
    },
}
"""By `model_type`: its config.json."""


def reference_of(kind: str) -> Any:
    """transformers' own model, the same each time, in evaluation mode."""
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(0)
    model = AutoModel.from_config(AutoConfig.for_model(kind, **KINDS[kind])).eval()
    lively = _lively(told_apart(model.state_dict()))
    model.load_state_dict({n: t for n, t in lively.items() if t.is_floating_point()}, strict=False)
    return model


def write_dual(folder: Path, kind: str, *, seed: int = 0) -> Path:
    """A model of this `model_type` with random weights, its files as transformers writes them; gives `folder`."""
    saved = folder / "saved"
    reference_of(kind).save_pretrained(saved)
    config = json.loads((saved / "config.json").read_text())
    own = {"pad_id": 0} if kind == "videoprism" else {"pad_id": 0, "frames": FRAMES_OF_CLIP}
    return write_folder(folder, {**config, **own}, load_file(saved / "model.safetensors"))


def _lively(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Biases, class tokens and queries begin as zeros, which would hide that one was lost; convolutions are small."""
    tensors = {
        name: 2 * tensor / (tensor.std() * tensor[0].numel() ** 0.5) if tensor.ndim == 4 and tensor.any() else tensor
        for name, tensor in tensors.items()
    }
    return {
        name: tensor + 0.1 * torch.randn_like(tensor) if tensor.is_floating_point() and not tensor.any() else tensor
        for name, tensor in tensors.items()
    }
