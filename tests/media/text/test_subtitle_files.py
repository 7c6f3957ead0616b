from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidseek_media.text.subtitle_files import SUFFIXES, UNREAD_SUFFIXES, find_subtitles, marks_in, may_belong


def found_in(folder: Path, *videos: str) -> tuple[dict[str, list[tuple[str, str]]], dict[str, str]]:
    """Return the files of each video with their languages, and those that were passed over with the reason."""
    files = find_subtitles({name: folder / name for name in videos})
    beside = {uri: [(each.path.name, each.language) for each in every] for uri, every in files.beside.items()}
    return beside, {each.path.name: each.reason for each in files.passed_over}


def test_find_subtitles__by_stem_and_language_in_any_case(tmp_path: Path) -> None:
    for name in ["film.srt", "film.en.SRT", "film.pt-BR.forced.vtt", "film.day.srt", "film.en.txt"]:
        (tmp_path / name).touch()
    beside, passed_over = found_in(tmp_path, "film.mp4", "film.day.mp4")
    assert beside == {
        "film.mp4": [("film.srt", ""), ("film.en.SRT", "en"), ("film.pt-BR.forced.vtt", "pt-BR")],
        "film.day.mp4": [("film.day.srt", "")],  # another video's, not a language
    }
    assert passed_over == {}


@pytest.mark.parametrize(("marks", "language"), [
    ("english", "en"), ("English", "en"), ("ENGLISH", "en"), ("en-US", "en-US"), ("en_US", "en_US"), ("eng.sdh", "eng"),
    ("pt-BR.forced", "pt-BR"), ("English (SDH)", "en"), ("English.SDH", "en"), ("English [CC]", "en"), ("en-sdh", "en"),
    ("Brazilian Portuguese", "pt-BR"), ("Portuguese (Brazil)", "pt-BR"), ("Chinese (Simplified)", "zh-Hans"),
    ("Spanish (Latin America)", "es"), ("Norwegian Bokmål", "nb"), ("français", "fr"), ("FRANC\u0327AIS", "fr"),
    ("русский", "ru"), ("日本語", "ja"), ("한국어", "ko"), ("हिन्दी", "hi"), ("ไทย", "th"), ("עברית", "he"),
    ("2_English", "en"), ("track3.eng", "eng"), ("forced", ""), ("hi", "hi"), ("en.hi", "en"), ("de.utf8", "de"),
    ("English (auto-generated)", "en"), ("en-orig", "en-orig"), ("subtitles.de", "de"), ("es-419", "es-419"),
])
def test_marks_in__languages_as_people_and_programs_write_them(marks: str, language: str) -> None:
    said = marks_in(marks.split("."))
    assert said is not None and said[0] == language


@pytest.mark.parametrize("marks", ["director", "part2", "1080p", "2", "final", "english french", "day", "", "-", "2.en"])
def test_marks_in__what_is_no_language(marks: str) -> None:
    assert marks_in(marks.split(".")) is None


@pytest.mark.parametrize(("marks", "is_automatic", "is_forced"), [
    ("en.auto", True, False), ("en-orig", True, False), ("English (auto-generated)", True, False), ("en", False, False),
    ("en.forced", False, True), ("English Forced", False, True), ("original.en", False, False),
])
def test_marks_in__who_made_them(marks: str, is_automatic: bool, is_forced: bool) -> None:
    said = marks_in(marks.split("."))
    assert said is not None and said[1:] == (is_automatic, is_forced)


@given(st.text(max_size=12), st.sampled_from([*SUFFIXES, *UNREAD_SUFFIXES]))
def test_find_subtitles__a_file_that_begins_like_a_video_is_taken_or_named(
    tmp_path_factory: pytest.TempPathFactory, mark: str, suffix: str
) -> None:
    folder = tmp_path_factory.mktemp("marks")
    name = f"film.{mark}{suffix}"
    try:
        (folder / name).touch()
    except (OSError, ValueError):  # no name of a file
        return
    beside, passed_over = found_in(folder, "film.mp4")
    taken = [path.name for path in folder.iterdir() if path.suffix.lower() in (*SUFFIXES, *UNREAD_SUFFIXES)]
    assert sorted([each for each, _ in beside["film.mp4"]] + [*passed_over]) == sorted(taken)
    assert all(len(reason) > 20 for reason in passed_over.values())


def test_find_subtitles__says_why_a_file_is_passed_over(tmp_path: Path) -> None:
    for name in [
        "film.director.srt", "film_en.srt", "Film.srt", "film.en.ass", "harbor.srt", "gone.avi", "gone.en.srt", "other.ass",
    ]:
        (tmp_path / name).touch()
    beside, passed_over = found_in(tmp_path, "film.mp4", "harbour.mp4")
    assert beside == {"film.mp4": [], "harbour.mp4": []}
    assert set(passed_over) == {"film.director.srt", "film_en.srt", "Film.srt", "film.en.ass", "harbor.srt"}
    assert "'director'" in passed_over["film.director.srt"] and "film.en.srt" in passed_over["film.director.srt"]
    assert "capitals" in passed_over["Film.srt"] and "WebVTT" in passed_over["film.en.ass"]
    assert "no video" in passed_over["harbor.srt"]


def test_may_belong__of_names_with_dots_and_several_marks() -> None:
    stems = {"a/film", "b/film.day"}
    assert may_belong("a/film.srt", stems) and may_belong("a/film.pt-BR.forced.srt", stems)
    assert may_belong("b/film.day.english.vtt", stems)
    assert not may_belong("b/film.srt", stems) and not may_belong("a/filmed.srt", stems)


def test_find_subtitles__links_count_where_they_lead_to_a_file(tmp_path: Path) -> None:
    (tmp_path / "of-all").touch()
    (tmp_path / "film.en.srt").symlink_to("of-all")
    (tmp_path / "film.de.srt").symlink_to("film.de.srt")  # leads to itself, and hides nothing
    (tmp_path / "film.fr.srt").symlink_to("nowhere")
    (tmp_path / "film.es.srt").mkdir()
    assert found_in(tmp_path, "film.mp4") == ({"film.mp4": [("film.en.srt", "en")]}, {})
    assert found_in(tmp_path / "gone", "film.mp4") == ({"film.mp4": []}, {})
