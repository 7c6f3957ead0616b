"""The process in which a shard is built: `edge_shard.build_shard` starts it, and gives it facts and points by its stdin."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from vidseek_retrieval.index.backend import Point
from vidseek_retrieval.index.edge.shard import load_shard


def read_points(pipe: BinaryIO) -> Iterator[Point]:
    """The points of all batches up to the empty one.

    Raises:
        EOFError: the writer ended before.
    """
    while batch := pickle.load(pipe):
        yield from batch


def main() -> None:
    """Build what comes in by stdin in the folder that is named."""
    pipe = sys.stdin.buffer
    metadata = pickle.load(pipe)
    load_shard(Path(sys.argv[1]), metadata, read_points(pipe))


if __name__ == "__main__":
    main()
