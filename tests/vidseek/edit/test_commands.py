"""`vidseek clip` and `vidseek search --export`, as a person meets them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.media.editing.numbered import frames_in
from tests.vidseek import calling
from tests.vidseek.edit.edit_archive import hit_of, write_edit_archive
from vidseek.archive import Archive
from vidseek.client import Api
from vidseek_media.forgotten import ForgottenVideo, write_forgotten


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return write_edit_archive(tmp_path_factory.mktemp("edit"), "pal.mov", "film #1.mp4")


def call(monkeypatch: pytest.MonkeyPatch, archive: Archive, *args: str) -> int:
    """As `calling.call`, in the archive's folder."""
    monkeypatch.setenv("VIDSEEK_HOME", str(archive.root))
    return calling.call(monkeypatch, *args)


def answer(archive: Archive, *hits: dict[str, Any]) -> dict[str, Any]:
    return {"encoder_version": "0" * 16, "collection": "clips-0-1", "hits": list(hits), "next_offset": None}


def search(monkeypatch: pytest.MonkeyPatch, archive: Archive, *args: str, hits: tuple[dict[str, Any], ...]) -> int:
    monkeypatch.setattr("vidseek.commands.searching._search_here", lambda *_, **__: answer(archive, *hits))
    return call(monkeypatch, archive, "search", "a crane", *args)


@pytest.mark.parametrize("name", ["{id}:500-1500", "{prefix}:500-1500", "film #1.mp4:500-1500", "{clip}"])
def test_clip__takes_every_name_of_a_moment(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    hit = hit_of(archive, "film #1.mp4", 500, 1500)
    named = name.format(id=hit["video_id"], prefix=hit["video_id"][:12], clip=hit["best_clip_id"])
    out = tmp_path / "moment.mp4"
    assert call(monkeypatch, archive, "clip", named, "-o", str(out), "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert [number for _, number in frames_in(out)] == list(range(11, 36))  # 11 is shown from 458.8 ms on
    assert told["num_frames"] == 25 and told["has_sound"]
    assert [path.name for path in tmp_path.iterdir()] == ["moment.mp4"]


def test_clip__replaces_no_file(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "moment.mp4"
    out.write_text("mine")
    assert call(monkeypatch, archive, "clip", "pal.mov:0-400", "-o", str(out), "--json") == 11
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "file-there"
    assert out.read_text() == "mine"
    assert call(monkeypatch, archive, "clip", "pal.mov:0-400", "-o", str(out), "--force") == 0
    assert len(frames_in(out)) == 10
    source = archive.root / "videos" / "pal.mov"
    before = source.read_bytes()
    assert call(monkeypatch, archive, "clip", "pal.mov:0-400", "-o", str(source), "--force") == 11
    assert source.read_bytes() == before


@pytest.mark.parametrize(("named", "out", "code"), [
    ("pal.mov:0-400", "moment.avi", "unknown-export"), ("pal.mov:0-400", "file/moment.mp4", "export-not-written"),
    ("pal.mov:400-400", "moment.mp4", "bad-moment"), ("pal.mov", "moment.mp4", "bad-moment"),
    ("other.mov:0-400", "moment.mp4", "unknown-video"), ("pal.mov:90000-95000", "moment.mp4", "span-outside"),
    ("00000000-0000-0000-0000-000000000000", "moment.mp4", "bad-moment"),
])
def test_clip__refuses_and_leaves_nothing(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], named: str,
    out: str, code: str,
) -> None:
    (tmp_path / "file").write_text("")
    assert call(monkeypatch, archive, "clip", named, "-o", str(tmp_path / out), "--json") in (10, 11)
    assert json.loads(capsys.readouterr().out)["error"]["code"] == code
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_clip__of_a_forgotten_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = write_edit_archive(tmp_path, "pal.mov")
    video_id = hit_of(own, "pal.mov", 0, 1)["video_id"]
    write_forgotten(own.decisions, [ForgottenVideo(video_id, ("pal.mov",), (), "", "2026-01-01T00:00:00Z")])
    assert call(monkeypatch, own, "clip", "pal.mov:0-400", "-o", str(tmp_path / "a.mp4"), "--json") == 10
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "forgotten-already"


def test_search__exports_its_moments(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hits = (hit_of(archive, "film #1.mp4", 500, 1500), hit_of(archive, "film #1.mp4", 2000, 2500))
    out = tmp_path / "cuts" / "cranes.csv"
    assert search(monkeypatch, archive, "--export", str(out), "--handles", "2f", "--relative", "--json", hits=hits) == 0
    told = json.loads(capsys.readouterr().out)["export"]
    assert (told["num_events"], told["left_out"], len(told["notes"])) == (2, [], 1)
    relative = os.path.relpath(archive.root / "videos", out.parent)
    assert f"{relative}/film%20%231.mp4" in out.read_text()
    assert search(monkeypatch, archive, "--export", str(out), hits=hits) == 0
    printed = capsys.readouterr().out
    assert printed.count("00:00:00:00") == 1 and f"{hits[0]['video_id'][:12]}:500-1500" in printed


@pytest.mark.parametrize(("args", "hits", "code"), [
    (("--export", "cranes.aaf"), 1, "unknown-export"), (("--export", "cranes.csv", "--handles", "2"), 1, "bad-handles"),
    (("--export", "cranes.csv"), 0, "nothing-to-export"), (("--export", "/proc/cranes.csv"), 1, "export-not-written"),
])
def test_search__refuses_exports_that_cannot_be(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    args: tuple[str, ...], hits: int, code: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    found = (hit_of(archive, "film #1.mp4", 500, 1500),) * hits
    assert search(monkeypatch, archive, *args, "--json", hits=found) in (10, 11)
    assert json.loads(capsys.readouterr().out)["error"]["code"] == code
    assert list(tmp_path.iterdir()) == []


def test_search__of_a_running_api_exports_there(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hit = hit_of(archive, "film #1.mp4", 500, 1500)
    asked: list[Any] = []

    def export(_: Api, body: Any) -> dict[str, Any]:
        asked.append(body)
        return {"content": "TITLE: a crane\n", "num_events": 1, "notes": [], "left_out": []}

    monkeypatch.setattr(Api, "search", lambda *_, **__: answer(archive, hit))
    monkeypatch.setattr(Api, "export", export)
    out = tmp_path / "cranes.edl"
    args = ("search", "a crane", "--url", "http://127.0.0.1:9", "--export", str(out), "--media-root", "/mnt/a", "--json")
    assert call(monkeypatch, archive, *args) == 0
    assert json.loads(capsys.readouterr().out)["export"]["num_events"] == 1
    assert out.read_text() == "TITLE: a crane\n"
    moment = {"clip_id": hit["best_clip_id"], "start_ms": 500, "end_ms": 1500}
    assert asked == [
        {"format": "edl", "moments": [moment], "handles": "0f", "name": "a crane", "media_root": "/mnt/a"}
    ]
