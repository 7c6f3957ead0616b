from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.raising import raises
from vidseek_media.errors import ConfigError
from vidseek_media.sources.ingest import IngestReport, ingest, read_videos
from vidseek_media.sources.manifest import Manifest
from vidseek_media.sources.source import Source

MakeVideo = Callable[..., Path]


def run(source: Path | Source, out: Path, **settings: Any) -> IngestReport:
    return ingest(source, out=out / "ingest", ledger=out / "ledger", timeout_seconds=60, workers=1, **settings)


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "ingest").iterdir()) if path.name != "rejected.parquet"}


def test_ingest__files_of_a_disk_that_is_away_stay_with_what_is_said_in_them(tmp_path: Path, make_video: MakeVideo) -> None:
    disk, manifest = tmp_path / "disk", tmp_path / "videos.csv"
    make_video(disk / "a.mp4")
    make_video(tmp_path / "here.mp4", num_frames=20)
    (disk / "a.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nA crane lifts a load.\n")
    manifest.write_text(f"uri\n{disk / 'a.mp4'}\nhere.mp4\n")
    source = Manifest(manifest, downloads=tmp_path / "downloads")
    report = run(source, tmp_path)
    assert (report.num_transcripts, report.num_away) == (1, 0)
    before = contents(tmp_path)
    disk.rename(tmp_path / "unmounted")
    for _ in range(2):
        report = run(source, tmp_path)
        assert (report.num_out, report.num_transcripts, report.num_rejected, report.num_away) == (2, 1, 0, 1)
        assert contents(tmp_path) == before
    (tmp_path / "unmounted").rename(disk)
    report = run(source, tmp_path)
    assert (report.num_probed, report.num_away) == (0, 0)
    assert contents(tmp_path) == before


def test_ingest__a_file_that_was_never_read_is_rejected_and_tried_again(tmp_path: Path, make_video: MakeVideo) -> None:
    make_video(tmp_path / "here.mp4")
    (tmp_path / "videos.csv").write_text(f"uri\n{tmp_path / 'away' / 'a.mp4'}\nhere.mp4\n")
    report = run(Manifest(tmp_path / "videos.csv", downloads=tmp_path / "downloads"), tmp_path)
    assert (report.num_out, report.num_rejected, report.num_away) == (1, 1, 0)


def test_ingest__a_folder_that_cannot_be_listed_keeps_its_videos(
    tmp_path: Path, make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    make_video(source / "a.mp4")
    make_video(source / "server" / "deep" / "b.mp4", num_frames=20)
    run(source, tmp_path)
    before = contents(tmp_path)
    scan = os.scandir

    def stale(path: Any) -> Iterator[Any]:
        if str(path).endswith("server"):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))
        return scan(path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", stale)
        report = run(source, tmp_path)
    assert (report.num_out, report.num_rejected) == (2, 1)
    assert contents(tmp_path) == before
    (source / "server" / "deep" / "b.mp4").unlink()
    assert run(source, tmp_path).num_out == 1


def test_ingest__more_that_are_gone_than_may_change_nothing(tmp_path: Path, make_video: MakeVideo) -> None:
    source = tmp_path / "source"
    for number in range(12):
        first = make_video(source / "part" / f"{number}.mp4", num_frames=5)
        first.write_bytes(first.read_bytes() + (16).to_bytes(4, "big") + b"free" + number.to_bytes(8, "big"))
    make_video(source / "here.mp4", num_frames=6)
    run(source, tmp_path, max_gone_share=0.5)
    before, ledger = contents(tmp_path), (tmp_path / "ledger" / "ingest.json").read_bytes()
    (source / "part").rename(tmp_path / "unmounted")
    (source / "part").mkdir()
    with raises(ConfigError, code="source-away", naming=("12", "13")):
        run(source, tmp_path, max_gone_share=0.5)
    assert contents(tmp_path) == before
    assert (tmp_path / "ledger" / "ingest.json").read_bytes() == ledger
    assert run(source, tmp_path, max_gone_share=1.0).num_out == 1


def test_ingest__another_source_brings_new_videos(tmp_path: Path, make_video: MakeVideo) -> None:
    for number in range(12):
        first = make_video(tmp_path / "first" / f"{number}.mp4", num_frames=5)
        first.write_bytes(first.read_bytes() + (16).to_bytes(4, "big") + b"free" + number.to_bytes(8, "big"))
    run(tmp_path / "first", tmp_path, max_gone_share=0.5)
    make_video(tmp_path / "second" / "a.mp4", num_frames=7)
    assert run(tmp_path / "second", tmp_path, max_gone_share=0.5).num_out == 1
    assert len(read_videos(tmp_path / "ingest")) == 1
