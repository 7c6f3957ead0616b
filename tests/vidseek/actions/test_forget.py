"""A video is forgotten: at once in every search, and by the stages in every table. The stages' own functions are run."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import av
import fsspec
import numpy as np
import pandas as pd
import pytest
import yaml

from tests.copying import copy_tree
from tests.raising import raises
from tests.retrieval.archive import VERSION
from tests.stored_shards import read_shard
from tests.tiny_bundle import COLOURS, write_tiny_bundle
from tests.vidseek.test_cli import run
from vidseek.actions.forget import Plan, forget, plan_forget, take_back
from vidseek.archive import Archive, open_searcher
from vidseek_encoder.encoder import Encoder
from vidseek_media.cutting.cut import cut_archive
from vidseek_media.errors import ArtifactError, InputRejected
from vidseek_media.forgotten import ForgottenIds, ForgottenVideo, read_forgotten, write_forgotten
from vidseek_media.frame_store.shards import write_frames
from vidseek_media.settings import CutSettings, FrameSettings
from vidseek_media.sources.ingest import ingest
from vidseek_retrieval.embedding.embed_clips import embed_archive
from vidseek_retrieval.embedding.embedding_parts import read_parts
from vidseek_retrieval.index.aliases import rollback
from vidseek_retrieval.index.publish import publish
from vidseek_retrieval.settings import IndexSettings, PublishSettings
from vidseek_training.captioning.captions import write_captions
from vidseek_training.captioning.journal import open_journal, read_journal
from vidseek_training.dataset.pairs import make_pairs
from vidseek_training.settings import CaptionSettings, PairSettings

TABLES = ("ingest/videos", "cut/clips", "frames/frames", "caption/captions", "pairs/pairs")


def write_colour(path: Path, colour: str) -> None:
    """Two seconds of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt, stream.options = "yuv444p", {"qp": "1", "preset": "ultrafast"}
        for _ in range(20):
            picture = np.full((32, 32, 3), COLOURS[colour], np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def repro(archive: Archive) -> None:
    """What the stages do, from ingest to publish, with their functions."""
    data = archive.root / "data"
    source = archive.source
    assert source is not None
    ingest(
        source, out=data / "ingest", ledger=archive.state / "ledger", timeout_seconds=60, workers=1,
        forgotten=read_forgotten(archive.decisions),
    )
    cut_archive(
        data / "ingest", out=data / "cut",
        settings=CutSettings(modes=("captions", "windows"), window_length_seconds=1, window_stride_seconds=1),
    )
    write_frames(
        source, data / "ingest", data / "cut", out=data / "frames",
        settings=FrameSettings(num_frames=2, side_px=16, quality=95, shard_mib=1, workers=1, timeout_seconds=60),
        forgotten=read_forgotten(archive.decisions).video_ids,
    )
    write_captions(data / "ingest", data / "cut", out=data / "caption", settings=CaptionSettings())
    make_pairs(
        data / "ingest", data / "caption", data / "frames", out=data / "pairs", memory=data / "memory",
        settings=PairSettings(validation_share=0, test_share=0, skip_quality_flags=(), near_duplicate_bits=None),
    )
    embed_archive(data / "frames", Encoder.load(archive.bundle, threads=1), out=data / "embed")
    publish(
        data / "embed", data / "cut", data / "ingest", index=archive.index,
        settings=PublishSettings(index=IndexSettings(vectors=("video",))),
    )


def search(archive: Archive, text: str = "red") -> list[str]:
    """The uris that a search finds, best first."""
    searcher = open_searcher(archive, archive.settings().search, Encoder.load(archive.bundle, threads=1))
    return [hit.uri for hit in searcher.search_text(text).hits]


def rows(archive: Archive) -> dict[str, dict[str, str]]:
    """Every row of every table, by table and the clip's or video's id."""
    content = {}
    for name in TABLES:
        table = pd.read_parquet(archive.root / "data" / f"{name}.parquet")
        table = table.drop(columns=[column for column in ("shard", "offset") if column in table])
        content[name] = {str(row[0]): repr(row) for row in table.itertuples(index=False)}
    return content


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """A published archive of a folder with a video for each colour; the red one lies there twice. To be copied."""
    root = tmp_path_factory.mktemp("published")
    for colour in COLOURS:
        write_colour(root / "videos" / f"{colour}.mp4", colour)
    (root / "videos" / "again.mp4").write_bytes((root / "videos" / "red.mp4").read_bytes())
    (root / "videos" / "captions.csv").write_text(
        "file,caption,start,end\n" + "".join(f"{colour}.mp4,all {colour},0,1\n" for colour in COLOURS)
    )
    (root / "params.yaml").write_text(yaml.safe_dump({"ingest": {"source": "videos"}}))
    write_tiny_bundle(root / "models" / "encoder", encoder_version=VERSION)
    archive = Archive(root)
    repro(archive)
    return archive


@pytest.fixture
def archive(published: Archive, tmp_path: Path) -> Archive:
    """A copy of `published` of one's own."""
    return Archive(copy_tree(published.root, tmp_path))


def test_forget__is_gone_from_search_at_once_and_from_every_table_by_the_stages(archive: Archive) -> None:
    before, red = rows(archive), plan_forget(archive, "red.mp4").video.video_id
    assert search(archive)[0] == "again.mp4"  # the first uri of the two
    plan = plan_forget(archive, "red.mp4")
    assert (plan.num_clips, plan.num_frames, plan.num_captions, plan.num_pairs) == (2, 2, 1, 1)
    assert plan.removed == ()
    assert [path.name for path in plan.kept] == ["again.mp4", "red.mp4"]
    searcher = open_searcher(archive, archive.settings().search, Encoder.load(archive.bundle, threads=1))
    [clip_id, *_] = searcher.search_text("red", limit=1).hits[0].clip_ids
    forget(archive, plan)

    assert {hit.uri for hit in searcher.search_text("red").hits} == {"green.mp4", "blue.mp4", "white.mp4"}
    assert searcher.points([clip_id]) == []  # so the service has neither its picture nor its bytes
    assert len(set(search(archive))) == 3
    repro(archive)

    after = rows(archive)
    for name in TABLES:
        gone = {key for key, row in before[name].items() if red in row}
        assert gone, name
        assert after[name] == {key: row for key, row in before[name].items() if key not in gone}
    rejected = pd.read_parquet(archive.root / "data/ingest/rejected.parquet")
    files = rejected[~rejected.id.str.contains("csv")]
    assert list(files.id) == ["again.mp4", "red.mp4"] and files.reason.str.startswith("forgotten").all()
    clips = set(before["cut/clips"]) - set(after["cut/clips"])
    shards = [each for path in (archive.root / "data/frames/shards").glob("*.tar") for each in read_shard(path)]
    assert not clips & {str(clip.clip_id) for clip in shards} and len(shards) == 6
    assert not clips & set(read_parts(archive.root / "data/embed/parts").clip_ids)
    assert set(search(archive)) == {"green.mp4", "blue.mp4", "white.mp4"}
    ledger = json.loads((archive.state / "ledger/ingest.json").read_text())
    assert red not in ledger["probes"]
    assert (archive.root / "videos/red.mp4").is_file()


def test_forget__holds_after_a_rollback_to_an_index_that_has_the_video(archive: Archive) -> None:
    forget(archive, plan_forget(archive, "red.mp4"))
    repro(archive)
    rollback(archive.index)
    assert "again.mp4" not in search(archive)
    take_back(archive, "red.mp4")
    assert search(archive)[0] == "again.mp4"


def test_forget__twice_finishes_and_undone_it_is_as_before(archive: Archive) -> None:
    before = rows(archive)
    plan = plan_forget(archive, "red.mp4")
    forget(archive, plan)
    forget(archive, plan_forget(archive, plan.video.video_id[:8]))  # before the stages have run
    assert len(read_forgotten(archive.decisions).videos) == 1
    repro(archive)
    with raises(InputRejected, code="forgotten-already"):
        plan_forget(archive, "again.mp4")
    assert take_back(archive, "again.mp4").video_id == plan.video.video_id
    repro(archive)
    assert rows(archive) == before


def test_forget__takes_out_what_a_language_model_wrote_of_it(archive: Archive) -> None:
    gone, stays = (plan_forget(archive, name).video.video_id for name in ("red.mp4", "blue.mp4"))
    with open_journal(archive.state / "captions") as journal:
        for video_id in (gone, stays):
            number = journal.ask(key=video_id, basis="b", video_id=video_id, reserved_usd=0.5)
            journal.answer(
                number, captions={"short": "a"}, reason="", tokens=(3, 2), guessed_in=3, cost_usd=0.25,
            )
    forget(archive, plan_forget(archive, gone))
    left = read_journal(archive.state / "captions")
    assert set(left.entries) == {stays} and left.settled_usd == 0.5  # what was paid stays counted


def test_forget__a_moved_file_stays_out(archive: Archive) -> None:
    forget(archive, plan_forget(archive, "red.mp4"))
    (archive.root / "videos/red.mp4").rename(archive.root / "videos/new name.mp4")
    repro(archive)
    videos = rows(archive)["ingest/videos"]
    assert len(videos) == 3 and not any("new name.mp4" in row for row in videos.values())


def test_forget__removes_downloads_and_caches_and_never_loads_them_again(tmp_path: Path) -> None:
    fs, bucket = fsspec.filesystem("memory"), f"/{tmp_path.name}"
    for colour in COLOURS:
        write_colour(tmp_path / f"{colour}.mp4", colour)
        fs.pipe(f"{bucket}/{colour}.mp4", (tmp_path / f"{colour}.mp4").read_bytes())
    root = tmp_path / "archive"
    root.mkdir()
    (root / "params.yaml").write_text(yaml.safe_dump({"ingest": {"source": f"memory:/{bucket}"}}))
    write_tiny_bundle(root / "models" / "encoder", encoder_version=VERSION)
    archive = Archive(root)
    repro(archive)
    red = plan_forget(archive, "red.mp4").video.video_id
    clip_id = next(key for key, row in rows(archive)["cut/clips"].items() if red in row)
    caches = [archive.state / "shots" / f"{red}-0.json", archive.state / "thumbnails" / f"{clip_id}.jpg"]
    others = [archive.state / "shots" / f"{'0' * 32}-0.json", archive.state / "thumbnails" / "other.jpg"]
    for path in (*caches, *others):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    plan = plan_forget(archive, "red.mp4")
    assert plan.kept == ()
    assert {path.name for path in plan.removed} == {"red.mp4", ".red.mp4.stamp", caches[0].name, caches[1].name}
    assert plan.video.addresses == (f"memory:/{bucket}/red.mp4",)
    forget(archive, plan)
    assert not any(path.exists() for path in plan.removed) and all(path.exists() for path in others)
    repro(archive)
    assert not any(path.exists() for path in plan.removed)
    assert fs.exists(f"{bucket}/red.mp4")  # what lies elsewhere is not ours to delete
    take_back(archive, plan.video.addresses[0])
    repro(archive)
    assert "red.mp4" in search(archive)


@pytest.mark.parametrize("name", ["lost.mp4", "abc", "0" * 32])
def test_plan_forget__of_no_video_is_refused(archive: Archive, name: str) -> None:
    with raises(InputRejected, code="unknown-video", naming=repr(name)):
        plan_forget(archive, name)


def test_plan_forget__digits_of_two_videos_are_refused(tmp_path: Path) -> None:
    write_forgotten(tmp_path / "data" / "decisions", [
        ForgottenVideo(f"abcd{digit}{'0' * 27}", (f"{digit}.mp4",), (), "", "") for digit in "12"
    ])
    with raises(InputRejected, code="ambiguous-video", naming="names 2 videos"):
        take_back(Archive(tmp_path), "abcd")
    assert take_back(Archive(tmp_path), "abcd2").uris == ("2.mp4",)


def test_plan_forget__before_anything_was_ingested_is_an_artifact_error(tmp_path: Path) -> None:
    with raises(ArtifactError, code="file-absent", naming="videos.parquet"):
        plan_forget(Archive(tmp_path), "a.mp4")


def test_forgotten_ids__follow_the_table(tmp_path: Path) -> None:
    hidden = ForgottenIds(tmp_path)
    assert hidden() == frozenset()
    for digits in ("a", "b"):
        write_forgotten(tmp_path, [*read_forgotten(tmp_path).videos, ForgottenVideo(digits * 32, ("x",), (), "", "")])
        assert digits * 32 in hidden()
    (tmp_path / "forgotten.parquet").write_bytes(b"broken")
    with raises(ArtifactError, code="not-parquet"):
        hidden()


def said(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_command__without_yes_does_nothing_with_yes_does_it_and_undoes_it(archive: Archive) -> None:
    root = archive.root
    shown = run("forget", "red.mp4", folder=root)
    assert shown.returncode == 0 and "Nothing was done: add --yes" in shown.stdout and "2 clips" in shown.stdout
    assert said(run("forget", "red.mp4", "--json", folder=root))["forgotten"] is False
    assert not read_forgotten(archive.decisions).videos
    done = said(run("forget", "red.mp4", "--yes", "--json", folder=root))
    assert done["forgotten"] is True and done["next"] == ["dvc repro", "dvc gc --workspace"]
    assert done["kept"] == [str(root / "videos" / name) for name in ("again.mp4", "red.mp4")]
    [listed] = said(run("forget", "--list", "--json", folder=root))
    assert listed["video_id"] == done["video_id"]
    hits = said(run("search", "red", "--json", folder=root))["hits"]
    assert done["video_id"] not in {hit["video_id"] for hit in hits} and hits
    assert said(run("forget", done["video_id"][:6], "--undo", "--json", folder=root))["forgotten"] is False
    assert said(run("search", "red", "--json", folder=root))["hits"][0]["video_id"] == done["video_id"]
    (root / ".vidseek" / "base").mkdir(parents=True)  # it was published to compare with, and has seen the video too
    assert said(run("forget", "red.mp4", "--yes", "--json", folder=root))["next"][-1] == "vidseek base"
    assert run("forget", "lost.mp4", "--yes", folder=root).returncode == 10
    assert run("forget", folder=root).returncode == 2


def test_forget__refuses_while_the_table_of_aliases_is_not_right(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    collection = archive.index / f"clips-{VERSION}-{'0' * 12}"
    collection.mkdir(parents=True)
    (collection / "collection.json").write_text("{}")
    video = ForgottenVideo("a" * 32, ("a.mp4",), (), "", "2026-01-01T00:00:00Z")
    download = tmp_path / "a.mp4"
    download.write_bytes(b"x")
    plan = Plan(video, 1, 1, 0, 0, removed=(download,), kept=())
    for damage in (None, "", "{}", '{"clips": {"collection": "elsewhere", "previous": []}}'):
        if damage is not None:
            (archive.index / "aliases.json").write_text(damage)
        with raises(ArtifactError, code="aliases-broken"):
            forget(archive, plan)
        assert download.exists() and not archive.decisions.exists()
    (archive.index / "aliases.json").write_text(json.dumps({"clips": {"collection": collection.name, "previous": []}}))
    forget(archive, plan)
    assert not download.exists() and read_forgotten(archive.decisions).video_ids == {"a" * 32}
