"""The learning loop's files: a template goes out, comes back filled in, and is in the tables of the next run."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.raising import raises
from tests.serving.colours import video_id_of_colour
from tests.serving.live_api import write_taught_archive
from tests.vidseek.calling import call
from vidseek.actions.feedback import read as read_feedback
from vidseek.actions.suggestions import held_out_videos, suggest_captions, take_template, write_template
from vidseek.archive import Archive
from vidseek_media.errors import InputRejected
from vidseek_media.sources.ingest import read_videos
from vidseek_media.tables import SIDECAR, write_table
from vidseek_media.text.written_captions import read_written


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return write_taught_archive(tmp_path_factory.mktemp("taught"))


@pytest.fixture
def archive(taught: Archive, monkeypatch: pytest.MonkeyPatch) -> Archive:
    (taught.decisions / "captions.jsonl").unlink(missing_ok=True)
    monkeypatch.setenv("VIDSEEK_HOME", str(taught.root))
    return taught


def fill(file: Path, **changes: str) -> None:
    with file.open(newline="") as lines:
        rows = [row | changes for row in csv.DictReader(lines)]
    with file.open("w", newline="", encoding="utf-8-sig") as lines:  # as spreadsheets write it
        writer = csv.DictWriter(lines, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_template__filled_in_becomes_captions(archive: Archive, tmp_path: Path) -> None:
    file = tmp_path / "next.csv"
    found = suggest_captions(archive, 2)
    write_template(file, found)
    assert take_template(archive, file, who="ann") == []
    fill(file, caption="a plain square")
    assert len(take_template(archive, file, who="ann")) == len(found.suggestions) > 0
    assert {(each.video_id, each.start_ms, each.text) for each in read_written(archive.decisions)} == {
        (each.video_id, each.start_ms, "a plain square") for each in found.suggestions}
    later = {each.clip_id for each in suggest_captions(archive).suggestions}
    assert later.isdisjoint(each.clip_id for each in found.suggestions)


@pytest.mark.parametrize(("changes", "code", "names"), [
    ({"caption": "x" * 1001}, "caption-too-long", "next.csv:2"), ({"caption": "a", "clip_id": "b"}, "unknown-clip", ":2"),
])
def test_template__with_a_wrong_row_is_refused_whole(
    archive: Archive, tmp_path: Path, changes: dict[str, str], code: str, names: str
) -> None:
    file = tmp_path / "next.csv"
    write_template(file, suggest_captions(archive, 2))
    fill(file, **changes)
    with raises(InputRejected, code=code, naming=names):
        take_template(archive, file, who="")
    assert read_written(archive.decisions) == []


def test_template__that_is_none_is_refused(archive: Archive, tmp_path: Path) -> None:
    file = tmp_path / "next.csv"
    with raises(InputRejected, code="file-unreadable", naming="next.csv"):
        take_template(archive, file, who="")
    file.write_bytes(b"file,text\na.mp4,\xff\n")
    with raises(InputRejected, code="file-unreadable"):
        take_template(archive, file, who="")
    file.write_text("file,text\na.mp4,a van\n")
    with raises(InputRejected, code="column-missing", naming="clip_id"):
        take_template(archive, file, who="")


def test_held_out__a_video_that_shows_what_a_held_out_one_shows_is_held_out(archive: Archive) -> None:
    videos = read_videos(archive.ingest)
    green, white, red = map(video_id_of_colour, ("green", "white", "red"))
    alone = held_out_videos(archive, videos, [])
    assert white in alone and green not in alone and red not in alone
    assert red in held_out_videos(archive, videos, [(red, white)])
    stated = {**dict.fromkeys(SIDECAR.names), "video_id": red, "text": "red", "split": "validation"}
    write_table(archive.ingest / "sidecar.parquet", [stated], SIDECAR)
    assert red in held_out_videos(archive, videos, [])
    write_table(archive.ingest / "sidecar.parquet", [], SIDECAR)


def test_command__suggests_writes_and_takes(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "next.csv"
    assert call(monkeypatch, "suggest", "--limit", "2", "--captions", str(file), "--json") == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert answer["suggestions"] and answer["file"] == str(file)
    fill(file, caption="a plain square")
    assert call(monkeypatch, "suggest", "--take", str(file), "--who", "bob") == 0
    assert "dvc repro" in capsys.readouterr().out
    assert {each.who for each in read_written(archive.decisions)} == {"bob"}
    assert call(monkeypatch, "suggest", "--judge") == 0
    assert "is this what it shows?" in capsys.readouterr().out
    assert call(monkeypatch, "suggest", "--judge", "--take", str(file)) == 2


def test_feedback_say__is_what_the_page_s_right_and_wrong_write(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = suggest_captions(archive, 1).suggestions[0].clip_id
    assert call(monkeypatch, "feedback", "say", "a green square", "--clip-id", clip.upper(), "--wrong", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    said, _ = read_feedback(archive.feedback)
    assert asdict(said[-1]) == printed and said[-1].encoder_version
    assert (said[-1].query, said[-1].clip_id, said[-1].relevant) == ("a green square", clip, False)
    for query, clip_id in ((" ", clip), ("a green square", "16f8ca77-874c-5b0d-b134-c35b8db41587")):
        assert call(monkeypatch, "feedback", "say", query, "--clip-id", clip_id, "--right") == 10
    assert len(read_feedback(archive.feedback)[0]) == len(said)
