"""The JSON files of a backbone's folder. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vidseek_media.errors import ArtifactError
from vidseek_media.files.json_files import read_json

MOST_BYTES = 16 * 2**20
"""Of a config.json and the JSON files beside it."""


def read_config(path: Path) -> dict[str, Any]:
    """A config.json, or what a family has in its place.

    Raises:
        ArtifactError: it cannot be read, or holds something else than a table.
    """
    try:
        config: dict[str, Any] = read_json(path, most_bytes=MOST_BYTES)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}", code="backbone-config-broken") from error
    if not isinstance(config, dict):
        raise ArtifactError(f"{path} holds {type(config).__name__}, wanted a mapping", code="backbone-config-broken")
    return config


def read_beside(path: Path) -> dict[str, Any]:
    """A JSON file beside a config.json; empty where there is none, or where it holds something else than a table.

    Raises:
        ArtifactError: it cannot be read.
    """
    try:
        content = read_json(path, most_bytes=MOST_BYTES)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}", code="backbone-config-broken") from error
    return content if isinstance(content, dict) else {}
