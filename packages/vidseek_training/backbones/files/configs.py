"""Reads the JSON files of a backbone's folder. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vidseek_media.errors import ArtifactError, foreign
from vidseek_media.files.json_files import read_json

MOST_BYTES = 16 * 2**20
"""Of a config.json and the JSON files beside it."""


def read_config(path: Path) -> dict[str, Any]:
    """Read the config.json of a backbone, or its family's equivalent.

    Raises:
        ArtifactError: it cannot be read, or is not a JSON object.
    """
    with foreign(ArtifactError, f"{path} cannot be read", code="backbone-config-broken", errors=(OSError, ValueError)):
        config: dict[str, Any] = read_json(path, most_bytes=MOST_BYTES)
    if not isinstance(config, dict):
        raise ArtifactError(f"{path} holds {type(config).__name__}, wanted a mapping", code="backbone-config-broken")
    return config


def read_beside(path: Path) -> dict[str, Any]:
    """Read a JSON file beside a config.json; empty if it is missing or not a JSON object.

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
