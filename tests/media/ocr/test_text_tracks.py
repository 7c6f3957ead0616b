from __future__ import annotations

from vidseek_media.ocr.text_lines import TextLine
from vidseek_media.ocr.text_tracks import ScannedFrame, text_runs

Line = tuple[str, float] | tuple[str, float, float, float]
"""Text, score, and where it stands."""


def film(*frames: list[Line]) -> list[tuple[int, int, str]]:
    """Spans and texts of the runs of frames of a second each."""
    scanned = [
        ScannedFrame(1000 * i, 1000 * i + 1000, [line_of(*line) for line in lines]) for i, lines in enumerate(frames)
    ]
    return [(run.start_ms, run.end_ms, run.best.text) for run in text_runs(scanned)]


def line_of(text: str, score: float, left: float = 10, top: float = 10) -> TextLine:
    return TextLine((left, top, left + 12 * len(text), top + 20), text, score)


def test_text_runs__one_line_over_many_frames_is_one_segment_of_its_best_reading() -> None:
    readings: list[list[Line]] = [[("Quarterly revemue", 0.91)], [("Quarterly revenue", 0.99)], [("Quartely revenue", 0.9)]]
    assert film(*readings) == [(0, 3000, "Quarterly revenue")]


def test_text_runs__a_logo_of_the_whole_video_is_one_segment_though_it_is_missed_now_and_then() -> None:
    logo: list[Line] = [("ACME", 0.99, 500, 10)]
    assert film(*[[] if i in (5, 6, 11) else logo for i in range(60)]) == [(0, 60_000, "ACME")]


def test_text_runs__two_lines_in_one_place_after_each_other_are_two_segments() -> None:
    assert film([("Anna Berg", 0.99)], [("Anna Berg", 0.98)], [("Tom Reed", 0.99)]) == [
        (0, 2000, "Anna Berg"), (2000, 3000, "Tom Reed"),
    ]


def test_text_runs__a_clock_keeps_every_reading() -> None:
    times = [f"10:41:{second:02d}" for second in range(6)]
    assert [text for _, _, text in film(*[[(time, 0.97)] for time in times])] == times


def test_text_runs__a_counter_of_two_digits_keeps_every_reading_and_may_grow() -> None:
    found = film(*[[(f"{97 + i}", 0.96)] for i in range(5)])
    assert found == [(1000 * i, 1000 * i + 1000, f"{97 + i}") for i in range(5)]


def test_text_runs__drops_stray_signs() -> None:
    assert film([("IA", 0.98)], [], [], [], []) == []  # too few letters, once
    assert film([("fence", 0.55)], [("fenec", 0.6)], [("feance", 0.5)]) == []  # never sure
    assert film([("E", 0.99)], [("E", 0.99)], [("E", 0.99)]) == []  # one letter
    assert film([("--", 1.0)], [("--", 1.0)], [("--", 1.0)]) == []  # no letter


def test_text_runs__a_long_line_that_is_sure_needs_no_second_frame() -> None:
    assert film([], [("Breaking news", 0.97)], []) == [(1000, 2000, "Breaking news")]


def test_text_runs__a_line_that_scrolls_is_one_segment() -> None:
    credits: list[list[Line]] = [[("Directed by Anna Berg", 0.98, 10, 100 - 30 * i)] for i in range(4)]
    assert film(*credits) == [(0, 4000, "Directed by Anna Berg")]


def test_text_runs__the_same_text_in_two_places_is_two_segments() -> None:
    both: list[Line] = [("EXIT", 0.99, 10, 10), ("EXIT", 0.99, 400, 300)]
    assert film(both, both) == [(0, 2000, "EXIT"), (0, 2000, "EXIT")]
