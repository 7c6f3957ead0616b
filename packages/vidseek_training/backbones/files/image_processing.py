"""Reads the image preprocessing of a published backbone from its folder. Needs no torch.

transformers stores it in preprocessor_config.json, video_preprocessor_config.json or, since version 5, in a part of
processor_config.json. It is converted into size and filter of the resizing, mean and standard deviation. Steps that vidseek
would do differently are refused, never ignored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from vidseek_encoder.preprocess import Resample, Resize, Resizing
from vidseek_media.errors import ArtifactError, ConfigError, foreign
from vidseek_media.names import shown
from vidseek_training.backbones.files.configs import read_beside

_PICTURE_FILES = (("processor_config.json", "image_processor"), ("preprocessor_config.json", None))
_VIDEO_FILES = (("processor_config.json", "video_processor"), ("video_preprocessor_config.json", None))
_LEVELS = 255
_KNOWN_STEPS = ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb", "do_sample_frames")
"""Switches that are read, or that say what is so here anyway: our frames are RGB, and sampled."""
_CONFIGS = (
    ("config.json", "vision"), ("config.json", "vision_config"), ("open_clip_config.json", "model_cfg.vision_cfg"),
)
"""Where a vision tower's sizes are: ours, transformers', open_clip's."""
_DEFAULT_SIDE = 224
"""Of vision towers whose config leaves it out."""
_REMEDY = "Mend the file if it is yours; otherwise this backbone's preprocessing is none that vidseek knows"

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class ImageProcessing:
    """From a frame's pixels to the numbers that a vision tower takes."""

    resizing: Resizing
    image_mean: Triple
    """Of R, G, B on a scale of 0 to 1."""
    image_std: Triple

    def changed(self, config: Mapping[str, Any]) -> ImageProcessing:
        """Return a copy with the values that a config.json of vidseek states.

        Raises:
            ValueError: it states an impossible value.
        """
        changes = {key: config[key] for key in ("resize", "resample", "resize_side") if key in config}
        mean, deviation = (
            _triple(config.get(name), name, usual)
            for name, usual in (("mean", self.image_mean), ("deviation", self.image_std))
        )
        return ImageProcessing(replace(self.resizing, **changes), mean, deviation)

    def to_spec(self) -> dict[str, Any]:
        """Return the fields for a `BackboneSpec`."""
        return {
            "image_size_px": self.resizing.side, "resize": self.resizing.resize, "resample": self.resizing.resample,
            "resize_side": self.resizing.resize_side, "image_mean": self.image_mean, "image_std": self.image_std,
        }


def published_processing(folder: Path, usual: ImageProcessing, *, of_videos: bool = False) -> ImageProcessing:
    """Return the preprocessing that the files of a folder state.

    Args:
        folder: The backbone's folder.
        usual: Values that the files do not state; its side is that of the vision tower.
        of_videos: Whether the family has a video processor, whose file takes precedence over that of images.

    Raises:
        ArtifactError: a file is broken, or states something unsupported or something that does not fit the tower.
    """
    path, said = _said(folder, of_videos=of_videos)
    try:
        _require_known(said)
        mean, deviation = _scaled(said, usual)
        return ImageProcessing(_resizing(said, usual.resizing), mean, deviation)
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"{path}: {error}", code="preprocessing-unknown", remedy=_REMEDY) from error


def published_side(folder: Path) -> int:
    """Return the shorter side in pixels that a stored frame needs so that the backbone does not enlarge it.

    Raises:
        ConfigError: the files do not state it.
        ArtifactError: the files are missing or broken.
    """
    sides = [_tower_side(read_beside(folder / config), section) for config, section in _CONFIGS]
    found = [side for side in sides if side is not None]
    path, said = _said(folder, of_videos=True)
    with foreign(ArtifactError, str(path), code="preprocessing-unknown", remedy=_REMEDY, errors=(TypeError, ValueError)):
        if said.get("size") is not None:
            found.append(_size(said["size"], "size")[0] or 0)
    if not found:
        raise ConfigError(
            f"{folder} does not say how large the pictures of this backbone are", code="side-unknown",
            remedy="Set frames.side_px to a number of pixels",
        )
    return max(found)


def _tower_side(config: Mapping[str, Any], section: str) -> int | None:
    """Return the side of the vision tower in a config of vidseek, transformers or open_clip; None if it is not stated."""
    if config.get("architectures") == ["ViCLIP"] and "vision" not in config:
        return _DEFAULT_SIDE  # all published ones; their sizes are in their code
    vision: Any = config
    for part in section.split("."):
        vision = vision.get(part) if isinstance(vision, Mapping) else None
    if not isinstance(vision, Mapping):
        return None
    side = vision.get("side", vision.get("image_size", _DEFAULT_SIDE))
    if isinstance(side, list) and side and len(set(side)) == 1:
        side = side[0]
    return side if _is_whole(side) else None


def _said(folder: Path, *, of_videos: bool) -> tuple[Path, Mapping[str, Any]]:
    """Return the first file that speaks of preprocessing, and what it says; empty where there is none."""
    order = (*_VIDEO_FILES, *_PICTURE_FILES) if of_videos else (*_PICTURE_FILES, *_VIDEO_FILES)
    for name, part in order:
        content = read_beside(folder / name)
        said = content.get(part) if part else content
        if isinstance(said, Mapping) and said:
            return folder / name, said
    return folder / "preprocessor_config.json", {}


def _require_known(said: Mapping[str, Any]) -> None:
    strange = sorted(
        key for key, value in said.items() if key.startswith("do_") and value is True and key not in _KNOWN_STEPS
    )
    if strange:
        raise ValueError(f"it asks for {', '.join(map(shown, strange))}, which is not done here")
    if said.get("do_resize") is False:
        raise ValueError("do_resize is false, so that a picture of another size than the tower's could not be taken")


def _resizing(said: Mapping[str, Any], usual: Resizing) -> Resizing:
    """Return how a picture is resized to the side of the tower."""
    crops = said.get("do_center_crop")
    crops = usual.resize == "crop" if crops is None else bool(crops)
    size, resize = _size(said.get("size"), "size", resize="crop" if crops else "squash")
    size = usual.side if size is None else size
    if resize == "crop" and not crops:
        raise ValueError(f"size is {shown(said['size'])} without do_center_crop: pictures would not be square")
    side = size
    if crops:
        side = _size(said.get("crop_size"), "crop_size")[0] or usual.side
    if side != usual.side:
        raise ValueError(f"pictures come out {side} pixels square, the vision tower takes {usual.side}")
    return replace(
        usual, resize=resize, resample=_resample(said.get("resample"), usual.resample),
        resize_side=None if size == side else size,
    )


def _size(said: Any, name: str, *, resize: Resize = "squash") -> tuple[int | None, Resize]:
    """Return the side that pictures are brought to, and how; `resize` where a bare number leaves that open."""
    if said is None:
        return None, resize
    if _is_whole(said):
        return said, resize
    if isinstance(said, list | tuple) and len(said) == 2:
        said = dict(zip(("height", "width"), said, strict=True))
    if isinstance(said, Mapping):
        given = {key: value for key, value in said.items() if value is not None}
        if set(given) == {"shortest_edge"} and _is_whole(given["shortest_edge"]):
            return given["shortest_edge"], "crop"
        if set(given) == {"height", "width"} and _is_whole(given["height"]) and given["height"] == given["width"]:
            return given["height"], "squash"
    raise ValueError(f"{name} is {shown(said)}, wanted a number of pixels, shortest_edge, or equal height and width")


def _resample(said: Any, usual: Resample) -> Resample:
    names = get_args(Resample)
    if said is None:
        return usual
    if _is_whole(said, least=0) and said < len(names):
        found: Resample = names[said]
        return found
    for name in names:
        if isinstance(said, str) and said.lower() == name:
            return name  # type: ignore[no-any-return]
    raise ValueError(f"resample is {shown(said)}, wanted 0 to {len(names) - 1}: {', '.join(names)}")


def _scaled(said: Mapping[str, Any], usual: ImageProcessing) -> tuple[Triple, Triple]:
    """Mean and deviation on a scale of 0 to 1: `(level * factor - offset - mean) / deviation`, taken together."""
    normalises = said.get("do_normalize") is not False
    mean = _triple(said.get("image_mean"), "image_mean", usual.image_mean) if normalises else (0.0,) * 3
    deviation = _triple(said.get("image_std"), "image_std", usual.image_std) if normalises else (1.0,) * 3
    factor, offset = 1.0 / _LEVELS, 0.0
    if said.get("do_rescale") is False:
        factor = 1.0
    else:
        if said.get("rescale_factor") is not None:
            factor = said["rescale_factor"]
        offset = 1.0 if said.get("offset") or said.get("rescale_offset") else 0.0
    if not isinstance(factor, int | float) or not math.isfinite(factor) or factor <= 0:
        raise ValueError(f"rescale_factor is {shown(factor)}, wanted a number above 0")
    if min(deviation) <= 0:
        raise ValueError(f"image_std is {shown(deviation)}, wanted numbers above 0")
    if math.isclose(factor * _LEVELS, 1.0, rel_tol=1e-6) and not offset:
        return mean, deviation  # type: ignore[return-value]  # as they are written
    return (
        tuple((value + offset) / (factor * _LEVELS) for value in mean),  # type: ignore[return-value]
        tuple(value / (factor * _LEVELS) for value in deviation),
    )


def _triple(said: Any, name: str, usual: Triple) -> Triple:
    if said is None:
        return usual
    values = [said] * 3 if isinstance(said, int | float) else said
    if not isinstance(values, list | tuple) or len(values) != 3:
        raise ValueError(f"{name} is {shown(said)}, wanted three numbers")
    red, green, blue = (_number(value, name) for value in values)
    return red, green, blue


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} has {shown(value)}, wanted numbers")
    return float(value)


def _is_whole(value: Any, *, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
