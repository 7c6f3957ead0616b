"""Progress: what a log is told, when, and what stays silent."""

from __future__ import annotations

import io
import re
import time

import pytest

from tests.waiting import wait_until
from vidseek_media.terminal import progress
from vidseek_media.terminal.progress import Progress, counted, spoken, waiting


class Terminal(io.StringIO):
    """A standard error that is a terminal."""

    def isatty(self) -> bool:
        return True


class Log:
    """Standard error as a log."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys, self._text = capsys, ""

    def text(self) -> str:
        """Return all that was told so far."""
        self._text += self._capsys.readouterr().err
        return self._text


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Log:
    """Standard error, told of at once."""
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.05)
    return Log(capsys)


def test_progress__a_log_gets_lines_with_count_figures_and_time_left(log: Log) -> None:
    with waiting("train"), Progress("both towers", unit="step", total=200) as steps:
        steps.update(50)
        steps.note("loss 0.412")
        wait_until(lambda: "loss" in log.text())
        steps.update(150)
    first, *_, last = log.text().splitlines()
    assert re.fullmatch(r"train: both towers: 50 of 200 steps, loss 0\.412, \d s so far, about \d s left", first)
    assert re.fullmatch(r"train: both towers: 200 of 200 steps, loss 0\.412 in \d s", last)


def test_progress__what_is_over_soon_is_not_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(counted(range(3), "hash", unit="file")) == [0, 1, 2]
    with waiting("opening"):
        pass
    assert capsys.readouterr() == ("", "")


def test_progress__of_several_processes_one_tells(log: Log) -> None:
    with waiting("outer"):
        with Progress("both towers", unit="step", is_shown=False) as steps:
            steps.update()
            wait_until(lambda: "outer: 0 s so far" in log.text())
        assert "both towers" not in log.text()


def test_progress__without_a_total_tells_no_time_left(log: Log) -> None:
    with Progress("download", unit="video") as videos:
        videos.update()
        wait_until(lambda: bool(log.text()))
    assert re.match(r"download: 1 video, \d s so far\n", log.text())


def test_progress__goes_on_from_an_earlier_run_at_the_speed_of_this_one() -> None:
    steps = Progress("both towers", unit="step", total=200, done=100)
    assert steps.seconds_left() is None
    steps.began -= 10
    steps.update(50)
    assert steps.seconds_left() == pytest.approx(10, rel=0.05)


def test_progress__a_terminal_gets_a_bar_and_no_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr(progress, "SILENT_SECONDS", 0.0)
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    with Progress("embed", unit="clip", total=4) as clips:
        clips.update(3)
        time.sleep(0.3)
    assert "embed" in terminal.getvalue() and "so far" not in terminal.getvalue()


def test_waiting__names_of_files_are_no_terminal_commands(log: Log) -> None:
    with waiting("reading \x1b[2J"):
        wait_until(lambda: bool(log.text()))
    assert "\x1b" not in log.text()


def test_waiting__an_error_passes_and_ends_the_telling(log: Log) -> None:
    with pytest.raises(ValueError, match="broken"), waiting("reading"):
        raise ValueError("broken")
    before = log.text()
    time.sleep(0.3)
    assert log.text() == before


@pytest.mark.parametrize(("seconds", "said"), [(0.4, "0 s"), (89, "89 s"), (600, "10 min"), (12_600, "3.5 h")])
def test_spoken__takes_the_unit_that_fits(seconds: float, said: str) -> None:
    assert spoken(seconds) == said
