from __future__ import annotations

from pathlib import Path

import pytest

from vidseek_media.errors import InputRejected
from vidseek_media.transcripts import Cue, parse_cues, read_cues, read_transcripts, said_in

SRT = (
    "1\n00:00:01,000 --> 00:00:02,500\nHello <i>there</i>\nall of you\n\n"
    "2\n01:00:03,250 --> 01:00:04,000\nBye &amp; thanks\n"
)
VTT = (
    "WEBVTT - a title\n\nNOTE nothing\nto say\n\nintro\n00:01.000 --> 00:02.5 align:start position:0%\n"
    "<v Ann>Hello <00:00:01.500><c>there</c>\n\n00:05.000 --> 00:04.000\nbackwards\n\n00:06.000 --> 00:07.000\n\n"
)


def test_parse_cues__of_srt() -> None:
    assert parse_cues(SRT) == [
        Cue(1000, 2500, ("Hello there", "all of you")), Cue(3_603_250, 3_604_000, ("Bye & thanks",)),
    ]


def test_parse_cues__of_webvtt_drops_notes_settings_and_markup() -> None:
    assert parse_cues(VTT) == [Cue(1000, 2500, ("Hello there",))]


@pytest.mark.parametrize("ends", ["\r\n", "\r"])
def test_parse_cues__of_any_line_ends(ends: str) -> None:
    assert parse_cues(SRT.replace("\n", ends)) == parse_cues(SRT)


def test_parse_cues__are_in_order_of_time() -> None:
    text = "00:00:09,000 --> 00:00:10,000\nlater\n\n00:00:01,000 --> 00:00:02,000\nearlier\n"
    assert [cue.lines for cue in parse_cues(text)] == [("earlier",), ("later",)]


CUES = [Cue(0, 2000, ("one two",)), Cue(2000, 4000, ("two three", "four")), Cue(4000, 6000, ("four", "five"))]


def test_said_in__takes_cues_whose_middle_is_inside() -> None:
    assert said_in(CUES, 1000, 3000, max_characters=99) == "one two"
    assert said_in(CUES, 1001, 3001, max_characters=99) == "two three four"
    assert said_in(CUES, 6000, 9000, max_characters=99) == ""


def test_said_in__says_a_rolling_line_once() -> None:
    assert said_in(CUES, 0, 9000, max_characters=99) == "one two two three four five"


@pytest.mark.parametrize(("most", "text"), [(7, "one two"), (8, "one two"), (6, "one"), (2, "on")])
def test_said_in__cuts_off_after_a_whole_word(most: int, text: str) -> None:
    assert said_in([*CUES[:1], Cue(2000, 3000, ("more",))], 0, 9000, max_characters=most) == text


def test_read_transcripts__finds_the_file_beside_the_video(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.srt").write_text(SRT)
    (tmp_path / "deep" / "b.en.vtt").write_text("\ufeff" + VTT, encoding="utf-8")
    (tmp_path / "deep" / "b.de.vtt").write_bytes(b"\xff\xfe not UTF-8")
    (tmp_path / "c.vtt").write_text("WEBVTT\n")
    videos = {"a.mp4": "A", "deep/b.mkv": "B", "c.mp4": "C", "d.mp4": "D"}
    found, refused = read_transcripts({uri: tmp_path / uri for uri in videos}, videos)
    assert found == {"A": parse_cues(SRT)}
    assert {r.id: r.reason[:11] for r in refused} == {"deep/b.de.vtt": "is not UTF-", "c.vtt": "holds no cu"}


def test_read_cues__of_utf_8_with_a_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.vtt"
    path.write_text("\ufeff" + VTT, encoding="utf-8")
    assert read_cues(path) == parse_cues(VTT)


def test_read_cues__of_a_missing_file_is_a_rejection(tmp_path: Path) -> None:
    with pytest.raises(InputRejected, match="No such file"):
        read_cues(tmp_path / "a.srt")
