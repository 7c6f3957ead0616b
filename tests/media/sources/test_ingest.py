from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.raising import raises
from vidseek_media.decoding.probe import Probe, probe
from vidseek_media.decoding.worker_batch import run_videos
from vidseek_media.errors import ArtifactError, ConfigError, InputRejected
from vidseek_media.ids import video_id_of
from vidseek_media.sources.ingest import IngestReport, ingest, read_videos
from vidseek_media.sources.ledger import Ledger
from vidseek_media.tables import REJECTED, SIDECAR, TRANSCRIPTS, read_table
from vidseek_media.text.written_captions import WrittenCaption

MakeVideo = Callable[..., Path]


def run(source: Path, out: Path, **options: Any) -> IngestReport:
    ledger = out / "ledger" / "ledger.json"
    return ingest(source, out=out / "ingest", ledger=ledger, timeout_seconds=60, workers=1, **options)


def reasons(out: Path) -> dict[str, str]:
    table = read_table(out / "ingest" / "rejected.parquet", REJECTED)
    return dict(zip(table["id"], table["reason"], strict=True))


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "ingest").iterdir())}


@pytest.fixture
def source(tmp_path: Path, make_video: MakeVideo) -> Path:
    """Two videos, one of them twice, and one broken file."""
    folder = tmp_path / "source"
    make_video(folder / "a.mp4", num_frames=20)
    make_video(folder / "deep" / "er" / "B.MKV", num_frames=30, width=96)
    shutil.copy(folder / "a.mp4", folder / "deep" / "copy of a.mp4")
    (folder / "broken.mov").write_bytes(b"no video" * 100)
    (folder / "notes.txt").write_text("not listed")
    (folder / ".hidden.mp4").write_bytes(b"not listed")
    return folder


def test_ingest__keeps_good_files_merges_equal_ones_and_rejects_bad_ones(source: Path, tmp_path: Path) -> None:
    report = run(source, tmp_path)
    assert (report.num_in, report.num_out, report.num_merged, report.num_rejected) == (4, 2, 1, 1)
    videos = {video.uris: video for video in read_videos(tmp_path / "ingest")}
    assert set(videos) == {("a.mp4", "deep/copy of a.mp4"), ("deep/er/B.MKV",)}
    wide = videos["deep/er/B.MKV",]
    assert (wide.duration_ms, wide.fps, wide.width, wide.height, wide.codec) == (3000, 10.0, 96, 48, "h264")
    assert wide.video_id == video_id_of(source / "deep" / "er" / "B.MKV")
    assert list(reasons(tmp_path)) == ["broken.mov"]
    assert "cannot be opened as video" in reasons(tmp_path)["broken.mov"]


def test_ingest__twice_probes_nothing_and_writes_the_same_bytes(source: Path, tmp_path: Path) -> None:
    first, before = run(source, tmp_path), contents(tmp_path)
    second = run(source, tmp_path)
    assert (first.num_probed, second.num_probed) == (3, 0)
    assert contents(tmp_path) == before


def test_ingest__a_lost_ledger_changes_no_result(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path)
    before = contents(tmp_path)
    (tmp_path / "ledger" / "ledger.json").write_text('{"version": 0}')
    assert run(source, tmp_path).num_probed == 3
    assert contents(tmp_path) == before


def test_ingest__a_moved_file_is_no_new_video(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path)
    ids = {video.video_id for video in read_videos(tmp_path / "ingest")}
    (source / "deep" / "er" / "B.MKV").rename(source / "b.mkv")
    assert run(source, tmp_path).num_probed == 0
    assert {video.video_id for video in read_videos(tmp_path / "ingest")} == ids
    assert ("b.mkv",) in {video.uris for video in read_videos(tmp_path / "ingest")}


def test_ingest__a_mended_file_is_looked_at_again(source: Path, tmp_path: Path, make_video: MakeVideo) -> None:
    run(source, tmp_path)
    make_video(source / "broken.mov", num_frames=7)
    report = run(source, tmp_path)
    assert (report.num_probed, report.num_rejected, report.num_out) == (1, 0, 3)


def test_ingest__matches_the_sidecar(source: Path, tmp_path: Path) -> None:
    (source / "captions.csv").write_text(
        "file,caption,start,end,title,category\n"
        "deep/er/B.MKV,A grey square,0.5,1.5,,Shapes\n"
        "a.mp4,All of it,,,Squares,\n"
        "deep/copy of a.mp4,The same file elsewhere,,,Other,\n"
        "broken.mov,Nothing,,,,\n"
        "lost.mp4,Nothing,,,,\n"
    )
    report = run(source, tmp_path)
    assert (report.num_captions_in, report.num_captions_out, report.num_captions_rejected) == (5, 3, 2)
    videos = {video.uris[0]: video for video in read_videos(tmp_path / "ingest")}
    table = read_table(tmp_path / "ingest" / "sidecar.parquet", SIDECAR)
    rows = {row.text: row for row in table.itertuples()}
    assert rows["A grey square"].video_id == videos["deep/er/B.MKV"].video_id
    assert (rows["A grey square"].start_ms, rows["A grey square"].end_ms) == (500, 1500)
    assert rows["The same file elsewhere"].video_id == videos["a.mp4"].video_id
    assert table["start_ms"].isna().sum() == 2
    assert (videos["a.mp4"].title, videos["deep/er/B.MKV"].category) == ("Squares", "Shapes")
    assert set(reasons(tmp_path)) == {"broken.mov", "captions.csv:5", "captions.csv:6"}


def test_ingest__what_people_wrote_joins_the_captions(source: Path, tmp_path: Path) -> None:
    (source / "captions.csv").write_text("file,caption,start,end,gallery\na.mp4,A square,0,1,near\n")
    video_id = video_id_of(source / "a.mp4")
    written = [WrittenCaption.now(each, (500, 1500), "a grey square", who="ann") for each in (video_id, "f" * 32)]
    report = run(source, tmp_path, written=written)
    assert (report.num_written, report.num_captions_in, report.num_captions_out) == (1, 1, 1)  # the other video may come
    rows = {row.text: row for row in read_table(tmp_path / "ingest" / "sidecar.parquet", SIDECAR).itertuples()}
    row = rows["a grey square"]
    assert (row.video_id, row.start_ms, row.end_ms, row.writer, row.gallery, row.split) == (
        video_id, 500, 1500, "person", "near", "")
    assert pd.isna(rows["A square"].writer)


def test_ingest__without_a_sidecar_writes_an_empty_table(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path)
    assert len(read_table(tmp_path / "ingest" / "sidecar.parquet", SIDECAR)) == 0


def test_ingest__rejects_links_that_lead_outside(source: Path, tmp_path: Path, make_video: MakeVideo) -> None:
    outside = make_video(tmp_path / "outside" / "x.mp4", num_frames=3)
    (source / "file.mp4").symlink_to(outside)
    (source / "folder").symlink_to(outside.parent)
    (source / "nothing.mp4").symlink_to(tmp_path / "nowhere")
    (source / "inside.mp4").symlink_to(source / "a.mp4")
    report = run(source, tmp_path)
    assert report.num_in == report.num_out + report.num_merged + report.num_rejected == 8
    found = reasons(tmp_path)
    assert found["file.mp4"] == "is a link to a file outside the source"
    assert found["folder"] == "is a link to a folder outside the source"
    assert found["nothing.mp4"] == "is a link to nothing"
    assert "inside.mp4" not in found


def test_ingest__rejects_names_that_are_no_utf8(source: Path, tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(source) + b"/caf\xe9.mp4")).write_bytes((source / "a.mp4").read_bytes())
    run(source, tmp_path)
    assert reasons(tmp_path)["caf\\xe9.mp4"] == "its name is not UTF-8; rename it"


@pytest.mark.parametrize(("make", "code"), [
    (lambda path: None, "source-unreadable"), (lambda path: path.mkdir(), "source-empty"),
    (lambda path: path.touch(), "source-unreadable"),
])
def test_ingest__without_a_folder_of_videos_is_a_config_error(
    tmp_path: Path, make: Callable[[Path], None], code: str
) -> None:
    make(tmp_path / "source")
    with raises(ConfigError, code=code, naming="source") as caught:
        run(tmp_path / "source", tmp_path)
    assert caught.value.remedy
    assert not (tmp_path / "ingest").exists()


def test_ingest__of_bad_files_alone_is_an_error_that_names_the_table(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path)
    for path in source.rglob("*.*"):
        path.write_bytes(b"")
    with raises(InputRejected, code="no-usable-video", naming="4 video files") as caught:
        run(source, tmp_path)
    assert "rejected.parquet" in caught.value.remedy
    assert set(reasons(tmp_path).values()) == {"is empty (0 bytes)"}
    assert not (tmp_path / "ingest" / "videos.parquet").exists()


def test_ingest__a_wrong_sidecar_writes_nothing(source: Path, tmp_path: Path) -> None:
    (source / "captions.csv").write_text("video,text\na.mp4,x\n")
    with raises(ConfigError, code="unknown-columns", naming="video, text"):
        run(source, tmp_path)
    assert not (tmp_path / "ingest").exists()


def test_read_videos__of_a_missing_table_is_an_artifact_error(tmp_path: Path) -> None:
    with raises(ArtifactError, code="file-absent", naming="videos.parquet"):
        read_videos(tmp_path)


def test_ingest__names_that_say_so_make_files_clips_of_one_video(tmp_path: Path, make_video: MakeVideo) -> None:
    source = tmp_path / "source"
    for number in range(3):
        make_video(source / "day" / f"gate_{number}.mp4", num_frames=10 + number)
    make_video(source / "gate_9.mp4", num_frames=20)
    make_video(source / "yard.mp4", num_frames=30)
    (source / "captions.csv").write_text(
        "file,caption\nday/gate_1.mp4,a van\nyard_2.mp4,a dog\nday/yard_1.mp4,nothing\nyard.mp4,all\n"
    )
    report = ingest(
        source, out=tmp_path / "ingest", ledger=tmp_path / "ledger", timeout_seconds=60, workers=1,
        clip_pattern=r"(?P<stem>.+)_(?P<index>\d+)",
    )
    videos = {v.uris[0]: v for v in read_videos(tmp_path / "ingest")}
    assert {uri: v.clip_of for uri, v in videos.items()} == {
        "day/gate_0.mp4": "day/gate", "day/gate_1.mp4": "day/gate", "day/gate_2.mp4": "day/gate", "gate_9.mp4": "gate",
        "yard.mp4": "",
    }
    rows = {r.text: r for r in read_table(tmp_path / "ingest" / "sidecar.parquet", SIDECAR).itertuples()}
    assert rows["a van"].video_id == videos["day/gate_1.mp4"].video_id
    assert pd.isna(rows["a van"].clip_index)
    assert (rows["a dog"].video_id, rows["a dog"].clip_index) == (videos["yard.mp4"].video_id, 2)
    assert report.num_captions_rejected == 1
    assert "names day/yard_1.mp4" in reasons(tmp_path)["captions.csv:4"]


@pytest.mark.parametrize(("pattern", "fact"), [("(", "at position 0"), (r"(?P<stem>.+)_\d", "stem and index")])
def test_ingest__a_clip_pattern_that_names_no_clip_is_a_config_error(
    source: Path, tmp_path: Path, pattern: str, fact: str
) -> None:
    with raises(ConfigError, code="bad-pattern", naming=("ingest.clip_pattern", fact)):
        ingest(
            source, out=tmp_path / "ingest", ledger=tmp_path / "l", timeout_seconds=60, workers=1, clip_pattern=pattern
        )


def test_ingest__a_picture_counts_where_a_caption_names_it(tmp_path: Path, make_video: MakeVideo) -> None:
    source = tmp_path / "source"
    make_video(source / "a.mp4", num_frames=10)
    for number, name in enumerate(["cat.jpg", "dog.png", "thumb.jpg", "images/North/x1.webp", "images/bad.jpg"]):
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((30, 40, 3), 40 * number, np.uint8)).save(path)
    (source / "images" / "bad.jpg").write_bytes(b"\xff\xd8 no picture")
    (source / "captions.csv").write_text("image,caption\ncat.jpg,a cat\ndog.png,a dog\nbad.jpg,nothing\n")
    (source / "metadata.csv").write_text("Id,Title,Category,Channel\nx1,Boats,Harbour,North\n")
    report = run(source, tmp_path)
    videos = {v.uris[0]: v for v in read_videos(tmp_path / "ingest")}
    assert set(videos) == {"a.mp4", "cat.jpg", "dog.png", "images/North/x1.webp"}
    picture = videos["images/North/x1.webp"]
    assert (picture.width, picture.height, picture.duration_ms) == (40, 30, 40)
    assert (picture.title, picture.category, picture.channel) == ("Boats", "Harbour", "North")
    assert set(reasons(tmp_path)) == {"images/bad.jpg", "captions.csv:4"}
    assert (report.num_captions_in, report.num_captions_out, report.num_captions_rejected) == (4, 3, 1)


def test_ingest__reads_the_transcripts_beside_the_videos(source: Path, tmp_path: Path) -> None:
    (source / "a.srt").write_text("1\n00:00:00,500 --> 00:00:01,500\nhello\n")
    (source / "deep" / "er" / "B.vtt").write_text("nothing")
    report = run(source, tmp_path)
    [row] = read_table(tmp_path / "ingest" / "transcripts.parquet", TRANSCRIPTS).itertuples()
    assert (row.video_id, row.start_ms, row.end_ms, list(row.lines)) == (
        video_id_of(source / "a.mp4"), 500, 1500, ["hello"],
    )
    assert report.num_transcripts == 1
    assert "holds no cue" in reasons(tmp_path)["deep/er/B.vtt"]


def never_ready(_: Path) -> Probe:
    """A probe that no time-out of a test waits for."""
    time.sleep(60)
    raise AssertionError("somebody waited for it")


def test_ingest__a_time_out_names_its_setting_and_grows_with_the_file(
    tmp_path: Path, make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_video(tmp_path / "source" / "a.mp4", num_frames=3)
    with (tmp_path / "source" / "large.mp4").open("wb") as file:
        file.truncate(2_500_000)
    seconds: dict[str, float] = {}

    def noted(function: Any, items: list[Path], *, timeout_seconds: Callable[[Path], float], **others: Any) -> Any:
        seconds.update({path.name: timeout_seconds(path) for path in items})
        return run_videos(never_ready, items, timeout_seconds=lambda _: 0.5, **others)

    monkeypatch.setattr("vidseek_media.sources.ingest.run_videos", noted)
    with raises(InputRejected, code="no-usable-video", naming="ingest.timeout_seconds"):
        ingest(tmp_path / "source", out=tmp_path / "o", ledger=tmp_path / "l", timeout_seconds=1000, workers=1)
    assert seconds == {"a.mp4": 1000.0, "large.mp4": 1002.5}


def rejected(out: Path) -> dict[str, bool]:
    """Whether another run may mend it, by id."""
    table = read_table(out / "ingest" / "rejected.parquet", REJECTED)
    return dict(zip(table["id"], table["retryable"], strict=True))


def probe_slowly(path: Path) -> Probe:
    """As `probe`, which takes long where the file is called so."""
    return never_ready(path) if path.stem == "slow" else probe(path)


def test_ingest__a_lost_worker_is_tried_again_and_a_broken_file_is_not(
    tmp_path: Path, make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    for number, name in enumerate(("a", "slow")):
        make_video(source / f"{name}.mp4", num_frames=3 + number)
    (source / "bad.mp4").write_bytes(b"no video")

    def some_are_slow(function: Any, items: list[Path], **others: Any) -> Any:
        limit = {"timeout_seconds": lambda path: 1.0 if path.stem == "slow" else 60.0}
        return run_videos(probe_slowly, items, **{**others, **limit})

    with monkeypatch.context() as patched:
        patched.setattr("vidseek_media.sources.ingest.run_videos", some_are_slow)
        run(source, tmp_path)
    assert rejected(tmp_path) == {"bad.mp4": False, "slow.mp4": True}
    run(source, tmp_path)
    assert rejected(tmp_path) == {"bad.mp4": False}


def test_ingest__a_file_that_changes_meanwhile_is_tried_again(
    tmp_path: Path, make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    for number, name in enumerate(("a", "growing", "seen")):
        make_video(source / f"{name}.mp4", num_frames=3 + number)

    def append(path: Path) -> None:
        with path.open("ab") as file:
            file.write(b"more")

    def hashed(path: Path) -> str:
        if path.stem == "growing":
            append(path)
        return video_id_of(path)

    def probed(function: Any, items: list[Path], **others: Any) -> Any:
        append(source / "seen.mp4")
        return run_videos(function, items, **others)

    with monkeypatch.context() as patched:
        patched.setattr("vidseek_media.sources.ingest.video_id_of", hashed)
        patched.setattr("vidseek_media.sources.ingest.run_videos", probed)
        run(source, tmp_path)
    assert rejected(tmp_path) == {"growing.mp4": True, "seen.mp4": True}
    run(source, tmp_path)
    assert rejected(tmp_path) == {}


def test_ingest__sees_other_bytes_behind_the_same_size_and_time(tmp_path: Path, make_video: MakeVideo) -> None:
    """As `rsync --times` and `touch -r` leave it."""
    path = make_video(tmp_path / "source" / "a.mp4", num_frames=3)
    run(tmp_path / "source", tmp_path)
    before, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    run(tmp_path / "source", tmp_path)
    assert [video.video_id for video in read_videos(tmp_path / "ingest")] == [video_id_of(path)]


def test_ledger__forgets_what_is_gone_and_keeps_what_cannot_be_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (there := tmp_path / "there.mp4").touch()
    entries = {str(path): (0, 0, 0, "a" * 32) for path in (there, there / "below", tmp_path / "gone.mp4", tmp_path / "a\0b")}
    book = Ledger(tmp_path / "ledger.json", dict(entries))
    book.forget_missing([])
    assert list(book.files) == [str(there)]

    def refuse(path: Path, **_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", refuse)
    book.files = dict(entries)
    book.forget_missing([])
    assert book.files == entries
