"""Checks an ONNX file before ONNX Runtime opens it. Does not need the package onnx.

A model names operators, and may name other files that hold its weights. Bundles of vidseek keep each model in one file;
weights beyond protobuf's 2 GiB lie in one file beside it, whose name follows from the model's. Models contain no operator
that runs a subgraph repeatedly. The file is parsed as protobuf (https://protobuf.dev/programming-guides/encoding); weights
are skipped, not read.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from vidseek_media.names import shown

DOMAINS = (b"", b"ai.onnx", b"com.microsoft")
LOOPS = (b"Loop", b"Scan", b"If")
"""Operators that run a subgraph as often as a number in the model says."""
MOST_NODES = 200_000
DATA_SUFFIX = ".data"
_INLINE = 0

_MODEL = {7: "graph", 20: "training", 25: "function"}
_GRAPH = {1: "node", 5: "weights", 15: "sparse"}
_NODE = {5: "attribute"}
_ATTRIBUTE = {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"}
_SPARSE = {1: "tensor", 2: "tensor"}
_FUNCTION = {7: "node", 11: "attribute"}
_TRAINING = {1: "graph", 2: "graph"}
_INNER: Mapping[str, Mapping[int, str]] = {
    "model": _MODEL, "graph": _GRAPH, "node": _NODE, "attribute": _ATTRIBUTE, "sparse": _SPARSE, "function": _FUNCTION,
    "training": _TRAINING, "tensor": {}, "weights": {},
}
"""Fields of each message of onnx.proto that hold messages which may contain a tensor or a node."""
_OP_TYPE, _NODE_DOMAIN = 4, 7
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_KEY, _VALUE = 1, 2
_MOST_DIGITS = 16


class _Field(NamedTuple):
    number: int
    value: int
    """The number, or the offset of the first byte of a byte field."""
    end: int
    """Offset of the end of a byte field; 0 for a number."""


def data_file(path: Path) -> Path:
    """Return the path of the weights of the model `path` if they are stored beside it."""
    return path.with_name(path.name + DATA_SUFFIX)


def require_plain_model(path: Path) -> bool:
    """Check that a model uses only its own file and `data_file(path)`, and has no loops and no custom operators.

    Args:
        path: The .onnx file.

    Returns:
        Whether weights are stored in `data_file(path)`.

    Raises:
        ValueError: the file is not an ONNX model, or breaks one of these rules.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        if not path.stat().st_size:
            raise ValueError("the file is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            end = _walk(content, data_file(path).name)
    if end is not None:
        _require_data(path, end)
    return end is not None


def _require_data(path: Path, end: int) -> None:
    """Check that the data file of the model `path` exists and has `end` bytes."""
    data = data_file(path)
    if not data.is_file():
        raise ValueError(f"its weights are missing: there is no {data.name} beside it")
    # ONNX Runtime refuses data outside of the model's folder; a link could lead anywhere.
    if data.resolve().parent not in (path.parent.resolve(), path.resolve().parent):
        raise ValueError(
            f"{data.name} is a link to a file elsewhere, wanted the file itself (DVC: `dvc config cache.type reflink,copy`, "
            "then `dvc checkout --relink`)"
        )
    if data.stat().st_size < end:
        raise ValueError(f"{data.name} has {data.stat().st_size} bytes, the model reads up to byte {end}")


def _walk(content: mmap.mmap, data_name: str) -> int | None:
    """Return the end of the last weights in the file `data_name`, in bytes; None if all weights are in the model."""
    waiting = [("model", 0, len(content))]
    num, last = 0, None
    while waiting:
        kind, start, end = waiting.pop()
        num += 1
        if num > MOST_NODES * 10:
            raise ValueError(f"it has more than {MOST_NODES} operators")
        inner = _INNER[kind]
        said: dict[bytes, bytes] = {}
        for field in _fields(content, start, end):
            if field.end and field.number in inner:
                waiting.append((inner[field.number], field.value, field.end))
            elif kind == "node" and field.number == _OP_TYPE and content[field.value : field.end] in LOOPS:
                name = content[field.value : field.end].decode()
                raise ValueError(f"it has the operator {name}, which runs a graph again and again")
            elif kind == "node" and field.number == _NODE_DOMAIN and content[field.value : field.end] not in DOMAINS:
                raise ValueError(f"it has an operator of {shown(content[field.value : field.end])}, wanted ONNX's own")
            elif kind in ("tensor", "weights") and field.number == _DATA_LOCATION and field.value != _INLINE:
                said.setdefault(b"location", b"")
            elif kind in ("tensor", "weights") and field.number == _EXTERNAL_DATA:
                key, value = _entry(content, field)
                if said.get(key):
                    raise ValueError("it says twice where weights lie")
                said[key] = value
        if said:
            last = max(last or 0, _end_of(said, data_name if kind == "weights" else ""))
    return last


def _entry(content: mmap.mmap, entry: _Field) -> tuple[bytes, bytes]:
    """Return key and value of a StringStringEntryProto."""
    found = {each.number: content[each.value : each.end] for each in _fields(content, entry.value, entry.end) if each.end}
    return found.get(_KEY, b""), found.get(_VALUE, b"")


def _end_of(said: Mapping[bytes, bytes], data_name: str) -> int:
    """Return the byte of the data file at which the weights end that `said` locates."""
    if not data_name or said.get(b"location") != data_name.encode():
        named = shown(said.get(b"location", b"").decode(errors="replace"))
        wanted = f" than {data_name}" if data_name else " though they are no weights of its graph"
        raise ValueError(f"it names another file that holds its weights{wanted}: {named}")
    if not set(said) <= {b"location", b"offset", b"length"}:
        raise ValueError(f"it says of its weights {shown(sorted(said))}, wanted location, offset and length")
    numbers = [said.get(name, b"0") for name in (b"offset", b"length")]
    if not all(0 < len(text) <= _MOST_DIGITS and text.isdigit() for text in numbers):
        raise ValueError(f"its weights lie at {shown(numbers)}, wanted numbers of bytes")
    return sum(map(int, numbers))


def _fields(content: mmap.mmap, at: int, end: int) -> Iterator[_Field]:
    while at < end:
        key, at = _number(content, at, end)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _number(content, at, end)
            yield _Field(number, value, 0)
        elif wire == 2:
            size, at = _number(content, at, end)
            if size > end - at:
                raise ValueError("it is cut off")
            yield _Field(number, at, at + size)
            at += size
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            raise ValueError("it is no ONNX model")
    if at != end:
        raise ValueError("it is cut off")


def _number(content: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """Read a varint; return its value and the offset after it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise ValueError("it is cut off")
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("it is no ONNX model")
