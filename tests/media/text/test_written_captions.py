from __future__ import annotations

from pathlib import Path

import pytest

from tests.media.at_once import run_at_once
from tests.raising import raises
from vidseek_media.errors import InputRejected
from vidseek_media.text.written_captions import FILE, WrittenCaption, append_caption, read_written

A, B = "a" * 32, "b" * 32


def write(folder: Path, text: str, *, video: str = A, span: tuple[int, int] = (0, 3000), who: str = "ann") -> None:
    append_caption(folder, WrittenCaption.now(video, span, text, who=who))


def write_many(folder: Path, who: str) -> None:
    for number in range(20):
        write(folder, f"{who} {number}", span=(1000 * number, 1000 * number + 500), who=who)


def texts(folder: Path) -> list[str]:
    return [each.text for each in read_written(folder)]


def test_append__two_people_at_once_lose_nothing(tmp_path: Path) -> None:
    run_at_once(write_many, [(tmp_path, who) for who in ("ann", "bob")])
    assert sorted(texts(tmp_path)) == sorted(f"{who} {n}" for who in ("ann", "bob") for n in range(20))


def test_read__the_last_word_of_each_person_counts(tmp_path: Path) -> None:
    assert texts(tmp_path) == []
    write(tmp_path, "a van")
    write(tmp_path, "a crane", who="bob")
    write(tmp_path, "a  red\nvan")
    write(tmp_path, "a ship", video=B, span=(3000, 6000))
    assert texts(tmp_path) == ["a red van", "a crane", "a ship"]
    write(tmp_path, " ", who="bob")
    assert texts(tmp_path) == ["a red van", "a ship"]


def test_read__passes_over_torn_lines_and_those_that_are_no_captions(tmp_path: Path) -> None:
    write(tmp_path, "a van")
    with (tmp_path / FILE).open("a") as file:
        file.write('{"video_id": "x"}\n[1]\n')
        file.write('{"video_id": "x", "start_ms": 3, "end_ms": 2, "text": "t", "who": "", "written_at": ""}\n')
        file.write('{"video_id": "x", "start_ms": true, "end_ms": 2, "text": "t", "who": "", "written_at": ""}\n{"torn')
    write(tmp_path, "a ship", span=(3000, 6000))
    assert texts(tmp_path) == ["a van", "a ship"]


@pytest.mark.parametrize(("text", "code"), [("x" * 1001, "caption-too-long"), ("a\0", "value-not-text")])
def test_caption__that_is_too_long_or_no_text_is_refused(text: str, code: str) -> None:
    with raises(InputRejected, code=code):
        WrittenCaption.now(A, (0, 1000), text)
