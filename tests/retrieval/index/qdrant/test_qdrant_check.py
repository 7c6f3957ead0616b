"""A publish, a publisher that is killed in the middle, and a rollback: on the server of QDRANT_URL, or on a stand-in.

`make qdrant-check QDRANT_URL=...` runs this and the contract of the backends against a real server. What it makes there has
names of its own, and is removed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.retrieval.archive import VERSION, random_archive, unit_rows
from tests.retrieval.qdrant_stand_in import STRICT, borrowed_backend, standing
from vidseek_retrieval.index.aliases import prune, rollback, verify
from vidseek_retrieval.index.backend import Alias
from vidseek_retrieval.index.publish import publish
from vidseek_retrieval.index.qdrant.backend import QdrantBackend
from vidseek_retrieval.search.searcher import Searcher

PATIENCE_SECONDS = 300.0


@pytest.fixture
def url() -> Iterator[str]:
    if named := os.environ.get("QDRANT_URL"):
        yield named
        return
    with standing(strict=STRICT) as stand_in:
        yield stand_in.url


def wait_until_it_writes(backend: QdrantBackend, live: str, publisher: subprocess.Popen[bytes]) -> str:
    """The collection that the publisher builds beside `live`, once points are in it."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and publisher.poll() is None:
        for name in set(backend._names()) - {live}:
            info = backend._info(name)
            if info is not None and info.points_count:
                return name
        time.sleep(0.02)
    raise AssertionError(f"the publisher wrote nothing; it ended with {publisher.poll()}")


@pytest.mark.slow
def test_check__a_publisher_that_is_killed_changes_nothing_and_the_next_one_goes_on(url: str, tmp_path: Path) -> None:
    with borrowed_backend(url) as backend:
        first = publish(**random_archive(tmp_path / "first", seed=0), index=backend)
        publisher = subprocess.Popen(
            [sys.executable, "-m", "tests.retrieval.slow_publisher", url, backend._prefix, str(tmp_path / "second"), "1"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        try:
            half = wait_until_it_writes(backend, first.collection, publisher)
        finally:
            publisher.send_signal(signal.SIGKILL)
            publisher.wait()
        assert publisher.returncode == -signal.SIGKILL
        assert backend.aliases() == {"clips": Alias(first.collection)} and backend.stored() == [first.collection]
        (query,) = unit_rows(1, 16, seed=3)
        searcher = Searcher(backend, None)
        assert searcher.search_vector(query, VERSION).collection == first.collection

        began = time.monotonic()
        second = publish(**random_archive(tmp_path / "second", seed=1), index=backend)  # takes the dead one's lock at once
        assert half in (second.collection, *second.removed)
        assert second.moved and second.verification.passed and time.monotonic() - began < PATIENCE_SECONDS
        assert searcher.search_vector(query, VERSION).collection == second.collection
        assert rollback(backend) == first.collection
        assert searcher.search_vector(query, VERSION).collection == first.collection
        assert verify(backend).passed and prune(backend) == []
