"""What the rows of manifests and files of captions say of fields: checked, and written to a table that a publish reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vidseek_media.errors import ArtifactError, InputRejected
from vidseek_media.fields.declared import (
    AUTO_TAGS,
    TAG_LIST,
    TAGS,
    DeclaredFields,
    FieldValue,
    field_name_of,
    fields_of,
)
from vidseek_media.fields.statement import Statement
from vidseek_media.files.json_files import read_json, write_json
from vidseek_media.records import Rejection
from vidseek_media.tables import FIELDS, REJECTED, read_columns, write_table
from vidseek_media.text.sidecars import SidecarCaption

STAGE = "fields"
TABLE, SUMMARY = "fields.parquet", "fields.json"
MAX_EXAMPLE = 40
"""Characters of a cell that shows what an undeclared column holds."""


@dataclass(frozen=True)
class UndeclaredColumn:
    """A column that no field is declared for."""

    file: str
    column: str
    num_cells: int
    """Cells that hold something."""
    example: str
    """The first of them, shortened."""

    def __str__(self) -> str:
        return f"{self.file}: {self.column} ({self.num_cells} cells, the first {self.example!r})"


@dataclass(frozen=True)
class FieldTable:
    """The declared fields of an archive, and what is stated of them."""

    declared: DeclaredFields = field(default_factory=dict)
    statements: tuple[Statement, ...] = ()
    undeclared: tuple[UndeclaredColumn, ...] = ()
    rejections: tuple[Rejection, ...] = ()
    """Of single values; their videos are indexed without them."""


def collect_fields(rows: Iterable[tuple[str, SidecarCaption]], declared: DeclaredFields) -> FieldTable:
    """Return what rows state of the declared fields, and which of their columns are undeclared.

    A value of the wrong type is a rejection by itself. Of a whole video, the first row that states a field counts; lists are
    joined.

    Args:
        rows: Rows with the video_ids that they are of.
        declared: The fields.
    """
    statements: list[Statement] = []
    rejections: list[Rejection] = []
    unknown: dict[tuple[str, str], UndeclaredColumn] = {}
    first: dict[tuple[str, str], tuple[tuple[FieldValue, ...], str]] = {}
    for video_id, row in rows:
        seen: set[str] = set()
        for column, cell in row.others.items():
            name = field_name_of(column)
            kind = declared.get(name)
            if kind is None:
                _count(unknown, row.origin, column, cell)
                continue
            try:
                if name in seen:
                    raise InputRejected(f"{cell!r} stands in a second column of that name", code="field-twice")
                seen.add(name)
                values = kind.values_of(cell)
                said = Statement(video_id, name, values, row.start_ms, row.end_ms, row.clip_index)
                if values and (kind.many or not said.is_of_video or _is_first(first, said, row.place)):
                    statements.append(said)
            except InputRejected as error:
                rejections.append(Rejection(
                    row.place, STAGE, f"{column}: {error.message}; the video is indexed without it", code=error.code
                ))
    return FieldTable(declared, tuple(statements), tuple(unknown.values()), tuple(rejections))


def names_field(row: SidecarCaption, declared: DeclaredFields) -> bool:
    """Return whether a row has a value of a declared field.

    Args:
        row: The row.
        declared: The fields.
    """
    return any(cell.strip() and field_name_of(column) in declared for column, cell in row.others.items())


def write_fields(folder: Path, table: FieldTable) -> None:
    """Write the fields of an archive: `fields.parquet`, `fields.json` and `rejected.parquet`.

    Args:
        folder: The folder to write.
        table: The fields.
    """
    in_order = sorted(table.statements, key=lambda each: each.video_id)
    write_table(folder / TABLE, [_row_of(each) for each in in_order], FIELDS)
    write_table(folder / "rejected.parquet", [dataclasses.asdict(each) for each in table.rejections], REJECTED)
    write_json(folder / SUMMARY, {
        "fields": {name: kind.declaration for name, kind in table.declared.items()},
        "undeclared": [dataclasses.asdict(each) for each in table.undeclared],
    })


class StoredFields:
    """What `write_fields` wrote, without its rejections. The values of a video are parsed when they are asked for.

    Args:
        declared: The fields.
        undeclared: Columns that no field is declared for.
        rows: Of the schema FIELDS, those of a video one after the other.
    """

    def __init__(
        self, declared: DeclaredFields | None = None, undeclared: Sequence[UndeclaredColumn] = (),
        rows: pa.Table | None = None,
    ) -> None:
        self.declared: DeclaredFields = declared or {}
        self.undeclared = tuple(undeclared)
        self._rows = FIELDS.empty_table() if rows is None else rows.combine_chunks()
        runs = pc.run_end_encode(self._rows["video_id"].combine_chunks())
        ends = runs.run_ends.to_pylist()
        self._begins = dict(zip(runs.values.to_pylist(), pairwise([0, *ends]), strict=True))

    def also_declaring(self, declared: DeclaredFields) -> StoredFields:
        """Return the same with further declared fields."""
        return StoredFields({**self.declared, **declared}, self.undeclared, self._rows)

    def of(self, video_id: str) -> list[Statement]:
        """Return the statements of a video, in their order.

        Raises:
            ArtifactError: a row is no value of a declared field.
        """
        begin, end = self._begins.get(video_id, (0, 0))
        try:
            return [_statement_of(row, self.declared) for row in self._rows.slice(begin, end - begin).to_pylist()]
        except (ValueError, KeyError, TypeError, InputRejected) as error:
            raise ArtifactError(
                f"{TABLE} holds a row of {video_id} that is no value of a field: {error}", code="fields-broken",
                remedy="Run `dvc repro`",
            ) from error

    def source(self, video_id: str) -> list[str]:
        """Return texts that differ if the statements of a video do; none for a video without statements."""
        begin, end = self._begins.get(video_id, (0, 0))
        return self._texts[begin:end] if end else []

    @cached_property
    def _texts(self) -> list[str]:
        numbers = [self._rows[name].cast(pa.string()) for name in ("start_ms", "end_ms", "clip_index", "removed")]
        values = pc.binary_join(self._rows["values"], "\n")
        joined = pc.binary_join_element_wise(*numbers, self._rows["field"], values, "\n", null_handling="replace")
        texts: list[str] = joined.to_pylist()
        return texts


def read_fields(folder: Path) -> StoredFields:
    """Read what `write_fields` wrote; none for a folder that is not there, as in an archive of an earlier version.

    Args:
        folder: The folder.

    Raises:
        ArtifactError: a file of it is missing or broken.
    """
    if not folder.is_dir():
        return StoredFields()
    path = folder / SUMMARY
    try:
        content = read_json(path)
        declared = fields_of(content["fields"])
        undeclared = [UndeclaredColumn(**each) for each in content["undeclared"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(
            f"{path} is missing or broken: {error}", code="fields-broken", remedy="Run `dvc repro`",
        ) from error
    return StoredFields(declared, undeclared, read_columns(folder / TABLE, FIELDS))


def values_of_clip(
    statements: Sequence[Statement], declared: DeclaredFields, start_ms: int, end_ms: int, index: int,
    *, auto_tags: Sequence[str] = (),
) -> dict[str, FieldValue | list[FieldValue]]:
    """Return the payload fields of a clip.

    Of a single value, the statement counts that speaks of most of the clip, of a span before one of the whole video; lists
    are joined, sorted, in the order in which they were stated and removed.

    Args:
        statements: Of its video, in their order.
        declared: The fields.
        start_ms: Start of the clip.
        end_ms: End of the clip.
        index: Number of the clip in its video.
        auto_tags: What prompts gave the clip. Every statement comes after them, so that a removal by people wins.
    """
    best: dict[str, tuple[tuple[bool, int], Statement]] = {}
    lists: dict[str, dict[FieldValue, None]] = {TAGS: dict.fromkeys(auto_tags)} if auto_tags else {}
    unstated = set(auto_tags)
    for each in statements:
        shared = each.shared_ms(start_ms, end_ms, index)
        if not shared or each.field not in declared:
            continue
        if declared[each.field].many:
            joined = lists.setdefault(each.field, {})
            unstated.difference_update(map(str, each.values) if each.field == TAGS else ())
            for value in each.values:
                joined.pop(value, None)
                if not each.removed:
                    joined[value] = None
        elif each.field not in best or (not each.is_of_video, shared) > best[each.field][0]:
            best[each.field] = ((not each.is_of_video, shared), each)
    found: dict[str, FieldValue | list[FieldValue]] = {
        name: declared[name].payload_of(said.values) for name, (_, said) in best.items()
    }
    found |= {name: sorted(joined, key=lambda value: (str(type(value)), value)) for name, joined in lists.items() if joined}
    if unstated:
        found[AUTO_TAGS] = sorted(unstated)
    return dict(sorted(found.items()))


def with_tags(table: FieldTable, tags: Iterable[Statement]) -> FieldTable:
    """Return a table with tags of people after all that it states; the field `tags` is declared where there are any.

    Args:
        table: The table.
        tags: Statements of the field `tags`, in their order.
    """
    said = tuple(tags)
    if not said:
        return table
    declared = {**table.declared, TAGS: TAG_LIST}
    return dataclasses.replace(table, declared=declared, statements=(*table.statements, *said))


def _is_first(
    first: dict[tuple[str, str], tuple[tuple[FieldValue, ...], str]], said: Statement, place: str
) -> bool:
    """Return whether a statement of a whole video is the first of its field.

    Raises:
        InputRejected: an earlier row states another value.
    """
    values, where = first.setdefault((said.video_id, said.field), (said.values, place))
    if values != said.values:
        raise InputRejected(f"{said.values[0]!r}, where {where} says {values[0]!r}, which counts", code="field-twice")
    return where == place


def _count(unknown: dict[tuple[str, str], UndeclaredColumn], file: str, column: str, cell: str) -> None:
    known = unknown.get((file, column), UndeclaredColumn(file, column, 0, ""))
    if text := " ".join(cell.split()):
        known = dataclasses.replace(
            known, num_cells=known.num_cells + 1, example=known.example or _plain(text)[:MAX_EXAMPLE]
        )
    unknown[file, column] = known


def _plain(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _row_of(said: Statement) -> dict[str, object]:
    return {**dataclasses.asdict(said), "values": [str(each) for each in said.values]}


def _statement_of(row: Mapping[str, Any], declared: DeclaredFields) -> Statement:
    kind = declared[row["field"]]
    values = tuple(kind.parse(text) for text in row["values"])
    if not values:
        raise ValueError("it has no value")
    return Statement(
        row["video_id"], row["field"], values, row["start_ms"], row["end_ms"], row["clip_index"], bool(row["removed"])
    )


def undeclared_told(undeclared: Sequence[UndeclaredColumn], *, most: int = 5) -> Iterator[str]:
    """Yield what a stage says of undeclared columns that hold something; nothing where there is none.

    Args:
        undeclared: The columns.
        most: Columns that are named.
    """
    held = [each for each in undeclared if each.num_cells]
    if held:
        rest = f" and {len(held) - most} more" if len(held) > most else ""
        names = ", ".join(field_name_of(each.column) or each.column for each in held[:most])
        what = "1 column is no field" if len(held) == 1 else f"{len(held)} columns are no fields"
        yield (
            f"{what}: {'; '.join(map(str, held[:most]))}{rest}. To filter by them, declare "
            f"{names} under `fields` in params.yaml"
        )
