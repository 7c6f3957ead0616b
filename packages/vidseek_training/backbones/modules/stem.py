"""Convolutional stems that replace a patch embedding: for pictures, and for clips with neighbouring frames.

Four 3 x 3 convolutions of stride 2 detect edges before patches are formed. At 64 pixels and a few minutes of training, a
linear patch embedding does not learn shape (Xiao et al. 2021, "Early Convolutions Help Transformers See Better").
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
            raise ConfigError(f"a convolutional stem with patch {patch}; wanted a power of two", code="bad-patch")
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
        """A weight of the stem; transformers' CLIP reads the dtype from it."""
        weight = self.layers[-1].weight
        assert isinstance(weight, Tensor)
        return weight

    def forward(self, pictures: Tensor, length: int = 1) -> Tensor:
        """Apply the stem.

        Args:
            pictures: Shape (n, 3, side, side).
            length: Pictures in a row that are one clip; not used here.
        """
        result: Tensor = self.layers(pictures.contiguous(memory_format=torch.channels_last))
        return result


class ResidualStem(ConvStem):
    """A `ConvStem` with two more 3 x 3 convolutions after each but the first of its levels, beside an identity.

    For photographs, which show more than a few shapes: `make bench-flickr` trains a CLIP with it.

    Raises:
        ConfigError: `patch` is not a power of two.
    """

    def __init__(self, width: int, *, patch: int) -> None:
        super().__init__(width, patch=patch)
        *levels, last = self.layers
        layers: list[nn.Module] = []
        for level in range(0, len(levels), 3):
            layers += levels[level : level + 3]
            if level:
                layers.append(_Residual(levels[level + 1].num_channels))  # type: ignore[arg-type]
        self.layers = nn.Sequential(*layers, last).to(memory_format=torch.channels_last)


class _Residual(nn.Module):
    """Two convolutions whose result is added to their input, and is zero at the start (Goyal et al. 2017)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.GroupNorm(channels // 8, channels), nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.GroupNorm(channels // 8, channels),
        )
        last = self.layers[-1]
        assert isinstance(last, nn.GroupNorm)
        nn.init.zeros_(last.weight)

    def forward(self, grid: Tensor) -> Tensor:
        return torch.relu(grid + self.layers(grid))


class MotionStem(ConvStem):
    """A `ConvStem` that compares each frame with its neighbours in time at a quarter of the resolution.

    The direction of a motion shows in two or three frames and a few pixels. Patches of 16 pixels hide it, and joint
    attention
    finds it only after tens of thousands of clips. A convolution over the frame and its differences to both neighbours finds
    it
    at once (compare Lin et al. 2019, "TSM"). Its result is added to the picture's features and is zero at the start, so a
    trained `ConvStem` can be continued. A single frame skips it.

    Raises:
        ConfigError: `patch` is not a power of two, or is less than 4.
    """

    def __init__(self, width: int, *, patch: int) -> None:
        super().__init__(width, patch=patch)
        if patch < 4:
            raise ConfigError(f"a stem that sees motion with patch {patch}; wanted at least 4", code="bad-patch")
        channels = width >> (round(math.log2(patch)) - 2)
        hidden = max(8, channels // 2)
        self.compare = nn.Sequential(
            nn.Conv2d(3 * channels, hidden, 3, padding=1), nn.GroupNorm(hidden // 8, hidden), nn.ReLU(),
            nn.Conv2d(hidden, channels, 1),
        ).to(memory_format=torch.channels_last)
        last = self.compare[-1]
        assert isinstance(last, nn.Conv2d)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]

    def forward(self, pictures: Tensor, length: int = 1) -> Tensor:
        """Apply the stem to clips.

        Args:
            pictures: Shape (clips * length, 3, side, side).
            length: Frames of a clip.
        """
        early = self.layers[:_LAYERS_OF_A_QUARTER](pictures.contiguous(memory_format=torch.channels_last))
        if length > 1:
            early = early + self.compare(_with_neighbours(early, length))
        result: Tensor = self.layers[_LAYERS_OF_A_QUARTER:](early)
        return result


_LAYERS_OF_A_QUARTER = 6
"""Two convolutions of stride 2, each with its norm and its activation."""


def _with_neighbours(frames: Tensor, length: int) -> Tensor:
    """Concatenate each frame with its differences to the previous and the next one; at the ends the difference is zero."""
    clips = frames.unflatten(0, (-1, length))
    steps = clips[:, 1:] - clips[:, :-1]
    none = torch.zeros_like(steps[:, :1])
    before, after = torch.cat([none, steps], 1), torch.cat([steps, none], 1)
    return torch.cat([before, clips, after], 2).flatten(0, 1)
