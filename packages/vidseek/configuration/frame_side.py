"""Chooses the size of stored frames, from params.yaml or the backbone's input. For the stage `side` and for `doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vidseek_media.errors import ConfigError
from vidseek_media.frame_store.stored_side import require_enough_pixels
from vidseek_training.backbones.files.folder import resolve
from vidseek_training.backbones.files.image_processing import published_side


@dataclass(frozen=True)
class FrameSide:
    """Both in pixels, of the shorter side of a frame."""

    side_px: int
    """That is kept."""
    backbone_px: int | None
    """That the backbone takes; None where its files are not here, and whether `side_px` is enough is not known."""

    def __str__(self) -> str:
        taken = "whose files are not here" if self.backbone_px is None else f"which takes {self.backbone_px}"
        return f"frames of {self.side_px} pixels for a backbone {taken}"


def choose_side(side_px: int | Literal["auto"], *, backbone: str, videos: Path) -> FrameSide:
    """Return the size of stored frames for an archive.

    Args:
        side_px: The setting `frames.side_px`.
        backbone: Name, folder or hub id of the backbone.
        videos: The videos table.

    Raises:
        ConfigError: it is `auto`, and the backbone's files are missing or do not state a size; or stored frames would have
            fewer pixels than the backbone needs and a video has.
        ArtifactError: the table or the backbone's files are broken.
    """
    try:
        wanted_px = published_side(resolve(backbone))
    except ConfigError:
        if side_px == "auto":
            raise
        return FrameSide(side_px, None)
    chosen = wanted_px if side_px == "auto" else side_px
    require_enough_pixels(videos, side_px=chosen, wanted_px=wanted_px, backbone=backbone)
    return FrameSide(chosen, wanted_px)
