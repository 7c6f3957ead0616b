from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tests.raising import raises
from vidseek_media.errors import ArtifactError
from vidseek_media.fields.declared import fields_of
from vidseek_media.fields.statement import Statement
from vidseek_media.fields.statements import (
    FieldTable,
    UndeclaredColumn,
    collect_fields,
    read_fields,
    undeclared_told,
    values_of_clip,
    write_fields,
)
from vidseek_media.fields.tags import TagDecision, append_tag
from vidseek_media.forgotten import Forgotten, ForgottenVideo
from vidseek_media.ids import video_id_of
from vidseek_media.sources.ingest import FieldsOut, IngestReport, ingest
from vidseek_media.sources.opening import open_source
from vidseek_media.tables import REJECTED, read_table
from vidseek_media.text.sidecars import SidecarCaption

DECLARED = fields_of({"camera": "keyword", "take": "integer", "shot_at": "datetime", "tags": ["keyword"]})
A, B = "a" * 32, "b" * 32


def row(line: int, span: tuple[int, int] | None = None, **others: str) -> SidecarCaption:
    start_ms, end_ms = span or (None, None)
    return SidecarCaption(line, "x.mp4", "", start_ms, end_ms, others=others, origin="list.csv")


def test_collect__values_of_whole_videos_and_of_spans() -> None:
    found = collect_fields([
        (A, row(2, camera="A", take="7", tags="")), (A, row(3, (0, 4000), camera="B", tags="x; y")),
        (B, row(4, **{"Shot At": "2026-03-01", "crew": "Ann"})), (B, row(5, crew="")),
    ], DECLARED)
    assert found.statements == (
        Statement(A, "camera", ("A",)), Statement(A, "take", (7,)), Statement(A, "camera", ("B",), 0, 4000),
        Statement(A, "tags", ("x", "y"), 0, 4000), Statement(B, "shot_at", ("2026-03-01T00:00:00Z",)),
    )
    assert found.rejections == () and found.undeclared == (UndeclaredColumn("list.csv", "crew", 1, "Ann"),)
    assert list(undeclared_told(found.undeclared)) == [
        "1 column is no field: list.csv: crew (1 cells, the first 'Ann'). To filter by them, declare crew under `fields` "
        "in params.yaml"
    ]
    assert list(undeclared_told([UndeclaredColumn("list.csv", "crew", 0, "")])) == []


def test_collect__each_bad_cell_is_one_rejection_and_the_rest_stays() -> None:
    found = collect_fields([
        (A, row(2, camera="A", take="seven", shot_at="noon")), (A, row(3, camera="B")), (B, row(4, take="7", Take="8")),
    ], DECLARED)
    assert found.statements == (Statement(A, "camera", ("A",)), Statement(B, "take", (7,)))
    assert [(each.id, each.kind, each.code) for each in found.rejections] == [
        ("list.csv:2", "field", "bad-field-value"), ("list.csv:2", "field", "bad-field-value"),
        ("list.csv:3", "field", "field-twice"), ("list.csv:4", "field", "field-twice"),
    ]
    assert found.rejections[0].reason == (
        "take: 'seven', wanted a whole number of up to 2^53; the video is indexed without it"
    )
    assert "list.csv:2 says 'A', which counts" in found.rejections[2].reason


def test_values_of_clip__the_nearest_statement_counts_and_lists_are_joined() -> None:
    said = [
        Statement(A, "camera", ("A",)), Statement(A, "camera", ("B",), 0, 4000), Statement(A, "camera", ("C",), 3000, 9000),
        Statement(A, "tags", ("x",)), Statement(A, "tags", ("y",), 0, 4000), Statement(A, "tags", ("z",), clip_index=1),
        Statement(A, "tags", ("x",), 8000, 9000, removed=True), Statement(A, "crew", ("Ann",)),
    ]
    assert values_of_clip(said, DECLARED, 0, 3000, 0) == {"camera": "B", "tags": ["x", "y"]}
    assert values_of_clip(said, DECLARED, 2000, 5000, 1) == {"camera": "B", "tags": ["x", "y", "z"]}
    assert values_of_clip(said, DECLARED, 8000, 9000, 5) == {"camera": "C"}
    assert values_of_clip(said, DECLARED, 20_000, 23_000, 6) == {"camera": "A", "tags": ["x"]}


def test_table__is_read_as_it_was_written(tmp_path: Path) -> None:
    said = (
        Statement(B, "tags", ("x", "ü,;\n"), 5, 9), Statement(A, "take", (7,)), Statement(B, "tags", ("x",), removed=True),
        Statement(A, "camera", ("A",), clip_index=3),
    )
    write_fields(tmp_path / "fields", FieldTable(DECLARED, said, (UndeclaredColumn("list.csv", "crew", 1, "Ann"),)))
    found = read_fields(tmp_path / "fields")
    assert found.of(A) == [said[1], said[3]] and found.of("c" * 32) == [] == found.source("c" * 32)
    assert [each.removed for each in found.of(B)] == [False, True] and len({*found.source(A), *found.source(B)}) == 4
    assert found.declared == DECLARED and found.undeclared[0].column == "crew"
    assert read_fields(tmp_path / "none").declared == {}
    (tmp_path / "fields" / "fields.json").write_text('{"fields": {"camera": "word"}, "undeclared": []}')
    with raises(ArtifactError, code="fields-broken", naming="camera"):
        read_fields(tmp_path / "fields")


@pytest.fixture
def listed(tmp_path: Path, make_video: Callable[..., Path]) -> Path:
    make_video(tmp_path / "a.mp4", num_frames=20)
    make_video(tmp_path / "b.mp4", num_frames=30)
    return tmp_path


def run(source: Path, out: Path) -> IngestReport:
    return ingest(
        open_source(str(source), downloads=out / "downloads"), out=out / "ingest", ledger=out / "ledger", timeout_seconds=60,
        workers=1, fields=FieldsOut(DECLARED, out / "fields"),
    )


def test_ingest__writes_the_fields_of_a_manifest_and_indexes_videos_with_bad_cells(listed: Path, tmp_path: Path) -> None:
    (listed / "list.csv").write_text('uri,Camera,take,tags,weather\na.mp4,A,7,"x, y",rain\nb.mp4,B,many,,\n')
    report = run(listed / "list.csv", tmp_path / "out")
    assert (report.num_out, report.num_values, report.num_values_rejected, report.num_captions_in) == (2, 4, 1, 0)
    assert [(each.column, each.num_cells) for each in report.undeclared] == [("weather", 1)]
    rejected = read_table(tmp_path / "out" / "fields" / "rejected.parquet", REJECTED)
    assert rejected["id"].tolist() == ["list.csv:3"] and "'many'" in rejected["reason"][0]
    before = {path.name: path.read_bytes() for path in (tmp_path / "out" / "fields").iterdir()}
    assert run(listed / "list.csv", tmp_path / "out").undeclared == report.undeclared
    assert {path.name: path.read_bytes() for path in (tmp_path / "out" / "fields").iterdir()} == before


def test_ingest__takes_the_tags_that_people_set_and_forgotten_videos_keep_theirs(listed: Path, tmp_path: Path) -> None:
    kept, gone = video_id_of(listed / "a.mp4"), video_id_of(listed / "b.mp4")
    for name in (kept, gone):
        append_tag(tmp_path / "decisions", TagDecision.now(name, (0, 1000), "night", has_tag=True))
    found = {}
    for forgotten in (Forgotten((ForgottenVideo(gone, ("b.mp4",), (), "", ""),)), Forgotten()):
        ingest(
            listed, out=tmp_path / "ingest", ledger=tmp_path / "ledger", timeout_seconds=60, workers=1, forgotten=forgotten,
            fields=FieldsOut({}, tmp_path / "fields", tmp_path / "decisions"),
        )
        table = read_fields(tmp_path / "fields")
        assert table.declared == fields_of({"tags": ["keyword"]})
        found[len(forgotten.videos)] = (table.of(kept), table.of(gone))
    assert found[1] == ([Statement(kept, "tags", ("night",), 0, 1000)], []) and len(found[0][1]) == 1


def test_ingest__takes_lists_of_json_and_parquet(listed: Path, tmp_path: Path) -> None:
    rows = [{"uri": "a.mp4", "take": 7, "tags": ["x, 1", "y"]}, {"uri": "b.mp4", "take": None, "tags": None}]
    pd.DataFrame(rows).to_parquet(listed / "list.parquet")
    pd.DataFrame(rows).to_json(listed / "list.jsonl", orient="records", lines=True)
    for number, name in enumerate(("list.parquet", "list.jsonl")):
        assert run(listed / name, tmp_path / f"out{number}").num_values == 2
        table = read_fields(tmp_path / f"out{number}" / "fields")
        said = [each for video_id in table._begins for each in table.of(video_id)]
        assert {(each.field, each.values) for each in said} == {("take", (7,)), ("tags", ("x, 1", "y"))}


def test_ingest__a_row_of_captions_needs_a_caption_or_a_value_of_a_field(listed: Path, tmp_path: Path) -> None:
    (listed / "captions.csv").write_text("file,caption,camera,weather\na.mp4,A dog,A,\nb.mp4,,B,\na.mp4,,,rain\na.mp4,,,\n")
    report = run(listed, tmp_path / "out")
    assert (report.num_captions_in, report.num_captions_out, report.num_captions_rejected) == (3, 1, 2)
    assert report.num_values == 2
