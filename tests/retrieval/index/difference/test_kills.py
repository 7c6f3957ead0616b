"""A publish or a compaction that is killed at any moment leaves the old answers, and the next one goes through."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import numpy as np
import pytest

from tests.raising import raises
from tests.retrieval.growing import GrowingArchive
from tests.retrieval.index.difference.test_changes import content_of, require_same_content
from vidseek_media.errors import ServiceError
from vidseek_retrieval.index.aliases import list_collections, verify
from vidseek_retrieval.index.edge import backend as edge
from vidseek_retrieval.index.edge import shard as edge_shard
from vidseek_retrieval.index.edge.backend import EdgeBackend
from vidseek_retrieval.index.publish import compact
from vidseek_retrieval.search.searcher import Searcher

NUM_KILLS = int(os.environ.get("VIDSEEK_INDEX_KILLS", "0"))
"""One at each kind of change is the least."""
SCRIPT = """
import json, os, signal, sys
from collections import defaultdict
from pathlib import Path
from tests.retrieval.growing import GrowingArchive
from vidseek_retrieval.index.publish import compact, publish
from vidseek_retrieval.settings import PublishSettings

CHANGES = {
    "mkdir", "truncate", "ftruncate", "copy_file_range", "sendfile", "write", "writev", "fsync", "fdatasync", "link",
    "symlink", "rename", "replace", "unlink", "remove", "rmdir", "BufferedWriter.write", "FileIO.write",
    "TextIOWrapper.write", "ndarray.tofile",
    *(f"EdgeShard.{name}" for name in ("create", "update", "optimize", "flush", "close")),
}

def work(what, root, at):
    archive = GrowingArchive(root, num_videos=12, captions=True)
    archive.remove(archive.names[0])
    archive.add(1)
    tables, calls, kinds = archive.write(), 0, defaultdict(list)

    def count(frame, event, argument):
        nonlocal calls
        if event == "c_call" and getattr(argument, "__qualname__", "") in CHANGES:
            calls += 1
            if calls == at:
                os.kill(os.getpid(), signal.SIGKILL)
            code = frame.f_code
            kinds[f"{Path(code.co_filename).name}:{code.co_qualname}:{argument.__qualname__}"].append(calls)

    sys.setprofile(count)
    if what == "publish":
        publish(**tables, index=archive.index, settings=PublishSettings(compact_share=0.9))
    else:
        compact(archive.index)
    sys.setprofile(None)
    return json.dumps(list(kinds.values()), separators=(",", ":"))

for line in sys.stdin:
    what, at, root = line.rstrip("\\n").split(" ", 2)
    process = os.fork()
    if not process:
        try:
            os.write(1, f"{work(what, Path(root), int(at))} ".encode())
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    os.write(1, f"{code}\\n".encode())
"""
"""Forks a process for each line. It kills itself before the change whose number is given: a call of the system or of Qdrant
Edge; 0: never. Answers the numbers of the changes of each kind, if it was not killed, and its exit code. Of a kind are those
of one function by another."""


class Killed:
    """An archive whose publisher or compactor is killed, again and again, from the same state."""

    def __init__(self, root: Path, what: str) -> None:
        self.what = what
        self.start = root / "start"
        archive = GrowingArchive(self.start, num_videos=12, captions=True)
        archive.publish()
        if what == "compact":
            archive.add(1)
            archive.publish()
        self.root = root / "run"
        self._forks = subprocess.Popen(
            [sys.executable, "-c", SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._forks.communicate()

    def changes(self) -> list[list[int]]:
        """Run to the end, and return the numbers of the changes of each kind."""
        kinds, code = self._run(0)
        assert code == "0"
        found: list[list[int]] = json.loads(kinds)
        return found

    def kill(self, at: int) -> None:
        """Run to the kill."""
        assert self._run(at) == [str(-signal.SIGKILL)], at

    def _run(self, at: int) -> list[str]:
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(self.start, self.root)
        assert self._forks.stdin is not None and self._forks.stdout is not None
        self._forks.stdin.write(f"{self.what} {at} {self.root}\n")
        self._forks.stdin.flush()
        return self._forks.stdout.readline().split()

    def require_whole(self) -> None:
        """What is live answers as before, or as after; another publish goes through; nothing is left over."""
        index = self.root / "index"
        live = EdgeBackend(index).aliases()["clips"].collection
        assert verify(index).passed
        number = len(content_of(index, live))
        assert number == (130 if self.what == "compact" else 120)  # one video went where one came
        query = np.ones(16, np.float32) / 4
        assert Searcher(EdgeBackend(index), None).search_vector(query, "0123456789abcdef").collection == live
        archive = GrowingArchive(self.root, num_videos=12, captions=True)
        archive.remove(archive.names[0])
        archive.add(1)
        report = archive.publish()
        require_same_content(archive, report, fresh=self.root.parent / "fresh")
        kept = {each.metadata.name for each in list_collections(index)}
        there = {path.name for path in index.iterdir() if path.is_dir()}
        assert there == kept and len(kept) <= 2


@pytest.mark.slow
@pytest.mark.parametrize("what", ["publish", "compact"])
def test_kill__at_each_kind_of_change_leaves_the_old_answers(tmp_path: Path, what: str) -> None:
    """One of each kind, and more at random where `make kills` wants them."""
    draws = random.Random(21)
    with Killed(tmp_path, what) as killed:
        kinds = killed.changes()
        assert len(kinds) > 12
        places = [draws.choice(kind) for kind in kinds]
        every = sorted({place for kind in kinds for place in kind}.difference(places))
        places += draws.sample(every, min(len(every), max(0, NUM_KILLS - len(places))))
        for place in places:
            killed.kill(place)
            killed.require_whole()


def test_publish__two_differences_at_once(tmp_path: Path) -> None:
    archive = GrowingArchive(tmp_path, num_videos=12)
    live = archive.publish().collection
    archive.add(1)
    with EdgeBackend(archive.index).building(), raises(ServiceError, code="publish-running"):
        archive.publish()
    with EdgeBackend(archive.index).building(), raises(ServiceError, code="publish-running"):
        compact(archive.index)
    assert EdgeBackend(archive.index).aliases()["clips"].collection == live
    assert archive.publish().num_written == 10


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=260m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("no file system can be mounted here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.slow
def test_publish__the_disk_fills_up_while_a_copy_grows(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge_shard, "CHILD_FROM_POINTS", 1)
    monkeypatch.setattr(edge, "_require_free", lambda *_: None)
    archive = GrowingArchive(tmp_path, num_videos=12)
    archive.index = small_disk / "index"
    live = archive.publish()
    archive.add(1)
    room = shutil.disk_usage(small_disk).free
    (small_disk / "filler").write_bytes(b"x" * (room - 8 * 2**20))
    with raises(ServiceError, code=("index-not-writable", "index-build-ended")):
        archive.publish()
    assert sorted(path.name for path in archive.index.iterdir()) == sorted([".lock", "aliases.json", live.collection])
    assert verify(archive.index).passed
    (small_disk / "filler").unlink()
    assert archive.publish().num_written == 10


def test_publish__a_disk_without_room_says_so_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = GrowingArchive(tmp_path, num_videos=12)
    live = archive.publish()
    archive.add(1)
    usage = shutil.disk_usage(tmp_path)._replace(free=2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with raises(ServiceError, code="no-space", naming=("1 MiB free", "10 points")):
        archive.publish()
    assert [each.metadata.name for each in list_collections(archive.index)] == [live.collection]
