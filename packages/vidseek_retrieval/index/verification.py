"""Measures a finished collection before it goes live, and on request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from vidseek_retrieval.embedding.embedding_parts import UNIT_TOLERANCE
from vidseek_retrieval.index.backend import Collection, IndexBackend
from vidseek_retrieval.index.collection_metadata import CollectionMetadata
from vidseek_retrieval.index.difference.record import Difference
from vidseek_retrieval.index.score_spread import evenly
from vidseek_retrieval.index.values import VIDEO_VECTOR, Point, SparseVector, Value
from vidseek_retrieval.settings import Vector
from vidseek_retrieval.vectors.registry import index_vector, vector_names

NEIGHBOURS = 10
SAMPLE = 64
_TIE = 1e-6
_ROUNDING = 1e-4
"""Tolerance of one value of a unit vector. Backends normalise vectors again when they store them."""
_SCAN_BATCH = 1000

Name = TypeVar("Name")

Check: TypeAlias = Callable[[Collection], Sequence[str]]
"""Looks at an open collection, and returns what is wrong with it."""

Nearest: TypeAlias = Callable[[NDArray[np.float32], int], list[list[tuple[str, float]]]]
"""From queries (float32 of shape (n, dimension), unit rows) and a number to so many nearest clips of each by the vector
`video`: their ids and scores, best first."""


@dataclass(frozen=True)
class Verification:
    """Measurements of a finished collection."""

    collection: str
    num_points: int
    """Counted in the collection."""
    num_sampled: int
    """Points looked at, each one's vector a query too."""
    recall_at_10: float
    """Of the approximate search against the exact one, over the sample; equal scores are ties."""
    text_recall_at_10: float | None
    """The same where the queries are the sample's captions: words lie elsewhere than clips. None where there are none."""
    problems: tuple[str, ...]
    """What is wrong; empty where it may go live."""

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify_collection(
    backend: IndexBackend, name: str, *, min_recall: float, expected: CollectionMetadata | None = None,
    checks: Sequence[Check] = (), nearest: Nearest | None = None,
) -> Verification:
    """Check the files of a collection, count its points, and compare approximate with exact searches.

    It is opened once: over a million points that takes seconds.

    Args:
        backend: The index.
        name: Name of the collection.
        min_recall: Least recall at 10 that is acceptable, from 0 to 1.
        expected: Metadata that the collection should have; None takes its own.
        checks: What else to look at, in order, as long as nothing is wrong.
        nearest: Exact answers from what the collection was made of, which takes a fraction of the time of its own exact
            searches; None to ask the collection.

    Raises:
        ArtifactError: the collection does not exist, or does not open.
    """
    problems = list(backend.check(name))[:5]
    if problems:
        return Verification(name, 0, 0, 0.0, None, tuple(problems))
    collection = backend.open(name)
    try:
        metadata = expected or collection.metadata
        count = collection.count()
        problems += list(_count_problems(collection, metadata))
        sample = collection.points(collection.sample(min(SAMPLE, count), seed=0))
        problems += [problem for point in sample for problem in _point_problems(point, metadata)][:5]
        recall = _recall(collection, [(point.clip_id, point.vector) for point in sample], nearest)
        captions = [("", point.caption) for point in sample if point.caption is not None]
        text_recall = _recall(collection, captions, nearest) if captions else None
        others = [(f" by {name}", _recall_by(collection, sample, name)) for name in _measured(metadata)]
        for what, value in (("", recall), (" of captions", text_recall), *others):
            if value is not None and value < min_recall:
                problems.append(f"recall@10{what} is {value:.4f}, wanted at least {min_recall}")
        for check in checks:
            problems += [] if problems else check(collection)
    finally:
        collection.close()
    return Verification(name, count, len(sample), recall, text_recall, tuple(problems))


def exact_nearest(
    queries: NDArray[np.float32], batches: Iterable[tuple[Sequence[Name], NDArray[np.float32]]], num: int
) -> list[list[tuple[Name, float]]]:
    """Return the nearest vectors of each query: their names and cosines, best first.

    Args:
        queries: float32 of shape (n, dimension), unit rows.
        batches: Names of vectors, and the vectors, float32 of shape (m, dimension), unit rows; m is at least 1.
        num: Vectors of each query, at most; above 0.
    """
    best: list[list[tuple[Name, float]]] = [[] for _ in queries]
    for names, rows in batches:
        scores = queries @ rows.T
        firsts = np.argpartition(-scores, min(num, len(names)) - 1, axis=1)[:, :num]
        for kept, row, places in zip(best, scores, firsts.tolist(), strict=True):
            kept += [(names[place], float(row[place])) for place in places]
            kept.sort(key=lambda each: -each[1])
            del kept[num:]
    return best


def difference_problems(collection: Collection, difference: Difference) -> list[str]:
    """Return what is wrong with the points that a collection should have written or removed, by a sample of each.

    Args:
        collection: That was made from another one.
        difference: How it should differ.

    Raises:
        ArtifactError: the collection is broken.
    """
    written, removed = evenly(difference.written, SAMPLE), evenly(difference.removed, SAMPLE)
    found = {point.clip_id: point for point in collection.points([point.clip_id for point in written])}
    stayed = collection.payloads(removed)
    lost = [each.clip_id for each in written if each.clip_id not in found or not are_same(found[each.clip_id], each)]
    return [
        *(f"{len(lost)} of {len(written)} written points are not as written: {lost[0]}" for _ in lost[:1]),
        *(f"{len(stayed)} of {len(removed)} removed points are there: {each}" for each in sorted(stayed)[:1]),
    ]


def are_same(one: Point, other: Point) -> bool:
    """Return whether two points are equal, up to rounding of vectors."""
    return (
        one.clip_id == other.clip_id and dict(one.payload) == dict(other.payload)
        and one.vectors.keys() == other.vectors.keys()
        and all(_are_equal(value, other.vectors[name]) for name, value in one.vectors.items())
    )


def _are_equal(one: Value, other: Value) -> bool:
    if isinstance(one, SparseVector) or isinstance(other, SparseVector):
        return isinstance(one, SparseVector) and isinstance(other, SparseVector) and _weights(one) == _weights(other)
    return np.allclose(one, other, atol=_ROUNDING)


def _weights(words: SparseVector) -> dict[int, float]:
    return {index: round(float(value), 4) for index, value in zip(words.indices, words.values, strict=True)}


def _count_problems(collection: Collection, metadata: CollectionMetadata) -> Iterator[str]:
    wanted: dict[Vector | None, int] = {
        None: metadata.num_points, **{name: metadata.num_with(name) for name in vector_names() if name != VIDEO_VECTOR}
    }
    for vector, num in wanted.items():
        count = collection.count(vector)
        if count != num:
            yield f"{count} points{f' with the vector {vector}' if vector else ''}, wanted {num}"


def _point_problems(point: Point, metadata: CollectionMetadata) -> Iterator[str]:
    if point.payload.get("encoder_version") != metadata.encoder_version:
        yield f"{point.clip_id} is of encoder_version {point.payload.get('encoder_version')}"
    for name, value in point.vectors.items():
        if not isinstance(value, SparseVector) and not abs(float(np.linalg.norm(value)) - 1) <= UNIT_TOLERANCE:
            yield f"the vector {name} of {point.clip_id} is not of length 1"


def _measured(metadata: CollectionMetadata) -> list[str]:
    """Return the dense vectors beside `video` whose searches are measured."""
    return [name for name in metadata.dense_vectors if name != VIDEO_VECTOR and index_vector(name).measured]


def _recall_by(collection: Collection, sample: Sequence[Point], name: str) -> float:
    """Return the recall of searches by the vector `name`, of the clips of the sample that have it."""
    return _recall(collection, [(each.clip_id, each.vectors[name]) for each in sample if name in each.vectors], using=name)  # type: ignore[misc]


def _recall(
    collection: Collection, queries: Sequence[tuple[str, NDArray[np.float32]]], nearest: Nearest | None = None, *,
    using: str = VIDEO_VECTOR,
) -> float:
    """Mean share of the exact top 10 that the approximate search found as well.

    Args:
        collection: The one that is searched.
        queries: Vectors, each with the clip whose own it is, or "": that a clip finds itself proves little.
        nearest: Answers exactly; None to ask the collection.
        using: The vector of the clips that is searched by.
    """
    wanted = [each for _, each in queries]
    if nearest is not None and wanted:
        rankings: Iterable[list[tuple[str, float]]] = nearest(np.stack(wanted), NEIGHBOURS + 1)
    elif collection.allows_exact:
        rankings = map(_exactly(collection, using), wanted)
    else:
        rankings = exact_nearest(np.stack(wanted), _scanned(collection, using), NEIGHBOURS + 1) if wanted else ()
    shares = []
    for (own, query), ranking in zip(queries, rankings, strict=True):
        exact = [score for clip_id, score in ranking if clip_id != own][:NEIGHBOURS]
        near = collection.search(query, limit=NEIGHBOURS + 1, using=using)
        found = [clip for clip in near if clip.clip_id != own][:NEIGHBOURS]
        if exact:
            shares.append(min(1.0, sum(clip.score >= exact[-1] - _TIE for clip in found) / len(exact)))
    return float(np.mean(shares)) if shares else 1.0


def _exactly(collection: Collection, using: str) -> Callable[[NDArray[np.float32]], list[tuple[str, float]]]:
    return lambda query: [
        (clip.clip_id, clip.score) for clip in collection.search(query, limit=NEIGHBOURS + 1, exact=True, using=using)
    ]


def _scanned(collection: Collection, using: str) -> Iterator[tuple[list[str], NDArray[np.float32]]]:
    """Yield the clips that have a vector, and the vectors, by reading all points once."""
    remaining = collection.scroll()
    while scanned := list(islice(remaining, _SCAN_BATCH)):
        batch = [point for point in scanned if using in point.vectors]
        if batch:
            yield [point.clip_id for point in batch], np.stack([np.asarray(point.vectors[using]) for point in batch])
