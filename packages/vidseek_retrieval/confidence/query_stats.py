"""Statistics of queries: score and confidence of the best hit, and the position of the query's vector. No words, no vector.

`calibrate` computes the reference from held-out captions and stores it in the calibration, so that it moves with the
collection. A person may accept current queries as the reference instead. Both are compared with recent queries.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vidseek_media.errors import ArtifactError
from vidseek_media.files.json_files import read_json, write_json
from vidseek_retrieval.confidence.drift import MAX_P, Level, Mmd, level_of, mmd, num_needed, psi

MAX_QUERIES = 1000
"""That a sample keeps."""
NUM_AXES = 3
"""Of the query's place, that `query` looks at beside its distance from the plane of the captions."""
ACCEPTED_FILE = "accepted.json"
SEEN_FILES = "seen-*.json"
_SCORE, _CONFIDENCE, _PLACE = 0, 1, 2


class QueryStats(NamedTuple):
    """One query, as `Calibration.query_stats` makes it."""

    encoder_version: str
    axes: str
    """The key of the axes along which its place was taken; empty where it has none."""
    row: tuple[float, ...]
    """Score and confidence of the best hit; then, where it has a place, `ood_distance` and the place along each axis."""


@dataclass(frozen=True, eq=False)
class QuerySample:
    """Queries of one vector space."""

    encoder_version: str
    axes: str
    """As `QueryStats` has it."""
    rows: NDArray[np.float32]
    """Shape (n, 2), or (n, 3 + number of axes): the rows of `QueryStats`."""

    def __post_init__(self) -> None:
        width = self.rows.shape[1] if self.rows.ndim == 2 else 0
        if width < _PLACE or (width > _PLACE) != bool(self.axes) or not np.isfinite(self.rows).all():
            raise ArtifactError(
                f"queries of shape {self.rows.shape}, axes {self.axes!r}: wanted rows of finite scores, confidences and "
                "places", code="bad-sample", remedy="Move the file to another place; the service writes its own again",
            )

    @staticmethod
    def of(seen: Sequence[QueryStats]) -> QuerySample | None:
        """Return a sample of the last `MAX_QUERIES` queries, all of one vector space; None if there are none."""
        if not seen:
            return None
        rows = np.array([each.row for each in seen[-MAX_QUERIES:]], dtype=np.float32)
        return QuerySample(seen[-1].encoder_version, seen[-1].axes, rows)

    def to_json(self) -> dict[str, Any]:
        """Return the sample as JSON values, for calibration.json and the service's files."""
        values = base64.b64encode(self.rows.astype("<f4").tobytes()).decode()
        return {"encoder_version": self.encoder_version, "axes": self.axes, "width": self.rows.shape[1], "rows": values}

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> QuerySample:
        """Restore a sample from the output of `to_json`.

        Raises:
            ArtifactError: a value is not finite, or the shape is wrong.
            KeyError, TypeError, ValueError: the content has another form.
        """
        values = np.frombuffer(base64.b64decode(content["rows"], validate=True), dtype="<f4").astype(np.float32)
        rows = values.reshape(-1, int(content["width"]))
        return QuerySample(str(content["encoder_version"]), str(content["axes"]), rows)


@dataclass(frozen=True)
class QueryDrift:
    """How far queries are from those of a reference."""

    num_reference: int
    num_observed: int
    num_needed: int | None
    """Before anything can be said; None where the reference is too small for any number."""
    psi: Mapping[str, float]
    """Of `score`, `confidence` and, where queries have a place, `query`; empty where too little was seen."""
    mmd: Mmd | None
    """Of the places; None where it was not asked for or there are none."""

    @property
    def levels(self) -> dict[str, Level]:
        """What each says."""
        return {
            name: level_of(value, num_reference=self.num_reference, num_observed=self.num_observed)
            for name, value in self.psi.items()
        }

    @property
    def differs(self) -> bool | None:
        """What the kernel test says; None where there was none."""
        return None if self.mmd is None else self.mmd.p_value <= MAX_P

    @property
    def too_few(self) -> str:
        """Why there is no number; empty where there is one."""
        if self.num_needed is None:
            return f"too few held-out queries: {self.num_reference}, of which no number of others can be told apart"
        if self.num_observed < self.num_needed:
            return f"too few queries: {self.num_observed} seen, {self.num_needed} needed"
        return ""


def compare(reference: QuerySample, observed: QuerySample | None, *, kernel: bool = True) -> QueryDrift:
    """Measure how far observed queries are from the reference.

    Args:
        reference: Queries at publish, or accepted ones.
        observed: Recent queries; None if there are none.
        kernel: Whether to run the kernel test, which takes a second.

    Raises:
        ArtifactError: the two are of different vector spaces or axes.
    """
    if observed is not None and (observed.encoder_version, observed.axes) != (reference.encoder_version, reference.axes):
        raise ArtifactError(
            f"queries of encoder_version {observed.encoder_version} (axes {observed.axes or 'none'}), the reference is of "
            f"{reference.encoder_version} ({reference.axes or 'none'}): they cannot be compared", code="other-encoder",
            remedy="Take queries that were asked since the last publish",
        )
    num, needed = 0 if observed is None else len(observed.rows), num_needed(len(reference.rows))
    if observed is None or needed is None or num < needed:
        return QueryDrift(len(reference.rows), num, needed, {}, None)
    columns = [psi(*pair) for pair in zip(reference.rows.T, observed.rows.T, strict=True)][: _PLACE + 1 + NUM_AXES]
    found = {"score": columns[_SCORE], "confidence": columns[_CONFIDENCE]}
    test = None
    if columns[_PLACE:]:
        found["query"] = max(columns[_PLACE:])
        test = mmd(reference.rows[:, _PLACE:], observed.rows[:, _PLACE:]) if kernel else None
    return QueryDrift(len(reference.rows), num, needed, found, test)


def write_sample(path: Path, sample: QuerySample) -> None:
    """Write a sample whole or not at all.

    Args:
        path: The file to write.
        sample: The sample.

    Raises:
        OSError: the disk cannot hold it.
    """
    write_json(path, sample.to_json(), indent=None, sync=path.name == ACCEPTED_FILE)


def read_sample(path: Path) -> QuerySample | None:
    """Read a sample; None if the file does not exist.

    Raises:
        ArtifactError: the file is broken.
    """
    try:
        return QuerySample.from_json(read_json(path))
    except FileNotFoundError:
        return None
    except (ArtifactError, OSError, AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise ArtifactError(
            f"{path} holds no queries: {error}", code="bad-sample", remedy="Move it to another place",
        ) from error


def reference_of(published: QuerySample | None, folder: Path) -> QuerySample | None:
    """Return the reference for queries: the sample that a person accepted if it fits, else the published one.

    Args:
        published: Reference of the collection; None if it has none.
        folder: Folder that holds an accepted sample.

    Raises:
        ArtifactError: the accepted sample is broken.
    """
    accepted = read_sample(folder / ACCEPTED_FILE)
    same = accepted is not None and published is not None and (
        (accepted.encoder_version, accepted.axes) == (published.encoder_version, published.axes)
    )
    return accepted if same else published


def read_seen(folder: Path, *, encoder_version: str, axes: str) -> QuerySample | None:
    """Return the last `MAX_QUERIES` that services left in `folder`, newest file first, and are of this space; None of none.

    Raises:
        ArtifactError: a file is broken.
    """
    files = sorted(folder.glob(SEEN_FILES), key=lambda path: (-path.stat().st_mtime_ns, path.name))
    found = [sample for sample in map(read_sample, files) if sample is not None]
    rows = [each.rows[::-1] for each in found if (each.encoder_version, each.axes) == (encoder_version, axes)]
    return QuerySample(encoder_version, axes, np.concatenate(rows)[:MAX_QUERIES]) if rows else None
