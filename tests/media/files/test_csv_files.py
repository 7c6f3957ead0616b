from __future__ import annotations

import csv
from pathlib import Path

import pytest

from vidseek_media.files.csv_files import write_csv


def test_write_csv__gives_back_each_text(tmp_path: Path) -> None:
    rows = [["a, \"b\"", "ä\nö"], ["", "1"]]
    write_csv(tmp_path / "new" / "a.csv", ["one", "two"], rows)
    with (tmp_path / "new" / "a.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["one", "two"], *rows]


def test_write_csv__a_row_that_fails_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        write_csv(tmp_path / "a.csv", ["one"], ([1 // number] for number in (1, 0)))
    assert not list(tmp_path.iterdir())
