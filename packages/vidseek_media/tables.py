"""The Parquet tables between stages: their schemas; written whole or not at all, with equal bytes for equal rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vidseek_media.errors import ArtifactError
from vidseek_media.files.parquet_files import read_bounded, write_parquet
from vidseek_media.names import shown
from vidseek_media.records import UNNAMED

_text = pa.string()
_texts = pa.list_(pa.string())
_NEWER = {b"newer": b"1"}
"""Of a column that tables of an earlier version lack: they are read with nulls there."""
_FORMERLY = b"formerly"
"""Of a column that has another name in tables of an earlier version: it is read under both."""

VIDEOS = pa.schema([
    ("video_id", _text), ("uris", _texts), ("source_id", _text), ("duration_ms", pa.int64()), ("fps", pa.float64()),
    ("width", pa.int32()), ("height", pa.int32()), ("codec", _text), ("title", _text), ("channel", _text),
    ("category", _text), ("published_at", _text), ("thumbnail", _text), ("clip_of", _text),
    ("views", pa.int64()),
])
"""Key: video_id. `clip_of`: the longer video that this file is a clip of by its name, or empty. `views`: null where the
source does not say."""

SIDECAR = pa.schema([
    ("video_id", _text), ("clip_index", pa.int32()), ("start_ms", pa.int64()), ("end_ms", pa.int64()),
    ("text", _text), ("split", _text), ("gallery", _text), ("contrast", _text), ("axis", _text),
    pa.field("writer", _text, metadata=_NEWER),
])
"""Captions that came with the source, with times where it gives them: null times and null clip_index mean the whole
video. `split` and `gallery` are the source's own statements, or empty. `contrast` is a caption that is false of this span
and differs from `text` in one fact, whose kind is `axis` (`left-right`, say); both empty where the source gives none.
`writer`: person, where somebody wrote it in this archive (`written_captions`); else null."""

TRANSCRIPTS = pa.schema([("video_id", _text), ("start_ms", pa.int64()), ("end_ms", pa.int64()), ("lines", _texts)])
"""What is said in videos that have a transcript, cue by cue in order of time."""

SEGMENTS = pa.schema([
    ("video_id", _text), ("start_ms", pa.int64()), ("end_ms", pa.int64()), ("text", _text), ("language", _text),
    ("source", _text), ("confidence", pa.float64()),
])
"""What is said or written in a video; a row is a `vidseek_media.text.segments.Segment`, which says what the columns hold.
The stages `subtitles`, `speech` and `ocr` each write one, in order of video_id and time."""

CLIPS = pa.schema([
    ("clip_id", _text), ("video_id", _text), ("index", pa.int32()), ("start_ms", pa.int64()), ("end_ms", pa.int64()),
    ("cut", _texts),
])
"""Key: clip_id."""

FRAMES = pa.schema([
    ("clip_id", _text), ("video_id", _text), ("key", _text), ("shard", _text), ("num_frames", pa.int32()),
    ("num_repeated", pa.int32()), ("decoder", _text),
    pa.field("quality_flags", _texts, metadata={_FORMERLY: b"marks"}),
    ("hashes", pa.list_(pa.uint64())), pa.field("frames_digest", _text, metadata=_NEWER),
    pa.field("offset", pa.int64(), metadata=_NEWER), pa.field("num_bytes", pa.int64(), metadata=_NEWER),
])
"""Key: clip_id. `shard` is the tar's file name inside the frames folder, in which the clip's members are the `num_bytes`
bytes from `offset` on; what else lies there counts no more. `num_repeated`: frames that were missing or
damaged, where the last good one stands in. `decoder`: pyav or decord. `quality_flags`: of black, flat, frozen,
interlaced. `hashes`: perceptual ones of the frames. `frames_digest`: 32 hex digits of the SHA-256 of the frames' JPEGs."""

CAPTIONS = pa.schema([
    ("video_id", _text), ("clip_id", _text), ("text", _text), ("writer", _text), ("cost_usd", pa.float64()),
    ("split", _text), ("gallery", _text), ("contrast", _text), ("axis", _text),
    pa.field("model", _text, metadata=_NEWER),
])
"""A clip may have several. A null clip_id is a caption of the whole video, which makes no pair. `writer`: file, person,
transcript, title, or of a language model `<provider>/<model> <hash of the prompt> <detail>`. `model`: that answered, by the
provider's own word, which an alias in `writer` does not say; empty where nobody asked one, or it did not say."""

PAIRS = pa.schema([
    ("clip_id", _text), ("video_id", _text), ("caption", _text), ("split", _text), ("gallery", _text),
    ("contrast", _text), ("axis", _text), pa.field("frames_digest", _text, metadata=_NEWER),
    pa.field("writer", _text, metadata=_NEWER),
])
"""`split`: train, validation or test; `gallery`: what is ranked together, `default` where the source named none.
`frames_digest`: of the clip's frames, as FRAMES has it. Training depends on this table alone, so it changes with them.
`writer`: as CAPTIONS has it, or judged: the query of a hit that somebody confirmed. A contrast of the axis judged is a query
that somebody said the clip is no hit of."""

GROUPS = pa.schema([("video_id", _text), ("group", _text)])
"""The videos of pairs; those of one group (near-duplicates, clips of one longer video) are on one side of the split."""

BOTH_SIDES = pa.schema([
    ("clip_id", _text), ("caption", _text), ("split", _text), ("same_caption", pa.bool_()), ("same_frames", pa.bool_()),
])
"""Pairs of validation and test whose caption is also one of a training pair, or whose clip shows what a training clip
shows. Key: clip_id and caption."""

FIELDS = pa.schema([
    ("video_id", _text), ("start_ms", pa.int64()), ("end_ms", pa.int64()), ("clip_index", pa.int32()), ("field", _text),
    ("values", _texts), ("removed", pa.bool_()),
])
"""Values of fields that a user declared, in the order in which they count; a row is a
`vidseek_media.fields.statement.Statement`, which says what the columns hold."""

FORGOTTEN = pa.schema([
    ("video_id", _text), ("uris", _texts), ("addresses", _texts), ("title", _text), ("forgotten_at", _text),
])
"""What is kept out of the archive. Key: video_id. `addresses`: where downloaded files came from."""

FEEDBACK = pa.schema([
    ("query", _text), ("clip_id", _text), ("relevant", pa.bool_()), ("encoder_version", _text), ("said_at", _text),
])
"""What people said of hits. Key: query and clip_id. What was said last counts."""

NOT_DUPLICATES = pa.schema([("video_id", _text), ("other_id", _text)])
"""Key: both, the lesser id first. Two videos that somebody has looked at, and found to show different things."""

REJECTED = pa.schema(
    [("id", _text), ("stage", _text), ("reason", _text), ("kind", _text), ("retryable", pa.bool_()),
     pa.field("code", _text, metadata=_NEWER)]
)
"""`kind`: of `records.REJECTED_KINDS`. `retryable`: another run may mend it with nothing changed here. `code`: the kind of
fault, of docs/errors.md; `read_rejected` fills in what an earlier version did not write."""


def write_table(
    path: Path, rows: pd.DataFrame | pa.Table | list[dict[str, object]], schema: pa.Schema, *, sync: bool = False
) -> None:
    """Write a table as Parquet, whole or not at all.

    Args:
        path: The file to write; its parent folders are created.
        rows: The rows, with exactly the columns of `schema`.
        schema: One of the schemas of this module.
        sync: Whether to wait until the file is on the disk, so that it survives a power loss.

    Raises:
        ArtifactError: a row does not fit the schema.
        OSError: the disk cannot hold it.

    Examples:
        >>> write_table(Path("groups.parquet"), [{"video_id": "ab12", "group": "ab12"}], GROUPS)
        >>> read_table(Path("groups.parquet"), GROUPS)["group"].tolist()
        ['ab12']
    """
    try:
        if isinstance(rows, pd.DataFrame):
            table = pa.Table.from_pandas(rows, schema=schema, preserve_index=False)
        elif isinstance(rows, pa.Table):
            table = rows.cast(schema)
        else:
            table = pa.Table.from_pylist(rows, schema=schema)
    except (pa.ArrowException, KeyError) as error:
        raise ArtifactError(f"rows for {path} do not fit its schema: {error}", code="wrong-schema") from error
    write_parquet(path, table.replace_schema_metadata(None), sync=sync)


def read_table(path: Path, schema: pa.Schema, *, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read the table at `path` and check that it has the columns of `schema`.

    A column that a later version added may be missing from the file; it is then read as nulls. A column that was renamed may
    have its earlier name.

    Args:
        path: A Parquet file, as `write_table` writes it.
        schema: One of the schemas of this module.
        columns: Names of the columns to read; None reads all.

    Raises:
        ArtifactError: the file is missing, broken, or has other columns or types.

    Examples:
        >>> write_table(Path("groups.parquet"), [{"video_id": "ab12", "group": "cd34"}], GROUPS)
        >>> read_table(Path("groups.parquet"), GROUPS, columns=["group"]).columns.tolist()
        ['group']
    """
    table = read_columns(path, schema, columns=columns)
    try:
        return table.to_pandas()
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        raise _of_other_types(path, error) from error


def read_columns(path: Path, schema: pa.Schema, *, columns: Sequence[str] | None = None) -> pa.Table:
    """Read the table at `path` as Arrow columns: `read_table` for what has too many rows to be looked at one by one.

    Args:
        path: A Parquet file, as `write_table` writes it.
        schema: One of the schemas of this module.
        columns: Names of the columns to read; None reads all.

    Raises:
        ArtifactError: the file is missing, broken, or has other columns or types.
    """
    remedy = "Run `dvc repro` to make it again"
    try:
        with pq.ParquetFile(path) as file:
            stored = file.schema_arrow.names
        now = {former: name for name, former in _former_names(schema).items() if former in stored}
        names = [now.get(name, name) for name in stored]
        absent = [field.name for field in schema if field.metadata == _NEWER and field.name not in names]
        if names != [name for name in schema.names if name not in absent]:
            raise ArtifactError(
                f"{path} has columns {shown(stored)}, wanted {schema.names}", code="wrong-schema", remedy=remedy,
            )
        before = {name: former for former, name in now.items()}
        wanted = None if columns is None else [before.get(name, name) for name in columns if name not in absent]
        table = read_bounded(path, wanted)
        table = table.rename_columns([now.get(name, name) for name in table.schema.names])
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} is missing", code="file-absent", remedy=remedy) from error
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        raise ArtifactError(f"{path} cannot be read as Parquet: {error}", code="not-parquet", remedy=remedy) from error
    try:
        table = table.cast(pa.schema([schema.field(name) for name in table.schema.names]))
        for name in absent:
            if columns is None or name in columns:
                table = table.append_column(name, pa.nulls(table.num_rows, schema.field(name).type))
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        raise _of_other_types(path, error) from error
    return table


def _of_other_types(path: Path, error: Exception) -> ArtifactError:
    return ArtifactError(
        f"{path} has other column types: {error}", code="wrong-schema", remedy="Run `dvc repro` to make it again",
    )


def is_among(column: pd.Series[str], values: Iterable[str]) -> NDArray[np.bool_]:
    """Return which texts of a column are among `values`; `Series.isin` looks each of many up one by one."""
    wanted = values if isinstance(values, pd.Series) else list(values)  # a column is slow to go through text by text
    if not len(wanted):
        return np.zeros(len(column), np.bool_)
    found = pc.is_in(pa.array(column, pa.string()), value_set=pa.array(wanted, pa.string()), skip_nulls=True)
    return np.asarray(found, np.bool_)


def read_rejected(folder: Path) -> pd.DataFrame:
    """Read the rejections of a stage, of the schema REJECTED. Those of an earlier version have the code `UNNAMED`.

    Args:
        folder: Output of the stage.

    Raises:
        ArtifactError: `rejected.parquet` is missing, or broken.
    """
    return read_table(folder / "rejected.parquet", REJECTED).fillna({"code": UNNAMED})


def first_rejected(folder: Path) -> str:
    """Describe the first rejection of a stage in `folder`, its reason, and where the others are; empty if there is none.

    Raises:
        ArtifactError: `rejected.parquet` is missing, or broken.
    """
    path = folder / "rejected.parquet"
    rows = read_rejected(folder)
    if rows.empty:
        return ""
    first = rows.iloc[0]
    rest = f" ({path} has the others)" if len(rows) > 1 else ""
    return f"Rejected: {first['id']}: {first['reason']} [{first['code']}]{rest}"


def _former_names(schema: pa.Schema) -> dict[str, str]:
    """Return the earlier name of each column that was renamed, by its name now."""
    return {field.name: field.metadata[_FORMERLY].decode() for field in schema if _FORMERLY in (field.metadata or {})}
