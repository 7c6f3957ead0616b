"""Timelines, read back by OpenTimelineIO, by a second reader of EDLs and as XML, against frames with burnt-in numbers."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from urllib.parse import unquote, urlparse
from xml.etree import ElementTree

import pytest

from tests.media.editing.numbered import frame_at, frames_in, numbers_of_span
from tests.raising import raises
from tests.vidseek.edit.edit_archive import FILES, hit_of, write_edit_archive
from vidseek.archive import Archive
from vidseek.edit.archive_sources import locate_events
from vidseek.edit.events import Event, Handles, Moment, Places, notes_of, reel_names
from vidseek.edit.export import export_text, format_of, write_export
from vidseek_media.editing.frame_rates import parse_timecode, rate_text
from vidseek_media.editing.located_spans import SourceTimes
from vidseek_media.errors import ConfigError, InputRejected
from vidseek_media.forgotten import ForgottenVideo, write_forgotten

otio = pytest.importorskip("opentimelineio")
SPANS = [(500, 1500), (33, 67), (1001, 2002), (1200, 60_000)]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return write_edit_archive(tmp_path_factory.mktemp("edit"), *FILES)


def events(archive: Archive, *names: str, handles: str = "0f", places: Places | None = None) -> list[Event]:
    moments = [Moment.of_hit(hit_of(archive, name, *span)) for name in names for span in SPANS]
    found, left_out = locate_events(archive, moments, Handles.parse(handles), places or Places())
    assert not left_out
    return found


def path_of(url: str) -> Path:
    return Path(unquote(urlparse(url).path))


def assert_frames(path: Path, rate: Fraction, read: list[tuple[int, int]]) -> None:
    """Positions from the file's beginning, as a timeline named them, show the first and last frame of each span."""
    frames = frames_in(path)
    shown = frame_at(frames, rate)
    for (first, end), span in zip(read, SPANS, strict=True):
        numbers = numbers_of_span(frames, *span)
        assert (shown(first), shown(end - 1)) == (numbers[0], numbers[-1])


@pytest.mark.parametrize("name", FILES)
def test_otio__names_the_frames(archive: Archive, name: str) -> None:
    made = events(archive, name)
    timeline = otio.adapters.read_from_string(export_text(made, "otio", "cut"), "otio_json")
    clips = list(timeline.find_clips())
    assert timeline.name == "cut" and len(clips) == len(SPANS)
    read = []
    for clip in clips:
        start, available = clip.source_range.start_time, clip.media_reference.available_range
        assert Fraction(start.rate).limit_denominator(1001) == made[0].times.rate
        first = start - available.start_time
        read.append((int(first.value), int((first + clip.source_range.duration).value)))
        assert available.start_time <= start
        assert clip.source_range.end_time_exclusive() <= available.end_time_exclusive()
    assert_frames(path_of(clips[0].media_reference.target_url), made[0].times.rate, read)


def event_at(rate: Fraction) -> Event:
    times = SourceTimes(rate.numerator, rate.denominator, False, 100, None, False, 64, 48, False)
    return Event(Moment("v", "v.mp4", 0, 1000), "file:///v.mp4", "V", times, 20, 45, 0, 0)


@pytest.mark.parametrize(("rate", "counted"), [
    (Fraction(10), 30), (Fraction(25, 2), 25), (Fraction(15), 30), (Fraction(8), 24), (Fraction(20), 60), (Fraction(1), 24),
    (Fraction(15000, 1001), Fraction(30000, 1001)), (Fraction(48), 48), (Fraction(1499, 100), None), (Fraction(120), None),
])
def test_edl__other_rates_are_counted_at_a_standard_multiple(rate: Fraction, counted: Fraction | None) -> None:
    if counted is None:
        with raises(InputRejected, code="no-timecode-rate", naming=f"have {rate_text(rate)}"):
            export_text([event_at(rate)], "edl", "cut")
        return
    line = next(line for line in export_text([event_at(rate)], "edl", "cut").splitlines() if line.startswith("001"))
    at = [parse_timecode(text, Fraction(counted)) for text in line.split()[-4:]]
    source_in, source_out, record_in, record_out = [found[0] / Fraction(counted) for found in at if found is not None]
    assert (source_in, source_out) == (20 / rate, 45 / rate)
    assert (record_in, record_out) == (0, 25 / rate)


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_edl__names_the_frames_to_two_readers(archive: Archive, name: str) -> None:
    pycmx = pytest.importorskip("pycmx")
    made = events(archive, name)
    times = made[0].times
    text = export_text(made, "edl", "cut")
    lines = text.splitlines()
    assert lines[:2] == ["TITLE: cut", "FCM: DROP FRAME" if times.is_drop else "FCM: NON-DROP FRAME"]
    edits = [event.edits[0] for event in pycmx.parse_cmx3600(io.StringIO(text)).events]
    read, record = [], 0
    for edit in edits:
        ends = [parse_timecode(each, times.rate) for each in (edit.source_in, edit.source_out)]
        assert [each and each[1] for each in ends] == [times.is_drop] * 2
        read.append(tuple(number - times.origin for number, _ in filter(None, ends)))
        recorded = [parse_timecode(each, times.rate) for each in (edit.record_in, edit.record_out)]
        assert recorded[0] == (record, times.is_drop)
        record = recorded[1][0] if recorded[1] else -1
    assert_frames(archive.root / "videos" / name, times.rate, read)
    rate = float(times.rate) if times.is_drop else round(times.rate)
    clips = list(otio.adapters.read_from_string(text, "cmx_3600", rate=rate).find_clips())
    assert [(c.source_range.start_time.to_frames(), c.source_range.duration.to_frames()) for c in clips] == [
        (times.origin + first, end - first) for first, end in read
    ]
    assert {clip.metadata["cmx_3600"]["reel"].strip() for clip in clips} == {made[0].reel}
    assert f"* REEL {made[0].reel} IS {Path(name).name}" in lines


@pytest.mark.parametrize("name", FILES)
def test_fcpxml__names_the_frames(archive: Archive, name: str) -> None:
    made = events(archive, name)
    times = made[0].times
    text = export_text(made, "fcpxml", "cut")
    root = ElementTree.fromstring(text)
    [asset], [form] = root.findall("resources/asset"), root.findall("resources/format")
    assert seconds(form.attrib["frameDuration"]) == 1 / times.rate
    assert path_of(asset.attrib["src"]).is_file()
    assert asset.attrib["hasAudio"] == ("1" if times.has_sound else "0")
    assert seconds(asset.attrib["start"]) == times.origin / times.rate
    read, offset = [], Fraction(0)
    for clip in root.findall(".//spine/asset-clip"):
        start, length = seconds(clip.get("start", "0s")) - seconds(asset.attrib["start"]), seconds(clip.attrib["duration"])
        first, end = start * times.rate, (start + length) * times.rate
        assert first.denominator == end.denominator == 1 and seconds(clip.attrib["offset"]) == offset
        read.append((int(first), int(end)))
        offset += length
    assert seconds(root.find(".//sequence").attrib["duration"]) == offset  # type: ignore[union-attr]
    assert_frames(archive.root / "videos" / name, times.rate, read)
    read_back = otio.adapters.read_from_string(text, "fcpx_xml")
    assert len(list(read_back.find_clips())) >= len(SPANS)


def seconds(text: str) -> Fraction:
    return Fraction(text.removesuffix("s"))


def test_tables__hold_every_event(archive: Archive) -> None:
    made = events(archive, "pal.mov", "phone.mp4")
    rows = list(csv.DictReader(io.StringIO(export_text(made, "csv", "cut"))))
    listed = json.loads(export_text(made, "json", "cut"))["events"]
    assert len(rows) == len(listed) == len(made)
    assert [row["source_in"] for row in rows] == [row["source_in"] for row in listed]
    assert rows[0]["source_in"] == "10:00:00:12" and rows[0]["rate"] == "25"
    assert listed[-1]["variable_rate"] is True


def test_csv_and_json__have_the_declared_fields(archive: Archive) -> None:
    hits = [hit_of(archive, "pal.mov", 0, 500), hit_of(archive, "pal.mov", 600, 900)]
    hits[0]["fields"] = {"camera": "=A", "tags": ["night", "rain"], "rate": 7}
    hits[1]["fields"] = {"tags": ["Smith, John"]}
    made, _ = locate_events(archive, [Moment.of_hit(hit) for hit in hits], Handles(), Places())
    rows = list(csv.DictReader(io.StringIO(export_text(made, "csv", "cut"))))
    assert [(row["camera"], row["tags"], row["field_rate"], row["rate"]) for row in rows] == [
        ("'=A", "night; rain", "7", "25"), ("", '["Smith, John"]', "", "25"),
    ]
    assert [each["fields"] for each in json.loads(export_text(made, "json", "cut"))["events"]] == [
        each["fields"] for each in hits
    ]


def test_csv__a_title_is_no_formula(archive: Archive) -> None:
    moment = Moment.of_hit(hit_of(archive, "pal.mov", 0, 500, title="=HYPERLINK(1)\nx"))
    [made], _ = locate_events(archive, [moment], Handles(), Places())
    [row] = csv.DictReader(io.StringIO(export_text([made], "csv", "cut")))
    assert row["name"].startswith("'=") and "\n" not in row["name"]
    assert sum(line.startswith("001") for line in export_text([made], "edl", "a\nFCM: x").splitlines()) == 1
    assert "\nFCM: x" not in export_text([made], "edl", "a\nFCM: x")


def test_handles__are_cut_off_at_the_ends(archive: Archive) -> None:
    made = events(archive, "pal.mov", handles="20f")
    assert [(each.handle_before, each.handle_after) for each in made] == [(12, 20), (0, 20), (20, 20), (20, 0)]
    assert (made[0].first, made[-1].end) == (0, 75)
    assert events(archive, "drop frame.mov", handles="0.5s")[2].handle_before == 15
    for text in ["12", "1.5f", "-3f", "s", "", "1e3f"]:
        with raises(InputRejected, code="bad-handles"):
            Handles.parse(text)


def test_urls__can_be_relinked(archive: Archive, tmp_path: Path) -> None:
    names = ["film #1.mp4", "tief/schön.mov"]
    videos = archive.root / "videos"
    for name in names:
        [whole, *_] = events(archive, name)
        assert path_of(whole.url) == videos / name and "#" not in whole.url and whole.url.startswith("file:///")
        [relative, *_] = events(archive, name, places=Places(relative_to=archive.root / "cuts"))
        assert (archive.root / "cuts" / unquote(relative.url)).resolve() == (videos / name).resolve()
        [theirs, *_] = events(archive, name, places=Places(root="/Volumes/My Archive"))
        assert path_of(theirs.url) == Path("/Volumes/My Archive") / name
        [windows, *_] = events(archive, name, places=Places(root="D:\\archive"))
        assert windows.url.startswith("file:///D:/archive/")


def test_reel_names__are_short_and_unique() -> None:
    names = reel_names({str(number): f"a/Harbour north {number % 3}.mp4" for number in range(120)})
    assert len(set(names.values())) == 120
    assert all(len(name) <= 8 and name.isalnum() for name in names.values())


def test_mixed_rates__are_refused_by_formats_of_one(archive: Archive) -> None:
    made = events(archive, "pal.mov", "drop frame.mov")
    for name in ("edl", "fcpxml"):
        with raises(InputRejected, code="mixed-rates", naming=["25", "29.97"], remedy=".otio"):
            export_text(made, name, "cut")
    assert "29.97" in export_text(made, "csv", "cut")
    timeline = otio.adapters.read_from_string(export_text(made, "otio", "cut"), "otio_json")
    assert {round(clip.source_range.duration.rate, 2) for clip in timeline.find_clips()} == {25, 29.97}


def test_edl__says_where_the_numbering_changes(archive: Archive) -> None:
    """Of one rate, a source may be drop-frame and another not."""
    made = events(archive, "drop frame.mov", "straight.mp4")
    lines = export_text(made, "edl", "cut").splitlines()
    assert lines[1] == "FCM: NON-DROP FRAME"
    modes = []
    for line in lines:
        modes.append(line.removeprefix("FCM: ")) if line.startswith("FCM") else None
        if line[:3].isdigit():
            assert (";" in line.split()[4]) == (modes[-1] == "DROP FRAME")
    assert modes == ["NON-DROP FRAME", "DROP FRAME", "NON-DROP FRAME"]


def test_notes__say_each_thing_once(archive: Archive) -> None:
    notes = notes_of(events(archive, "film #1.mp4", "phone.mp4", "pal.mov"))
    assert len(notes) == 2
    assert "00:00:00:00" in notes[0] and "30" in notes[1]


def test_edl__numbers_no_more_than_999(archive: Archive) -> None:
    [made, *_] = events(archive, "pal.mov")
    with raises(InputRejected, code="too-many-events"):
        export_text([made] * 1000, "edl", "cut")
    assert export_text([made] * 999, "edl", "cut").count("\n999  ") == 1


def test_events__videos_that_are_gone_or_forgotten_are_left_out(archive: Archive, tmp_path: Path) -> None:
    own = write_edit_archive(tmp_path, "pal.mov", "film #1.mp4", "straight.mp4")
    hits = [hit_of(own, name, 500, 1500) for name in ("pal.mov", "film #1.mp4", "straight.mp4")]
    write_forgotten(own.decisions, [ForgottenVideo(hits[0]["video_id"], ("pal.mov",), (), "", "2026-01-01T00:00:00Z")])
    (tmp_path / "videos" / "film #1.mp4").unlink()
    made, left_out = locate_events(own, [Moment.of_hit(hit) for hit in hits], Handles(), Places())
    assert [event.file_name for event in made] == ["straight.mp4"]
    assert [each.code for each in left_out] == ["forgotten-already", "file-missing"]


def test_export__refuses_what_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with raises(InputRejected, code="nothing-to-export"):
        export_text([], "otio", "cut")
    for name in ("cut.aaf", "cut", "cut.edl.zip"):
        with raises(ConfigError, code="unknown-export", remedy=".fcpxml"):
            format_of(Path(name))
    (tmp_path / "file").write_text("")
    with raises(ConfigError, code="export-not-written", naming="cut.edl"):
        write_export(tmp_path / "file" / "cut.edl", "TITLE: x")


def test_export__without_the_library_names_the_pip_command(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    made = events(archive, "pal.mov")
    monkeypatch.setattr("vidseek_media.installing.find_spec", lambda name: None)
    for name in ("otio", "edl", "fcpxml"):
        with raises(ConfigError, code="not-installed", naming="opentimelineio", remedy="edit"):
            export_text(made, name, "cut")
    assert export_text(made, "csv", "cut")


@pytest.fixture(autouse=True)
def nothing_asks_ffprobe(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The adapter of FCPXML would."""
    def refuse(*args: object, **named: object) -> None:
        raise AssertionError(f"a program is run: {args}")

    monkeypatch.setattr("subprocess.check_output", refuse)
    yield


