"""Fields that the user declares: payload, index, filters and facets, on both backends, and published by difference."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.raising import raises
from tests.retrieval.archive import VERSION, clip_row, unit_rows, video_row, write_archive
from tests.retrieval.index.test_backends import BACKENDS, backend_at
from tests.retrieval.qdrant_stand_in import STRICT
from vidseek_media.errors import ArtifactError, ConfigError, InputRejected
from vidseek_media.fields.declared import RESERVED, fields_of
from vidseek_media.fields.statement import Statement
from vidseek_media.fields.statements import FieldTable, write_fields
from vidseek_retrieval.index.aliases import rollback
from vidseek_retrieval.index.backend import IndexBackend
from vidseek_retrieval.index.collection_metadata import CollectionMetadata
from vidseek_retrieval.index.edge.backend import EdgeBackend
from vidseek_retrieval.index.exchange.transfer import export_collection, import_collection
from vidseek_retrieval.index.payload import payload_fields
from vidseek_retrieval.index.publish import PublishReport, publish
from vidseek_retrieval.index.qdrant.builds import BUILD_FIELDS
from vidseek_retrieval.search.browse import facets_of
from vidseek_retrieval.search.filters import Condition, meets, parse_filters
from vidseek_retrieval.search.query import Answer, Hit, Query, SearchOptions
from vidseek_retrieval.search.searcher import Searcher
from vidseek_retrieval.settings import PublishSettings

DECLARED: dict[str, Any] = {
    "camera": "keyword", "take": "integer", "gain": "float", "is_day": "boolean", "shot_at": ["datetime"], "notes": "text",
    "tags": ["keyword"], "größe": "integer",
}
VIDEOS = [f"{number:032x}" for number in range(1, 7)]
CLIPS = 6
"""Of each video, of 3 s, one after the other."""


def statements() -> list[Statement]:
    said = []
    for number, name in enumerate(VIDEOS):
        said += [
            Statement(name, "camera", (f"cam {number % 2}",)), Statement(name, "take", (number,)),
            Statement(name, "gain", (number / 4,)), Statement(name, "is_day", ("true" if number < 2 else "false",)),
            Statement(name, "shot_at", (f"2026-0{number + 1}-01T00:00:00Z", "2020-01-01T00:00:00Z")),
            Statement(name, "notes", (f"note {number}",)), Statement(name, "größe", (number,)),
        ]
    return [
        *said, Statement(VIDEOS[0], "tags", ("rain", "night"), 0, 3000),
        Statement(VIDEOS[1], "camera", ("cam 9",), 3000, 6000),
    ]


class Archive:
    """An archive in tables with fields that a test changes."""

    def __init__(self, root: Path, backend: IndexBackend) -> None:
        self.root, self.backend = root, backend
        clips = [clip_row(name, at, 3000 * at, 3000 * at + 3000) for name in VIDEOS for at in range(CLIPS)]
        self.vectors = unit_rows(len(clips), 8)
        self.dirs = write_archive(root, [video_row(name, f"{name}.mp4") for name in VIDEOS], clips, self.vectors)

    def publish(self, said: Sequence[Statement], declared: Mapping[str, object] | None = None) -> PublishReport:
        table = FieldTable(fields_of(DECLARED if declared is None else declared), tuple(said))
        write_fields(self.root / "fields", table)
        return publish(
            **self.dirs, index=self.backend, fields_dir=self.root / "fields",  # type: ignore[arg-type]
            settings=PublishSettings(compact_share=1.0, keep_previous=3),
        )

    def search(self, **filters: object) -> Answer:
        query = Query.of_vector(self.vectors[0], VERSION)
        return Searcher(self.backend, None).search(query, SearchOptions(limit=100, filters=filters))

    def videos(self, **filters: object) -> set[int]:
        """The places in `VIDEOS` of those that are found."""
        return {VIDEOS.index(hit.video_id) for hit in self.search(**filters).hits}


@contextmanager
def archive_at(kind: str, root: Path) -> Iterator[Archive]:
    with backend_at(kind, root, strict=STRICT.model_copy(update={"max_payload_index_count": 64})) as backend:
        yield Archive(root, backend)


@pytest.fixture(params=BACKENDS)
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Archive]:
    with archive_at(request.param, tmp_path) as one:
        yield one


@pytest.fixture(scope="module", params=BACKENDS)
def published(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    """Of all tests that only read it."""
    with archive_at(request.param, tmp_path_factory.mktemp("published")) as one:
        one.publish(statements())
        yield one


def test_filters__of_each_type(published: Archive) -> None:
    for filters, wanted in (
        ({"camera": "cam 1"}, {1, 3, 5}), ({"camera": ["cam 9", "cam 0"]}, {0, 1, 2, 4}), ({"take": [1, 4]}, {1, 4}),
        ({"take": {"gte": "4"}}, {4, 5}), ({"gain": {"gt": 0.5, "lt": 1.25}}, {3, 4}), ({"gain": 0.75}, {3}),
        ({"is_day": True}, {0, 1}), ({"is_day": "no"}, {2, 3, 4, 5}), ({"shot_at": {"gte": "2026-05-01"}}, {4, 5}),
        ({"tags": ["rain", "snow"]}, {0}), ({"größe": {"lte": 1}}, {0, 1}), ({"tags": "night", "take": 1}, set()),
    ):
        assert published.videos(**filters) == wanted, filters
    [hit] = published.search(tags="rain").hits
    assert hit.fields == {
        "camera": "cam 0", "take": 0, "gain": 0.0, "is_day": "true", "notes": "note 0", "tags": ["night", "rain"],
        "größe": 0, "shot_at": ["2020-01-01T00:00:00Z", "2026-01-01T00:00:00Z"],
    }
    assert hit.end_ms == 3000 and [each.start_ms for each in published.search(camera="cam 9").hits] == [3000]


def test_filters__that_cannot_be_say_why(published: Archive) -> None:
    for filters, code, naming in (
        ({"crew": "Ann"}, "unknown-filter", "'crew'"), ({"notes": "x"}, "unknown-filter", "a text"),
        ({"take": "many"}, "bad-filter", "'many', wanted a whole number"),
        ({"camera": {"gte": "a"}}, "bad-filter", "a word"),
        ({"gain": [1, 2]}, "bad-filter", "wanted bounds"), ({"shot_at": "2026-01-01"}, "bad-filter", "wanted bounds"),
    ):
        with raises(InputRejected, code=code, naming=naming):
            published.search(**filters)


def test_facets__count_values_and_give_ends(published: Archive) -> None:
    collection = Searcher(published.backend, None).opened()
    found = facets_of(collection).fields
    assert list(found) == sorted(set(DECLARED) - {"notes"})
    assert found["camera"].values == {"cam 0": 18, "cam 1": 17, "cam 9": 1}
    assert found["tags"].values == {"night": 1, "rain": 1}
    assert found["is_day"].values == {"false": 24, "true": 12} and found["take"].bounds == (0, 5)
    assert found["gain"].bounds == (0.0, 1.25)
    assert found["shot_at"].bounds == ("2020-01-01T00:00:00Z", "2026-06-01T00:00:00Z")


@pytest.mark.slow
def test_publish__a_changed_value_writes_its_clips_alone(archive: Archive) -> None:
    first = archive.publish(statements())
    assert (first.num_written, first.num_deleted) == (36, 0)
    again = archive.publish(statements())
    assert (again.built, again.num_written) == (False, 0)
    changed = archive.publish([*statements(), Statement(VIDEOS[2], "tags", ("snow",), 6000, 9000)])
    assert (changed.num_written, changed.num_deleted) == (1, 0)
    assert archive.videos(tags="snow") == {2}
    removed = archive.publish([*statements(), Statement(VIDEOS[2], "camera", ("cam 7",), 0, 3000)])
    assert removed.num_written == 2 and archive.videos(tags="snow") == set() and archive.videos(camera="cam 7") == {2}


@pytest.mark.slow
def test_publish__an_added_field_is_by_difference_and_another_type_builds_anew(archive: Archive) -> None:
    said = [each for each in statements() if each.field == "camera"]
    archive.publish(said, {"camera": "keyword"})
    more = [*said, Statement(VIDEOS[3], "take", (7,))]
    added = archive.publish(more, {"camera": "keyword", "take": "integer"})
    assert added.num_written == CLIPS and archive.videos(take=7) == {3}
    words = archive.publish([*said, Statement(VIDEOS[3], "take", ("seven",))], {"camera": "keyword", "take": "keyword"})
    assert words.built and archive.videos(take="seven") == {3}
    rollback(archive.backend)
    assert archive.videos(take={"gte": 7}) == {3}
    gone = archive.publish(said, {"camera": "keyword"})
    assert gone.moved and archive.videos(camera="cam 9") == {1}
    with raises(InputRejected, code="unknown-filter", naming="'take'"):
        archive.search(take=7)


def test_names__that_clips_have_are_reserved(tmp_path: Path) -> None:
    assert {*payload_fields(), *BUILD_FIELDS, *(each.name for each in dataclasses.fields(Hit))} <= RESERVED
    archive = Archive(tmp_path, EdgeBackend(tmp_path / "index"))
    write_fields(tmp_path / "fields", FieldTable(fields_of({"camera": "keyword"}), ()))
    content = (tmp_path / "fields" / "fields.json").read_text().replace("camera", "channel")
    (tmp_path / "fields" / "fields.json").write_text(content)
    with raises(ArtifactError, code="fields-broken", naming="channel"):
        publish(**archive.dirs, index=archive.backend, fields_dir=tmp_path / "fields")  # type: ignore[arg-type]


def test_names__of_another_packages_fields_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = Archive(tmp_path, EdgeBackend(tmp_path / "index"))
    monkeypatch.setattr("vidseek_retrieval.index.payload.filter_fields", lambda: {"mood": "keyword"})
    with raises(ConfigError, code="field-name-taken", naming="mood"):
        archive.publish([], {"mood": "keyword"})


@pytest.mark.slow
def test_transfer__fields_go_with_a_collection_and_wrong_ones_are_refused(tmp_path: Path) -> None:
    archive = Archive(tmp_path, EdgeBackend(tmp_path / "index"))
    archive.publish(statements())
    export_collection(archive.backend, tmp_path / "all.parquet")
    other = EdgeBackend(tmp_path / "other")
    import_collection(other, tmp_path / "all.parquet")
    archive.backend = other
    assert archive.videos(tags="rain") == {0} and archive.videos(take=[1, 4]) == {1, 4}
    facts = other.collections()[0].to_json()
    assert CollectionMetadata.from_json(facts).declared == fields_of(DECLARED)
    with pytest.raises(ValueError, match="score"):
        CollectionMetadata.from_json({**facts, "fields": {"score": "keyword"}})


def test_meets__decides_as_the_backends_do(published: Archive) -> None:
    [metadata] = published.backend.collections()
    collection = published.backend.open(metadata.name)
    payloads = {point.clip_id: point.payload for point in collection.scroll()}
    asked: list[dict[str, object]] = [
        {"camera": ["cam 0", "cam 9"]}, {"take": {"gt": 1, "lte": 4}}, {"take": [0, 5]}, {"gain": {"gte": 0.5}},
        {"gain": 0.75}, {"is_day": True}, {"tags": "night"},
        {"shot_at": {"gte": "2026-02-01T01:00:00+01:00", "lt": "2026-04-01"}},
        {"shot_at": {"gt": "2020-01-01", "lt": "2026-01-01"}}, {"start_ms": {"lt": 6000}, "camera": "cam 1"},
        {"channel": "x"}, {"duration_ms": {"gte": 60_000}, "größe": {"lt": 2}},
    ]
    for filters in asked:
        conditions = parse_filters(filters, metadata.declared)
        found = collection.search(published.vectors[0], limit=100, exact=collection.allows_exact, conditions=conditions)
        met = {clip_id for clip_id, payload in payloads.items() if meets(payload, conditions)}
        assert met == {clip.clip_id for clip in found}, filters
        hidden = (*conditions, Condition("video_id", none_of=(VIDEOS[0],)))
        found = collection.search(published.vectors[0], limit=100, exact=collection.allows_exact, conditions=hidden)
        assert {each for each in payloads if meets(payloads[each], hidden)} == {clip.clip_id for clip in found}, filters
