"""The interface of a backbone, common to all families."""

from __future__ import annotations

import abc
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidseek_encoder.preprocess import Resample, Resize, Resizing
from vidseek_media.errors import ConfigError
from vidseek_training.backbones.modules.towers import ExportTower, usual_towers
from vidseek_training.settings import TOWERS

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class BackboneSpec:
    """All that preprocessing and export must know of a backbone."""

    family: str
    """As `registry.Family` names it, or the `model_type` of a generic family's model."""
    name: str
    """`vidseek/viclip-tiny`, a folder, or a hub id with its commit: `owner/name@commit`."""
    dimension: int
    context_length: int
    """Tokens of a text, padded or cut to this."""
    num_frames: int
    """T, the frames of a clip."""
    image_size_px: int
    """Of the square picture that the model takes, in pixels."""
    resize: Resize
    """`squash` (straight to the square) or `crop` (shorter side, then the middle): see `Resizing`."""
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]
    pad_id: int
    tokenizer: Path
    """Its tokenizer.json."""
    resample: Resample = "bicubic"
    resize_side: int | None = None
    """See `Resizing`."""

    @property
    def resizing(self) -> Resizing:
        """How frames are resized."""
        return Resizing(self.image_size_px, self.resize, self.resample, self.resize_side)


class Backbone(nn.Module, abc.ABC):
    """A joint video-text model.

    Attributes:
        spec: Preprocessing and sizes, for training and export.
        logit_scale: Natural logarithm of the factor on cosines, a scalar parameter.
        reads_padding: Whether a text's vector depends on its padding; if not, padding is not computed.
        lora_ends: For each group of `lora_targets` except the stem, the endings of its modules' names.
        averages_frames: Whether a clip's vector is the normalised mean of its frames' unit vectors, for any number of
            frames.
    """

    reads_padding: bool = False
    averages_frames: ClassVar[bool] = False
    lora_ends: ClassVar[dict[str, tuple[str, ...]]]

    spec: BackboneSpec
    logit_scale: nn.Parameter

    @abc.abstractmethod
    def video_features(self, pixel_values: Tensor) -> Tensor:
        """Compute features of clips, not normalised.

        Args:
            pixel_values: Preprocessed frames, float (n, T, 3, side, side).

        Returns:
            Shape (n, dimension).
        """

    @abc.abstractmethod
    def text_features(self, input_ids: Tensor) -> Tensor:
        """Compute features of texts, not normalised.

        Args:
            input_ids: Token ids, int64 (n, context).

        Returns:
            Shape (n, dimension).
        """

    @property
    def logit_bias(self) -> float | None:
        """Return the logit bias of a family trained with a sigmoid loss; None for others."""
        return None

    @property
    def video_layers(self) -> nn.ModuleList:
        """Return the transformer layers of the vision tower, at which `video_tokens` can stop and `features_of_tokens`
        begin.

        Raises:
            ConfigError: the family's tower cannot be split.
        """
        raise self._not_apart()

    def video_tokens(self, pixel_values: Tensor, depth: int) -> Tensor:
        """Run the vision tower below one of its layers.

        Args:
            pixel_values: Preprocessed frames, float (n, T, 3, side, side).
            depth: Number of layers to run.

        Returns:
            Tokens, shape (n, ..., tokens, width).

        Raises:
            ConfigError: the family's tower cannot be split.
        """
        raise self._not_apart()

    def features_of_tokens(self, tokens: Tensor, depth: int) -> Tensor:
        """Run the rest of the vision tower.

        Args:
            tokens: Output of `video_tokens`.
            depth: Number of layers that were run.

        Returns:
            Features as `video_features` returns them, shape (n, dimension).

        Raises:
            ConfigError: the family's tower cannot be split.
        """
        raise self._not_apart()

    def lora_targets(
        self, groups: tuple[str, ...], *, last_layers: int | None = None, towers: tuple[str, ...] = TOWERS
    ) -> list[str]:
        """Return the full names of the modules that get an adapter.

        Args:
            groups: Any of `attention`, `mlp`, `projections`, `token_embedding` and `stem` (the patch embedding or its
                replacement, the only convolutions of all families).
            last_layers: Of modules in transformer layers, only those in the last so many layers of each stack; None takes
                all.
            towers: `video`, `text`, or both.
        """
        found = [
            name for name, module in self.named_modules()
            if self.lora_group(name, module) in groups and self.tower_of(name) in towers
        ]
        return found if last_layers is None else _in_last_layers(found, last_layers, (n for n, _ in self.named_modules()))

    def lora_group(self, name: str, module: nn.Module) -> str | None:
        """Return the group of a module for `lora_targets`; None if it must not get an adapter.

        The default compares `lora_ends`; a family with another rule overrides this method.

        Args:
            name: Full name of the module.
            module: The module.
        """
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            return "stem"
        # What projects to the common space may have a name that elsewhere is of an MLP.
        of = (group for group in ("projections", *self.lora_ends) if name.endswith(self.lora_ends[group]))
        return next(of, None)

    def tower_of(self, name: str) -> str:
        """Return the tower, `video` or `text`, of the module with this full name."""
        # In the families of vidseek what is of the text tower, and nothing else, has `text` in its name.
        return "text" if "text" in name else "video"

    def export_towers(self) -> tuple[ExportTower, ...]:
        """Return the towers that are exported to ONNX; by default `towers.usual_towers`."""
        return usual_towers(self)

    def embed_videos(self, pixel_values: Tensor) -> Tensor:
        """Compute unit vectors of clips, shape (n, dimension), from float (n, T, 3, side, side)."""
        return F.normalize(self.video_features(pixel_values), dim=-1)

    def embed_tokens(self, tokens: Tensor, depth: int) -> Tensor:
        """Compute unit vectors of clips from tokens.

        Args:
            tokens: Output of `video_tokens`.
            depth: Number of layers that were run.
        """
        return F.normalize(self.features_of_tokens(tokens, depth), dim=-1)

    def embed_texts(self, input_ids: Tensor) -> Tensor:
        """Compute unit vectors of texts, shape (n, dimension), from int64 token ids (n, context)."""
        return F.normalize(self.text_features(input_ids), dim=-1)

    def num_parameters(self) -> int:
        """Return the number of parameters."""
        return sum(parameter.numel() for parameter in self.parameters())

    def num_embedding_parameters(self) -> int:
        """Return the number of parameters in the token embedding."""
        tables = (module for name, module in self.named_modules() if self.lora_group(name, module) == "token_embedding")
        return sum(parameter.numel() for module in tables for parameter in module.parameters())

    def _not_apart(self) -> ConfigError:
        return ConfigError(
            f"{self.spec.name}: the layers of a {self.spec.family} tower cannot be computed apart", code="layers-not-apart",
            remedy="Set train.settings.<name>.cached_views to 0",
        )


def clamp_logit_scale(model: Backbone, highest: float = 100.0) -> None:
    """Keep the factor on cosines between 1 and a maximum, as CLIP does (Radford et al. 2021).

    Args:
        model: The backbone, changed in place.
        highest: The maximum.
    """
    with torch.no_grad():
        model.logit_scale.clamp_(0.0, float(torch.log(torch.tensor(highest))))


_LAYER = re.compile(r"(.*\.(?:layers|resblocks))\.(\d+)\b")
"""What a stack of transformer layers is called, and the number of one."""


def _in_last_layers(targets: list[str], count: int, modules: Iterable[str]) -> list[str]:
    """Return those of `targets` that are in no layer, or in one of the last `count` of its stack."""
    sizes: dict[str, int] = {}
    for name in modules:
        if found := _LAYER.match(name):
            sizes[found[1]] = max(sizes.get(found[1], 0), int(found[2]) + 1)
    kept = []
    for name in targets:
        found = _LAYER.match(name)
        if found is None or int(found[2]) >= sizes[found[1]] - count:
            kept.append(name)
    return kept
