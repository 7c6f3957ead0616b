"""Digests of a collection's files, without the zeros of which most of a shard's files consist."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from vidseek_encoder.bundle import file_sha256
from vidseek_media.files.json_files import parse_json
from vidseek_retrieval.index.collection_metadata import canonical_json
from vidseek_retrieval.index.edge.copying import stretches

BLOCK = 2**16
"""Bytes that are left out of a digest if all of them are zero."""
BY_BLOCKS = "blocks:"
"""Begins a digest of blocks; a digest of an earlier version is the sha256 of all bytes."""
_ZEROS = bytes(BLOCK)
_PLACE_BYTES = 8


def digest_of(path: Path, *, recorded: object = None) -> str:
    """Return the digest of a file: the sha256 of its size, and of each block that is not zero with its place.

    Edge allocates files ahead: at 10^5 clips two thirds of the bytes that are copied are holes, which are not read. Zeros
    that are stored give the same digest as a hole.

    Of a JSON file it is the sha256 of what it says: Edge writes its keys anew, in any order, as it opens.

    Args:
        path: The file.
        recorded: What the digest is compared with; not trusted. One of an earlier version is computed as it was then.

    Raises:
        OSError: the file cannot be read.
    """
    if path.suffix == ".json":
        return _digest_of_json(path)
    if isinstance(recorded, str) and not recorded.startswith(BY_BLOCKS):
        return file_sha256(path)
    found = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        found.update(size.to_bytes(_PLACE_BYTES, "little"))
        for place in _blocks_with_data(file.fileno(), size):
            block = os.pread(file.fileno(), BLOCK, place * BLOCK)
            if block != _ZEROS[: len(block)]:
                found.update(place.to_bytes(_PLACE_BYTES, "little"))
                found.update(block)
    return BY_BLOCKS + found.hexdigest()


def _blocks_with_data(file: int, size: int) -> Iterator[int]:
    """Yield the numbers of the blocks that are no holes, in order."""
    done = 0
    for begin, end in stretches(file, size):
        first = max(done, begin // BLOCK)
        done = -(-end // BLOCK)
        yield from range(first, done)


def _digest_of_json(path: Path) -> str:
    try:
        content = canonical_json(parse_json(path.read_bytes()))
    except ValueError:
        return ""
    return hashlib.sha256(content.encode()).hexdigest()
