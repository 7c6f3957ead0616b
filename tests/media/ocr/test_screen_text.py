from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.videos.titles import Title, drifting, make_titled_video, plain
from tests.raising import raises
from vidseek_media.errors import ConfigError
from vidseek_media.ids import video_id_of
from vidseek_media.ocr.screen_text import OcrReport, read_archive_text, read_screen_text
from vidseek_media.settings import OcrSettings
from vidseek_media.sources.ingest import ingest
from vidseek_media.tables import REJECTED, read_table
from vidseek_media.text.segments import read_segments

pytest.importorskip("rapidocr", reason="rapidocr is not installed: the extra ocr")

MakeVideo = Callable[..., Path]
ON = OcrSettings(enabled=True, workers=1)


@pytest.fixture(scope="module")
def titled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six seconds of 640x360: a logo, a name for three seconds, a clock, a ticker."""
    path = tmp_path_factory.mktemp("titled") / "titled.mp4"
    make_titled_video(path, [
        Title("ACME News", 500, 10, 22), Title("Anna Bergström, Zürich", 40, 280, 28, start_seconds=2, end_seconds=5),
        Title(lambda second: f"10:41:{second:02d}", 40, 20, 24),
        Title("Breaking: storm over the coast", 300, 330, 20, move=(-40, 0)),
    ], seconds=6, background=drifting(640, 360, 1), fps=10)
    return path


@pytest.mark.slow
def test_read_screen_text__reads_titles_logos_clocks_and_tickers_each_once(titled: Path) -> None:
    found = read_screen_text(titled, settings=ON, name="reader").segments
    spans = {segment.text: (segment.start_ms, segment.end_ms) for segment in found}
    assert spans["ACME News"] == (0, 6000)
    assert spans["Anna Bergström, Zürich"] == (2000, 5000)
    assert [spans.get(f"10:41:{second:02d}") for second in range(6)] == [(s * 1000, s * 1000 + 1000) for s in range(6)]
    assert any("storm over the coast" in text for text in spans)
    assert all(segment.confidence and segment.confidence >= 0.8 and segment.source == "reader" for segment in found)


def test_read_screen_text__of_a_still_scene_reads_one_frame(tmp_path: Path) -> None:
    path = tmp_path / "still.mp4"
    make_titled_video(path, [Title("Closed on Monday", 40, 100, 30)], seconds=5,
                      background=plain(480, 270, 90), fps=5)
    found = read_screen_text(path, settings=ON, name="reader")
    [segment] = found.segments
    assert (segment.start_ms, segment.end_ms, segment.text) == (0, 5000, "Closed on Monday")
    assert (found.num_frames, found.num_passed_over) == (5, 4)


def test_read_screen_text__finds_nothing_where_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / "bare.mp4"
    make_titled_video(path, [], seconds=4, background=drifting(640, 360, 2), fps=5)
    assert read_screen_text(path, settings=ON, name="reader").segments == []


def archive(folder: Path, *, settings: OcrSettings = ON) -> OcrReport:
    ingest(folder / "source", out=folder / "ingest", ledger=folder / "ledger.json", timeout_seconds=60, workers=1)
    return read_archive_text(
        folder / "ingest", out=folder / "ocr", source=folder / "source", settings=settings, memory=folder / "memory"
    )


@pytest.mark.slow
def test_read_archive_text__reads_each_video_once_and_goes_on_past_a_bad_one(
    tmp_path: Path, make_video: MakeVideo
) -> None:
    source, grey = tmp_path / "source", plain(320, 180, 60)
    make_titled_video(source / "a.mp4", [Title("Harbour gate", 20, 60, 30)], seconds=2, background=grey, fps=5)
    make_video(source / "bad.mp4", num_frames=10)
    ingest(source, out=tmp_path / "ingest", ledger=tmp_path / "ledger.json", timeout_seconds=60, workers=1)
    bad, good = video_id_of(source / "bad.mp4"), video_id_of(source / "a.mp4")
    (source / "bad.mp4").write_bytes((source / "bad.mp4").read_bytes()[:300])
    places = {"out": tmp_path / "ocr", "source": source, "settings": ON, "memory": tmp_path / "memory"}
    report = read_archive_text(tmp_path / "ingest", **places)  # type: ignore[arg-type]
    assert (report.num_in, report.num_known, report.num_with_text, report.num_rejected) == (2, 0, 1, 1)
    [row] = read_table(tmp_path / "ocr" / "rejected.parquet", REJECTED).to_dict("records")
    assert (row["id"], row["stage"], row["kind"], row["retryable"]) == (bad, "ocr", "file", True)
    assert [segment.text for segment in read_segments(tmp_path / "ocr")[good]] == ["Harbour gate"]
    before = (tmp_path / "ocr" / "segments.parquet").read_bytes()
    (source / "a.mp4").unlink()  # it is not opened again
    report = read_archive_text(tmp_path / "ingest", **places)  # type: ignore[arg-type]
    assert (report.num_known, report.num_frames) == (1, 0)
    assert (tmp_path / "ocr" / "segments.parquet").read_bytes() == before


def test_read_archive_text__where_it_is_off_touches_no_video(tmp_path: Path) -> None:
    report = read_archive_text(
        tmp_path / "nowhere", out=tmp_path / "ocr", source=tmp_path, settings=OcrSettings(), memory=tmp_path / "memory"
    )
    assert report == OcrReport(0, 0, 0, 0, 0, 0, 0) and read_segments(tmp_path / "ocr") == {}
    assert not (tmp_path / "memory").exists()


def test_read_archive_text__without_the_library(
    tmp_path: Path, make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_video(tmp_path / "source" / "a.mp4", num_frames=5)
    monkeypatch.setattr("vidseek_media.installing.find_spec", lambda name: None)
    with raises(ConfigError, code="not-installed", naming="rapidocr"):
        archive(tmp_path)
