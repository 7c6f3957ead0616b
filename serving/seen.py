"""Statistics of the last queries of one service: for drift metrics, and in a file for `vidseek drift`."""

from __future__ import annotations

import os
import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from vidseek_media.errors import ArtifactError
from vidseek_retrieval.confidence.query_stats import (
    MAX_QUERIES,
    SEEN_FILES,
    QuerySample,
    QueryStats,
    compare,
    reference_of,
    write_sample,
)

if TYPE_CHECKING:
    from vidseek_retrieval.confidence.calibration import Calibration
    from vidseek_retrieval.confidence.query_stats import QueryDrift

WRITE_EVERY = 50
"""Queries: a service that is killed loses no more."""
MAX_FILES = 16
"""Of services that ran before."""


class Window:
    """The last `MAX_QUERIES` queries of one vector space; another space begins anew. One thread notes them.

    Args:
        folder: Where they are left for `vidseek drift`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / SEEN_FILES.replace("*", f"{socket.gethostname()}-{os.getpid()}")
        self._seen: deque[QueryStats] = deque(maxlen=MAX_QUERIES)
        self._num_unwritten = 0
        self._writing = threading.Lock()

    def note(self, seen: QueryStats) -> Callable[[], None] | None:
        """Add a query; return a function to call in a thread when it is time to write the file, else None."""
        if self._seen and self._seen[-1][:2] != seen[:2]:
            self._seen.clear()
        self._seen.append(seen)
        self._num_unwritten += 1
        return self._writer() if self._num_unwritten >= WRITE_EVERY else None

    def drift(self, calibration: Calibration | None) -> Callable[[], QueryDrift | None]:
        """Return a thread-safe function that measures the drift of these queries against the calibration."""
        seen = list(self._seen)

        def measure() -> QueryDrift | None:
            published = calibration.reference if calibration is not None else None
            try:
                reference = reference_of(published, self._folder)
            except ArtifactError:
                reference = published  # `vidseek drift` says what is wrong with the accepted one
            if reference is None:
                return None
            space = (reference.encoder_version, reference.axes)
            return compare(reference, QuerySample.of([each for each in seen if each[:2] == space]), kernel=False)

        return measure

    def close(self) -> None:
        """Write what has not been written yet."""
        if self._num_unwritten:
            self._writer()()

    def _writer(self) -> Callable[[], None]:
        self._num_unwritten = 0
        sample = QuerySample.of(list(self._seen))

        def write() -> None:
            # The disk may be full or read-only: then the figures are all there is.
            with self._writing, suppress(OSError):
                if sample is not None:
                    write_sample(self._path, sample)
                old = sorted(self._folder.glob(SEEN_FILES), key=lambda path: path.stat().st_mtime_ns)[:-MAX_FILES]
                for path in old:
                    path.unlink(missing_ok=True)

        return write
