from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.raising import raises
from vidseek_media.errors import ConfigError, InputRejected
from vidseek_media.sources.ingest import IngestReport, ingest, read_videos
from vidseek_media.sources.manifest import Manifest, read_manifest
from vidseek_media.sources.opening import open_source
from vidseek_media.tables import REJECTED, SIDECAR, read_table

MakeVideo = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path, make_video: MakeVideo) -> Path:
    """Two videos beside the manifest, one elsewhere."""
    make_video(tmp_path / "list" / "a.mp4", num_frames=20)
    make_video(tmp_path / "list" / "deep" / "b.mp4", num_frames=30)
    make_video(tmp_path / "elsewhere" / "c.mp4", num_frames=10)
    return tmp_path / "list"


def manifest(folder: Path, content: str | bytes, name: str = "list.csv") -> Manifest:
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    source = open_source(str(folder / name), downloads=folder / ".downloads")
    assert isinstance(source, Manifest)
    return source


def run(source: Manifest, out: Path) -> IngestReport:
    return ingest(source, out=out / "ingest", ledger=out / "ledger", timeout_seconds=60, workers=1)


def reasons(out: Path) -> dict[str, str]:
    table = read_table(out / "ingest" / "rejected.parquet", REJECTED)
    return dict(zip(table["id"], table["reason"], strict=True))


def test_manifest__names_videos_here_and_elsewhere_and_says_what_they_are(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "c.mp4"
    source = manifest(
        folder,
        "uri,title,channel,category,published_at,caption\n"
        "a.mp4,Day 1,North,Harbour,2026-03-01T12:00:00+02:00,a crane lifts a box\n"
        "deep/b.mp4,,,,,\n"
        f"{elsewhere},Day 3,,,,\n",
    )
    report = run(source, tmp_path)
    videos = {video.uris[0]: video for video in read_videos(tmp_path / "ingest")}
    assert set(videos) == {"a.mp4", "deep/b.mp4", str(elsewhere)}
    one = videos["a.mp4"]
    assert (one.title, one.channel, one.category, one.published_at) == (
        "Day 1", "North", "Harbour", "2026-03-01T10:00:00Z",
    )
    [row] = read_table(tmp_path / "ingest" / "sidecar.parquet", SIDECAR).itertuples()
    assert (row.video_id, row.text) == (one.video_id, "a crane lifts a box")
    assert (report.num_in, report.num_out, report.num_rejected) == (3, 3, 0)
    assert (report.num_captions_in, report.num_captions_out, report.num_captions_rejected) == (2, 2, 0)
    assert source.path_of("deep/b.mp4") == folder / "deep" / "b.mp4"
    assert source.path_of(str(elsewhere)) == elsewhere


@pytest.mark.parametrize("content", [
    b"\xef\xbb\xbfuri,title\r\na.mp4,Day 1\r\n", b" URI , Title\n\na.mp4,Day 1\n\n", b"title,uri\nDay 1,a.mp4",
], ids=["bom and windows line ends", "spaces and capitals", "no last line end"])
def test_manifest__takes_files_as_people_save_them(folder: Path, content: bytes) -> None:
    listing = manifest(folder, content).list_videos()
    assert listing.paths == {"a.mp4": folder / "a.mp4"}
    assert [dict(row.annotations) for row in listing.sidecar.captions] == [{"title": "Day 1"}]


@pytest.mark.parametrize(("content", "code", "fact"), [
    ("title,caption\nDay 1,x\n", "unknown-columns", "missing: uri"),
    ("uri,title,title\na.mp4,x,y\n", "unknown-columns", "twice: title"),
    ("uri\n", "source-empty", "rows"),
    ("", "rows-unreadable", "empty"),
    (b"uri,title\na.mp4,ok\ndeep/b.mp4,caf\xe9\n", "rows-not-text", "line 3"),
    ("uri,title\na.mp4,\"Day 1\n", "rows-unreadable", "line 2"),
    (b"uri\0\na.mp4\n", "rows-not-text", "null bytes"),
])
def test_manifest__that_is_wrong_as_a_whole_is_one_error_that_names_it(
    folder: Path, content: str | bytes, code: str, fact: str
) -> None:
    with raises(ConfigError, code=code, naming=("list.csv", fact)) as caught:
        manifest(folder, content).list_videos()
    assert caught.value.remedy


def test_manifest__that_is_missing_is_a_config_error(tmp_path: Path) -> None:
    with raises(ConfigError, code="source-unreadable", naming="no.csv"):
        open_source(str(tmp_path / "no.csv"), downloads=tmp_path).list_videos()


@pytest.mark.parametrize(("row", "id", "reason"), [
    ("../elsewhere/c.mp4,,,", "../elsewhere/c.mp4", "leads out of the manifest's folder"),
    ("link.mp4,,,", "link.mp4", "leads out of the manifest's folder"),
    ("lost.mp4,,,", "lost.mp4", "is not there"),
    ("/no/such/file.mp4,,,", "/no/such/file.mp4", "is not there"),
    ("deep,,,", "deep", "is no regular file"),
    ("nope://host/a.mp4,,,", "nope://host/a.mp4", "cannot be read: Protocol not known"),
    ("http://[host/a.mp4,,,", "http://[host/a.mp4", "is no URL"),
    (",Day 2,,", "list.csv:3", "names no uri"),
    ("a.mp4,Day 2,,", "list.csv:3", "names a.mp4 again, as list.csv:2 does"),
    ("a.mp4,Day 1,,", "list.csv:3", "names a.mp4 again"),
    ("./a.mp4,,a dog,", "list.csv:3", "names ./a.mp4 again"),
    ("deep/b.mp4,,,yesterday", "list.csv:3", "published_at is 'yesterday'"),
    ("deep/b.mp4,,", "list.csv:3", "has 3 cells, the header has 4"),
])
def test_manifest__a_row_that_cannot_be_used_is_rejected_alone(
    folder: Path, tmp_path: Path, row: str, id: str, reason: str
) -> None:
    (folder / "link.mp4").symlink_to(tmp_path / "elsewhere" / "c.mp4")
    report = run(manifest(folder, f"uri,title,caption,published_at\na.mp4,Day 1,a cat,\n{row}\n"), tmp_path)
    assert report.num_out == 1
    found = reasons(tmp_path)
    assert list(found) == [id]
    assert reason in found[id]


def test_manifest__a_video_may_have_several_captions_with_and_without_times(folder: Path) -> None:
    source = manifest(folder, "uri,caption,start,end\na.mp4,a cat,,\na.mp4,a dog,,\na.mp4,a cat,0,1\na.mp4,a cat,,\n")
    listing = source.list_videos()
    assert [(c.text, c.start_ms) for c in listing.sidecar.captions] == [("a cat", None), ("a dog", None), ("a cat", 0)]
    assert [r.reason for r in listing.sidecar.rejections] == ["says the same as list.csv:2"]


def test_manifest__parquet_with_wrong_types_refuses_the_rows(folder: Path) -> None:
    pd.DataFrame({
        "uri": ["a.mp4", "deep/b.mp4"], "title": [["a", "list"], None], "other": [[1], [2]],
        "published_at": pd.to_datetime(["2026-03-01", "2026-03-02"]),
    }).to_parquet(folder / "list.parquet")
    listing = open_source(str(folder / "list.parquet"), downloads=folder).list_videos()
    assert set(listing.paths) == {"deep/b.mp4"}
    assert listing.sidecar.captions[0].annotations == {"published_at": "2026-03-02T00:00:00Z"}
    [rejection] = listing.sidecar.rejections
    assert (rejection.id, rejection.reason) == ("list.parquet:1", "has a list in the column title, wanted text")


def test_manifest__json_lines_with_odd_texts_and_names_refuse_their_rows(folder: Path, tmp_path: Path) -> None:
    (folder / "loop.mp4").symlink_to(folder / "loop.mp4")
    lines = ['{"uri": "a.mp4", "title": "Day 1", "tags": ["x"]}', '{"uri": "b\\u0000.mp4"}', '{"uri": 5}',
             '{"uri": "deep/b.mp4", "caption": "\\ud800"}', '{"title": "x"}', '[]', '{', '{"uri": "loop.mp4"}',
             f'{{"uri": "{"x" * 5000}.mp4"}}']
    (folder / "list.jsonl").write_text("\n".join(lines))
    listing = open_source(str(folder / "list.jsonl"), downloads=tmp_path).list_videos()
    assert set(listing.paths) == {"a.mp4"}
    assert [r.id for r in listing.sidecar.rejections] == [f"list.jsonl:{n}" for n in (2, 4, 5, 6, 7)]
    assert {uri[:8]: why.reason for uri, why in listing.rejected.items()} == {
        "5": "is not there", "loop.mp4": listing.rejected["loop.mp4"].reason,
        "xxxxxxxx": "cannot be looked at: File name too long",
    }


def test_manifest__captions_beside_it_count_and_it_is_no_sidecar_itself(folder: Path) -> None:
    (folder / "captions.jsonl").write_text('{"file": "a.mp4", "caption": "a dog", "start": 0, "end": 1}\n')
    listing = manifest(folder, "uri,caption\na.mp4,a cat\n", name="captions.csv").list_videos()
    assert [c.place for c in listing.sidecar.captions] == ["captions.csv:2", "captions.jsonl:1"]


def test_manifest__pictures_with_captions_are_videos_of_one_frame(folder: Path, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (40, 30), "red").save(folder / "p.jpg")
    run(manifest(folder, "image,caption\np.jpg,a red card\np.jpg,red paper\n"), tmp_path)
    [video] = read_videos(tmp_path / "ingest")
    assert video.uris == ("p.jpg",)
    assert len(read_table(tmp_path / "ingest" / "sidecar.parquet", SIDECAR)) == 2


def test_manifest__a_file_url_is_the_path_and_is_not_copied(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "c.mp4").rename(tmp_path / "elsewhere" / "c d.mp4")
    uri = f"file://{tmp_path}/elsewhere/c%20d.mp4"
    source = manifest(folder, f"uri\n{uri}\n")
    assert source.list_videos().paths == {uri: tmp_path / "elsewhere" / "c d.mp4"}
    assert source.path_of(uri) == tmp_path / "elsewhere" / "c d.mp4"
    assert (source.address_of(uri), source.downloads_of(uri)) == ("", [])
    assert not (folder / ".downloads").exists()
    with raises(InputRejected, code="not-in-source", naming="/etc/passwd"):
        source.path_of("file:///etc/passwd")


def test_path_of__an_absolute_path_counts_only_while_the_manifest_names_it(folder: Path, tmp_path: Path) -> None:
    elsewhere = str(tmp_path / "elsewhere" / "c.mp4")
    source = manifest(folder, f"uri\n{elsewhere}\n")
    assert source.path_of(elsewhere) == Path(elsewhere)
    with raises(InputRejected, code="not-in-source", naming="/etc/passwd"):
        source.path_of("/etc/passwd")
    with raises(InputRejected, code="outside-source", naming="elsewhere/c.mp4"):
        source.path_of("../elsewhere/c.mp4")
    (folder / "list.csv").write_text("uri\na.mp4\n")
    with raises(InputRejected, code="not-in-source", naming=elsewhere):
        source.path_of(elsewhere)


def test_ingest__of_a_manifest_twice_reads_nothing_again(folder: Path, tmp_path: Path) -> None:
    source = manifest(folder, "uri,title\na.mp4,Day 1\ndeep/b.mp4,\n")
    assert run(source, tmp_path).num_probed == 2
    before = {path.name: path.read_bytes() for path in (tmp_path / "ingest").iterdir()}
    assert run(source, tmp_path).num_probed == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "ingest").iterdir()} == before


cells = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(st.one_of(cells, st.sampled_from(["a.mp4", "../a.mp4", "/"])), cells, cells), min_size=1))
def test_read_manifest__no_row_is_lost_whatever_it_holds(tmp_path: Path, rows: list[tuple[str, str, str]]) -> None:
    path = tmp_path / "any.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("uri", "caption", "published_at"), *rows])
    num_blank = sum(not any(cell.strip() for cell in row) for row in rows)
    try:
        kept, refused = read_manifest(path)
    except ConfigError as error:
        assert num_blank == len(rows) and "has no rows" in error.message
        return
    assert len(kept) + len(refused) == len(rows) - num_blank
    listing = Manifest(path, downloads=tmp_path / "downloads").list_videos()
    assert set(listing.paths) | set(listing.rejected) == {row.file for row in kept}
