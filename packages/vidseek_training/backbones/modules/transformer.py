"""The transformer of CLIP, with the names of OpenAI's, open_clip's and ViCLIP's checkpoints.

Attention consists of two `nn.Linear` and PyTorch's scaled dot product, so that LoRA can adapt it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Activation = Callable[[Tensor], Tensor]


def quick_gelu(hidden: Tensor) -> Tensor:
    """Compute `x * sigmoid(1.702 x)`, CLIP's activation."""
    return hidden * torch.sigmoid(1.702 * hidden)


class Attention(nn.Module):
    """Self-attention over tokens (n, length, width)."""

    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.in_proj = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Apply attention to tokens (n, length, width); the shape is kept."""
        batch, length, width = tokens.shape
        parts = self.in_proj(tokens).chunk(3, dim=-1)
        heads = (part.view(batch, length, self.heads, width // self.heads).transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(*heads, is_causal=self.causal)
        result: Tensor = self.out_proj(mixed.transpose(1, 2).reshape(batch, length, width))
        return result


class Mlp(nn.Module):
    """Two linear layers with an activation between them."""

    def __init__(self, width: int, hidden: int, activation: Activation) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, hidden)
        self.c_proj = nn.Linear(hidden, width)
        self.activation = activation

    def forward(self, tokens: Tensor) -> Tensor:
        """Apply the layer to tokens (n, length, width); the shape is kept."""
        result: Tensor = self.c_proj(self.activation(self.c_fc(tokens)))
        return result


class Block(nn.Module):
    """A layer: attention and MLP, each behind a norm and beside an identity."""

    def __init__(
        self, width: int, heads: int, *, causal: bool, hidden: int, activation: Activation, eps: float
    ) -> None:
        super().__init__()
        self.attn = Attention(width, heads, causal=causal)
        self.ln_1 = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, hidden, activation)
        self.ln_2 = nn.LayerNorm(width, eps=eps)

    def forward(self, tokens: Tensor) -> Tensor:
        """Apply the block to tokens (n, length, width); the shape is kept."""
        tokens = tokens + self.attn(self.ln_1(tokens))
        result: Tensor = tokens + self.mlp(self.ln_2(tokens))
        return result


class Transformer(nn.Module):
    """A stack of layers."""

    def __init__(
        self, width: int, layers: int, heads: int, *, causal: bool, hidden: int | None = None,
        activation: Activation = quick_gelu, eps: float = 1e-5,
    ) -> None:
        super().__init__()
        hidden = 4 * width if hidden is None else hidden
        self.resblocks = nn.ModuleList(
            Block(width, heads, causal=causal, hidden=hidden, activation=activation, eps=eps) for _ in range(layers)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Apply all blocks to tokens (n, length, width); the shape is kept."""
        for block in self.resblocks:
            tokens = block(tokens)
        return tokens


class TextTower(nn.Module):
    """Token ids (n, tokens) to features (n, dimension): the text transformer of open_clip and of ViCLIP.

    Args:
        config: By the keys of open_clip's `text_cfg`; CLIP's B/32 where it says nothing.
        dimension: Of the features.
        activation: Of the MLPs.
    """

    def __init__(self, config: Mapping[str, Any], dimension: int, activation: Activation) -> None:
        super().__init__()
        width = config.get("width", 512)
        eps = (config.get("norm_kwargs") or {}).get("eps", 1e-5)
        self.pool, self.eos = config.get("pool_type", "argmax"), config.get("eos_id", 2)
        self.token_embedding = nn.Embedding(config.get("vocab_size", 49408), width)
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(config.get("context_length", 77), width))
        self.transformer = Transformer(
            width, config.get("layers", 12), config.get("heads", 8), causal=not config.get("no_causal_mask", False),
            activation=activation, hidden=int(width * config.get("mlp_ratio", 4.0)), eps=eps,
        )
        self.ln_final = nn.LayerNorm(width, eps=eps)
        self.text_projection = nn.Linear(width, dimension, bias=bool(config.get("proj_bias", False)))

    def forward(self, input_ids: Tensor) -> Tensor:
        """Features of any length."""
        tokens = self.token_embedding(input_ids) + self.positional_embedding[: input_ids.shape[1]]
        tokens = self.ln_final(self.transformer(tokens))
        result: Tensor = self.text_projection(self._pooled(tokens, input_ids))
        return result

    def _pooled(self, tokens: Tensor, input_ids: Tensor) -> Tensor:
        if self.pool in ("first", "last"):
            return tokens[:, 0 if self.pool == "first" else -1]
        # The end token has the highest number, or is named.
        ends = input_ids.argmax(-1) if self.pool == "argmax" else (input_ids == self.eos).int().argmax(-1)
        return tokens[torch.arange(tokens.shape[0], device=tokens.device), ends]
