"""Perceptual hashes of frames, and near-duplicate videos by these hashes, which belong on one side of a split."""

from __future__ import annotations

import hashlib
import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from vidseek_media.cutting.quality_flags import FLAT_DEVIATION

LOW_FREQUENCIES = 8
"""Of the cosine transform, in each direction."""

MAX_BITS = 7
"""Hashes up to so many bits apart can be found without comparing each with each."""

_CHUNK = 2**22
"""Candidates that are compared at once: 100 MB."""

HashesByKey = Mapping[str, Sequence[int] | NDArray[np.uint64]]


def hash_of(thumb: NDArray[np.float32]) -> int | None:
    """63 bits of a grey picture (`thumb_of`): which of its low frequencies lie above their median (Zauner 2010).

    Pictures that look alike differ in few bits; bars, crops and turned pictures do not look alike. None for a plain
    picture, and one of fewer than 8 pixels a side: their frequencies are noise.
    """
    if min(thumb.shape) < LOW_FREQUENCIES or thumb.std() <= FLAT_DEVIATION:
        return None
    rows, columns = _cosines(thumb.shape[0]), _cosines(thumb.shape[1])
    # In whole numbers: sums of floats come out otherwise on another machine, and a bit hangs on the last digit.
    low = (rows @ np.rint(16 * thumb).astype(np.int64) @ columns.T).ravel()[1:]  # The first is the mean brightness.
    bits = low > np.median(low)
    return int(sum(1 << place for place in np.flatnonzero(bits)))


@cache
def _cosines(size: int) -> NDArray[np.int64]:
    """Return the first rows of the cosine transform (DCT-II) of `size` values, times 1024."""
    at = (2 * np.arange(size) + 1) * np.pi / (2 * size)
    return np.rint(1024 * np.cos(np.arange(LOW_FREQUENCIES)[:, None] * at)).astype(np.int64)


@dataclass(frozen=True)
class Comparison:
    """Which keys show the same, and by what they were compared: a later comparison takes up where this one ended."""

    max_bits: int
    min_share: float
    digests: Mapping[str, str]
    """Of the hashes of each key."""
    similar: list[tuple[str, str]]
    """Pairs of keys that show the same, sorted."""


def compare(
    hashes: HashesByKey, *, max_bits: int, min_share: float, before: Comparison | None = None
) -> Comparison:
    """Find the keys that show the same.

    An excerpt of a video is a near-duplicate of the whole.

    Args:
        hashes: 64-bit hashes by key.
        max_bits: Hashes that differ in at most this many bits are equal; at most 7.
        min_share: Share of the distinct hashes of one of the two that must have an equal in the other, from 0 to 1.
        before: An earlier comparison. Where it was by the same measure, only keys that are new or have other hashes are
            compared, with all; the result is the same.

    Raises:
        ValueError: `max_bits` is over 7.
    """
    if not 0 <= max_bits <= MAX_BITS:
        raise ValueError(f"max_bits is {max_bits}, wanted 0 to {MAX_BITS}")
    keys = sorted(hashes)
    own = [np.unique(np.asarray(hashes[key], np.uint64)) for key in keys]
    digests = {key: hashlib.blake2b(each.tobytes(), digest_size=8).hexdigest() for key, each in zip(keys, own, strict=True)}
    usable = before is not None and (before.max_bits, before.min_share) == (max_bits, min_share)
    known, kept = (before.digests, before.similar) if before is not None and usable else ({}, [])
    is_fresh = np.array([known.get(key) != digests[key] for key in keys], np.bool_)
    stale = {key for key, fresh in zip(keys, is_fresh, strict=True) if fresh}
    similar = {(a, b) for a, b in kept if a in digests and b in digests and not {a, b} & stale}
    similar |= {(keys[a], keys[b]) for a, b in _similar(own, is_fresh, max_bits=max_bits, min_share=min_share)}
    return Comparison(max_bits, min_share, digests, sorted(similar))


def _similar(
    own: Sequence[NDArray[np.uint64]], is_fresh: NDArray[np.bool_], *, max_bits: int, min_share: float
) -> set[tuple[int, int]]:
    """Return the pairs of places that show the same, of which at least one is fresh."""
    if not is_fresh.any():
        return set()
    values, sizes = np.concatenate(own), [len(each) for each in own]
    owners = np.repeat(np.arange(len(own)), sizes)
    seen: dict[tuple[int, int], set[int]] = defaultdict(set)
    for left, right in _close(values, max_bits, np.flatnonzero(is_fresh[owners])):
        for a, b in ((left, right), (right, left)):
            apart = owners[a] != owners[b]
            for of, to, which in zip(owners[a][apart], owners[b][apart], a[apart], strict=True):
                seen[(int(of), int(to))].add(int(which))
    return {(min(pair), max(pair)) for pair, matched in seen.items() if len(matched) >= min_share * sizes[pair[0]]}


def lie_near(
    values: NDArray[np.uint64], others: NDArray[np.uint64], *, max_bits: int
) -> NDArray[np.bool_]:
    """Return which hashes are near one of another set.

    Args:
        values: n hashes, uint64.
        others: m hashes, uint64.
        max_bits: Largest number of different bits, at most 7.

    Returns:
        Boolean of shape (n,).

    Raises:
        ValueError: `max_bits` is over 7.
    """
    if not 0 <= max_bits <= MAX_BITS:
        raise ValueError(f"max_bits is {max_bits}, wanted 0 to {MAX_BITS}")
    known, place = np.unique(np.concatenate([values, others]), return_inverse=True)
    is_other = np.zeros(len(known), np.bool_)
    is_other[place[len(values) :]] = True
    near = is_other.copy()
    asked = np.unique(place[: len(values)])
    for left, right in _close(known, max_bits, asked[~is_other[asked]]) if max_bits else ():
        near[left[is_other[right]]] = True
    found: NDArray[np.bool_] = near[place[: len(values)]]
    return found


def _close(
    values: NDArray[np.uint64], max_bits: int, of: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield places of values at most `max_bits` apart, the first of each two among `of`; the same perhaps more than once.

    Of 4 parts of 16 bits at least one differs in at most 1 bit, if the whole differs in at most 7: so only values with
    a nearly equal part are compared.
    """
    is_among = np.zeros(len(values), np.bool_)
    is_among[of] = True
    for part in range(4):
        parts = ((values >> np.uint64(16 * part)) & np.uint64(0xFFFF)).astype(np.int64)
        order = np.argsort(parts, kind="stable")
        sizes = np.bincount(parts, minlength=2**16)
        firsts = np.cumsum(sizes) - sizes  # in `order`, of each of the parts that there may be
        for flip in (0, *(1 << bit for bit in range(16))):
            first, counts = firsts[parts[of] ^ flip], sizes[parts[of] ^ flip]
            starts = np.searchsorted(np.cumsum(counts), np.arange(0, int(counts.sum()), _CHUNK))
            for start, end in itertools.pairwise([*np.unique(starts), len(of)]):
                some = counts[start:end]
                left = np.repeat(of[start:end], some)
                within = np.arange(len(left)) - np.repeat(np.cumsum(some) - some, some)
                right = order[np.repeat(first[start:end], some) + within]
                is_once = (left < right) | ~is_among[right]
                is_close = is_once & (np.bitwise_count(values[left] ^ values[right]) <= max_bits)
                if is_close.any():
                    yield left[is_close], right[is_close]
