from __future__ import annotations

from pathlib import Path

import pytest

from tests.raising import raises
from tests.retrieval.archive import frame_row
from vidseek_media.errors import ArtifactError
from vidseek_media.frame_store import stored_clips as module
from vidseek_media.frame_store.stored_clips import StoredTable, stored_clips
from vidseek_media.tables import FRAMES, write_table


def write_frames_table(folder: Path, names: str, *, shard: str = "shards/0.tar") -> None:
    """A clip for each letter, two of a video; the last has no place, as in a table of an earlier version."""
    write_table(folder / "frames.parquet", [
        frame_row(name, f"video {number // 2}", shard=shard, frames_digest=f"digest {name}",
                  offset=100 * number, num_bytes=100) | ({"offset": None} if name == names[-1] else {})
        for number, name in enumerate(names)
    ], FRAMES)


def test_stored_table__finds_what_the_table_says_and_reads_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    num_read = 0

    def read(folder: Path) -> object:
        nonlocal num_read
        num_read += 1
        return read_rows(folder)

    read_rows = module._read_rows
    write_frames_table(tmp_path, "abcde")
    wanted = {ids: stored_clips(tmp_path, clip_ids=list(ids)) for ids in ("", "c", "ea", "xbx", "abcde")}
    monkeypatch.setattr(module, "_read_rows", read)
    table = StoredTable(tmp_path)
    assert {ids: table.find(list(ids)) for ids in wanted} == wanted
    assert (num_read, [len(found) for found in wanted.values()], wanted["ea"][1].offset) == (1, [0, 1, 2, 1, 5], -1)
    write_frames_table(tmp_path, "cxyz", shard="shards/1.tar")
    assert [(clip.clip_id, clip.shard) for clip in table.find(list("xbc"))] == [("c", "shards/1.tar"), ("x", "shards/1.tar")]
    assert num_read == 2


def test_stored_table__of_nothing_says_so_and_finds_what_comes(tmp_path: Path) -> None:
    table = StoredTable(tmp_path)
    with raises(ArtifactError, code="no-shards", naming=str(tmp_path)):
        table.find(["a"])
    write_frames_table(tmp_path, "a")
    assert len(table.find(["a"])) == 1
    write_frames_table(tmp_path, "a", shard="../elsewhere.tar")
    with raises(ArtifactError, code="broken-rows"):
        table.find(["a"])
