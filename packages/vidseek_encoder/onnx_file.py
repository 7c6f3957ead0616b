"""What an ONNX file may hold, looked at before ONNX Runtime opens it; without the package onnx, which only exports need.

A model names operators, and may name other files that hold its weights. Ours are whole in one file, and have no operator
that runs a graph again and again. The file is walked as protobuf (https://protobuf.dev/programming-guides/encoding);
weights are stepped over, not read.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from vidseek_media.names import shown

DOMAINS = (b"", b"ai.onnx", b"com.microsoft")
LOOPS = (b"Loop", b"Scan", b"If")
"""Operators that run a graph of their own, as often as a number in the model says."""
MOST_NODES = 200_000
_EXTERNAL = 1

_MODEL = {7: "graph", 20: "training", 25: "function"}
_GRAPH = {1: "node", 5: "tensor", 15: "sparse"}
_NODE = {5: "attribute"}
_ATTRIBUTE = {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"}
_SPARSE = {1: "tensor", 2: "tensor"}
_FUNCTION = {7: "node", 11: "attribute"}
_TRAINING = {1: "graph", 2: "graph"}
_INNER: Mapping[str, Mapping[int, str]] = {
    "model": _MODEL, "graph": _GRAPH, "node": _NODE, "attribute": _ATTRIBUTE, "sparse": _SPARSE, "function": _FUNCTION,
    "training": _TRAINING, "tensor": {},
}
"""The fields of each message of onnx.proto that hold messages in which a tensor or a node may stand."""
_OP_TYPE, _NODE_DOMAIN = 4, 7
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14


class _Field(NamedTuple):
    number: int
    value: int
    """Of a number; of bytes where they begin."""
    end: int
    """Of bytes, else 0."""


def require_plain_model(path: Path) -> None:
    """See to it that the model in `path` is whole in this file, and has no loops and no operators of others.

    Raises:
        ValueError: it is no ONNX model, or not such a one.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        if not path.stat().st_size:
            raise ValueError("the file is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            _walk(content)


def _walk(content: mmap.mmap) -> None:
    waiting = [("model", 0, len(content))]
    num = 0
    while waiting:
        kind, start, end = waiting.pop()
        num += 1
        if num > MOST_NODES * 10:
            raise ValueError(f"it has more than {MOST_NODES} operators")
        inner = _INNER[kind]
        for field in _fields(content, start, end):
            if field.end and field.number in inner:
                waiting.append((inner[field.number], field.value, field.end))
            elif kind == "node" and field.number == _OP_TYPE and content[field.value : field.end] in LOOPS:
                name = content[field.value : field.end].decode()
                raise ValueError(f"it has the operator {name}, which runs a graph again and again")
            elif kind == "node" and field.number == _NODE_DOMAIN and content[field.value : field.end] not in DOMAINS:
                raise ValueError(f"it has an operator of {shown(content[field.value : field.end])}, wanted ONNX's own")
            elif kind == "tensor" and (
                field.number == _EXTERNAL_DATA or (field.number == _DATA_LOCATION and field.value == _EXTERNAL)
            ):
                raise ValueError("it names another file that holds its weights, wanted a model that is whole in one")


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
    """A varint, and where it ends."""
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
