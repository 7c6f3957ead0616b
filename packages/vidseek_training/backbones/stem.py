"""A convolutional stem in the place of a patch embedding.

Four 3 x 3 convolutions of stride 2 see edges before they see patches. At 64 pixels and a few minutes of training a linear
patch embedding does not learn shape (Xiao et al. 2021, "Early Convolutions Help Transformers See Better").
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vidseek_media.errors import ConfigError


class ConvStem(nn.Module):
    """Pictures (n, 3, side, side) to a grid (n, width, side / patch, side / patch).

    Raises:
        ConfigError: `patch` is not a power of two.
    """

    def __init__(self, width: int, *, patch: int) -> None:
        super().__init__()
        depth = round(math.log2(patch))
        if 2**depth != patch or depth < 1:
            raise ConfigError(f"a convolutional stem with patch {patch}; wanted a power of two")
        layers: list[nn.Module] = []
        channels = 3
        for level in range(depth):
            out = width >> (depth - 1 - level) if level else max(24, width >> (depth - 1))
            layers += [nn.Conv2d(channels, out, 3, stride=2, padding=1), nn.GroupNorm(out // 8, out), nn.ReLU()]
            channels = out
        layers.append(nn.Conv2d(channels, width, 1))
        # On a CPU convolutions with channels last take 0.6 of the time.
        self.layers = nn.Sequential(*layers).to(memory_format=torch.channels_last)

    @property
    def weight(self) -> Tensor:
        """A weight of the stem: transformers' CLIP asks its patch embedding for the dtype."""
        weight = self.layers[-1].weight
        assert isinstance(weight, Tensor)
        return weight

    def forward(self, pictures: Tensor) -> Tensor:
        """Apply the stem."""
        result: Tensor = self.layers(pictures.contiguous(memory_format=torch.channels_last))
        return result
