"""`vidseek init`: it looks at a source, says what it found, and makes an archive or nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.media.conftest import write_video
from tests.raising import raises
from tests.vidseek.new_archive.looks import SHIPPED
from vidseek.commands import creating
from vidseek.commands.creating import init
from vidseek.new_archive import archive_folder, costs
from vidseek.new_archive.costs import MeasuredFrames
from vidseek.new_archive.machine import this_machine
from vidseek.new_archive.proposal import propose
from vidseek.new_archive.source_look import look_at
from vidseek_media.errors import ConfigError, VidseekError

MEASURE = costs.measure_frames


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos in a folder with a space and an umlaut, with captions of them and of others, and one broken file."""
    folder = tmp_path_factory.mktemp("source") / "Hafen & Töne"
    for number in range(3):
        write_video(folder / "2026" / f"läuft {number}.mp4", num_frames=20 + number)
    (folder / "broken.mp4").write_bytes(b"no video at all")
    rows = ["file,caption,start,end", "2026/läuft 0.mp4,a crane lifts a red box,0,1", "2026/läuft 1.mp4,two men talk,,",
            "elsewhere/a.mp4,a white van,,"]
    (folder / "captions.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (folder / "2026" / "läuft 2.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nHello\n", encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def without_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """git and DVC take seconds; test_archive_folder.py runs them. Costs are not measured again in each test."""
    monkeypatch.setattr(archive_folder, "_run", lambda command, folder: (folder / ".dvc").mkdir(exist_ok=True))
    monkeypatch.setattr(costs, "measure_frames", lambda look, *_: MeasuredFrames(0.1, 1000, len(look.sampled)))


def called(folder: Path, videos: str, capsys: pytest.CaptureFixture[str], **options: Any) -> dict[str, Any]:
    """What `vidseek init --json` prints."""
    asked = {"captions": None, "backbone": None, "yes": True, "run_now": False, "as_json": True, **options}
    init(folder, videos, **asked)
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_init__makes_an_archive_of_what_it_found(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = called(tmp_path / "Mein Archiv", str(videos), capsys)
    source, captions = told["source"], told["source"]["captions"]
    assert told["made"] and source["num_videos"] == 4 and list(source["faults"]) == ["broken.mp4"]
    assert source["hours"] == pytest.approx(2.1 * 3 / 3600, rel=0.02) and source["sound_share"] == 0
    assert source["num_with_subtitle_file"] == 1
    assert (captions["num_rows"], captions["num_matched"], captions["num_timed"]) == (3, 2, 1)
    assert captions["first_unmatched"] == "elsewhere/a.mp4"
    assert told["costs"]["measured_on"] == 3 and told["costs"]["disk_bytes"] > 0
    params = yaml.safe_load((tmp_path / "Mein Archiv" / "params.yaml").read_text(encoding="utf-8"))
    assert params == told["params"] and params["ingest"]["source"] == str(videos)
    assert params["gates"]["archive"]["max_rejected_share"] >= 1 / 3
    plan = json.loads((tmp_path / "Mein Archiv" / ".vidseek" / "plan.json").read_text())
    assert plan["disk_bytes"] == told["costs"]["disk_bytes"]


def test_measure_frames__decodes_a_little_with_the_code_of_the_stages(videos: Path) -> None:
    look = look_at(str(videos), captions=None, workers=1)
    proposal = propose(look, this_machine(), SHIPPED, captions=None)
    measured = MEASURE(look, proposal, 64)
    assert measured is not None and measured.num_videos == 3 and 0 < measured.seconds < 60 and measured.num_bytes > 1000


def test_init__without_yes_says_and_makes_nothing(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    init(tmp_path / "archive", str(videos), captions=None, backbone=None, yes=False, run_now=False, as_json=False)
    told = capsys.readouterr().out
    assert "broken.mp4" in told and "--yes" in told and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("videos", ["https://www.youtube.com/@name/videos", "https://host.example/videos/", "s3://bucket/a"])
def test_init__a_source_elsewhere_is_accepted_and_not_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], videos: str
) -> None:
    told = called(tmp_path / "archive", videos, capsys)
    assert told["made"] and not told["source"]["looked_at"] and told["source"]["why_not"]
    assert told["costs"] is None and told["params"]["ingest"]["source"] == videos
    assert any("not looked at" in note for note in told["notes"])


def test_init__a_manifest_that_names_urls_is_not_downloaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "list.csv").write_text("uri\nhttps://host.example/a.mp4\n")
    told = called(tmp_path / "archive", str(tmp_path / "list.csv"), capsys)
    assert not told["source"]["looked_at"] and not list(tmp_path.glob("**/downloads"))


def test_init__captions_that_lie_elsewhere(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    notes = tmp_path / "notes of mine.csv"
    notes.write_text("file,caption\n2026/läuft 2.mp4,it goes\n", encoding="utf-8")
    told = called(tmp_path / "archive", str(videos), capsys, captions=notes)
    assert told["params"]["ingest"]["captions"] == str(notes)
    assert told["source"]["captions"]["num_matched"] == 3
    notes.write_text("file,caption\nnothing.mp4,it goes\n")
    with raises(ConfigError, code="captions-match-nothing", naming="nothing.mp4"):
        # of a folder that has no captions of its own
        look_at(str(videos / "2026"), captions=notes, workers=1)
    with raises(ConfigError, code="captions-unreadable", naming="missing.csv"):
        look_at(str(videos), captions=tmp_path / "missing.csv", workers=1)


def test_init__a_source_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    with raises(ConfigError, code="source-unreadable", naming="nowhere"):
        look_at(str(tmp_path / "nowhere"), captions=None, workers=1)
    (tmp_path / "empty").mkdir()
    with raises(ConfigError, code="source-empty", naming=str(tmp_path / "empty")):
        look_at(str(tmp_path / "empty"), captions=None, workers=1)
    (tmp_path / "empty" / "a.mp4").write_bytes(b"text")
    with raises(ConfigError, code="source-empty", naming="a.mp4"):
        look_at(str(tmp_path / "empty"), captions=None, workers=1)


def test_init__a_disk_too_small_is_told_before_anything_is_made(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("vidseek.new_archive.machine.free_bytes", lambda folder: 1000)
    with raises(ConfigError, code="disk-too-small", naming="MB"):
        called(tmp_path / "archive", str(videos), capsys)
    assert list(tmp_path.iterdir()) == []


def test_init__ctrl_c_leaves_nothing(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(archive_folder, "_run", stopped)
    with pytest.raises(KeyboardInterrupt):
        called(tmp_path / "archive", "s3://bucket/a", capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("backbone", ["openai/never-fetched", "/nowhere/at/all", "vidseek/none"])
def test_init__a_backbone_that_is_not_here_is_told_before_the_videos_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], backbone: str
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with raises(VidseekError, code=("hub-not-cached", "unknown-backbone"), naming=backbone):
        called(tmp_path / "archive", "s3://bucket/a", capsys, backbone=backbone)
    assert not (tmp_path / "archive").exists()


def test_init__a_folder_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, may = tmp_path / "theirs", os.access
    theirs.mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: path != theirs and may(path, mode))  # root may write everywhere
    with raises(ConfigError, code="folder-not-writable"):
        archive_folder.require_new(tmp_path / "theirs" / "archive", "/videos")


def test_run__where_no_archive_is(tmp_path: Path) -> None:
    with raises(ConfigError, code="archive-not-made", naming=str(tmp_path)):
        creating.run(tmp_path, renew=False)
    with raises(ConfigError, code="archive-not-made", naming=str(tmp_path)):
        creating.run(tmp_path, renew=True)
