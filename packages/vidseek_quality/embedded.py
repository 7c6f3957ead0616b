"""Reads the embeddings part by part: which rules each row meets, and a sample of the vectors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vidseek_media.errors import ArtifactError
from vidseek_media.files.parquet_files import read_bounded
from vidseek_quality.suites import Rules, arrow_of
from vidseek_quality.vectors import Sample

COLUMNS = ["clip_id", "values", "encoder_version", "variant"]

LENGTH_TOLERANCE = 1e-3
"""fp16 rounding of a unit vector of 1,024 values stays under this."""

_REMEDY = "Run `dvc repro embed` to make it again"


@dataclass(frozen=True)
class Embedded:
    """Everything that the embeddings gate checks."""

    ids: pd.Series
    """Ids of the clips that either table lists, sorted, so that the division into parts has no influence."""
    rules: Rules
    num_embeddings: int
    num_whole: int
    """Number of vectors with the right dimension and only finite values."""
    sample: Sample
    """Sample of these vectors."""


def read_embedded(
    parts: Path, frame_ids: pd.Series, *, dimension: int, encoder_version: str, variant: str, num_sampled: int
) -> Embedded:
    """Read the embeddings, with one file in memory at a time.

    Args:
        parts: A Parquet file, or a folder of them.
        frame_ids: Ids of the clips that should be embedded.
        dimension: Length of the encoder's vectors.
        encoder_version: 16 hex digits, of the encoder that should have written them.
        variant: Precision that should have been used: `fp32`, `fp16` or `int8`.
        num_sampled: Size of the sample.

    Raises:
        ArtifactError: a part is missing or broken, or has other columns.
    """
    ids: list[pa.Array] = []
    rules: list[Rules] = []
    sample = Sample((), np.empty((0, dimension), np.float32))
    num_whole = 0
    for part in _read(parts):
        clip_id = part["clip_id"].combine_chunks()
        vectors, is_full = _full_vectors(part["values"].combine_chunks(), dimension)
        squares = np.einsum("nd,nd->n", vectors, vectors)
        is_finite = np.isfinite(squares)
        is_finite[~is_finite] = np.isfinite(vectors[~is_finite]).all(axis=1)  # Huge values overflow, and are finite.
        ids.append(clip_id)
        rules.append({
            f"an embedding has {dimension} values": is_full,
            "no value is NaN or infinite": _spread(is_finite, is_full),
            f"embeddings have unit length, within {LENGTH_TOLERANCE}":
                _spread(~is_finite | (np.abs(np.sqrt(squares) - 1) <= LENGTH_TOLERANCE), is_full),
            f"every embedding is of encoder_version {encoder_version}":
                _mask(pc.equal(part["encoder_version"].combine_chunks(), encoder_version)),
            f"every embedding is written by variant {variant}": _mask(pc.equal(part["variant"].combine_chunks(), variant)),
        })
        num_whole += int(is_finite.sum())
        whole_ids = clip_id.filter(pa.array(_spread(is_finite, is_full, otherwise=False)))
        sample = _first(sample, whole_ids, vectors if is_finite.all() else vectors[is_finite], num_sampled)
    return _joined(pa.concat_arrays(ids), rules, arrow_of(frame_ids), num_whole, sample)


def _joined(ids: pa.Array, rules: list[Rules], expected: pa.Array, num_whole: int, sample: Sample) -> Embedded:
    """Join the parts, and add a row for each clip that is not embedded."""
    missing = expected.filter(pc.invert(pc.is_in(expected, value_set=ids)))
    num_missing = len(missing)
    joined = {rule: np.concatenate([*(each[rule] for each in rules), np.ones(num_missing, bool)]) for rule in rules[0]}
    all_ids = pd.Series(pa.concat_arrays([ids, missing]).to_pandas())
    is_listed = _mask(pc.is_in(ids, value_set=expected))
    joined["every embedding is of a clip that frames.parquet lists"] = np.append(is_listed, np.ones(num_missing, bool))
    joined["a clip is embedded once"] = ~all_ids.duplicated(keep=False).to_numpy()
    joined["every clip that frames.parquet lists is embedded"] = np.arange(len(all_ids)) < len(ids)
    if not all(kept.all() for kept in joined.values()):
        order = np.argsort(all_ids.to_numpy(dtype=object), kind="stable")
        all_ids, joined = all_ids.iloc[order], {rule: kept[order] for rule, kept in joined.items()}
    return Embedded(all_ids, joined, len(ids), num_whole, sample)


def _full_vectors(lists: pa.Array, dimension: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the vectors that have `dimension` values, shape (n, dimension), and which rows have one."""
    is_full = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False) == dimension
    full = lists if is_full.all() else lists.filter(pa.array(is_full))
    return full.flatten().fill_null(np.nan).to_numpy(zero_copy_only=False).reshape(-1, dimension), is_full


def _first(sample: Sample, ids: pa.Array, vectors: NDArray[np.float32], most: int) -> Sample:
    """Return the first `most` clips by id, of `sample` and the given rows together."""
    own = pc.select_k_unstable(ids, k=min(most, len(ids)), sort_keys=[("", "ascending")]).to_numpy()
    all_ids = [*sample.clip_ids, *ids.take(pa.array(own)).to_pylist()]
    both = np.concatenate([sample.vectors, vectors[own]])
    order = sorted(range(len(all_ids)), key=all_ids.__getitem__)[:most]
    return Sample(tuple(all_ids[place] for place in order), both[order])


def _spread(of_full: NDArray[np.bool_], is_full: NDArray[np.bool_], *, otherwise: bool = True) -> NDArray[np.bool_]:
    """Expand values of the full vectors to all rows."""
    spread = np.full(len(is_full), otherwise)
    spread[is_full] = of_full
    return spread


def _mask(values: pa.Array) -> NDArray[np.bool_]:
    return values.fill_null(False).to_numpy(zero_copy_only=False)


def _read(parts: Path) -> Iterator[pa.Table]:
    files = sorted(parts.glob("*.parquet")) if parts.is_dir() else [parts]
    if not files:
        raise ArtifactError(f"{parts} holds no .parquet file", code="no-embeddings", remedy=_REMEDY)
    for file in files:
        try:
            table = read_bounded(file, COLUMNS)
            if table.num_columns != len(COLUMNS):
                raise ArtifactError(
                    f"{file} has columns {table.column_names}, wanted {COLUMNS}", code="wrong-schema", remedy=_REMEDY,
                )
            lists = table["values"].cast(pa.list_(pa.float32()))
        except FileNotFoundError as error:
            raise ArtifactError(f"{file} is missing", code="file-absent", remedy=_REMEDY) from error
        except (pa.ArrowException, OSError, ValueError, TypeError) as error:
            raise ArtifactError(f"{file} does not hold {COLUMNS}: {error}", code="wrong-schema", remedy=_REMEDY) from error
        yield table.set_column(table.schema.get_field_index("values"), "values", lists)
