"""Files that are damaged in known places."""

from __future__ import annotations

from pathlib import Path

import av


def damage_packets(path: Path, *, first: int, last: int) -> None:
    """Overwrite the payload of the packets `first` to `last` in the MP4 file at `path`."""
    with av.open(str(path)) as container:
        spans = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    content = bytearray(path.read_bytes())
    for start, size in spans[first : last + 1]:
        content[start : start + size] = b"\xff" * size
    path.write_bytes(bytes(content))
