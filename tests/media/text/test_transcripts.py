from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.raising import raises
from vidseek_media.errors import InputRejected
from vidseek_media.text.transcripts import (
    Cue,
    parse_transcript,
    read_transcript,
    read_transcripts,
    said_in,
)

SRT = (
    "1\n00:00:01,000 --> 00:00:02,500\nHello <i>there</i>\nall of you\n\n"
    "2\n01:00:03,250 --> 01:00:04,000\nBye &amp; thanks\n"
)
VTT = (
    "WEBVTT - a title\n\nNOTE nothing\nto say\n\nintro\n00:01.000 --> 00:02.5 align:start position:0%\n"
    "<v Ann>Hello <00:00:01.500><c>there</c>\n\n00:05.000 --> 00:04.000\nbackwards\n\n00:06.000 --> 00:07.000\n\n"
)


def test_parse_transcript__of_srt() -> None:
    assert parse_transcript(SRT)[0] == [
        Cue(1000, 2500, ("Hello there", "all of you")), Cue(3_603_250, 3_604_000, ("Bye & thanks",)),
    ]


def test_parse_transcript__of_webvtt_drops_notes_settings_and_markup() -> None:
    assert parse_transcript(VTT)[0] == [Cue(1000, 2500, ("Hello there",))]


@pytest.mark.parametrize("ends", ["\r\n", "\r"])
def test_parse_transcript__of_any_line_ends(ends: str) -> None:
    assert parse_transcript(SRT.replace("\n", ends))[0] == parse_transcript(SRT)[0]


def test_parse_transcript__are_in_order_of_time() -> None:
    text = "00:00:09,000 --> 00:00:10,000\nlater\n\n00:00:01,000 --> 00:00:02,000\nearlier\n"
    assert [cue.lines for cue in parse_transcript(text)[0]] == [("earlier",), ("later",)]


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


def rolling(lines: list[str]) -> str:
    """As YouTube writes automatic captions: two lines, the upper one said before, and 10 ms between two lines."""
    text, above = "WEBVTT\nKind: captions\nLanguage: en\n\n", " "
    for number, line in enumerate(lines):
        start, end = 2000 * number, 2000 * number + 1990
        words = [f"<00:00:01.{n:03}><c> {word}</c>" if n else word for n, word in enumerate(line.split())]
        text += f"{stamp(start)} --> {stamp(end)} align:start position:0%\n{above}\n{''.join(words)}\n\n"
        text += f"{stamp(end)} --> {stamp(end + 10)} align:start position:0%\n{line}\n \n\n"
        above = line
    return text


def stamp(ms: int) -> str:
    return f"00:{ms // 60000:02}:{ms // 1000 % 60:02}.{ms % 1000:03}"


WORDS = ("the", "boat", "leaves", "at", "nine", "no", "and", "then")


@given(st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join), min_size=2, max_size=20))
def test_parse_transcript__of_rolling_captions_says_each_line_once_and_when_it_is_new(lines: list[str]) -> None:
    cues, broken = parse_transcript(rolling(lines))
    assert not broken
    assert [" ".join(cue.lines) for cue in cues] == lines
    first = {line: 2000 * lines.index(line) for line in lines}
    assert all(cue.start_ms == first[cue.lines[0]] for cue in cues if lines.count(cue.lines[0]) == 1)


def test_parse_transcript__keeps_what_is_said_twice_where_nothing_rolls() -> None:
    said = ["no", "no", "yes", "perhaps", "no"]
    text = "".join(f"{n + 1}\n{stamp(1000 * n)} --> {stamp(1000 * n + 1000)}\n{line}\n\n" for n, line in enumerate(said))
    assert [cue.lines[0] for cue in parse_transcript(text)[0]] == said


def test_read_transcripts__finds_the_file_beside_the_video(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.srt").write_text(SRT)
    (tmp_path / "deep" / "b.en.vtt").write_text("\ufeff" + VTT, encoding="utf-8")
    (tmp_path / "deep" / "b.de.vtt").write_bytes(b"\xff\xfe not UTF-8")
    (tmp_path / "c.vtt").write_text("WEBVTT\n")
    videos = {"a.mp4": "A", "deep/b.mkv": "B", "c.mp4": "C", "d.mp4": "D"}
    found, refused = read_transcripts({uri: tmp_path / uri for uri in videos}, videos)
    assert found == {"A": parse_transcript(SRT)[0]}
    assert {r.id: r.reason[:11] for r in refused} == {"deep/b.de.vtt": "is not UTF-", "c.vtt": "holds no cu"}


def test_read_transcript__of_utf_8_with_a_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.vtt"
    path.write_text("\ufeff" + VTT, encoding="utf-8")
    assert read_transcript(path)[0] == parse_transcript(VTT)[0]


def test_read_transcript__of_a_missing_file_is_a_rejection(tmp_path: Path) -> None:
    with raises(InputRejected, code="file-unreadable"):
        read_transcript(tmp_path / "a.srt")[0]


@pytest.mark.parametrize("between", ["", "\n", "\n\n\n", " \n"])
@pytest.mark.parametrize("numbered", [True, False])
def test_parse_transcript__need_no_blank_line_between_them(between: str, numbered: bool) -> None:
    text = between.join(
        f"{f'{n}{chr(10)}' if numbered else ''}00:00:0{n},000 --> 00:00:0{n},500\nline {n}\n" for n in (1, 2, 3)
    )
    assert [cue.lines for cue in parse_transcript(text)[0]] == [("line 1",), ("line 2",), ("line 3",)]


def test_parse_transcript__of_srt_keep_what_follows_a_blank_line() -> None:
    text = (
        "1\n00:00:01,000 --> 00:00:02,000\nfirst\n\nsecond\n\n2\n00:00:03,000 --> 00:00:04,000\n42\n\n\n"
        "3\n0:0:5 --> 0:0:6\nlast\n"
    )
    assert [cue.lines for cue in parse_transcript(text)[0]] == [("first", "second"), ("42",), ("last",)]


@pytest.mark.parametrize(
    ("times", "span"),
    [
        ("00:00:01 --> 00:00:02", (1000, 2000)), ("00:00:01,5 --> 00:00:02,25", (1500, 2250)),
        ("00:00:01.1234 --> 00:00:02.000001", (1123, 2000)), ("0:1:2,003->0:1:3", (62_003, 63_000)),
        ("01:02 --> 01:03.5", (62_000, 63_500)), ("00:00:01:500 --> 00:00:02;000", (1500, 2000)),
        ("  00:00:01,000  -->  00:00:02,000  X1:40 X2:600", (1000, 2000)),
        ("100:00:00,000 --> 100:00:01,000", (360_000_000, 360_001_000)),
        ("00:00:01,000 \u2192 00:00:02,000", (1000, 2000)), ("00:00:01,000 \u2013> 00:00:02,000", (1000, 2000)),
        ("00:00:01,000 ==> 00:00:02,000", (1000, 2000)), ("\u200f00:00:01,000 --> 00:00:02,000\u200f", (1000, 2000)),
        ("\uff10\uff10\uff1a00\uff1a01,000 --> 00:00:02,000", (1000, 2000)),
    ],
)
def test_parse_transcript__take_odd_times(times: str, span: tuple[int, int]) -> None:
    assert parse_transcript(f"{times}\ntext\n")[0] == [Cue(*span, ("text",))]


@pytest.mark.parametrize(
    "times",
    ["-00:00:01,000 --> 00:00:02,000", "00:00:99,000 --> 00:00:02,000", "00:00:01,000 --> ", "00:00:05 --> 00:00:04",
     "0x:00 --> 00:00:02", "00:00:01,000 -- > soon", "00:00:01,000 00:00:02,000", "00:00:01,000,00:00:02,000",
     "00;00;01;000 --> 00;00;02;000", "00.00.01.000 --> 00.00.02.000", "00:00:0l,000 --> 00:00:02,000",
     "[00:00:01,000 --> 00:00:02,000]", "[00:01.000 --> 00:02.000]  said", "00:00:05", "00:00:05,100",
     "00:00:01,000 to 00:00:02,000", "00:00:01,000 --&gt; 00:00:02,000"],
)
def test_parse_transcript__counts_what_it_cannot_read_and_never_takes_times_for_text(times: str) -> None:
    text = f"1\n00:00:01,000 --> 00:00:02,000\nbefore\n\n2\n{times}\nlost\n\n3\n00:00:03,000 --> 00:00:04,000\nafter\n"
    cues, broken = parse_transcript(text)
    assert [cue.lines for cue in cues] == [("before",), ("after",)]
    assert [each.line for each in broken] == [6]


@pytest.mark.parametrize("mark", ["\ufeff", "\ufeff\n"])
def test_parse_transcript__of_joined_files_have_no_byte_order_mark_in_their_numbers(mark: str) -> None:
    text = f"1\n00:00:01,000 --> 00:00:02,000\none\n\n{mark}2\n00:00:03,000 --> 00:00:04,000\ntwo\n"
    assert [cue.lines for cue in parse_transcript(text)[0]] == [("one",), ("two",)]


def test_read_transcript__drops_half_a_character_alone(tmp_path: Path) -> None:
    text = "1\n00:00:01,000 --> 00:00:02,000\na red\ud83d circle\n"
    (tmp_path / "a.srt").write_bytes(text.encode("utf-8", "surrogatepass"))
    cues, broken = read_transcript(tmp_path / "a.srt")
    assert ([cue.lines for cue in cues], broken) == ([("a red circle",)], [])


def test_parse_transcript__keep_signs_that_are_no_markup() -> None:
    text = "00:00:01,000 --> 00:00:02,000\n3 < 5 and 7 > 2 <i>say</i> AT&T &amp; R&D; a --> b {\\an8}<c.yellow>so</c>\n"
    assert parse_transcript(text)[0][0].lines == ("3 < 5 and 7 > 2 say AT&T & R&D; a --> b so",)


def test_parse_transcript__of_webvtt_counts_text_that_belongs_to_no_cue() -> None:
    text = (
        "WEBVTT\n\nSTYLE\n::cue { color: red }\n\nintro\n00:01.000 --> 00:02.000\nshown\n\nlost\nlost too\n\nNOTE fine\n\n"
        "outro\n00:03.000 --> 00:04.000\nshown too\n"
    )
    cues, broken = parse_transcript(text)
    assert [cue.lines for cue in cues] == [("shown",), ("shown too",)]
    assert [each.line for each in broken] == [10]


def test_read_transcripts__name_the_cues_that_are_left_out(tmp_path: Path) -> None:
    backwards = "".join(f"00:00:0{n},000 --> 00:00:00,000\nx\n\n" for n in range(1, 9))
    (tmp_path / "a.srt").write_text(f"{backwards}0:0:9 --> 0:0:10\ny\n")
    found, refused = read_transcripts({"a.mp4": tmp_path / "a.mp4"}, {"a.mp4": "A"})
    assert found["A"] == [Cue(9000, 10_000, ("y",))]
    assert [each.id for each in refused] == ["a.srt:1", "a.srt:4", "a.srt:7", "a.srt:10", "a.srt:13", "a.srt"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"])
def test_read_transcript__of_utf_16_with_a_mark_and_without(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.srt").write_bytes(SRT.encode(encoding))
    assert read_transcript(tmp_path / "a.srt")[0] == parse_transcript(SRT)[0]


def test_read_transcript__of_a_windows_code_page_names_the_byte(tmp_path: Path) -> None:
    (tmp_path / "a.srt").write_bytes("00:00:01,000 --> 00:00:02,000\nÜbung\n".encode("cp1252"))
    with raises(InputRejected, code="transcript-not-utf8", naming=["30", "0xdc", "UTF-8"]):
        read_transcript(tmp_path / "a.srt")


def test_parse_transcript__of_signs_that_are_no_text() -> None:
    texts = [
        r"{\k20}ka{\k30}ra{\kf40}oke", r"{\an8\p1}m 0 0 l 100 0 100 100{\p0} sign", "a\0b", r"<font color=#fff>red</font>",
        r"{\p1}m 0 0 l 5 5",
    ]
    text = "".join(f"00:00:0{n},000 --> 00:00:0{n},500\n{each}\n" for n, each in enumerate(texts))
    assert [cue.lines for cue in parse_transcript(text)[0]] == [("karaoke",), ("sign",), ("ab",), ("red",)]


@pytest.mark.parametrize(
    ("name", "video"),
    [
        ("video.srt", "video.mp4"),
        ("video.SRT", "video.mp4"),
        ("video.en.Vtt", "video.mp4"),
        ("video.pt-BR.srt", "video.mp4"),
        ("video.zh-Hans.forced.srt", "video.mp4"),
        ("video.eng.sdh.srt", "video.mp4"),
        ("video.english.srt", "video.mp4"),
        ("video.day2.srt", "video.day2.mp4"),
        ("VIDEO.srt", None),
        ("video.part.srt", None),
        ("video2.srt", None),
        ("video.1080p.srt", None),
    ],
)
def test_read_transcripts__belong_to_the_video_of_exactly_their_stem(tmp_path: Path, name: str, video: str | None) -> None:
    (tmp_path / name).write_text(SRT)
    videos = {uri: uri for uri in ("video.mp4", "video.day2.mp4", "video.fr.mp4")}
    found, _ = read_transcripts({uri: tmp_path / uri for uri in videos}, videos)
    assert list(found) == ([video] if video else [])


def test_read_transcripts__of_the_video_that_has_a_language_in_its_own_name(tmp_path: Path) -> None:
    for name in ("video.en.srt", "video.srt"):
        (tmp_path / name).write_text(SRT.replace("Hello", name))
    videos = {uri: uri for uri in ("video.mp4", "video.en.mp4")}
    found, _ = read_transcripts({uri: tmp_path / uri for uri in videos}, videos)
    assert {uri: cues[0].lines[0].split()[0] for uri, cues in found.items()} == {
        "video.mp4": "video.srt", "video.en.mp4": "video.en.srt",
    }


def test_parse_transcript__text_beside_the_times_is_text_and_settings_are_not() -> None:
    text = "00:01.000 --> 00:02.000 said here\nand here\n\n00:03.000 --> 00:04.000 align:start line:0\nnext\n"
    assert [cue.lines for cue in parse_transcript(text)[0]] == [("said here", "and here"), ("next",)]


def test_parse_transcript__counts_text_before_the_first_times() -> None:
    cues, broken = parse_transcript("\nby somebody\n\n1\n00:00:01,000 --> 00:00:02,000\nsaid\n")
    assert [cue.lines for cue in cues] == [("said",)]
    assert [each.line for each in broken] == [2]


def test_parse_transcript__of_a_file_that_breaks_off_takes_no_number_for_text() -> None:
    assert [cue.lines for cue in parse_transcript("1\n00:00:01,000 --> 00:00:02,000\nsaid\n\n2\n")[0]] == [("said",)]
    cues, broken = parse_transcript("1\n00:00:01,000 --> 00:00:02,000\nsaid\n\n2\n00:00:03")
    assert [cue.lines for cue in cues] == [("said",)]
    assert [each.line for each in broken] == [6]


def test_parse_transcript__keep_numbers_with_arrows_and_times_of_day() -> None:
    text = "1\n00:00:01,000 --> 00:00:02,000\n5 -> 6\n\n2\n00:00:03,000 --> 00:00:04,000\n12:30\nfrom 10:30 to 11:00\n"
    assert [cue.lines for cue in parse_transcript(text)[0]] == [("5 -> 6",), ("12:30", "from 10:30 to 11:00")]


def test_parse_transcript__of_line_ends_written_twice() -> None:
    text = "1\n00:00:01,000 --> 00:00:02,000\nfirst\n\n2\n00:00:03,000 --> 00:00:04,000\nsecond\n".replace("\n", "\r\r\n")
    assert [cue.lines for cue in parse_transcript(text)[0]] == [("first",), ("second",)]


@pytest.mark.parametrize(("video", "name"), [("caf\u00e9", "cafe\u0301"), ("cafe\u0301", "caf\u00e9")])
def test_read_transcripts__belong_to_their_stem_whatever_the_accents(tmp_path: Path, video: str, name: str) -> None:
    path = tmp_path / f"{video}.mp4"
    path.touch()
    (tmp_path / f"{name}.en.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nsaid\n", encoding="utf-8")
    found, refused = read_transcripts({"v.mp4": path}, {"v.mp4": "v"})
    assert ([cue.lines for cue in found["v"]], refused) == ([("said",)], [])
