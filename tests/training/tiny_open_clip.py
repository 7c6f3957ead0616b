"""Models of open_clip's configs at reduced sizes with random weights, under the names that open_clip gives them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.training.tiny import CONTEXT, DIMENSION, FRAMES_OF_CLIP, SIDE, WORDS, write_tokenizer

TEXT: dict[str, Any] = {"context_length": CONTEXT, "vocab_size": len(WORDS), "width": 32, "heads": 2, "layers": 1}
VISION: dict[str, Any] = {"image_size": SIDE, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16}
PLAIN: dict[str, dict[str, Any]] = {
    # As DFN's and OpenAI's: the text tower lies at the top.
    "quick": {"embed_dim": DIMENSION, "quick_gelu": True, "vision_cfg": VISION, "text_cfg": TEXT},
    "custom": {
        "embed_dim": DIMENSION, "custom_text": True, "init_logit_bias": -10,
        "vision_cfg": {**VISION, "mlp_ratio": 2.0, "pool_type": "avg"},
        "text_cfg": {**TEXT, "no_causal_mask": True, "pool_type": "last", "proj_bias": True, "norm_kwargs": {"eps": 1e-6},
                     "act_kwargs": {"approximate": "tanh"}},
    },
    "named-end": {
        "embed_dim": DIMENSION, "custom_text": True, "vision_cfg": VISION,
        "text_cfg": {**TEXT, "pool_type": "eos", "eos_id": len(WORDS) - 1},
    },
}


class Reference(nn.Module):
    """The towers as open_clip 3.3.0 computes them: torch's own attention, projections as matrices from the right."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        vision, text = config["vision_cfg"], config["text_cfg"]
        width, self.text, self.quick = vision["width"], text, config.get("quick_gelu", False)
        self.average = vision.get("pool_type") == "avg"
        visual = nn.Module()
        visual.conv1 = nn.Conv2d(3, width, vision["patch_size"], vision["patch_size"], bias=False)
        visual.class_embedding = nn.Parameter(torch.randn(width))
        visual.positional_embedding = nn.Parameter(torch.randn((SIDE // vision["patch_size"]) ** 2 + 1, width))
        visual.ln_pre, visual.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        visual.transformer = _stack(width, vision["layers"], width // vision["head_width"], vision.get("mlp_ratio", 4.0))
        visual.proj = nn.Parameter(torch.randn(width, config["embed_dim"]))
        self.visual = visual
        self.tower = tower = nn.Module()
        eps = text.get("norm_kwargs", {}).get("eps", 1e-5)
        tower.token_embedding = nn.Embedding(text["vocab_size"], text["width"])
        tower.positional_embedding = nn.Parameter(torch.randn(text["context_length"], text["width"]))
        tower.transformer = _stack(text["width"], text["layers"], text["heads"], 4.0, eps)
        tower.ln_final = nn.LayerNorm(text["width"], eps=eps)
        tower.text_projection = nn.Linear(text["width"], config["embed_dim"]) if text.get("proj_bias") else nn.Parameter(
            torch.randn(text["width"], config["embed_dim"])
        )
        self.logit_scale = nn.Parameter(torch.tensor(math.log(30.0)))

    def checkpoint(self, config: dict[str, Any]) -> dict[str, Tensor]:
        """The tensors by open_clip's names."""
        prefix = "text." if config.get("custom_text") else ""
        named = {name.replace("tower.", prefix, 1): tensor for name, tensor in self.state_dict().items()}
        return named | ({"logit_bias": torch.tensor(-9.5)} if "init_logit_bias" in config else {})

    def encode_image(self, pictures: Tensor) -> Tensor:
        visual = self.visual
        patches = visual.conv1(pictures).flatten(2).permute(0, 2, 1)
        tokens = torch.cat([visual.class_embedding.expand(len(patches), 1, -1), patches], 1) + visual.positional_embedding
        tokens = visual.ln_post(self._through(visual.transformer, visual.ln_pre(tokens), None))
        return (tokens[:, 1:].mean(1) if self.average else tokens[:, 0]) @ visual.proj

    def encode_text(self, ids: Tensor) -> Tensor:
        tower, length = self.tower, ids.shape[1]
        mask = None if self.text.get("no_causal_mask") else torch.full((length, length), -math.inf).triu(1)
        tokens = self._through(tower.transformer, tower.token_embedding(ids) + tower.positional_embedding, mask)
        tokens, pool = tower.ln_final(tokens), self.text.get("pool_type", "argmax")
        ends = {"last": torch.full((len(ids),), length - 1), "argmax": ids.argmax(1),
                "eos": ids.eq(self.text.get("eos_id", -1)).int().argmax(1)}[pool]
        pooled = tokens[torch.arange(len(ids)), ends]
        projection = tower.text_projection
        return projection(pooled) if isinstance(projection, nn.Linear) else pooled @ projection

    def _through(self, stack: nn.Module, tokens: Tensor, mask: Tensor | None) -> Tensor:
        for block in stack.resblocks:
            normed = block.ln_1(tokens)
            tokens = tokens + block.attn(normed, normed, normed, need_weights=False, attn_mask=mask)[0]
            hidden = block.mlp.c_fc(block.ln_2(tokens))
            if self.quick:
                active = hidden * torch.sigmoid(1.702 * hidden)
            else:
                said = self.text.get("act_kwargs", {}) if stack is self.tower.transformer else {}
                active = nn.functional.gelu(hidden, **said)
            tokens = tokens + block.mlp.c_proj(active)
        return tokens


def _stack(width: int, layers: int, heads: int, ratio: float, eps: float = 1e-5) -> nn.Module:
    stack = nn.Module()
    stack.resblocks = nn.ModuleList()
    for _ in range(layers):
        block = nn.Module()
        block.ln_1, block.ln_2 = nn.LayerNorm(width, eps=eps), nn.LayerNorm(width, eps=eps)
        block.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        hidden = int(ratio * width)
        block.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, hidden), "c_proj": nn.Linear(hidden, width)})
        stack.resblocks.append(block)
    return stack


def reference_of(name: str) -> Reference:
    """The same each time, with biases that are not zero."""
    torch.manual_seed(0)
    reference = Reference(PLAIN[name])
    with torch.no_grad():
        for each, tensor in reference.named_parameters():
            if each.endswith("bias"):
                tensor.normal_(std=0.1)
    return reference.eval()


def write_open_clip(folder: Path, name: str = "quick") -> Path:
    """A plain model; gives `folder`."""
    return write_checkpoint(folder, PLAIN[name], reference_of(name).checkpoint(PLAIN[name]))


def write_checkpoint(folder: Path, model: dict[str, Any], tensors: dict[str, Tensor]) -> Path:
    """A folder as open_clip pushes one; gives it."""
    folder.mkdir(parents=True, exist_ok=True)
    seen = {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bilinear", "resize_mode": "squash"}
    config = {"model_cfg": model, "preprocess_cfg": seen, "frames": FRAMES_OF_CLIP}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    write_tokenizer(folder)
    contiguous = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    save_file(contiguous, folder / "open_clip_model.safetensors")
    return folder
