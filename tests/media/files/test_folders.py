from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vidseek_media.files import folders
from vidseek_media.files.folders import sweep, sweep_below, whole_file, whole_folder, write_text


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


_WRITER = """
import sys
from pathlib import Path
from vidseek_media.files.folders import whole_file, whole_folder

with whole_folder(Path(sys.argv[1]) / "out"), whole_file(Path(sys.argv[1]) / "a.txt"):
    print("begun", flush=True)
    sys.stdin.read()
"""


def _writer(folder: Path) -> subprocess.Popen[bytes]:
    """A process that has begun to write `out` and `a.txt`, and waits."""
    process = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None and process.stdout.readline() == b"begun\n"
    return process


def test_sweep__takes_what_a_killed_process_left_and_nothing_of_one_that_lives(tmp_path: Path) -> None:
    others = (".out.notes", ".out.notes.part", ".other.0123456z.part")
    for name in others:
        (tmp_path / name).mkdir()
    dead = _writer(tmp_path)
    left = {path.name for path in tmp_path.iterdir()} - set(others)
    dead.kill()
    dead.wait()
    living = _writer(tmp_path)  # its whole_folder sweeps
    kept = {path.name for path in tmp_path.iterdir()} - set(others) - left
    assert {path.name for path in tmp_path.iterdir()} & left == {name for name in left if name.startswith(".a.txt.")}
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*others, *kept}
    assert len(kept) == 2
    living.communicate(timeout=120)
    assert {path.name for path in tmp_path.iterdir()} == {*others, "out", "a.txt"}


def test_sweep__of_no_folder_is_nothing(tmp_path: Path) -> None:
    sweep(tmp_path / "absent")
    sweep_below(tmp_path / "absent")


def test_sweep_below__takes_what_was_left_anywhere(tmp_path: Path) -> None:
    below = tmp_path / "one" / "two"
    kept = [below / "a.txt", below / ".a.txt", below / ".a.0123456z.part", below / ".part"]
    left = [tmp_path / ".b.01234567.part", below / ".a\nb.txt.89abcdef.part", below / ".c.0a1b2c3d.new"]
    below.mkdir(parents=True)
    for path in (*kept, *left):
        path.write_text("x")
    os.utime(left[-1], (0, 0))
    (new := below / ".d.0a1b2c3d.new").touch()  # somebody begins to write
    (tmp_path / "one" / ".out.fedcba98.part").mkdir()
    (tmp_path / "one" / ".out.fedcba98.part" / "half").touch()
    with whole_file(below / "e.txt") as beside:
        sweep_below(tmp_path)
        assert {path for path in tmp_path.rglob("*") if path.is_file()} == {*kept, new, beside}
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["two"]


def test_whole_file__many_threads_leave_one_of_theirs_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "0" * 5000)
    broken: list[str] = []

    def write(number: int) -> None:
        for _ in range(20):
            write_text(path, str(number) * 5000)
            if len(set(seen := path.read_text())) != 1 or len(seen) != 5000:
                broken.append(seen)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert not broken
    assert [each.name for each in tmp_path.iterdir()] == ["a.txt"]


def test_whole_folder__many_threads_leave_one_of_theirs_and_nothing_else(tmp_path: Path) -> None:
    def write(number: int) -> None:
        for _ in range(10):
            with whole_folder(tmp_path / "out") as folder:
                (folder / "one").write_text(str(number))
                (folder / "two").write_text(str(number))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert [each.name for each in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "one").read_text() == (tmp_path / "out" / "two").read_text()


def test_whole_folder__a_file_in_its_place_stays(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(NotADirectoryError), whole_folder(tmp_path / "out"):
        pass
    assert [each.name for each in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("name", ["a" * 255, "ä" * 127, "[a]*?.txt"])
def test_write_text__takes_each_name_that_the_disk_takes(tmp_path: Path, name: str) -> None:
    write_text(tmp_path / name, "one")
    with whole_folder(tmp_path / f"{name[:-1]}b") as folder:
        write_text(folder / name, "two\r\n")
    assert (tmp_path / name).read_text() == "one"
    assert (tmp_path / f"{name[:-1]}b" / name).read_bytes() == b"two\r\n"


def test_write_text__has_the_rights_that_the_user_wants(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "a.txt", "one")
    finally:
        os.umask(before)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("sync", [True, False])
def test_write_text__waits_for_the_disk_where_it_is_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sync: bool
) -> None:
    synced: list[str] = []
    monkeypatch.setattr(folders, "sync_path", lambda path: synced.append(path.name))
    write_text(tmp_path / "a.txt", "one", sync=sync)
    assert [name[:7] for name in synced] == ([".a.txt.", tmp_path.name[:7]] if sync else [])
