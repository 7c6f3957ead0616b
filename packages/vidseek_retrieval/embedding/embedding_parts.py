"""The embeddings table: Parquet parts that `embeddings.json` lists, written whole or not at all, read as one matrix."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vidseek_media.errors import ArtifactError, GateFailed, foreign
from vidseek_media.files.json_files import read_json
from vidseek_media.files.parquet_files import read_bounded, write_parquet
from vidseek_media.names import plain_name, shown

PARTS_FOLDER = "parts"
SUMMARY_FILE = "embeddings.json"
UNIT_TOLERANCE = 1e-3
_REMEDY = "Run `dvc repro embed` to make it again"
_COLUMNS = ["clip_id", "values", "encoder_version", "variant", "digest"]
_TEXTS = ["clip_id", "encoder_version", "variant", "digest"]


class Embeddings(NamedTuple):
    """Rows of the embeddings table, in order of clip_id."""

    clip_ids: list[str]
    vectors: NDArray[np.float32]
    """Shape (n, dimension), unit rows."""
    encoder_version: str
    digests: Sequence[str] = ()
    """What each row was embedded from: a clip's `frames_digest`; empty in parts of an earlier version. The same digest,
    encoder_version and variant mean the same vector, to the bit."""


def embeddings_schema(dimension: int) -> pa.Schema:
    """Return the schema of a part. Key: clip_id."""
    return pa.schema(
        [
            ("clip_id", pa.string()),
            ("values", pa.list_(pa.float32(), dimension)),
            ("encoder_version", pa.string()),
            ("variant", pa.string()),
            ("digest", pa.string()),
        ]
    )


def write_part(
    path: Path, *, clip_ids: Sequence[str], vectors: NDArray[np.float32], encoder_version: str, variant: str,
    digests: Sequence[str] | None = None,
) -> None:
    """Write one part whole or not at all. Equal rows give equal bytes.

    Args:
        path: The file to write.
        clip_ids: n ids of clips, or of texts (`text_id_of`).
        vectors: float32 of shape (n, dimension), unit rows.
        encoder_version: 16 hex digits of the vector space.
        variant: Precision of the encoder: `fp32`, `fp16` or `int8`.
        digests: What each row was embedded from: a clip's `frames_digest`, or the id of a text. None: nobody knows, so it
            is embedded again when it is asked for.

    Raises:
        OSError: the disk cannot hold it.
    """
    num, dimension = vectors.shape
    if len(clip_ids) != num:
        raise ValueError(f"{len(clip_ids)} clip ids for {num} vectors")
    flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).reshape(-1))
    table = pa.table(
        [
            pa.array(list(clip_ids), type=pa.string()),
            pa.FixedSizeListArray.from_arrays(flat, dimension),
            pa.array([encoder_version] * num, type=pa.string()),
            pa.array([variant] * num, type=pa.string()),
            pa.array([""] * num if digests is None else list(digests), type=pa.string()),
        ],
        schema=embeddings_schema(dimension),
    )
    write_parquet(path, table, vectors="values")


def is_whole(part: Path) -> bool:
    """Whether a part exists and is complete: a disk may lose data after a process has written it."""
    try:
        pq.read_metadata(part)
    except (pa.ArrowException, OSError):
        return False
    return True


def remove_stale(folder: Path, *, keep: set[Path]) -> int:
    """Remove all parts but some, and the unfinished files of killed runs; return the number of removed parts.

    Args:
        folder: Folder of the parts.
        keep: Parts to keep.
    """
    if not folder.is_dir():
        return 0
    written = (path for path in folder.iterdir() if path.suffix == ".parquet" or path.name.startswith("."))
    stale = [path for path in written if path not in keep and not path.is_dir()]
    for path in stale:
        path.unlink(missing_ok=True)  # an actor that outlived its killed run may have just renamed what it wrote
    return sum(path.suffix == ".parquet" for path in stale)


def listed_parts(folder: Path) -> dict[str, int] | None:
    """Return the number of rows of each part that `embeddings.json` lists, by file name; None where it lists none.

    Args:
        folder: Folder of the parts: `parts` of clips, or `texts`.
    """
    try:
        content = read_json(folder.parent / SUMMARY_FILE)
        listed = content.get(folder.name) if isinstance(content, dict) else None
        if listed is None:
            return None
        return {plain_name(name, what="a part"): int(num) for name, num in listed.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def parts_of(folder: Path) -> list[Path]:
    """Return the parts of a folder, in order of their names: those that are listed, or all if there is no list.

    Args:
        folder: Folder of the parts: `parts` of clips, or `texts`.
    """
    listed = listed_parts(folder)
    return sorted(folder.glob("*.parquet")) if listed is None else [folder / name for name in sorted(listed)]


def read_parts(folder: Path, *, among: Collection[str] | None = None) -> Embeddings:
    """Read the parts in `folder` as one matrix: those that `embeddings.json` beside it lists, or all if there is no list.

    Args:
        folder: Folder of the parts.
        among: Ids of the clips that are kept in memory; None for all.

    Raises:
        ArtifactError: there is no part; one is missing or broken; they differ in encoder_version or dimension; a clip occurs
            twice.
        GateFailed: a vector is not finite, or not of length 1. The message names the clips.
    """
    paths = parts_of(folder)
    if not paths:
        raise ArtifactError(f"no embeddings in {folder}", code="no-embeddings", remedy="Run `dvc repro` to make them")
    tables: list[pa.Table] = []
    matrices: list[NDArray[np.float32]] = []
    wanted = None if among is None else frozenset(among)  # Arrow's is_in would hash all of them for each part
    for path in paths:
        table = _read_table(path)
        if wanted is not None:
            table = table.filter(pa.array([clip_id in wanted for clip_id in table["clip_id"].to_pylist()], pa.bool_()))
        matrices.append(_matrix_of(table, path))
        tables.append(table.select(_TEXTS))
    texts = pa.concat_tables(tables)
    versions = pc.unique(texts["encoder_version"]).to_pylist()
    if len(versions) > 1:
        raise ArtifactError(
            f"{folder} mixes the encoder_versions {', '.join(sorted(versions))}", code="versions-mixed", remedy=_REMEDY,
        )
    dimensions = {matrix.shape[1] for matrix in matrices}
    if len(dimensions) > 1:
        raise ArtifactError(f"{folder} mixes vectors of {sorted(dimensions)} values", code="versions-mixed", remedy=_REMEDY)
    order = pc.sort_indices(texts["clip_id"])  # the same, however the rows lie in parts
    clip_ids, digests = (texts[name].take(order).to_pylist() for name in ("clip_id", "digest"))
    require_each_once(folder, clip_ids)
    embeddings = Embeddings(
        clip_ids, _in_order(matrices, np.asarray(order, np.int64)), versions[0] if versions else "", digests,
    )
    _check_vectors(embeddings, folder)
    return embeddings


def require_each_once(folder: Path, ids: Sequence[str]) -> None:
    """Check that no id is there twice.

    Args:
        folder: Folder of the parts, for the message.
        ids: Of the rows of all its parts.

    Raises:
        ArtifactError: one is. The message names the first.
    """
    if len(set(ids)) != len(ids):
        twice = sorted(clip_id for clip_id, num in Counter(ids).items() if num > 1)[:5]
        raise ArtifactError(f"{folder} holds clips twice: {', '.join(twice)}", code="clips-repeated", remedy=_REMEDY)


def read_digests(part: Path) -> pa.Table:
    """Read all columns of a part but the vectors.

    Raises:
        ArtifactError: the part is missing or broken, or of an earlier version, which names no digests.
    """
    return _read_texts(part, _TEXTS, _COLUMNS)


def _read_texts(part: Path, columns: Sequence[str], *accepted: Sequence[str]) -> pa.Table:
    """Read columns of texts of a part that has all columns of one of `accepted`."""
    try:
        if (names := pq.read_schema(part).names) not in accepted:
            raise ArtifactError(
                f"{part} is no part: it has {shown(names)}, wanted {_COLUMNS}", code="wrong-schema", remedy=_REMEDY,
            )
        return read_bounded(part, columns)
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        raise ArtifactError(f"{part} cannot be read as Parquet: {error}", code="not-parquet", remedy=_REMEDY) from error


def read_ids(part: Path) -> tuple[list[str], list[str]]:
    """Return the ids of the rows of a part, in their order, and the encoder_versions in it.

    Raises:
        ArtifactError: the part is missing or broken.
    """
    rows = _read_texts(part, ["clip_id", "encoder_version"], _COLUMNS, _COLUMNS[:-1])
    ids: list[str] = rows["clip_id"].to_pylist()
    versions: list[str] = rows["encoder_version"].unique().to_pylist()
    return ids, versions


def read_vectors(part: Path, ids: Sequence[str]) -> NDArray[np.float32]:
    """Read the vectors of a part: float32 of shape (n, dimension), unit rows.

    Args:
        part: The part.
        ids: Of its rows, from `read_ids`.

    Raises:
        ArtifactError: the part is missing or broken.
        GateFailed: a vector is not finite, or not of length 1.
    """
    matrix = _matrix_of(_read_table(part), part)
    _check_vectors(Embeddings(list(ids), matrix, ""), part)
    return matrix


def read_rows(part: Path, rows: Sequence[int]) -> NDArray[np.float32]:
    """Read the vectors of some rows of a part: float32 of shape (n, dimension).

    Args:
        part: The part.
        rows: Numbers of the rows.

    Raises:
        ArtifactError: the part is missing or broken.
    """
    return _matrix_of(_read_table(part), part)[list(rows)]


def _in_order(matrices: list[NDArray[np.float32]], order: NDArray[np.int64]) -> NDArray[np.float32]:
    """Join matrices, with row `order[i]` of all of them at `i`; each is dropped as soon as it is copied."""
    places = np.empty(len(order), dtype=np.int64)
    places[order] = np.arange(len(order))
    joined = np.empty((len(order), matrices[0].shape[1]), dtype=np.float32)
    start = 0
    while matrices:
        matrix = matrices.pop(0)
        joined[places[start : start + len(matrix)]] = matrix
        start += len(matrix)
    return joined


def _read_table(path: Path) -> pa.Table:
    try:
        table = read_bounded(path)
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        raise ArtifactError(f"{path} cannot be read as Parquet: {error}", code="not-parquet", remedy=_REMEDY) from error
    if table.schema.names == _COLUMNS[:-1]:  # of an earlier version
        table = table.append_column("digest", pa.array([""] * table.num_rows, type=pa.string()))
    values = table.schema.field("values").type if table.schema.names == _COLUMNS else pa.null()
    if not pa.types.is_fixed_size_list(values) or values.value_type != pa.float32() or not values.list_size:
        raise ArtifactError(
            f"{path} is no part: it has {shown(table.schema.names)}, wanted {_COLUMNS}", code="wrong-schema", remedy=_REMEDY,
        )
    if any(not pa.types.is_string(table.schema.field(name).type) or table[name].null_count for name in _TEXTS):
        raise ArtifactError(f"{path} is no part: {', '.join(_TEXTS)} are not all texts", code="wrong-schema", remedy=_REMEDY)
    with foreign(ArtifactError, f"{path} is no part", code="wrong-schema", remedy=_REMEDY, errors=ValueError):
        for version in pc.unique(table["encoder_version"]).to_pylist():
            plain_name(version, what="encoder_version")  # it becomes part of a collection's name, and so of a path
    return table


def _matrix_of(table: pa.Table, path: Path) -> NDArray[np.float32]:
    column = table["values"].combine_chunks()
    dimension = column.type.list_size
    values = column.flatten()
    if column.null_count or values.null_count:
        raise ArtifactError(f"{path} has empty vectors", code="wrong-schema", remedy=_REMEDY)
    return np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float32).reshape(-1, dimension)


def _check_vectors(embeddings: Embeddings, folder: Path) -> None:
    lengths = np.sqrt(np.einsum("ij,ij->i", embeddings.vectors, embeddings.vectors))  # norm() would square a copy
    wrong = np.flatnonzero(~(np.abs(lengths - 1) <= UNIT_TOLERANCE))  # NaN is wrong too
    if len(wrong):
        named = ", ".join(f"{embeddings.clip_ids[row]} ({lengths[row]})" for row in wrong[:5])
        raise GateFailed(
            f"{len(wrong)} of {len(lengths)} vectors in {folder} are not of length 1: {named}", code="vectors-not-unit",
            remedy="Look at the frames of these clips and at the encoder, then embed again",
        )
