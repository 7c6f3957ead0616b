"""What happens to collections when the table of aliases is lost, broken, or half moved."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ResponseHandlingException

from tests.raising import raises
from tests.retrieval.archive import random_archive
from tests.retrieval.index.test_backends import facts_of, points
from vidseek_media.errors import ArtifactError, ServiceError
from vidseek_retrieval.index.aliases import prune, require_alias_table, retract, rollback, use_collection
from vidseek_retrieval.index.backend import Alias, IndexBackend
from vidseek_retrieval.index.edge.backend import EdgeBackend
from vidseek_retrieval.index.publish import publish
from vidseek_retrieval.index.qdrant import alias_table
from vidseek_retrieval.index.qdrant import backend as server
from vidseek_retrieval.index.qdrant import lock as qdrant_lock
from vidseek_retrieval.index.qdrant import requests as qdrant_requests

TABLE = "aliases.json"
NAMES = [facts_of(points(4), build=digit * 12).name for digit in "123"]


def filled(backend: IndexBackend) -> None:
    """Three small collections: `clips` goes to the third and may be rolled back to the second; nobody needs the first."""
    with backend.building():
        for digit in "123":
            backend.build(facts_of(points(4), build=digit * 12), points(4))
        backend.move_alias("clips", Alias(NAMES[1]))
        backend.move_alias("clips", Alias(NAMES[2], (NAMES[1],)))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embedded index as `filled` leaves it: to be copied."""
    root = tmp_path_factory.mktemp("built") / "index"
    filled(EdgeBackend(root))
    return root


@pytest.fixture
def edge(built: Path, tmp_path: Path) -> EdgeBackend:
    """All but the shards, which take the most room and are looked at by `use_collection` alone."""
    return EdgeBackend(Path(shutil.copytree(built, tmp_path / "index", ignore=shutil.ignore_patterns("shard"))))


@pytest.fixture
def whole(built: Path, tmp_path: Path) -> EdgeBackend:
    return EdgeBackend(Path(shutil.copytree(built, tmp_path / "whole")))


def _make_unreadable(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "torn": lambda path: path.write_bytes(path.read_bytes()[:30]),
    "null bytes": lambda path: path.write_bytes(b"\0" * 100),
    "no aliases": lambda path: path.write_text("{}"),
    "a list": lambda path: path.write_text("[]"),
    "of another shape": lambda path: path.write_text('{"clips": {"collection": null}}'),
    "no file": _make_unreadable,
    "live is not there": lambda path: path.write_text(
        json.dumps({"clips": {"collection": NAMES[2][:-1] + "4", "previous": []}})
    ),
    "earlier is not there": lambda path: path.write_text(
        json.dumps({"clips": {"collection": NAMES[2], "previous": [NAMES[2][:-1] + "4"]}})
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("act", [prune, rollback, require_alias_table])
def test_edge__a_table_that_is_not_right_removes_and_moves_nothing(
    edge: EdgeBackend, damage: str, act: Callable[[IndexBackend], object]
) -> None:
    backend = edge
    (backend.root / NAMES[0] / "collection.json").rename(backend.root / NAMES[0] / "aside")  # looks like a killed build
    DAMAGES[damage](backend.root / TABLE)
    before = {path for path in backend.root.rglob("*") if path.name != ".lock"}
    with raises(ArtifactError, code=("aliases-broken", "not-published")) as caught:
        act(backend)
    assert {path for path in backend.root.rglob("*") if path.name != ".lock"} == before
    assert not re.search(r"\b(remove|delete|unlink)\b(?! nothing)", caught.value.remedy, re.IGNORECASE), caught.value.remedy


def test_edge__a_torn_table_is_mended_as_the_remedy_says(whole: EdgeBackend) -> None:
    DAMAGES["torn"](whole.root / TABLE)
    with raises(ArtifactError, code="aliases-broken", remedy="that one file"):
        use_collection(whole, NAMES[2])
    (whole.root / TABLE).rename(whole.root / "aside.json")
    use_collection(whole, NAMES[2])
    assert whole.aliases() == {"clips": Alias(NAMES[2])} and whole.stored() == NAMES


def test_edge__a_missing_live_collection_is_named_and_another_can_be_used(whole: EdgeBackend) -> None:
    backend = whole
    backend.drop(NAMES[2])
    with raises(ArtifactError, code="aliases-broken", naming=NAMES[2]):
        prune(backend)
    assert use_collection(backend, NAMES[1]).passed
    assert backend.aliases() == {"clips": Alias(NAMES[1])}
    assert prune(backend) == [NAMES[0]]
    with raises(ArtifactError, code="collection-absent"):
        use_collection(backend, NAMES[2])


@pytest.mark.parametrize("damage", ["missing", "no aliases"])
def test_publish__with_a_lost_table_goes_live_and_clears_nothing_away(tmp_path: Path, damage: str) -> None:
    backend = EdgeBackend(tmp_path / "index")
    first = publish(**random_archive(tmp_path, seed=0), index=backend)
    DAMAGES[damage](backend.root / TABLE)
    second = publish(**random_archive(tmp_path, seed=1), index=backend)
    assert second.moved and second.removed == () and set(backend.stored()) == {first.collection, second.collection}


@pytest.mark.parametrize("kind", ["embedded", "server"])
def test_retract__takes_its_own_collections_and_no_others(edge: EdgeBackend, kind: str) -> None:
    backend: IndexBackend = edge if kind == "embedded" else server.QdrantBackend(QdrantClient(":memory:"))
    if kind == "server":
        filled(backend)
    backend.move_alias("base", Alias(NAMES[0], (NAMES[1],)))
    assert retract(backend, alias="base") == [NAMES[0]]
    assert retract(backend, alias="clips") == NAMES[1:] and backend.stored() == [] and prune(backend) == []


class Dying:
    """A client whose process is killed when it is to call `method` for the `turn`-th time: nothing comes through then."""

    def __init__(self, client: QdrantClient, method: str, turn: int = 0, *, after: bool = False) -> None:
        self.client, self.method, self.left, self.after = client, method, turn, after

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.client, name)
        if name != self.method:
            return call

        def die(*args: object, **named: object) -> Any:
            self.left -= 1
            if self.left == -1:
                if self.after:
                    call(*args, **named)
                raise KeyboardInterrupt
            return call(*args, **named)

        return die


@pytest.mark.parametrize("after", [False, True])
def test_server__a_death_within_a_move_leaves_an_alias_with_its_own_history(after: bool) -> None:
    client = QdrantClient(":memory:")
    backend = server.QdrantBackend(client)
    filled(backend)
    with pytest.raises(KeyboardInterrupt):
        server.QdrantBackend(Dying(client, "update_collection_aliases", after=after)).move_alias(  # type: ignore[arg-type]
            "clips", Alias(NAMES[0], (NAMES[2], NAMES[1]))
        )
    wanted = Alias(NAMES[0], (NAMES[2], NAMES[1])) if after else Alias(NAMES[2], (NAMES[1],))
    assert backend.aliases() == {"clips": wanted} and backend.lost_aliases() == []
    assert rollback(backend) == (NAMES[2] if after else NAMES[1])
    assert backend.aliases()["clips"].collection == (NAMES[2] if after else NAMES[1])


def test_server__a_death_within_the_first_move_is_made_good_by_the_next() -> None:
    client = QdrantClient(":memory:")
    backend = server.QdrantBackend(client)
    with backend.building():
        backend.build(facts_of(points(4), build="1" * 12), points(4))
    with pytest.raises(KeyboardInterrupt):
        server.QdrantBackend(Dying(client, "update_collection_aliases")).move_alias("clips", Alias(NAMES[0]))  # type: ignore[arg-type]
    with raises(ArtifactError, code="aliases-broken"):
        prune(backend)
    use_collection(backend, NAMES[0])
    assert prune(backend) == [] and backend.stored() == [NAMES[0]]


OF_LAST, OF_FIRST = {NAMES[2]: [NAMES[1]]}, {NAMES[0]: [NAMES[2], NAMES[1]]}


@pytest.mark.parametrize("note", [
    {"history": {**OF_LAST, **OF_FIRST}},
    {"of": NAMES[2], "previous": [NAMES[1]]},
    {"of": NAMES[0], "previous": [NAMES[2], NAMES[1]]},  # killed before the alias moved
])
@pytest.mark.parametrize("gone", [False, True])
def test_server__notes_of_earlier_versions_become_aliases(note: dict[str, Any], gone: bool) -> None:
    client = QdrantClient(":memory:")
    backend = server.QdrantBackend(client)
    filled(backend)
    payload = {"kind": "alias", "alias": "clips", **note}
    note_of = models.PointStruct(id=alias_table.note_id("clips"), vector={}, payload=payload)
    client.upsert(server.STATE, [note_of])
    every = [each.alias_name for each in client.get_aliases().aliases if gone or "~" in each.alias_name]
    client.update_collection_aliases([
        models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=name)) for name in every
    ])
    with backend.building():
        assert backend.aliases() == ({} if gone else {"clips": Alias(NAMES[2], (NAMES[1],))})
        assert bool(backend.lost_aliases()) == gone
    assert client.count(server.STATE).count == 0
    if gone:
        with raises(ArtifactError, code="aliases-broken", naming="clips"):
            prune(backend)
        assert backend.stored() == NAMES


@pytest.mark.parametrize("act", [prune, rollback, require_alias_table])
@pytest.mark.parametrize("others", [False, True])
def test_server__aliases_that_are_gone_remove_nothing(act: Callable[[IndexBackend], object], others: bool) -> None:
    client = QdrantClient(":memory:")
    backend = server.QdrantBackend(client)
    filled(backend)
    if others:
        backend.move_alias("base", Alias(NAMES[0]))
    client.update_collection_aliases([models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name="clips"))])
    with raises(ArtifactError, code=("aliases-broken", "not-published"), remedy="index use"):
        act(backend)
    assert backend.stored() == NAMES
    use_collection(backend, NAMES[2])
    require_alias_table(backend)


def test_server__an_alias_that_somebody_else_moved_is_not_taken_for_ours() -> None:
    client = QdrantClient(":memory:")
    backend = server.QdrantBackend(client)
    filled(backend)
    client.update_collection_aliases([
        models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name="clips")),
        models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=NAMES[0], alias_name="clips")),
    ])
    for act in (prune, rollback):
        with raises(ArtifactError, code="aliases-broken"):
            act(backend)
    assert backend.stored() == NAMES


class Lost:
    """A server that is gone from the first call of `method` on."""

    def __init__(self, client: QdrantClient, method: str) -> None:
        self.client, self.method, self.is_gone = client, method, False

    def __getattr__(self, name: str) -> Any:
        def call(*args: object, **named: object) -> Any:
            self.is_gone = self.is_gone or name == self.method
            if self.is_gone:
                raise ResponseHandlingException(ConnectionRefusedError("refused"))
            return getattr(self.client, name)(*args, **named)

        return call


def test_server__one_that_is_lost_says_what_stays_and_a_dead_holders_lock_is_free_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qdrant_requests, "FIRST_WAIT_SECONDS", 0.001)
    client = QdrantClient(":memory:")
    with raises(ServiceError, code="server-no-answer", remedy=("stays", "10 minutes")):
        publish(**random_archive(tmp_path), index=server.QdrantBackend(Lost(client, "update_collection")))  # type: ignore[arg-type]
    backend = server.QdrantBackend(client)
    with raises(ServiceError, code="publish-running") as caught, backend.building():
        pass  # our own process lives: it might still be at it
    assert re.search(r"its lock ends in \d+ s", caught.value.remedy)
    monkeypatch.setattr(qdrant_lock, "is_dead", lambda held: held["pid"] == os.getpid())
    assert publish(**random_archive(tmp_path), index=backend).moved


def test_server__whose_process_died_is_told_by_machine_and_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(pid: int, _: int) -> None:
        raise ProcessLookupError

    monkeypatch.setattr(os, "kill", gone)
    held = {"pid": 12345, "machine": qdrant_lock.this_machine()}
    assert qdrant_lock.is_dead(held)
    assert not qdrant_lock.is_dead({**held, "machine": "another pid:[1]"}) and not qdrant_lock.is_dead({"pid": 12345})
    monkeypatch.undo()
    assert not qdrant_lock.is_dead({**held, "pid": os.getpid()})
