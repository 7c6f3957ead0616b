"""The transformer of CLIP, with the names of OpenAI's, open_clip's and ViCLIP's checkpoints.

Attention consists of two `nn.Linear` and PyTorch's scaled dot product, so that LoRA can adapt it.
"""

from __future__ import annotations

from collections.abc import Callable

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
