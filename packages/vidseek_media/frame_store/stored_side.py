"""The shorter side of stored frames in pixels: one number for an archive, in a file between two stages."""

from __future__ import annotations

from pathlib import Path

from vidseek_media.errors import ArtifactError, ConfigError
from vidseek_media.files.json_files import read_json, write_json
from vidseek_media.settings import FrameSettings
from vidseek_media.tables import VIDEOS, read_table

_REMEDY = "Run `dvc repro side`"


def write_side(path: Path, side_px: int) -> None:
    """Write the number to `path`, whole or not at all; equal numbers give equal bytes."""
    write_json(path, {"side_px": side_px}, indent=None)


def with_stored_side(settings: FrameSettings, path: Path) -> FrameSettings:
    """Return settings with a number for the side: their own, or for `auto` the one in a file of `write_side`.

    Args:
        settings: The section `frames` of params.yaml.
        path: The file that `write_side` wrote.

    Raises:
        ArtifactError: the file is missing or broken.
    """
    if settings.side_px != "auto":
        return settings
    try:
        side_px = read_json(path)["side_px"]
        return FrameSettings(**{**settings.model_dump(), "side_px": int(side_px)})
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} is missing", code="side-absent", remedy=_REMEDY) from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ArtifactError(f"{path} is broken: {error}", code="side-broken", remedy=_REMEDY) from error


def require_enough_pixels(videos: Path, *, side_px: int, wanted_px: int, backbone: str) -> None:
    """Check that no frame is stored smaller than the backbone's input if its video has more pixels.

    Args:
        videos: The videos table.
        side_px: Shorter side of stored frames in pixels.
        wanted_px: Shorter side that the backbone needs, in pixels.
        backbone: Name of the backbone, for the message.

    Raises:
        ConfigError: some frames would be too small; the message names the fix.
        ArtifactError: the table is missing or broken.
    """
    if side_px >= wanted_px:
        return
    table = read_table(videos, VIDEOS, columns=["uris", "width", "height"])
    own_px = table[["width", "height"]].min(axis=1)
    larger = table[own_px > side_px]
    if len(larger):
        first, first_px = larger.uris.iloc[0][0], int(own_px[larger.index[0]])
        raise ConfigError(
            f"frames.side_px is {side_px}, backbone {backbone} takes pictures of {wanted_px} pixels, and {len(larger)} of "
            f"{len(table)} videos have more than is kept (the first, {first}, {first_px}): frames would be enlarged from "
            f"{side_px} to {wanted_px}",
            code="frames-too-small", remedy=f"Set frames.side_px to auto, or to {wanted_px}, in params.yaml",
        )
