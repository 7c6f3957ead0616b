"""Which home an index has: a folder, or the Qdrant server that QDRANT_URL names."""

from __future__ import annotations

import os
from pathlib import Path

from vidseek_media.secret import secret
from vidseek_retrieval.edge import EdgeHome
from vidseek_retrieval.index import IndexHome, ServerSettings

Index = Path | IndexHome
"""The folder of an embedded index, or any home."""

URL_VARIABLE = "QDRANT_URL"
KEY_VARIABLE = "QDRANT_API_KEY"


def open_home(index: Path, settings: ServerSettings | None = None) -> IndexHome:
    """The server at QDRANT_URL (with QDRANT_API_KEY, where it wants one), or else the folder `index`.

    Args:
        index: The folder of the embedded index.
        settings: Of new collections on a server.
    """
    url = os.environ.get(URL_VARIABLE)
    if not url:
        return EdgeHome(index)
    from vidseek_retrieval.server import QdrantHome

    return QdrantHome.connect(url, api_key=secret(KEY_VARIABLE), settings=settings)


def home_of(index: Index) -> IndexHome:
    """The home itself, or the embedded one in a folder."""
    return EdgeHome(index) if isinstance(index, Path) else index
