"""What is new for saved searches: only what was published or changed since, and each moment once."""

from __future__ import annotations

import json
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from qdrant_client import QdrantClient

from tests.raising import raises
from tests.vidseek import calling
from tests.vidseek.saved.saved_archive import SURE, Growing, Receiver, first_of, video_id
from vidseek.archive import Archive, open_text_searcher
from vidseek.saved.after_publish import after_publish
from vidseek.saved.feeds import ATOM, atom_feed, json_feed
from vidseek.saved.listing import list_saved, newest_moments
from vidseek.saved.looking import look
from vidseek.saved.records import SavedQuery, SavedSearch
from vidseek.saved.saved_table import SavedGone, SavedTable
from vidseek.saved.saving import save_search
from vidseek_media.errors import ArtifactError, InputRejected
from vidseek_media.forgotten import ForgottenVideo, write_forgotten
from vidseek_media.ids import clip_id_of
from vidseek_retrieval.index.qdrant.backend import QdrantBackend

RED = SavedQuery(texts=("red",), min_score=SURE)
FIRST = {1: ["red", "blue"], 2: ["green", "green"]}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Growing:
    """Published on a server in memory, which takes a tenth of the time."""
    backend = QdrantBackend(QdrantClient(":memory:"))
    monkeypatch.setattr(Archive, "backend", lambda _: backend)
    growing = Growing(tmp_path, backend=backend)
    growing.publish(FIRST)
    return growing


def save(world: Growing, query: SavedQuery = RED, **others: Any) -> SavedSearch:
    return save_search(world.archive, query, world.searcher(), **others)


def new(world: Growing) -> list[tuple[str, int, int]]:
    """The video, start and end of what a look brings."""
    return [(each.video_id, each.start_ms, each.end_ms) for each in look(world.archive).new]


def forget(world: Growing, *numbers: int) -> None:
    write_forgotten(
        world.archive.decisions, [ForgottenVideo(video_id(each), (f"{each}.mp4",), (), "", "") for each in numbers]
    )


def test_look__brings_what_comes_after_saving_and_each_moment_once(world: Growing) -> None:
    search = save(world)
    assert new(world) == [] and search.num_before == 1
    world.publish({**FIRST, 3: ["blue", "red"], 4: ["blue"]})
    assert look(world.archive).num_videos == 2
    assert [each.video_id for each in newest_moments(world.archive, search.id)[1]] == [video_id(3)]
    assert new(world) == []
    world.titles = {3: "another title"}
    world.publish({**FIRST, 3: ["blue", "red"], 4: ["red"]})
    assert new(world) == [(video_id(4), 0, 1000)]
    world.publish(FIRST)
    world.publish({**FIRST, 3: ["blue", "red"]})
    assert new(world) == []


def test_look__asks_each_search_for_itself(world: Growing) -> None:
    red, green = save(world), save(world, SavedQuery(texts=("green",), min_score=SURE), name="greens")
    like = save(world, SavedQuery(clip_ids=(clip_of(world, 1, 1),), min_score=SURE), name="by example")
    world.publish({**FIRST, 3: ["green", "blue", "red"]})
    found = {each.search_id: each.start_ms for each in look(world.archive).new}
    assert found == {red.id: 2000, green.id: 0, like.id: 1000}
    assert [(each["name"], each["num_new"]) for each in list_saved(world.archive)] == [
        ("red", 1), ("greens", 1), ("by example", 1),
    ]


def clip_of(world: Growing, number: int, place: int) -> str:
    return str(clip_id_of(video_id(number), 1000 * place, 1000 * place + 1000))


def test_look__a_search_with_filters_looks_only_there(world: Growing) -> None:
    world.cameras = {3: "A", 4: "B"}
    save(world, SavedQuery(texts=("red",), filters={"video_id": [video_id(4), video_id(9)]}, min_score=SURE))
    world.publish(FIRST)
    world.publish({**FIRST, 3: ["red"], 4: ["red"]})
    assert new(world) == [(video_id(4), 0, 1000)]


def test_look__a_filter_whose_field_is_gone_is_told_and_nothing_is_lost(world: Growing) -> None:
    world.cameras = {3: "B", 4: "B", 5: "A"}
    search = save(world, SavedQuery(texts=("red",), filters={"camera": "B"}, min_score=SURE))
    other = save(world)
    world.declared = {}
    world.publish({**FIRST, 3: ["red"]})
    looked = look(world.archive)
    assert [each.search_id for each in looked.new] == [other.id] and len(looked.faults) == 1
    assert SavedTable(world.archive.saved).get(search.id).code == "unknown-filter"
    assert look(world.archive).faults  # still, and the other is not asked again
    world.declared = {"camera": "keyword"}
    world.publish({**FIRST, 3: ["red"], 4: ["red"], 5: ["red"]})
    found = {(each.search_id, each.video_id) for each in look(world.archive).new}
    assert found == {(search.id, video_id(3)), (search.id, video_id(4)), (other.id, video_id(4)), (other.id, video_id(5))}
    assert SavedTable(world.archive.saved).get(search.id).code == ""


def test_look__after_another_model_only_new_videos_count(world: Growing) -> None:
    save(world)
    world.version = "fedcba9876543210"
    (world.root / "models" / "encoder").rename(world.root / "models" / "before")
    world.publish({**FIRST, 2: ["green", "red"], 3: ["red"]})
    assert new(world) == [(video_id(3), 0, 1000)]
    world.titles = {1: "x", 2: "x"}
    world.publish({**FIRST, 2: ["green", "red"], 3: ["red"]})
    assert new(world) == []


def test_look__sends_the_best_of_many_and_lists_the_others(world: Growing, monkeypatch: pytest.MonkeyPatch) -> None:
    (world.root / "params.yaml").write_text("saved: {max_moments: 2, keep: 3}\n")
    monkeypatch.setattr("vidseek.saved.looking.PAGE", 2)  # more than fit on one
    receiver = Receiver(200)
    search = save(world, webhook=receiver.url, open_sender=lambda _: receiver.sender())
    receiver.close()
    world.publish({**FIRST, **{number: ["red"] for number in range(3, 8)}})
    assert [each.delivery for each in look(world.archive).new] == ["pending", "pending", "", "", ""]
    kept = newest_moments(world.archive, search.id)[1]
    assert len(kept) == 3 and sum(each.delivery == "pending" for each in kept) == 2
    assert new(world) == []


def test_look__that_dies_has_not_happened(world: Growing, monkeypatch: pytest.MonkeyPatch) -> None:
    save(world)
    world.publish({**FIRST, 3: ["red"]})
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("vidseek.saved.saved_table._write_seen", interrupt)
        look(world.archive)
    assert new(world) == [(video_id(3), 0, 1000)]


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_look__two_at_once_bring_each_moment_once(world: Growing) -> None:
    save(world)
    world.publish({**FIRST, 3: ["red"], 4: ["red"]})
    found: list[tuple[str, int, int]] = []
    threads = [threading.Thread(target=lambda: found.extend(new(world))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [(video_id(3), 0, 1000), (video_id(4), 0, 1000)]


def test_forgotten__videos_leave_lists_and_feeds_at_once(world: Growing) -> None:
    search = save(world)
    world.publish({**FIRST, 3: ["red"], 4: ["red"]})
    assert len(new(world)) == 2
    forget(world, 3)
    found, moments = newest_moments(world.archive, search.id)
    assert [each.video_id for each in moments] == [video_id(4)]
    assert video_id(3) not in json.dumps(json_feed(found, moments)) + json.dumps(list_saved(world.archive))
    world.publish({**FIRST, 4: ["red"], 5: ["red"]})
    assert new(world) == [(video_id(5), 0, 1000)]
    assert SavedTable(world.archive.saved).spans(search.id, [video_id(3)]) == {}


def test_save__wants_what_keeps_it_quiet(world: Growing) -> None:
    with raises(InputRejected, code="saved-without-threshold"):
        save(world, SavedQuery(texts=("red",)))
    assert save(world, SavedQuery(texts=("red",), fields=("captions", "speech"))).query.min_confidence == 0
    assert save(world, SavedQuery(texts=('a "red sea"',))).query.min_confidence == 0
    assert save(world, SavedQuery(texts=("red",), min_confidence=0.0)).query.min_score is None
    for query, code in (
        (SavedQuery(texts=("red",), filters={"colour": "x"}, min_score=0), "unknown-filter"), (SavedQuery(), "empty-query"),
        (SavedQuery(texts=(" ",), min_score=0), "empty-query"), (SavedQuery(clip_ids=("x",), min_score=0), "bad-clip-id"),
    ):
        with raises(InputRejected, code=code):
            save(world, query)
    assert len(SavedTable(world.archive.saved).searches()) == 3


def test_save__a_calibrated_query_has_the_confidence_of_the_settings(asked_archive: Archive) -> None:
    archive = asked_archive
    searcher = open_text_searcher(archive)
    assert save_search(archive, SavedQuery(texts=("red",)), searcher).query.min_confidence == 0.5
    (archive.root / "params.yaml").write_text("saved: {min_confidence: 0.25, max_searches: 2}\n")
    assert save_search(archive, SavedQuery(texts=("red",)), searcher).query.min_confidence == 0.25
    with raises(InputRejected, code="too-many-saved"):
        save_search(archive, SavedQuery(texts=("green",)), searcher)


def test_feeds__are_whole_whatever_titles_say(world: Growing) -> None:
    search = save(world, name="red <b>&amp;</b> \x1b[31m")
    world.titles = {3: "a \x00 <title> & \ud83d\x0b end".encode("utf-8", "replace").decode()}
    world.publish({**FIRST, 3: ["red"]})
    look(world.archive)
    found, moments = newest_moments(world.archive, search.id)
    feed = ElementTree.fromstring(atom_feed(found, moments))
    [entry] = feed.findall(f"{{{ATOM}}}entry")
    for name in ("id", "title", "updated"):
        assert feed.findtext(f"{{{ATOM}}}{name}") and entry.findtext(f"{{{ATOM}}}{name}")
    assert entry.findtext(f"{{{ATOM}}}id") == f"urn:uuid:{moments[0].id}"
    assert "<title> &" in str(entry.findtext(f"{{{ATOM}}}title")) and "\x1b" not in str(feed.findtext(f"{{{ATOM}}}title"))
    [item] = json_feed(found, moments)["items"]
    assert item["id"] == f"urn:uuid:{moments[0].id}" and item["_vidseek"]["video_id"] == video_id(3)


def test_after_publish__says_what_came_and_fails_no_publish(world: Growing) -> None:
    assert list(after_publish(world.archive)) == []
    save(world)
    world.publish({**FIRST, 3: ["red"]})
    assert list(after_publish(world.archive)) == ["1 new moments of 1 saved searches, in 1 videos"]
    (world.archive.saved / "saved.sqlite3").write_bytes(b"no table" * 1000)
    assert len(list(after_publish(world.archive))) == 2
    with raises(ArtifactError, code="broken-saved"):
        look(world.archive)


def test_command__saves_lists_looks_feeds_and_removes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world = first_of(tmp_path / "archive", FIRST)
    monkeypatch.setenv("VIDSEEK_HOME", str(world.root))

    def call(*args: str, code: int = 0) -> Any:
        capsys.readouterr()
        assert calling.call(monkeypatch, "saved", *args, "--json") == code
        return json.loads(capsys.readouterr().out)

    only = f"video_id={video_id(3)},{video_id(4)}"
    saved = call("add", "red", "--min-score", str(SURE), "--name", "reds", "--filter", only)
    world.publish({**FIRST, 3: ["red"]})
    [moment] = call("run")["new"]
    assert (moment["video_id"], moment["search_id"], moment["delivery"]) == (video_id(3), saved["id"], None)
    assert call("list")["saved"][0]["num_new"] == 1 and call("list", saved["id"])["moments"][0]["id"] == moment["id"]
    assert call("feed", saved["id"])["items"][0]["id"] == f"urn:uuid:{moment['id']}"
    capsys.readouterr()
    assert calling.call(monkeypatch, "saved", "feed", saved["id"], "-o", str(tmp_path / "reds.atom")) == 0
    assert calling.call(monkeypatch, "saved", "list", saved["id"]) == 0
    assert calling.call(monkeypatch, "saved", "list") == 0
    assert "reds" in capsys.readouterr().out
    assert ElementTree.parse(tmp_path / "reds.atom").getroot().tag == f"{{{ATOM}}}feed"
    assert call("remove", saved["id"]) == {"removed": saved["id"]}
    assert call("remove", saved["id"], code=10)["error"]["code"] == "saved-not-found"
    assert call("add", "red", "--webhook", "https://hooks.example/a", code=10)["error"]["code"] == "webhooks-off"
    with raises(SavedGone, code="saved-not-found"):
        newest_moments(world.archive, saved["id"])


def test_table__that_another_process_makes_meanwhile_is_used(tmp_path: Path) -> None:
    table = SavedTable(tmp_path)
    with raises(SavedGone, code="saved-not-found"):
        table.remove("none")
    with closing(sqlite3.connect(table.path)) as db:  # as who looked before the other one was done
        db.execute("PRAGMA user_version = 0")
    with raises(SavedGone, code="saved-not-found"):
        table.remove("none")
