from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.raising import raises
from tests.retrieval.archive import VERSION, clip_row, random_archive, unit_rows, video_row, write_archive
from tests.tiny_bundle import write_tiny_bundle
from vidseek_encoder.encoder import Encoder
from vidseek_media.errors import ArtifactError, ConfigError, GateFailed, ServiceError
from vidseek_media.tables import CAPTIONS, CLIPS, write_table
from vidseek_retrieval.embedding.embed_texts import embed_texts
from vidseek_retrieval.index import verification
from vidseek_retrieval.index.aliases import list_collections, prune, rollback, verify
from vidseek_retrieval.index.backend import Point
from vidseek_retrieval.index.bm25 import WordEncoder
from vidseek_retrieval.index.collection_metadata import CollectionMetadata, collection_name
from vidseek_retrieval.index.edge import backend as edge
from vidseek_retrieval.index.edge import shard as edge_shard
from vidseek_retrieval.index.edge.backend import EdgeBackend
from vidseek_retrieval.index.payload import payload_indexes
from vidseek_retrieval.index.publish import publish
from vidseek_retrieval.search.moments import RankedClip
from vidseek_retrieval.settings import IndexSettings, PublishSettings


def files_under(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_publish__builds_verifies_and_moves(tmp_path: Path) -> None:
    tables = random_archive(tmp_path)
    report = publish(**tables, index=tmp_path / "index", receipt=tmp_path / "receipts" / "publish.json")
    assert report.collection.startswith(f"clips-{VERSION}-")
    assert (report.num_points, report.built, report.moved, report.num_without_vector) == (4 * 58, True, True, 0)
    assert report.verification.passed and report.verification.num_points == 4 * 58
    assert report.verification.recall_at_10 >= 0.99
    assert EdgeBackend(tmp_path / "index").aliases()["clips"].collection == report.collection
    assert json.loads((tmp_path / "receipts" / "publish.json").read_text())["collection"] == report.collection


def test_publish__payload_has_the_fields_of_the_hit(tmp_path: Path) -> None:
    video = video_row("a" * 32, "tapes/my tape.mp4", channel="news", published_at="2024-05-01T10:00:00Z")
    clips = [clip_row("a" * 32, 3, 1000, 4000)]
    report = publish(**write_archive(tmp_path, [video], clips, unit_rows(1, 4)), index=tmp_path / "index")
    (point,) = EdgeBackend(tmp_path / "index").open(report.collection).points([str(clips[0]["clip_id"])])
    assert dict(point.payload) == {
        "video_id": "a" * 32,
        "start_ms": 1000,
        "end_ms": 4000,
        "index": 3,
        "title": "my tape",  # the file's stem, since it has no title
        "uri": "tapes/my tape.mp4",
        "channel": "news",
        "published_at": "2024-05-01T10:00:00Z",
        "duration_ms": 60_000,
        "encoder_version": VERSION,
    }


def test_publish__captions_and_words_of_the_clips(tmp_path: Path) -> None:
    video = video_row("a" * 32, "my_tape 7.mp4")
    clips = [clip_row("a" * 32, 0, 0, 3000), clip_row("a" * 32, 1, 3000, 6000)]
    tables = write_archive(tmp_path, [video], clips, unit_rows(2, 4))
    caption = {**dict.fromkeys(CAPTIONS.names, ""), "video_id": "a" * 32, "clip_id": clips[0]["clip_id"], "text": "red",
               "cost_usd": 0.0}
    write_table(tmp_path / "caption" / "captions.parquet", [caption], CAPTIONS)
    with raises(ArtifactError, code="texts-without-vectors", naming="1 texts"):
        publish(**tables, caption_dir=tmp_path / "caption", index=tmp_path / "index")
    write_tiny_bundle(tmp_path / "bundle", encoder_version=VERSION)
    encoder = Encoder.load(tmp_path / "bundle", threads=1, towers=["text"])
    embed_texts(["red"], encoder, out=tmp_path / "embed")
    report = publish(**tables, caption_dir=tmp_path / "caption", index=tmp_path / "index")
    assert (report.num_points, report.num_captions, report.num_words) == (2, 1, 2)
    collection = EdgeBackend(tmp_path / "index").open(report.collection)
    captioned = collection.search(encoder.embed_texts(["red"])[0], limit=5, using="caption")
    assert [(clip.clip_id, round(clip.score, 4)) for clip in captioned] == [(clips[0]["clip_id"], 1.0)]
    words = WordEncoder()
    assert [clip.start_ms for clip in collection.search_words(words.query("RED"), limit=5)] == [0]
    assert len(collection.search_words(words.query("tape 7"), limit=5)) == 2  # the file's name, of both
    assert publish(**tables, caption_dir=tmp_path / "caption", index=tmp_path / "index").built is False
    bare = PublishSettings(index=IndexSettings(vectors=("video",)))
    report = publish(**tables, caption_dir=tmp_path / "caption", index=tmp_path / "index", settings=bare)
    assert (report.num_captions, report.num_words, report.built) == (0, 0, True)


def test_publish__every_setting_is_another_collection_that_answers_alike(tmp_path: Path) -> None:
    tables, names, answers = random_archive(tmp_path, num_videos=1), set(), []
    for settings in (IndexSettings(), IndexSettings(quantization="int8"), IndexSettings(on_disk=True), IndexSettings(m=8)):
        report = publish(**tables, index=tmp_path / "index", settings=PublishSettings(index=settings))
        names.add(report.collection)
        collection = EdgeBackend(tmp_path / "index").open(report.collection)
        assert collection.metadata.settings == settings and report.verification.recall_at_10 >= 0.99
        answers.append([clip.clip_id for clip in collection.search(unit_rows(1, 16, seed=8)[0], limit=10)])
    assert len(names) == 4 and all(answer == answers[0] for answer in answers)


def test_build__defers_the_graph_and_makes_payload_indexes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen from within Edge: the order of what it is asked to do, and graphs only after the last point."""
    steps: list[str] = []

    class Spy:
        def __init__(self, shard: Any) -> None:
            self.shard = shard

        def update(self, operation: Any) -> None:
            self.shard.update(operation)
            info = self.shard.info()
            steps.append(f"{len(info.payload_schema)} indexes, {info.points_count > 0}, {info.indexed_vectors_count}")

        def optimize(self) -> None:
            self.shard.optimize()
            steps.append(f"optimised, {self.shard.info().indexed_vectors_count}")

        def __getattr__(self, name: str) -> Any:
            return getattr(self.shard, name)

    class SpyShards:
        load = edge_shard.qdrant.EdgeShard.load

        @staticmethod
        def create(path: str, config: Any) -> Spy:
            return Spy(create(path, config))

    create = edge_shard.qdrant.EdgeShard.create
    monkeypatch.setattr(edge_shard.qdrant, "EdgeShard", SpyShards)
    monkeypatch.setattr(edge_shard, "FULL_SCAN_KB", 1)
    publish(**random_archive(tmp_path, num_videos=8), index=tmp_path / "index")
    num = len(payload_indexes())
    assert steps[:num] == [f"{made + 1} indexes, False, 0" for made in range(num)]
    assert steps[num:] == [f"{num} indexes, True, 0", "optimised, 464"]


def test_publish__twice_changes_nothing(tmp_path: Path) -> None:
    tables = random_archive(tmp_path)
    first = publish(**tables, index=tmp_path / "index")
    before = files_under(tmp_path / "index")
    second = publish(**tables, index=tmp_path / "index")
    after = files_under(tmp_path / "index")
    assert second.collection == first.collection
    assert not second.built and not second.moved and second.removed == ()
    assert {**before, ".lock": b""} == {**after, ".lock": b""}


def test_publish__only_clips_of_the_cut(tmp_path: Path) -> None:
    clips = [
        clip_row("a" * 32, 0, 0, 3000),
        clip_row("a" * 32, 1, 500, 2500, cut=("captions",)),
        clip_row("a" * 32, 2, 1000, 4000, cut=("captions", "windows")),
    ]
    tables = write_archive(tmp_path, [video_row("a" * 32, "a.mp4")], clips, unit_rows(3, 4))
    assert publish(**tables, index=tmp_path / "index").num_points == 2
    with raises(GateFailed, code="nothing-to-publish", naming="'shots'"):
        publish(**tables, index=tmp_path / "index", settings=PublishSettings(cut="shots"))


def test_publish__clip_without_vector_is_counted(tmp_path: Path) -> None:
    clips = [clip_row("a" * 32, 0, 0, 3000), clip_row("a" * 32, 1, 1000, 4000)]
    tables = write_archive(tmp_path, [video_row("a" * 32, "a.mp4")], clips, unit_rows(2, 4))
    more = [*clips, clip_row("a" * 32, 2, 2000, 5000)]
    write_table(tmp_path / "cut" / "clips.parquet", more, CLIPS)
    report = publish(**tables, index=tmp_path / "index")
    assert (report.num_points, report.num_without_vector) == (2, 1)


def test_publish__new_content_keeps_the_previous_for_rollback(tmp_path: Path) -> None:
    index = tmp_path / "index"
    names = [publish(**random_archive(tmp_path, seed=seed), index=index).collection for seed in range(3)]
    assert len(set(names)) == 3
    assert EdgeBackend(index).aliases()["clips"].previous == (names[1],)
    assert [each.metadata.name for each in list_collections(index)] == names[1:]  # the oldest went
    assert rollback(index) == names[1]
    assert [(each.metadata.name, each.live_as) for each in list_collections(index)] == [
        (names[1], ("clips",)),
        (names[2], ()),
    ]
    assert prune(index) == []
    assert rollback(index) == names[2]


def test_publish__experiment_leaves_the_live_alias(tmp_path: Path) -> None:
    index = tmp_path / "index"
    live = publish(**random_archive(tmp_path, seed=0), index=index)
    other = publish(**random_archive(tmp_path, seed=1), index=index, alias="exp-one")
    aliases = EdgeBackend(index).aliases()
    assert aliases["clips"].collection == live.collection
    assert aliases["exp-one"].collection == other.collection
    again = publish(**random_archive(tmp_path, seed=1), index=index)  # the experiment is taken over as it is
    assert not again.built and again.moved and again.collection == other.collection


def test_publish__failed_verification_leaves_the_live_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = tmp_path / "index"
    live = publish(**random_archive(tmp_path, seed=0), index=index).collection
    monkeypatch.setattr(verification, "_recall", lambda *_: 0.5)
    with raises(GateFailed, code="publish-not-verified", naming=("recall@10 is 0.5000", "stays live")):
        publish(**random_archive(tmp_path, seed=1), index=index)
    assert EdgeBackend(index).aliases()["clips"].collection == live
    assert [each.metadata.name for each in list_collections(index)] == [live]


def test_publish__nan_vector_is_named(tmp_path: Path) -> None:
    vectors = unit_rows(2, 4)
    vectors[1, 2] = np.nan
    clips = [clip_row("a" * 32, 0, 0, 3000), clip_row("a" * 32, 1, 1000, 4000)]
    tables = write_archive(tmp_path, [video_row("a" * 32, "a.mp4")], clips, vectors)
    with raises(GateFailed, code="vectors-not-unit", naming=clips[1]["clip_id"]):
        publish(**tables, index=tmp_path / "index")
    assert not (tmp_path / "index").exists()


def test_publish__truncated_part_is_refused(tmp_path: Path) -> None:
    tables = random_archive(tmp_path)
    part = tmp_path / "embed" / "parts" / "0-0.parquet"
    part.write_bytes(part.read_bytes()[:1000])
    with raises(ArtifactError, code="not-parquet", naming="0-0.parquet"):
        publish(**tables, index=tmp_path / "index")


def test_publish__missing_part_is_refused(tmp_path: Path) -> None:
    tables = random_archive(tmp_path)
    (tmp_path / "embed" / "embeddings.json").write_text(json.dumps({"encoder_version": VERSION, "num_clips": 999}))
    with raises(ArtifactError, code="embeddings-broken", naming="says 999"):
        publish(**tables, index=tmp_path / "index")


def test_publish__embeddings_of_other_clips_are_refused(tmp_path: Path) -> None:
    tables = random_archive(tmp_path)
    write_archive(tmp_path / "other", [video_row("a" * 32, "a.mp4")], [clip_row("a" * 32, 0, 0, 1)], unit_rows(1, 4))
    with raises(ArtifactError, code="tables-disagree", naming="232 embedded clips"):
        publish(**{**tables, "cut_dir": tmp_path / "other" / "cut"}, index=tmp_path / "index")


@pytest.mark.parametrize(("alias", "wrong"), [("clips", {"keep_previous": -1}), ("clips", {"min_recall": 1.5}), ("", {})])
def test_publish__argument_out_of_range(tmp_path: Path, alias: str, wrong: dict[str, Any]) -> None:
    with raises(ConfigError, code="setting-out-of-range"):
        publish(tmp_path, tmp_path, tmp_path, index=tmp_path / "index", alias=alias, settings=PublishSettings(**wrong))


def test_publish__second_at_once_says_so(tmp_path: Path) -> None:
    tables = random_archive(tmp_path)
    busy = raises(ServiceError, code="publish-running", naming=f"process {os.getpid()}")
    with EdgeBackend(tmp_path / "index").building(), busy:
        publish(**tables, index=tmp_path / "index")
    assert publish(**tables, index=tmp_path / "index").moved  # the lock is free again


@pytest.mark.slow
def test_publish__killed_builder_leaves_no_lock_and_no_collection(tmp_path: Path) -> None:
    index = tmp_path / "index"
    live = publish(**random_archive(tmp_path, seed=0), index=index).collection
    script = f"""
        import time
        from pathlib import Path
        from tests.retrieval.archive import random_archive
        from vidseek_retrieval.index.edge import backend as edge
        from vidseek_retrieval.index import publish
        def stop(*_, **__):
            print("building", flush=True)
            time.sleep(60)
        edge.write_json = stop  # the shard is built, collection.json is not written
        publish.publish(**random_archive(Path({str(tmp_path)!r}), seed=1), index=Path({str(index)!r}))
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, env=environment, text=True
    ) as builder:
        assert builder.stdout is not None and builder.stdout.readline() == "building\n"
        with raises(ServiceError, code="publish-running", naming=f"process {builder.pid}"):
            publish(**random_archive(tmp_path, seed=1), index=index)
        builder.send_signal(signal.SIGKILL)
    assert EdgeBackend(index).aliases()["clips"].collection == live
    assert [each.metadata.name for each in list_collections(index)] == [live]
    report = publish(**random_archive(tmp_path, seed=1), index=index)
    assert report.removed == (report.collection,) and report.built and report.moved  # the half-built one went first


def _count(index: Path, name: str, queue: multiprocessing.Queue[int]) -> None:
    collection = EdgeBackend(index).open(name)
    queue.put(collection.count())
    time.sleep(0.3)
    queue.put(len(collection.search(unit_rows(1, 16)[0], limit=5)))


def test_collection__many_processes_read_and_files_stay(tmp_path: Path) -> None:
    index = tmp_path / "index"
    name = publish(**random_archive(tmp_path), index=index).collection
    before = files_under(index)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    readers = [context.Process(target=_count, args=(index, name, queue)) for _ in range(3)]
    for reader in readers:
        reader.start()
    answers = sorted(queue.get(timeout=60) for _ in range(6))
    for reader in readers:
        reader.join(timeout=60)
    assert answers == [5, 5, 5, 232, 232, 232]
    assert files_under(index) == before


@pytest.mark.parametrize(("num", "wanted"), [(0, 64), (100_000, 64), (1_000_000, 255), (10_000_000, 1014)])
def test_search_ef__grows_with_the_graph(num: int, wanted: int) -> None:
    metadata = CollectionMetadata(collection_name(VERSION, "0" * 12), VERSION, "0" * 12, 4, num, IndexSettings(), "")
    assert metadata.search_ef == wanted


@pytest.mark.parametrize(("most", "limit", "wanted"), [(4.0, 1, 4.0), (4.0, 10, 4.0), (4.0, 100, 2.2), (1.5, 100, 1.5)])
def test_oversampling__is_whole_for_the_first_ten(most: float, limit: int, wanted: float) -> None:
    metadata = CollectionMetadata("", "", "", 4, 10, IndexSettings(quantization="int8", oversampling=most), "")
    assert metadata.oversampling(limit) == pytest.approx(wanted)


def test_collection__ids_that_share_their_upper_half(tmp_path: Path) -> None:
    ids = [f"00000000-0000-5000-8000-{number:012x}" for number in (7, 3, 9, 1)]
    points = [
        Point(clip_id, row, {"video_id": "a" * 32, "start_ms": place, "end_ms": place + 1})
        for place, (clip_id, row) in enumerate(zip(ids, np.eye(4, dtype=np.float32), strict=True))
    ]
    made_at = "2026-11-27T00:00:00+00:00"
    metadata = CollectionMetadata(collection_name(VERSION, "0" * 12), VERSION, "0" * 12, 4, 4, IndexSettings(), made_at)
    backend = EdgeBackend(tmp_path)
    backend.build(metadata, points)
    opened = backend.open(metadata.name)
    for place, point in enumerate(points):
        (best,) = opened.search(point.vector, limit=1)
        assert best == RankedClip(ids[place], "a" * 32, place, place + 1, 1.0)
    opened.close()


def test_verify__finds_a_changed_file(tmp_path: Path) -> None:
    index = tmp_path / "index"
    name = publish(**random_archive(tmp_path), index=index).collection
    assert verify(index).passed
    largest = max((index / name / "shard").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    content = bytearray(largest.read_bytes())
    content[0] ^= 1
    largest.write_bytes(content)
    verification = verify(index)
    assert not verification.passed and "was changed" in verification.problems[0]


def test_publish__a_changed_collection_is_built_again(tmp_path: Path) -> None:
    index = tmp_path / "index"
    first = publish(**random_archive(tmp_path), index=index)
    next((index / first.collection).rglob("segment.json")).write_bytes(b"{}")
    again = publish(**random_archive(tmp_path), index=index)
    assert again.collection == first.collection and again.built and again.verification.passed


def test_publish__a_broken_collection_file_is_mended(tmp_path: Path) -> None:
    index = tmp_path / "index"
    first = publish(**random_archive(tmp_path), index=index)
    (index / first.collection / "collection.json").write_text("{")
    (index / "not ours" / "shard").mkdir(parents=True)
    again = publish(**random_archive(tmp_path), index=index)
    assert again.removed == (first.collection,) and again.built and again.verification.passed
    assert (index / "not ours" / "shard").is_dir()


def test_publish__disk_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with raises(ServiceError, code="no-space", naming=("1 MiB free", "about 128")):
        publish(**random_archive(tmp_path), index=tmp_path / "index")
    assert list_collections(tmp_path / "index") == []
    assert [path.name for path in (tmp_path / "index").iterdir()] == [".lock"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 224 MiB: the smallest shard takes 86 there."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=224m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("no file system can be mounted here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.slow
def test_publish__the_disk_fills_up_while_it_builds(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Edge is killed by a signal there. We are not, say so, leave nothing, and what is live answers."""
    monkeypatch.setattr(edge_shard, "CHILD_FROM_POINTS", 1)
    monkeypatch.setattr(edge, "_require_space", lambda *_: None)
    index = small_disk / "index"
    live = publish(**random_archive(tmp_path / "small"), index=index)
    num = 24_000
    videos = [video_row(f"{1:032x}", "long.mp4", duration_ms=num * 1000)]
    clips = [clip_row(f"{1:032x}", place, 1000 * place, 1000 * place + 3000) for place in range(num)]
    large = write_archive(tmp_path / "large", videos, clips, unit_rows(num, 512))
    with raises(ServiceError, code=("index-not-writable", "index-build-ended")):
        publish(**large, index=index)
    assert [each.metadata.name for each in list_collections(index)] == [live.collection]
    assert sorted(path.name for path in index.iterdir()) == sorted([".lock", "aliases.json", live.collection])
    assert verify(index).passed


def test_index__nothing_published(tmp_path: Path) -> None:
    assert list_collections(tmp_path / "none") == []
    assert prune(tmp_path / "none") == []
    for call in (rollback, verify):
        with raises(ArtifactError, code="not-published", remedy="dvc repro"):
            call(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_rollback__nothing_earlier(tmp_path: Path) -> None:
    publish(**random_archive(tmp_path), index=tmp_path / "index")
    with raises(ArtifactError, code="no-earlier-collection"):
        rollback(tmp_path / "index")
