"""Reads rows of files that people write (CSV, Parquet, JSON lines) as text by column, each with its line."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from vidseek_media.errors import ConfigError, InputRejected, foreign
from vidseek_media.guards import is_broken

if TYPE_CHECKING:
    import pyarrow as pa

csv.field_size_limit(2**24)

Row: TypeAlias = "tuple[int, dict[str, str] | InputRejected]"
"""Line from 1 (of a Parquet file the number of the row), and its cells by column, or why it has none."""

Columns: TypeAlias = Callable[[list[str], Path], list[str]]
"""Names for the columns of a header, in its order. Raises ConfigError where one is missing."""


def rows_of_csv(path: Path, columns: Columns, texts: Collection[str] = ()) -> Iterator[Row]:
    """Yield the rows of a CSV file in UTF-8 with a header; BOM, Windows line ends and blank lines are accepted.

    Args:
        path: The file.
        columns: Checks and renames the header.
        texts: Columns whose cells must be usable.

    Raises:
        ConfigError: the file is empty, not UTF-8 or not CSV, or `columns` refuses its header; the message names the line.
    """
    reader = csv.reader(io.StringIO(text_of(path), newline=""), strict=True)
    try:
        names = columns(next(reader, []), path)
        for cells in reader:
            if not (joined := "".join(cells)).strip():
                continue
            if len(cells) != len(names):
                yield reader.line_num, InputRejected(
                    f"has {len(cells)} cells, the header has {len(names)}", code="row-malformed",
                )
            else:
                pairs = zip(names, cells, strict=True)
                yield reader.line_num, _row(pairs, texts) if is_broken(joined) else dict(pairs)
    except csv.Error as error:
        raise ConfigError(
            f"{path}, line {reader.line_num}: not readable as CSV: {error}", code="rows-unreadable",
            remedy="Write it with commas, and texts that hold a comma or a quote in double quotes",
        ) from error


def rows_of_parquet(path: Path, columns: Columns, texts: Collection[str] = ()) -> Iterator[Row]:
    """Yield the rows of a Parquet file.

    A cell that Python cannot hold (a time after the year 9999, bytes that are not UTF-8) refuses its row alone.

    Args:
        path: The file.
        columns: Checks and renames the columns.
        texts: Columns whose cells must be texts, numbers or times; another value refuses the row.

    Raises:
        ConfigError: the file is not Parquet, or `columns` refuses its columns.
    """
    import pyarrow as pa  # the service opens sources too, and need not wait for it

    from vidseek_media.files.parquet_files import read_bounded

    try:
        table = read_bounded(path)
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"{path} cannot be read as Parquet: {error}", code="rows-unreadable", remedy="Write it again, or remove it",
        ) from error
    names = columns(table.column_names, path)
    number = 0
    for batch in table.rename_columns(names).to_batches(max_chunksize=10_000):
        columns_of_batch = [_cells(column) for column in batch.columns]
        for cells in zip(*columns_of_batch, strict=True):
            number += 1
            yield number, _row(zip(names, cells, strict=True), texts)


class _Unreadable:
    """Stands for a cell of Parquet that has no value in Python."""


def _cells(column: pa.Array[Any]) -> list[object]:
    """The values of `column`, one by one where one of them cannot be read."""
    try:
        return list(column.to_pylist())
    except (ValueError, OverflowError, TypeError):  # of Arrow too; a text that is no UTF-8 is a ValueError
        return [_value_of(cell) for cell in column]


def _value_of(cell: pa.Scalar[Any]) -> object:
    try:
        return cell.as_py()
    except (ValueError, OverflowError, TypeError):
        return _Unreadable()


def rows_of_jsonl(path: Path, columns: Columns, texts: Collection[str] = ()) -> Iterator[Row]:
    """Yield the rows of a file with one JSON object on each line.

    Args:
        path: The file.
        columns: Checks and renames the keys.
        texts: Keys whose values must be texts, numbers or times; another value refuses the row, and so do
            bytes that are not UTF-8.

    Raises:
        ConfigError: the file is empty, or its first line is not UTF-8.
    """
    # Only \n ends a line: JSON may hold U+2028, U+2029 and U+0085 as they are (https://jsonlines.org).
    for number, line in enumerate(text_of(path, of_lines=True).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, InputRejected(f"is no JSON: {error}", code="row-malformed")
            continue
        if not isinstance(row, dict):
            yield number, InputRejected("is no JSON object with the columns as keys", code="row-malformed")
            continue
        yield number, _row(zip(columns(list(row), path), row.values(), strict=True), texts)


def text_of(path: Path, *, of_lines: bool = False) -> str:
    """Return the content of a UTF-8 text file, without its BOM. Halves of characters stay in it as lone surrogates.

    Args:
        path: The file.
        of_lines: Whether each line is read alone: bytes after the first line that are not UTF-8 become lone surrogates too.

    Raises:
        ConfigError: the file cannot be read, is empty, or is not UTF-8.
    """
    with foreign(ConfigError, f"{path} cannot be read", code="rows-unreadable", remedy="Check the file and its rights"):
        content = path.read_bytes()
    if not content.strip():
        raise ConfigError(
            f"{path} is empty, wanted a line with the names of its columns",
            code="rows-unreadable", remedy="Write rows into it, or remove it"
        )
    try:
        if of_lines:
            content.partition(b"\n")[0].decode("utf-8-sig", "surrogatepass")
        text = content.decode("utf-8-sig", "surrogateescape" if of_lines else "surrogatepass")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"{path}, line {line}: is not UTF-8: byte {error.start} is 0x{content[error.start]:02x}", code="rows-not-text",
            remedy="Save it as UTF-8 (in a spreadsheet: CSV UTF-8)",
        ) from error
    first = text.partition("\n")[0]
    if "\0" in first and (not of_lines or 4 * first.count("\0") > len(first)):
        raise ConfigError(
            f"{path} is no text: its first line holds null bytes", code="rows-not-text", remedy="Save it as UTF-8 CSV",
        )
    return text


def _row(cells: Iterable[tuple[str, object]], texts: Collection[str]) -> dict[str, str] | InputRejected:
    """Return the cells as the text that a CSV would hold."""
    row: dict[str, str] = {}
    for name, value in cells:
        if isinstance(value, str) and name not in texts:
            row[name] = value
        elif value is None or (isinstance(value, float) and math.isnan(value)):
            row[name] = ""
        elif isinstance(value, datetime | date):
            row[name] = value.isoformat()
        elif isinstance(value, _Unreadable):
            if name in texts:
                return InputRejected(f"has something in the column {name} that cannot be read", code="row-malformed")
        elif name in texts and (isinstance(value, bool) or not isinstance(value, str | int | float)):
            return InputRejected(f"has a {type(value).__name__} in the column {name}, wanted text", code="row-malformed")
        elif name in texts and isinstance(value, str) and is_broken(value):
            return InputRejected(f"has something in the column {name} that is no text", code="row-malformed")
        elif isinstance(value, list | dict):
            row[name] = json.dumps(value, ensure_ascii=False, default=str)  # a list of values of a field
        else:
            row[name] = str(value)
    return row


READERS: Mapping[str, Callable[[Path, Columns, Collection[str]], Iterator[Row]]] = {
    ".csv": rows_of_csv, ".parquet": rows_of_parquet, ".jsonl": rows_of_jsonl,
}
"""The readers by the suffix of the file."""
