"""What a stage prints where it stops, and what the first stage clears away."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines import ingest
from pipelines.stage import run_stage
from vidseek.paths import ArchivePaths
from vidseek_media.errors import GateFailed, InputRejected, VidseekError
from vidseek_quality.report import Failure, table_of


def stopped_by(error: VidseekError, capsys: pytest.CaptureFixture[str]) -> str:
    """What is printed of a stage that raises `error`."""
    def fails() -> str:
        raise error

    with pytest.raises(SystemExit) as ended:
        run_stage(fails)
    assert ended.value.code == error.exit_code
    return capsys.readouterr().err


def test_run_stage__a_gate_tells_its_table_in_lines(capsys: pytest.CaptureFixture[str]) -> None:
    found = Failure("pairs", "captions: at most 10 letters", 1, None, ("harbour\n\x1b[2J.mp4",))
    told = stopped_by(GateFailed(f"1 failed\n{table_of((found,))}\nNothing has run", code="gate-not-passed"), capsys)
    assert len(told.splitlines()) == 4
    assert told.splitlines()[2].split()[0] == "pairs" and r"harbour\n\x1b[2J.mp4" in told.splitlines()[2]


def test_run_stage__a_name_with_line_ends_makes_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    told = stopped_by(InputRejected("a\nb.mp4 is no video", code="not-a-video"), capsys)
    assert len(told.splitlines()) == 1


def test_sweep_left__what_killed_stages_left_goes_before_any_stage_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = ArchivePaths(tmp_path)
    monkeypatch.setattr(ingest, "PATHS", paths)
    places = (paths.root, paths.data / "pairs", paths.encoder, paths.receipts, paths.reports, paths.subtitle_cache)
    for folder in places:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "dvc.lock").touch()
        (folder / ".dvc.lock.01234567.part").touch()
    (tmp_path / ".params.yaml.89abcdef.part").touch()
    source = paths.state / "films"
    source.mkdir()
    (theirs := source / ".other.01234567.part").touch()
    ingest.sweep_left()
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == {theirs, *(each / "dvc.lock" for each in places)}
