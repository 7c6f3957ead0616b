"""Shared code of the families whose folders are saved by transformers: config, preprocessing, names of tensors."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from vidseek_encoder.preprocess import Resample, Resize, Resizing
from vidseek_encoder.tokenizer_file import read_tokenizer
from vidseek_training.backbones.base import BackboneSpec
from vidseek_training.backbones.files.configs import read_beside
from vidseek_training.backbones.files.image_processing import ImageProcessing, published_processing
from vidseek_training.backbones.files.tokenizer_files import find_tokenizer
from vidseek_training.backbones.registry import Family

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
CLIP_LORA_ENDS = {
    "attention": (".q_proj", ".k_proj", ".v_proj", ".out_proj"),
    "mlp": (".fc1", ".fc2"),
    "projections": (".visual_projection", ".text_projection"),
    "token_embedding": (".token_embedding",),
}
"""`Backbone.lora_ends` of models whose layers are named as CLIP's."""


@dataclass(frozen=True)
class Preprocessing:
    """How frames become a model's input where a folder does not say otherwise."""

    frames: int = 8
    """Of a clip."""
    resize: Resize = "crop"
    resample: Resample = "bicubic"
    image_mean: tuple[float, float, float] = CLIP_MEAN
    image_std: tuple[float, float, float] = CLIP_STD


class TransformersFamily(Family, abc.ABC):
    """A family of one model class of transformers.

    Attributes:
        config_class: Name of its config class in transformers.
        preprocessing: Preprocessing if neither preprocessor_config.json nor config.json states one.
        lowercase: Whether texts are lower-cased before they are tokenized.
        unpunctuated: Whether texts of a unigram tokenizer also lose their punctuation.
        own_keys: Keys of config.json that are vidseek's and not transformers'.
        held_as: Attribute of our model that holds transformers' model; by default the family's name.
        of_videos: Whether it is published with a video processor, whose file takes precedence over that of images.
    """

    config_class: ClassVar[str]
    preprocessing: ClassVar[Preprocessing] = Preprocessing()
    lowercase: ClassVar[bool] = False
    unpunctuated: ClassVar[bool] = False
    own_keys: ClassVar[tuple[str, ...]] = ()
    held_as: ClassVar[str] = ""
    of_videos: ClassVar[bool] = False

    def sizes_of(self, config: dict[str, Any]) -> Any:
        """Read a config.json with transformers' config class and its defaults.

        Raises:
            ValueError: a value has the wrong type.
        """
        return transformers_config(self.config_class, config, but=self.own_keys)

    def dimension_of(self, sizes: Any) -> int:
        """Return the dimension of the common space."""
        return int(sizes.projection_dim)

    def frames_of(self, sizes: Any) -> int:
        """Return the number of frames of a clip if the folder does not state one."""
        return self.preprocessing.frames

    def side_of(self, sizes: Any) -> int:
        """Return height and width of the square picture in pixels."""
        return int(sizes.vision_config.image_size)

    def spec_of(self, config: dict[str, Any], folder: Path, *, name: str) -> BackboneSpec:
        """Implement `Family.spec_of`."""
        sizes = self.sizes_of(config)
        tokenizer = find_tokenizer(folder, lowercase=self.lowercase, unpunctuated=self.unpunctuated)
        usual, text = self.preprocessing, sizes.text_config
        resizing = Resizing(self.side_of(sizes), usual.resize, usual.resample)
        processing = ImageProcessing(resizing, usual.image_mean, usual.image_std)
        seen = published_processing(folder, processing, of_videos=self.of_videos)
        seen = seen.changed(config)
        return BackboneSpec(
            family=self.name, name=name, dimension=self.dimension_of(sizes), context_length=text.max_position_embeddings,
            num_frames=config.get("frames", self.frames_of(sizes)), tokenizer=tokenizer, **seen.to_spec(),
            pad_id=config.get("pad_id", pad_id_of(folder, tokenizer, text.pad_token_id or 0)),
        )

    def renamed(self, config: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Add the prefix of the attribute that holds transformers' model; implements `Family.renamed`."""
        return under(self.held_as or self.name, tensors)


def transformers_config(config_class: str, config: dict[str, Any], *, but: tuple[str, ...] = ()) -> Any:
    """Create a config of transformers.

    Args:
        config_class: Name of the class.
        config: Content of a config.json.
        but: Keys to leave out.

    Raises:
        ValueError: a value has the wrong type.
    """
    import transformers
    from huggingface_hub.errors import StrictDataclassError

    try:
        sizes = getattr(transformers, config_class)(**{
            key: value for key, value in config.items() if key not in ("model_type", *but)
        })
    except StrictDataclassError as error:
        raise ValueError(" ".join(str(error).split())) from error
    sizes._attn_implementation = "sdpa"
    return sizes


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add a prefix to the names of tensors, for a model that holds transformers' model as an attribute.

    Args:
        prefix: Name of the attribute.
        tensors: Tensors by their names in transformers' model.
    """
    # Older checkpoints hold the numbers of the positions, which are no weights.
    kept = {name: tensor for name, tensor in tensors.items() if not name.endswith(".position_ids")}
    ours = {f"{prefix}.{name.removeprefix(f'{prefix}.')}": tensor for name, tensor in kept.items()}
    # Our model shows transformers' scale as its own too: one parameter under two names.
    if f"{prefix}.logit_scale" in ours:
        ours["logit_scale"] = ours[f"{prefix}.logit_scale"]
    return ours


def pad_id_of(folder: Path, tokenizer: Path, otherwise: int) -> int:
    """Return the id of the padding token that tokenizer_config.json names.

    Args:
        folder: The backbone's folder.
        tokenizer: Its tokenizer.json.
        otherwise: Id to return if no padding token is named.
    """
    token = read_beside(folder / "tokenizer_config.json").get("pad_token")
    text = token.get("content") if isinstance(token, dict) else token
    number = read_tokenizer(tokenizer).token_to_id(text) if isinstance(text, str) and text else None
    return otherwise if number is None else int(number)
