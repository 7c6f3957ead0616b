from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import qdrant_edge as qdrant

from tests.raising import raises
from tests.retrieval.archive import random_archive, unit_rows
from vidseek_media.errors import ServiceError
from vidseek_retrieval.index.edge import backend as edge_backend
from vidseek_retrieval.index.edge import shard as edge_shard
from vidseek_retrieval.index.edge.backend import EdgeBackend
from vidseek_retrieval.index.edge.file_digests import digest_of
from vidseek_retrieval.index.payload import payload_indexes
from vidseek_retrieval.index.publish import publish


def test_build__a_child_builds_what_we_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = random_archive(tmp_path)
    own = publish(**tables, index=tmp_path / "own")
    monkeypatch.setattr(edge_shard, "CHILD_FROM_POINTS", 1)
    child = publish(**tables, index=tmp_path / "child")
    assert child.collection == own.collection and child.verification == own.verification
    query = unit_rows(1, 16, seed=8)[0]
    answers = [EdgeBackend(tmp_path / name).open(own.collection).search(query, limit=50) for name in ("own", "child")]
    assert answers[0] == answers[1]


def test_build__indexes_of_fields_are_mapped(tmp_path: Path) -> None:
    report = publish(**random_archive(tmp_path), index=tmp_path / "index")
    shard = qdrant.EdgeShard.load(str(tmp_path / "index" / report.collection / "shard"))
    known = shard.info().payload_schema
    shard.close()
    assert known.keys() == payload_indexes().keys()
    assert all(field.params.on_disk for field in known.values())


@pytest.mark.parametrize("ended_by", [signal.SIGBUS, signal.SIGKILL])
def test_build__a_child_that_is_ended_by_a_signal_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended_by: signal.Signals
) -> None:
    monkeypatch.setattr(edge_shard, "CHILD_FROM_POINTS", 1)
    popen = subprocess.Popen

    def ended(command: list[str], **named: Any) -> subprocess.Popen[bytes]:
        return popen([*command[:1], "-c", f"import os; os.kill(os.getpid(), {int(ended_by)})"], **named)

    monkeypatch.setattr(edge_shard.subprocess, "Popen", ended)
    with raises(ServiceError, code="index-build-ended", naming=ended_by.name):
        publish(**random_archive(tmp_path), index=tmp_path / "index")
    assert [path.name for path in (tmp_path / "index").iterdir()] == [".lock"]


TALKS = (
    "import os, sys, threading; end = threading.Timer(120, os._exit, [3]); end.daemon = True; end.start(); "
    "sys.stderr.write('careful\\n' * 2**17);"
)
"""Says a megabyte; one that hangs ends after two minutes, so that the test fails."""


def test_build__a_child_that_says_more_than_its_pipe_holds_does_not_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe holds 64 KiB, and what we have to write is more as well."""
    monkeypatch.setattr(edge_shard, "CHILD_FROM_POINTS", 1)
    popen = subprocess.Popen
    talks = f"{TALKS} from vidseek_retrieval.index.edge.builder import main; main()"
    monkeypatch.setattr(edge_shard.subprocess, "Popen", lambda command, **named: popen(
        [command[0], "-c", talks, command[-1]], **named))
    report = publish(**random_archive(tmp_path, num_videos=20), index=tmp_path / "index")
    assert report.num_points == 1160 and report.verification.passed


def test_build__a_child_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge_shard, "CHILD_FROM_POINTS", 1)
    popen = subprocess.Popen
    fails = f"{TALKS} sys.exit('the shard is too round')"
    monkeypatch.setattr(edge_shard.subprocess, "Popen", lambda command, **named: popen([command[0], "-c", fails], **named))
    with raises(ServiceError, code="index-not-writable", naming="too round"):
        publish(**random_archive(tmp_path, num_videos=20), index=tmp_path / "index")
    assert [path.name for path in (tmp_path / "index").iterdir()] == [".lock"]


def test_check__a_file_that_was_hashed_as_it_was_finished_is_read_again_where_it_was_changed_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge_backend, "_SETTLED_NS", -1)  # the files were written a moment ago
    read: list[Path] = []
    monkeypatch.setattr(edge_backend, "digest_of", lambda path, **given: (read.append(path), digest_of(path, **given))[1])
    name = publish(**random_archive(tmp_path), index=(backend := EdgeBackend(tmp_path / "index"))).collection
    files = [path for path in (tmp_path / "index" / name).rglob("*") if path.is_file() and path.name != "collection.json"]
    assert sorted(read) == sorted(files)  # once, by the publish that made them and checked them
    assert backend.check(name) == [] and len(read) == 2 * len(files)  # and by each check that follows
    backend._fresh = {path: (edge_backend._state_of(path), digest_of(path)) for path in files}
    changed = next(path for path in files if path.suffix == ".npy")
    content = changed.read_bytes()
    changed.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert backend.check(name) == [f"{changed.name} was changed"]
    changed.unlink()
    assert len(backend.check(name)) == 1


def test_check__a_file_that_was_written_a_moment_before_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge_backend, "_SETTLED_NS", 10**18)
    backend = EdgeBackend(tmp_path / "index")
    publish(**random_archive(tmp_path), index=backend)
    assert backend._fresh == {}
