"""Finds a backbone's folder by its name. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vidseek_media.errors import ConfigError
from vidseek_training.hub import HubName, find_snapshot

SHIPPED = Path(__file__).parents[2] / "weights"
"""The small backbones that come with vidseek, one folder each."""
CONFIGS = ("config.json", "open_clip_config.json")


def resolve(path_or_id: str | Path, *, configs: Sequence[str] = CONFIGS) -> Path:
    """Return the folder of a backbone. Never uses the network.

    Args:
        path_or_id: `vidseek/<name>` for a shipped one, a folder, or a hub id that was fetched before.
        configs: Names of config files; a folder with one of them is a backbone's.

    Raises:
        ConfigError: there is no such folder, or the hub's files are not complete in the local cache.
    """
    text = str(path_or_id)
    if text.startswith("vidseek/"):
        folder = SHIPPED / text.removeprefix("vidseek/")
        if not folder.is_dir():
            known = ", ".join(sorted(f"vidseek/{config.parent.name}" for config in SHIPPED.glob("*/config.json")))
            raise ConfigError(
                f"backbone {text} is not shipped", code="unknown-backbone",
                remedy=f"Choose one of: {known or '(none is here)'}",
            )
        return folder
    folder = Path(text)
    if any((folder / name).is_file() for name in configs):
        return folder
    name = HubName.parse(text) if isinstance(path_or_id, str) and not folder.exists() else None
    if name is not None:
        return find_snapshot(name)
    raise ConfigError(
        f"backbone {text}: no folder with a config.json is there", code="unknown-backbone",
        remedy="Name a shipped one (vidseek/viclip-tiny, vidseek/clip-tiny), a folder, or a hub id in `backbone.name`",
    )
