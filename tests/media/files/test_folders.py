from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vidseek_media.files.folders import whole_file, whole_folder


def test_whole_file__takes_its_place_when_all_went_well(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    for text in ("one", "two"):
        with whole_file(path) as beside:
            beside.write_text(text)
            assert not path.exists() or path.read_text() == "one"
        assert path.read_text() == text
    assert [each.name for each in path.parent.iterdir()] == ["a.txt"]


def test_whole_file__leaves_what_was_there_when_it_did_not(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one")
    with pytest.raises(OSError, match="full"), whole_file(path) as beside:
        beside.write_text("tw")
        raise OSError("full")
    assert path.read_text() == "one"
    assert [each.name for each in tmp_path.iterdir()] == ["a.txt"]


def test_whole_folder__takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    for text in ("first", "second"):
        with whole_folder(tmp_path / "out") as folder:
            (folder / text).write_text(text)
            assert folder.parent == tmp_path
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["second"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_whole_folder__that_failed_leaves_the_one_before(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "out") as folder:
        (folder / "good").touch()
    with pytest.raises(ZeroDivisionError), whole_folder(tmp_path / "out") as folder:
        (folder / "half").touch()
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "good"]


def test_whole_folder__sweeps_what_a_killed_process_left_and_nothing_of_one_that_lives(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    names = (f".out.{dead.pid}", f".out.{os.getppid()}", ".out.notes", f".other.{dead.pid}")
    for name in names:
        (tmp_path / name).mkdir()
    with whole_folder(tmp_path / "out"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names[1:], "out"])
