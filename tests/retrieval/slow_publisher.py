"""A process that publishes a small archive to a Qdrant server slowly, so that a test can kill it in the middle.

    python -m tests.retrieval.slow_publisher URL PREFIX FOLDER SEED
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from tests.retrieval.archive import random_archive
from vidseek_media.secret import secret
from vidseek_retrieval.index.open_backend import KEY_VARIABLE
from vidseek_retrieval.index.publish import publish
from vidseek_retrieval.index.qdrant import backend as server

BATCH = 8
PAUSE_SECONDS = 0.2


def main() -> None:
    """Publish, a few points at a time."""
    url, prefix, folder, seed = sys.argv[1:]
    server.LOAD_BATCH = BATCH
    backend = server.QdrantBackend.connect(url, api_key=secret(KEY_VARIABLE), prefix=prefix)
    upsert = backend._client.upsert

    def slow_upsert(*args: Any, **named: Any) -> Any:
        time.sleep(PAUSE_SECONDS)
        return upsert(*args, **named)

    backend._client.upsert = slow_upsert  # type: ignore[method-assign]
    publish(**random_archive(Path(folder), seed=int(seed)), index=backend)


if __name__ == "__main__":
    main()
