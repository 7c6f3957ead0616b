"""The child process that builds a shard, or lets one grow: `shard.build_shard` starts it, and sends metadata and points to
its stdin.
"""

from __future__ import annotations

import pickle
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from vidseek_media.decoding.sandbox import die_with_parent
from vidseek_retrieval.index.backend import Point
from vidseek_retrieval.index.edge.shard import grow_shard, load_shard


def read_points(pipe: BinaryIO) -> Iterator[Point]:
    """Yield points from all batches until the empty one.

    Raises:
        EOFError: the input ends before it.
    """
    while batch := pickle.load(pipe):
        yield from batch


def main() -> None:
    """Build the collection that is sent to stdin in the folder named as argument."""
    die_with_parent(signal.SIGKILL)  # the next publish may make a folder of the same name
    pipe = sys.stdin.buffer
    metadata, growth = pickle.load(pipe)
    folder, points = Path(sys.argv[1]), read_points(pipe)
    if growth is None:
        load_shard(folder, metadata, points)
    else:
        grow_shard(folder, metadata, points, growth)


if __name__ == "__main__":
    main()
