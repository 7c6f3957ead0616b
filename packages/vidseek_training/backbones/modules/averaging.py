"""Backbones with an image tower: the vector of a clip is the mean of its frames' unit vectors."""

from __future__ import annotations

import abc
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from vidseek_training.backbones.base import Backbone


class FrameAveraging(Backbone):
    """A backbone whose tower takes pictures (n, 3, side, side). A still image is a clip of one frame."""

    averages_frames: ClassVar[bool] = True
    layer_masks: ClassVar[tuple[None, ...]] = (None,)
    """What a layer takes beside tokens: those of transformers take a mask, and pictures have none."""

    @abc.abstractmethod
    def picture_features(self, pictures: Tensor) -> Tensor:
        """Pictures to features (n, dimension), of any length."""

    def picture_tokens(self, pictures: Tensor) -> Tensor:
        """Pictures to the tokens (n, tokens, width) that the first of `video_layers` sees."""
        raise self._not_apart()

    def features_of_last(self, tokens: Tensor) -> Tensor:
        """Convert tokens (n, tokens, width) after the last of `video_layers` into features (n, dimension) of any length."""
        raise self._not_apart()

    def video_features(self, pixel_values: Tensor) -> Tensor:
        """Return the mean of the unit frame vectors of each clip; implements `Backbone.video_features`."""
        return _mean(self.picture_features(pixel_values.flatten(0, 1)), *pixel_values.shape[:2])

    def video_tokens(self, pixel_values: Tensor, depth: int) -> Tensor:
        """Return tokens of shape (n, T, tokens, width); implements `Backbone.video_tokens`."""
        tokens = self.picture_tokens(pixel_values.flatten(0, 1))
        for layer in self.video_layers[:depth]:
            tokens = layer(tokens, *self.layer_masks)
        return tokens.unflatten(0, pixel_values.shape[:2])

    def features_of_tokens(self, tokens: Tensor, depth: int) -> Tensor:
        """Implement `Backbone.features_of_tokens`."""
        batch, frames = tokens.shape[:2]
        tokens = tokens.flatten(0, 1)
        for layer in self.video_layers[depth:]:
            tokens = layer(tokens, *self.layer_masks)
        return _mean(self.features_of_last(tokens), batch, frames)


def _mean(features: Tensor, batch: int, frames: int) -> Tensor:
    return F.normalize(features, dim=-1).view(batch, frames, -1).mean(1)
