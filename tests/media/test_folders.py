from __future__ import annotations

from pathlib import Path

import pytest

from vidseek_media.folders import whole_file, whole_folder


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


def test_whole_folder__takes_its_place_or_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with whole_folder(path) as beside:
        (beside / "one").touch()
    with pytest.raises(OSError, match="full"), whole_folder(path) as beside:
        (beside / "two").touch()
        raise OSError("full")
    assert [each.name for each in path.iterdir()] == ["one"]
    with whole_folder(path) as beside:
        (beside / "three").touch()
    assert [each.name for each in path.iterdir()] == ["three"]
    assert [each.name for each in tmp_path.iterdir()] == ["a"]
