from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.raising import raises
from vidseek_media.errors import ArtifactError
from vidseek_media.tables import FRAMES, GROUPS, REJECTED, first_rejected, is_among, read_rejected, read_table, write_table


def test_read_table__gives_what_was_written_or_the_columns_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "rejected.parquet"
    rows = [{"id": "a.mp4", "stage": "ingest", "reason": "is empty", "kind": "file", "retryable": False,
             "code": "file-empty"}]
    write_table(path, rows, REJECTED)
    assert read_table(path, REJECTED).to_dict("records") == rows
    assert read_table(path, REJECTED, columns=["id"]).to_dict("records") == [{"id": "a.mp4"}]


def test_first_rejected__says_what_why_and_where_the_others_are(tmp_path: Path) -> None:
    path = tmp_path / "rejected.parquet"
    rows = [
        {"id": name, "stage": "ingest", "reason": "is empty", "kind": "file", "retryable": False, "code": code}
        for name, code in (("a", "file-empty"), ("b", None))
    ]
    write_table(path, [], REJECTED)
    assert first_rejected(tmp_path) == ""
    write_table(path, rows[:1], REJECTED)
    assert first_rejected(tmp_path) == "Rejected: a: is empty [file-empty]"
    write_table(path, rows, REJECTED)
    assert read_rejected(tmp_path).code.tolist() == ["file-empty", "refused"]
    assert first_rejected(tmp_path) == f"Rejected: a: is empty [file-empty] ({path} has the others)"


def test_read_table__other_columns_or_types_are_refused_whatever_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "rejected.parquet"
    write_table(path, [], GROUPS)
    with raises(ArtifactError, code="wrong-schema", naming="['video_id', 'group']"):
        read_table(path, REJECTED, columns=["id"])
    pq.write_table(pa.table({"id": [["a"]], "stage": ["x"], "reason": ["y"], "kind": ["z"], "retryable": [True]}), path)
    with raises(ArtifactError, code="wrong-schema", naming=path):
        read_table(path, REJECTED, columns=["id"])
    path.write_bytes(b"PAR1")
    with raises(ArtifactError, code="not-parquet", naming=path):
        read_table(path, REJECTED)


def test_read_table__a_column_of_an_earlier_name_is_read_under_its_own(tmp_path: Path) -> None:
    path = tmp_path / "frames.parquet"
    row = {"clip_id": "c", "video_id": "v", "key": "v_00000", "shard": "shards/0.tar", "num_frames": 8, "num_repeated": 0,
           "decoder": "pyav", "quality_flags": ["black"], "hashes": [2**63]}
    write_table(path, [row], FRAMES)
    now = read_table(path, FRAMES)
    table = pq.read_table(path)
    pq.write_table(table.rename_columns(["marks" if name == "quality_flags" else name for name in table.column_names]), path)
    assert read_table(path, FRAMES).to_json() == now.to_json()
    assert read_table(path, FRAMES, columns=["quality_flags"])["quality_flags"].tolist() == [["black"]]


def test_is_among__missing_texts_are_among_nothing(tmp_path: Path) -> None:
    rows = [{"video_id": "a", "group": "x"}, {"video_id": "b", "group": None}, {"video_id": "a", "group": "y"}]
    write_table(tmp_path / "groups.parquet", rows, GROUPS)
    table = read_table(tmp_path / "groups.parquet", GROUPS)
    assert is_among(table["video_id"], {"a", "c"}).tolist() == [True, False, True]
    assert is_among(table["group"], table["group"]).tolist() == [True, False, True]
    assert is_among(table["video_id"], table["video_id"].iloc[:0]).tolist() == [False] * 3
    assert is_among(table["group"], {"x"}).tolist() == [True, False, False]
    assert is_among(table["group"], ()).tolist() == [False, False, False]
    assert is_among(table["group"][:0], {"x"}).tolist() == []
