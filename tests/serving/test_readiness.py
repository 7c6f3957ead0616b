from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from serving import model, readiness
from tests.serving.colours import write_colour_archive
from tests.serving.test_app import is_error, serving
from vidseek.archive import Archive
from vidseek_retrieval.search.searcher import Searcher


@pytest.fixture(autouse=True)
def no_wait_between_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(readiness, "HOLDS_SECONDS", 0.0)


def _point_elsewhere(index: Path) -> None:
    table = json.loads((index / "aliases.json").read_text())
    live = table["clips"]["collection"]
    table["clips"]["collection"] = live[:-1] + ("1" if live[-1] == "0" else "0")
    (index / "aliases.json").write_text(json.dumps(table))


def _live(index: Path) -> Path:
    return index / str(json.loads((index / "aliases.json").read_text())["clips"]["collection"])


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "an alias that names what is not there": (_point_elsewhere, "no collection|not there"),
    "no table of aliases": (lambda index: (index / "aliases.json").unlink(), "nothing was published"),
    "a torn table": (lambda index: (index / "aliases.json").write_text('{"cl'), "is broken"),
    "the collection is gone": (lambda index: shutil.rmtree(_live(index)), "no collection|not there"),
    "its metadata are broken": (lambda index: (_live(index) / "collection.json").write_text("{"), "is broken"),
}


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before it starts", "while it runs"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_ready__is_not_what_no_search_is(archive: Archive, tmp_path: Path, damage: str, when: str) -> None:
    act, said = DAMAGES[damage]
    copy = Archive(tmp_path / "copy")
    shutil.copytree(archive.root, copy.root)
    if when == "before it starts":
        act(copy.index)
    with serving(copy) as client:
        if when == "while it runs":
            assert client.get("/readyz").status_code == 200
            act(copy.index)
            if damage == "its metadata are broken":
                return  # what is open is read no more: searches go on, and so it is ready
        answer = client.get("/readyz")
        assert is_error(answer, 503, "not_ready"), answer.text
        error = answer.json()["error"]
        assert any(part in error["message"] for part in said.split("|")), error
        assert error["remedy"] and "emove it" not in error["remedy"]
        assert client.get("/healthz").status_code == 200


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return write_colour_archive(tmp_path_factory.mktemp("ready"))


def test_ready__a_search_that_fails_is_not_ready(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    from vidseek_media.errors import ArtifactError, ServiceError

    with serving(archive) as client:
        assert client.get("/readyz").status_code == 200
        for error in (ServiceError("the Qdrant server does not answer", remedy="Start it"), ArtifactError("a bad shard")):
            def fail(*_: object, error: Exception = error) -> Any:
                raise error

            monkeypatch.setattr(Searcher, "search", fail)
            answer = client.get("/readyz")
            assert is_error(answer, 503, "not_ready") and str(error).split(". ")[0] in answer.json()["error"]["message"]


def test_ready__a_search_that_hangs_is_told_in_time_and_asked_for_once(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, asked = threading.Event(), []

    def hang(*_: object) -> Any:
        asked.append(1)
        gate.wait(300)
        raise AssertionError("nobody waits for this any more")

    with serving(archive) as client:
        assert client.get("/readyz").status_code == 200
        monkeypatch.setattr(Searcher, "search", hang)
        monkeypatch.setattr(readiness, "MAX_SECONDS", 0.3)
        with ThreadPoolExecutor(4) as clients:
            answers = list(clients.map(lambda _: client.get("/readyz"), range(4)))
        assert all(is_error(answer, 503, "not_ready") for answer in answers)
        assert len(asked) == 1
        gate.set()


def test_ready__one_search_speaks_for_a_moment(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "HOLDS_SECONDS", 60.0)
    asked = []
    search = Searcher.search

    def counted(self: Searcher, *args: Any) -> Any:
        asked.append(1)
        return search(self, *args)

    monkeypatch.setattr(Searcher, "search", counted)
    with serving(archive) as client:
        for _ in range(5):
            assert client.get("/readyz").status_code == 200
    assert len(asked) == 1
