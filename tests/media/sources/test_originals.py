from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import pytest

from tests.raising import raises
from vidseek_media.ids import video_id_of
from vidseek_media.records import TRY_AGAIN, Refusal
from vidseek_media.sources import originals
from vidseek_media.sources.originals import FileChanged, FileUnreadable, original


def test_original__of_other_bytes_may_be_mended_by_another_run(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"one")
    video_id = video_id_of(path)
    path.write_bytes(b"two")
    with raises(FileChanged, code="file-changed") as caught, original(path, video_id):
        raise AssertionError("nothing may be done with it")
    refusal = Refusal.of(caught.value, "a.mp4: ")
    assert refusal.retryable and refusal.reason.startswith("a.mp4: ") and refusal.reason.endswith(TRY_AGAIN)


def test_original__of_a_file_that_changes_inside(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"one")
    with raises(FileChanged, code="file-changed"), original(path, video_id_of(path)):
        path.write_bytes(b"longer")


def test_original__hashes_a_file_once_for_many_blocks_unless_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"one")
    video_id = video_id_of(path)
    hashed: list[Path] = []
    monkeypatch.setattr(originals, "video_id_of", lambda path: hashed.append(path) or video_id_of(path))
    seen: dict[Path, tuple[int, ...]] = {}
    for _ in range(3):
        with original(path, video_id, seen=seen):
            pass
    assert len(hashed) == 1
    path.write_bytes(b"another")
    with raises(FileChanged, code="file-changed"), original(path, video_id, seen=seen):
        raise AssertionError("nothing may be done with it")
    assert len(hashed) == 2


@pytest.mark.parametrize(("number", "is_passing"), [
    (errno.ENOENT, True), (errno.EIO, True), (errno.ESTALE, True), (errno.EACCES, False), (errno.ENAMETOOLONG, False),
])
def test_unreadable__passes_unless_rights_or_name_are_why(number: int, is_passing: bool) -> None:
    refusal = Refusal.of(FileUnreadable.of(OSError(number, os.strerror(number))))
    assert refusal.retryable is is_passing and os.strerror(number) in refusal.reason
    assert pickle.loads(pickle.dumps(FileUnreadable.of(OSError(number, "x")))).retryable is is_passing  # out of a worker
