"""Selects the index backend: the Qdrant server that QDRANT_URL names, or a folder."""

from __future__ import annotations

import os
import re
from pathlib import Path

from vidseek_media.errors import ConfigError
from vidseek_media.names import shown
from vidseek_media.secret import secret
from vidseek_retrieval.index.backend import IndexBackend
from vidseek_retrieval.index.edge.backend import EdgeBackend
from vidseek_retrieval.settings import ServerSettings

Index = Path | IndexBackend
"""The folder of an embedded index, or any backend."""

URL_VARIABLE = "QDRANT_URL"
KEY_VARIABLE = "QDRANT_API_KEY"
PREFIX_VARIABLE = "QDRANT_PREFIX"
PREFIX = re.compile(r"[A-Za-z0-9_-]{0,64}")


def open_backend(index: Path, settings: ServerSettings | None = None) -> IndexBackend:
    """Return the server at QDRANT_URL (with QDRANT_API_KEY, where it wants one), or else the folder `index`.

    QDRANT_PREFIX goes before the names of all collections and aliases there, so that several archives may share a server.

    Args:
        index: The folder of the embedded index.
        settings: Of new collections on a server.

    Raises:
        ConfigError: QDRANT_PREFIX cannot begin the name of a collection.
    """
    url = os.environ.get(URL_VARIABLE)
    if not url:
        return EdgeBackend(index)
    from vidseek_retrieval.index.qdrant.backend import QdrantBackend

    prefix = os.environ.get(PREFIX_VARIABLE, "")
    if not PREFIX.fullmatch(prefix):
        raise ConfigError(
            f"{PREFIX_VARIABLE} is {shown(prefix)}, wanted at most 64 letters, digits, '_' and '-'", code="bad-prefix",
            remedy=f"Set {PREFIX_VARIABLE} anew, or unset it",
        )
    return QdrantBackend.connect(url, api_key=secret(KEY_VARIABLE), settings=settings, prefix=prefix)


def as_backend(index: Index) -> IndexBackend:
    """Return the backend itself, or the embedded one in a folder."""
    return EdgeBackend(index) if isinstance(index, Path) else index
