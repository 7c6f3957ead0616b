"""Data sets of an archive: what was written comes back in the libraries that read them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from tests.copying import copy_tree
from tests.media.editing.numbered import frames_in, numbers_of_span
from tests.raising import raises
from tests.retrieval.archive import clip_row
from tests.vidseek import calling
from tests.vidseek.dataset_export.dataset_archive import (
    ODD,
    READERS,
    SPANS,
    Read,
    ids,
    write_dataset_archive,
    write_embeddings,
)
from vidseek.archive import Archive
from vidseek.dataset_export import FormatName
from vidseek.dataset_export import export as exporting
from vidseek.dataset_export.clips import Selection
from vidseek.dataset_export.export import WRITERS, Contents, export_dataset
from vidseek_media.errors import ArtifactError, ConfigError, InputRejected
from vidseek_media.fields.tags import TagDecision, append_tag
from vidseek_media.forgotten import ForgottenVideo, write_forgotten
from vidseek_media.frame_store.stored_clips import read_jpegs, stored_clips


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return write_dataset_archive(tmp_path_factory.mktemp("archive"))


@pytest.fixture
def own(archive: Archive, tmp_path: Path) -> Archive:
    """A copy of one's own."""
    return Archive(copy_tree(archive.root, tmp_path / "own"))


def clip_id(archive: Archive, name: str, place: int) -> str:
    return str(clip_row(ids(archive)[name], place, *SPANS[place][:2])["clip_id"])


def expected(archive: Archive) -> dict[str, Read]:
    """What each clip has, from the tables as `dataset_archive` wrote them."""
    of_pal: dict[str, Any] = {"camera": "B", "day": True}
    of_film = {"day": False, "gain": -0.5, "notes": ["a; b", "c"], "clip_index": 3}
    texts = {("pal.mov", 1): ((ODD, ""), ("[a crane]", "[a van]")), ("pal.mov", 2): (("a van", ""),),
             ("film #1.mp4", 1): (("rain", ""),), ("film #1.mp4", 2): (("x", ""),)}
    # A value of a span counts for the clips that share half of it: 500 to 1,500 ms.
    fields = {"pal.mov": of_pal, "film #1.mp4": of_film, "straight.mp4": {}}
    splits = {"pal.mov": "train", "film #1.mp4": "test", "straight.mp4": "unassigned"}
    jpegs = dict(read_jpegs(archive.frames, stored_clips(archive.frames)))
    vectors = write_embeddings(archive)
    found = {}
    for name in fields:
        for place, (start_ms, end_ms, _) in enumerate(SPANS):
            clip, own_texts = clip_id(archive, name, place), texts.get((name, place), ())
            take = {"take": 7} if name == "pal.mov" else {}
            found[clip] = Read(
                splits[name], (start_ms, end_ms), *(tuple(each[part] for each in own_texts) for part in (0, 1)),
                {**fields[name], **take}, vectors[clip], tuple(jpegs[clip]),
            )
    return found


@pytest.mark.parametrize("format_name", WRITERS)
def test_export__comes_back_the_same_in_the_library_that_reads_it(
    archive: Archive, tmp_path: Path, format_name: FormatName
) -> None:
    done = export_dataset(archive, tmp_path / "out", format_name, Selection(), Contents())
    found, wanted = READERS[format_name](tmp_path / "out"), expected(archive)
    if format_name == "fiftyone":  # one picture for each clip, and no empty texts
        wanted = {each: replace(read, frames=read.frames[1:2], contrasts=tuple(filter(None, read.contrasts)))
                  for each, read in wanted.items()}
    assert found == wanted
    assert (done.num_clips, done.num_videos, done.num_captions) == (9, 3, 5)
    assert done.splits == {"train": 3, "test": 3, "unassigned": 3}
    assert (done.encoder_version, done.dimension) == ("0123456789abcdef", 8)
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["splits"] == done.splits
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["out"]


@pytest.mark.parametrize("format_name", ["webdataset", "hf"])
def test_export__has_files_of_a_size_and_the_same_bytes_again(
    archive: Archive, tmp_path: Path, format_name: FormatName
) -> None:
    def files(name: str) -> dict[str, bytes]:
        export_dataset(archive, tmp_path / name, format_name, Selection(), Contents(shard_mib=0))
        return {path.relative_to(tmp_path / name).as_posix(): path.read_bytes() for path in (tmp_path / name).rglob("*.*")}

    one = files("one")
    assert one == files("two")
    assert len(one) == 9 + 1  # and dataset.json
    assert READERS[format_name](tmp_path / "one") == expected(archive)


@pytest.mark.parametrize(("selection", "wanted"), [
    (Selection(splits=("test",)), {("film #1.mp4", 0), ("film #1.mp4", 1), ("film #1.mp4", 2)}),
    (Selection(cut="captions", splits=("unassigned", "test")),
     {("film #1.mp4", 1), ("film #1.mp4", 2), ("straight.mp4", 1), ("straight.mp4", 2)}),
    (Selection(is_captioned=True), {("pal.mov", 1), ("pal.mov", 2), ("film #1.mp4", 1), ("film #1.mp4", 2)}),
    (Selection({"camera": ["B", "C"], "start_ms": {"lt": 500}}), {("pal.mov", 0)}),
    (Selection({"day": "no"}, cut="windows"), {("film #1.mp4", 0), ("film #1.mp4", 2)}),
    (Selection({"notes": "a; b", "start_ms": {"gte": 1000}}), {("film #1.mp4", 2)}),
])
def test_export__has_the_clips_that_were_asked_for(
    archive: Archive, tmp_path: Path, selection: Selection, wanted: set[tuple[str, int]]
) -> None:
    export_dataset(archive, tmp_path / "out", "csv", selection, Contents())
    assert READERS["csv"](tmp_path / "out").keys() == {clip_id(archive, *each) for each in wanted}


def test_export__has_what_people_tagged_since(own: Archive, tmp_path: Path) -> None:
    append_tag(own.decisions, TagDecision.now(ids(own)["pal.mov"], (0, 1000), "night", has_tag=True))
    export_dataset(own, tmp_path / "out", "fiftyone", Selection({"tags": "night"}), Contents())
    samples = json.loads((tmp_path / "out" / "samples.json").read_text())["samples"]
    assert [(each["clip_id"], each["tags"]) for each in samples] == [
        (clip_id(own, "pal.mov", place), ["train", "night"]) for place in (0, 1)  # the second shares half of the span
    ]


def test_export__has_nothing_of_forgotten_videos(own: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    film = ForgottenVideo(ids(own)["film #1.mp4"], ("film #1.mp4",), (), "", "2026-01-01T00:00:00Z")
    monkeypatch.setattr(exporting, "_write", forgetting(exporting._write, own, film))
    with raises(InputRejected, code="forgotten-meanwhile", naming=film.video_id):
        export_dataset(own, tmp_path / "out", "csv", Selection(), Contents())
    assert not (tmp_path / "out").exists()
    done = export_dataset(own, tmp_path / "out", "csv", Selection(), Contents())
    assert done.num_videos == 2
    texts = b"".join(path.read_bytes() for path in (tmp_path / "out").glob("*.*"))
    assert film.video_id.encode() not in texts and b"film #1" not in texts


def forgetting(write: Any, archive: Archive, video: ForgottenVideo) -> Any:
    def written(*args: Any) -> Any:
        found = write(*args)
        write_forgotten(archive.decisions, [video])
        return found

    return written


@pytest.mark.slow
@pytest.mark.parametrize("format_name", WRITERS)
def test_export__cuts_clips_exact_to_the_frame(archive: Archive, tmp_path: Path, format_name: FormatName) -> None:
    selection, contents = Selection({"camera": "B"}, cut="captions"), Contents(has_frames=False, has_media=True)
    export_dataset(archive, tmp_path / "out", format_name, selection, contents)
    shown = frames_in(archive.root / "videos" / "pal.mov")
    assert media_in(tmp_path / "out", format_name, tmp_path) == {
        clip_id(archive, "pal.mov", place): numbers_of_span(shown, *SPANS[place][:2]) for place in (1, 2)
    }
    assert not list((tmp_path / "out").glob(".*"))


def media_in(folder: Path, format_name: FormatName, scratch: Path) -> Mapping[str, list[int]]:
    """The numbers of the frames of each clip's media."""
    def numbers(content: bytes) -> list[int]:
        (scratch / "clip.mp4").write_bytes(content)
        return [number for _, number in frames_in(scratch / "clip.mp4")]

    if format_name == "webdataset":
        import webdataset

        samples = webdataset.WebDataset(str(folder / "train-000000.tar"), shardshuffle=False)
        return {json.loads(each["json"])["clip_id"]: numbers(each["mp4"]) for each in samples}
    if format_name == "hf":
        import datasets

        rows = datasets.load_dataset(str(folder), split="train", cache_dir=str(scratch / "cache"))
        return {each["clip_id"]: numbers(each["media"]["bytes"]) for each in rows}
    if format_name == "csv":
        table = pd.read_csv(folder / "clips.csv", dtype=str)
        return {row["clip_id"]: numbers((folder / row["media"]).read_bytes()) for row in table.to_dict("records")}
    samples = json.loads((folder / "samples.json").read_text())["samples"]
    assert all(json.loads((folder / each["frames"]).read_text()) == {"frames": {}} for each in samples)
    return {each["clip_id"]: numbers((folder / each["filepath"]).read_bytes()) for each in samples}


def test_export__leaves_out_clips_whose_video_cannot_be_cut(own: Archive, tmp_path: Path) -> None:
    (own.root / "videos" / "pal.mov").unlink()
    done = export_dataset(own, tmp_path / "out", "csv", Selection(cut="captions"), Contents(has_media=True))
    assert [(each.uri, each.code) for each in done.left_out] == [("pal.mov", "file-missing")] * 2
    assert done.num_clips == 4 == len(READERS["csv"](tmp_path / "out"))
    with raises(InputRejected, code="nothing-to-export", naming="pal.mov"):
        export_dataset(own, tmp_path / "none", "csv", Selection({"camera": "B"}), Contents(has_media=True))
    assert not (tmp_path / "none").exists()


def test_export__of_an_archive_that_only_has_frames(own: Archive, tmp_path: Path) -> None:
    for path in (own.pairs_table, own.caption / "captions.parquet", *(own.embed / "parts").iterdir(), *own.fields.iterdir()):
        path.unlink()
    own.fields.rmdir()
    with raises(ArtifactError, code="no-embeddings"):
        export_dataset(own, tmp_path / "out", "hf", Selection(), Contents())
    done = export_dataset(own, tmp_path / "out", "hf", Selection(), Contents(has_embeddings=False))
    assert (done.splits, done.num_captions, done.fields, done.dimension) == ({"unassigned": 9}, 0, {}, 0)


def test_export__refuses_embeddings_of_other_frames(own: Archive, tmp_path: Path) -> None:
    part = own.embed / "parts" / "0-0.parquet"
    table = pq.read_table(part)
    pq.write_table(table.set_column(4, "digest", [["0" * 32] * table.num_rows]), part)
    with raises(ArtifactError, code="clips-without-embedding"):
        export_dataset(own, tmp_path / "out", "csv", Selection(), Contents())
    assert not (tmp_path / "out").exists()


def test_export__replaces_data_sets_alone_and_only_if_asked(archive: Archive, tmp_path: Path) -> None:
    mine, link = tmp_path / "mine", tmp_path / "link"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    link.symlink_to(tmp_path / "elsewhere")
    for out, force, code in (
        (mine, False, "file-there"), (mine, True, "folder-not-ours"), (link, False, "file-there"),
        (link, True, "folder-not-ours"), (tmp_path / "mine" / "notes.txt" / "in", False, "export-not-written"),
    ):
        with raises(ConfigError, code=code):
            export_dataset(archive, out, "csv", Selection(), Contents(), force=force)
    out = tmp_path / "out"
    export_dataset(archive, out, "csv", Selection(), Contents())
    with raises(ConfigError, code="file-there"):
        export_dataset(archive, out, "hf", Selection(), Contents())
    with raises(InputRejected, code="nothing-to-export"):
        export_dataset(archive, out, "hf", Selection({"camera": "Z"}), Contents(), force=True)
    assert (out / "clips.csv").is_file() and (mine / "notes.txt").read_text() == "mine"
    export_dataset(archive, out, "hf", Selection(), Contents(), force=True)
    assert not (out / "clips.csv").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "mine", "out"]


def test_export__a_shard_that_is_broken_leaves_nothing(own: Archive, tmp_path: Path) -> None:
    [shard] = (own.frames / "shards").glob("*.tar")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 255
    shard.write_bytes(content)
    with raises(ArtifactError, code="broken-shard"):
        export_dataset(own, tmp_path / "out", "webdataset", Selection(), Contents())
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


@pytest.mark.parametrize(("args", "exit_code", "code"), [
    (("csv", "--filter", "camera=Z"), 10, "nothing-to-export"), (("csv", "--filter", "colour=red"), 10, "unknown-filter"),
    (("csv", "--split", "dev"), 11, "unknown-choice"), (("csv", "--cut", "scenes"), 11, "unknown-choice"),
    (("fiftyone", "--no-frames"), 11, "dataset-without-media"),
])
def test_command__refuses(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    args: tuple[str, ...], exit_code: int, code: str,
) -> None:
    monkeypatch.setenv("VIDSEEK_HOME", str(archive.root))
    call = ("export-dataset", args[0], str(tmp_path / "out"), *args[1:], "--json")
    assert calling.call(monkeypatch, *call) == exit_code
    assert json.loads(capsys.readouterr().out)["error"]["code"] == code
    assert list(tmp_path.iterdir()) == []


def test_command__says_what_it_wrote(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VIDSEEK_HOME", str(archive.root))
    assert calling.call(monkeypatch, "export-dataset", "hf", str(tmp_path / "a"), "--captioned", "--channel", "news") == 0
    assert "clips: 2 (2 train); videos: 1; captions: 3" in capsys.readouterr().out
    less = ("--no-frames", "--no-embeddings", "--after", "2026-03-02", "--json")
    assert calling.call(monkeypatch, "export-dataset", "csv", str(tmp_path / "b"), *less) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["num_clips"], told["splits"], told["dimension"]) == (3, {"unassigned": 3}, 0)
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["captions.csv", "clips.csv", "dataset.json"]
