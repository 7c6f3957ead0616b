"""What a service keeps of queries, and what its figures of drift say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from serving.app import create_app
from serving.engine import Engine, Places
from serving.model import open_archive
from serving.seen import MAX_FILES, WRITE_EVERY, Window
from tests.serving.asked_colours import OTHER, queries
from tests.serving.test_metrics import figure
from tests.waiting import wait_until
from vidseek.archive import Archive
from vidseek.params import Settings
from vidseek.settings import ServeSettings
from vidseek_retrieval.confidence.drift import ACT
from vidseek_retrieval.confidence.query_stats import (
    ACCEPTED_FILE,
    MAX_QUERIES,
    SEEN_FILES,
    QuerySample,
    QueryStats,
    read_sample,
    read_seen,
    write_sample,
)

SERIES = tuple(f'vidseek_drift_psi{{of="{name}"}}' for name in ("score", "confidence", "query"))


@pytest.fixture
def engine(asked_archive: Archive) -> Iterator[Engine]:
    engine = Engine(lambda: open_archive(asked_archive, Settings()), ServeSettings(), Places.of(asked_archive))
    yield engine
    engine.close()


@pytest.fixture
def client(engine: Engine) -> TestClient:
    return TestClient(create_app(engine), base_url="http://127.0.0.1", raise_server_exceptions=False)


def left_in(folder: Path, num: int) -> QuerySample:
    """The queries in the one file in `folder`, as soon as they are `num`: a thread writes it."""
    found: list[QuerySample] = []

    def has_them() -> bool:
        found[:] = [seen for file in folder.glob(SEEN_FILES) if (seen := read_sample(file)) and len(seen.rows) == num]
        return bool(found)

    wait_until(has_them, f"{folder} has no {num} queries")
    return found[0]


def ask(client: TestClient, texts: list[str], **options: object) -> None:
    for text in texts:
        assert client.post("/v1/search", json={"text": text, "limit": 1, **options}).status_code == 200


def test_metrics__move_under_another_worlds_queries(client: TestClient, engine: Engine, asked_archive: Archive) -> None:
    ask(client, queries(100, seed=2))
    assert figure(client, "vidseek_drift_queries") == 100
    assert all(figure(client, series) is None for series in SERIES)  # too few say nothing
    ask(client, queries(200, seed=3))
    own = [figure(client, series) for series in SERIES]
    assert all(value is not None and value < ACT for value in own)
    ask(client, queries(400, seed=4, words=OTHER), min_confidence=0.9)  # also where nobody is shown anything
    assert all((figure(client, series) or 0) > ACT for series in SERIES)
    engine.close()  # what was not written yet is left behind
    calibration = open_archive(asked_archive, Settings()).searcher.calibration()
    assert calibration is not None and calibration.reference is not None
    left = read_seen(asked_archive.queries, encoder_version=calibration.encoder_version, axes=calibration.reference.axes)
    assert left is not None and len(left.rows) == 700
    (file,) = asked_archive.queries.iterdir()
    assert "white" not in file.read_text()


def test_metrics__only_first_pages_of_one_text_by_video_count(client: TestClient) -> None:
    ask(client, ["red", "blue"])
    ask(client, ["red"], offset=1)
    ask(client, ["red"], not_text="blue")
    ask(client, ["red"], weights={"caption": 0.0, "video": 1.0, "words": 1.0})
    client.post("/v1/search", json={"text": ["red", "blue"]})
    assert figure(client, "vidseek_drift_queries") == 2
    ask(client, ["red"], filters={"duration_ms": {"gt": 0}})
    assert figure(client, "vidseek_drift_queries") == 3


@pytest.mark.slow
def test_metrics__compare_with_what_was_accepted(client: TestClient, asked_archive: Archive) -> None:
    ask(client, queries(300, seed=4, words=OTHER))
    assert (figure(client, SERIES[2]) or 0) > ACT
    seen = left_in(asked_archive.queries, 300)
    write_sample(asked_archive.queries / ACCEPTED_FILE, seen)
    assert figure(client, SERIES[2]) == pytest.approx(0.0, abs=1e-9)
    (asked_archive.queries / ACCEPTED_FILE).write_text("{")
    assert (figure(client, SERIES[2]) or 0) > ACT  # a broken one is none, and no reason to be silent


def row(number: int, *, version: str = "a" * 16) -> QueryStats:
    return QueryStats(version, "", (float(number), 0.5))


def test_window__is_bounded_writes_now_and_then_and_begins_anew(tmp_path: Path) -> None:
    window = Window(tmp_path / "queries")
    writes = [window.note(row(number)) for number in range(MAX_QUERIES + 100)]
    due = [write for write in writes if write]
    assert len(due) == (MAX_QUERIES + 100) // WRITE_EVERY
    due[-1]()
    kept = read_seen(tmp_path / "queries", encoder_version="a" * 16, axes="")
    assert kept is not None and len(kept.rows) == MAX_QUERIES and kept.rows[0, 0] == MAX_QUERIES + 99
    window.note(row(0, version="b" * 16))
    window.close()
    assert read_seen(tmp_path / "queries", encoder_version="a" * 16, axes="") is None
    again = read_seen(tmp_path / "queries", encoder_version="b" * 16, axes="")
    assert again is not None and len(again.rows) == 1


def test_window__leaves_few_files_and_bears_a_disk_that_takes_none(tmp_path: Path) -> None:
    folder = tmp_path / "queries"
    folder.mkdir()
    for number in range(MAX_FILES + 4):
        (folder / f"seen-old-{number}.json").write_text("{}")
    window = Window(folder)
    window.note(row(1))
    window.close()
    assert len(list(folder.iterdir())) == MAX_FILES
    (tmp_path / "file").write_text("")
    other = Window(tmp_path / "file")
    other.note(row(1))
    other.close()
    assert other.drift(None)() is None
