"""Tensors and numbers of a pickled module, read without its classes: what is unknown becomes an inert object.

A pickle names functions and calls them. Here only those that build tensors and containers are called; everything else
is stood in for by an object that keeps its state and does nothing. `read_pickled` runs that in a confined process beside.
"""

from __future__ import annotations

import io
import json
import math
import pickle
import pickletools
import types
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from vidseek_media.decoding.sandbox import Confinement, in_force
from vidseek_media.decoding.worker_process import Job
from vidseek_media.decoding.workers import ForkServer, Limits
from vidseek_media.errors import ArtifactError, ConfigError, InputRejected
from vidseek_media.names import shown

_SECONDS = 600.0
_SPARE_MIB = 2048
_MOST_NAMES = 200_000
_MOST_DEPTH = 64
_LARGEST = 2.0**53
_MOST_CLASSES = 8
_MOST_PICKLES = 8
"""Of torch's older form, which is several in a row."""
_USUAL = ("torch", "collections", "numpy", "_codecs", "__builtin__", "builtins", "copyreg")

_CONTAINERS = {
    ("collections", "OrderedDict"): OrderedDict, ("builtins", "set"): set, ("builtins", "frozenset"): frozenset,
    ("builtins", "dict"): dict, ("builtins", "list"): list, ("builtins", "tuple"): tuple, ("builtins", "int"): int,
    ("builtins", "float"): float, ("builtins", "bool"): bool, ("builtins", "str"): str, ("builtins", "bytes"): bytes,
    ("builtins", "bytearray"): bytearray, ("builtins", "complex"): complex, ("builtins", "slice"): slice,
}
_BUILDERS = frozenset({
    ("torch._utils", "_rebuild_tensor"), ("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_parameter"),
    ("torch._utils", "_rebuild_parameter_with_state"), ("torch", "Size"), ("torch", "device"), ("torch", "Tensor"),
    ("torch.serialization", "_get_layout"), ("torch.nn.parameter", "Parameter"), ("_codecs", "encode"),
    ("numpy", "ndarray"), ("numpy", "dtype"), ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"), ("numpy.core.multiarray", "scalar"), ("numpy._core.multiarray", "scalar"),
})
"""What builds tensors and arrays, and does nothing else."""
_CODE = frozenset({
    "os", "posix", "nt", "subprocess", "sys", "importlib", "runpy", "shutil", "socket", "ctypes", "pty", "code", "codeop",
    "webbrowser", "urllib", "http", "requests", "marshal", "timeit", "pdb", "io", "_io", "multiprocessing", "asyncio",
    "signal", "tempfile", "glob", "platform", "commands", "pip", "venv", "pickle", "_pickle", "shelve", "cffi", "bdb",
})
"""Modules of which no model has anything."""
_CODE_BUILTINS = frozenset({"eval", "exec", "compile", "open", "__import__", "input", "breakpoint", "globals", "locals"})


@dataclass(frozen=True)
class FlatModule:
    """A module as names and values: `layers.0.attn.A` and what it is."""

    tensors: Mapping[str, Tensor]
    numbers: Mapping[str, float]


class _Inert:
    """Stands for an object whose class is not loaded: keeps what it was given, and does nothing."""

    def __init__(self, *arguments: Any, **_: Any) -> None:
        self.held: list[Any] = [each for each in arguments if isinstance(each, Mapping | list | tuple)]

    def __call__(self, *_: Any, **__: Any) -> _Inert:
        return _Inert()

    def __setstate__(self, state: Any) -> None:
        self._keep().append(state)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._keep().append({key: value})

    def append(self, value: Any) -> None:
        self._keep().append([value])

    def extend(self, values: Any) -> None:
        self._keep().append(list(values))

    def add(self, value: Any) -> None:
        self._keep().append([value])

    def _keep(self) -> list[Any]:
        held: list[Any] = self.__dict__.setdefault("held", [])  # where only __new__ was called
        return held


def _reconstructed(kind: Any, _base: Any, _state: Any) -> Any:
    """In the place of `copyreg._reconstructor`, which older pickles call."""
    return _Inert.__new__(kind) if isinstance(kind, type) and issubclass(kind, _Inert) else _Inert()


class _Reader(pickle.Unpickler):
    """Reads a pickle; names that are not known become kinds of `_Inert`."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _CONTAINERS:
            return _CONTAINERS[module, name]
        if (module, name) in (("copyreg", "_reconstructor"), ("copy_reg", "_reconstructor")):
            return _reconstructed
        if (module, name) == ("torch.storage", "_load_from_bytes"):
            return _storage_of
        if (module, name) in _BUILDERS or (module == "torch" and _is_plain_torch(name)):
            return super().find_class(module, name)
        if module.split(".")[0] in _CODE or (module in ("builtins", "__builtin__") and name in _CODE_BUILTINS):
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no model has")
        return type(str(name).rpartition(".")[2] or "Inert", (_Inert,), {})


def _is_plain_torch(name: str) -> bool:
    """Whether `torch.<name>` is a kind of number, a layout or a storage."""
    return isinstance(getattr(torch, name, None), torch.dtype | torch.layout | torch.memory_format) or (
        name.endswith("Storage") and isinstance(getattr(torch, name, None), type)
    )


def _load(file: Any, **options: Any) -> Any:
    return _Reader(file, **options).load()


def _loads(content: bytes, **options: Any) -> Any:
    return _load(io.BytesIO(content), **options)


_PICKLE = types.ModuleType("vidseek_inert_pickle")
"""In the place of the module `pickle`, for torch."""
_PICKLE.__dict__.update(Unpickler=_Reader, load=_load, loads=_loads, UnpicklingError=pickle.UnpicklingError)


def _storage_of(content: bytes) -> Any:
    return torch.load(io.BytesIO(content), map_location="cpu", pickle_module=_PICKLE, weights_only=False)


def flatten(path: Path) -> bytes:
    """Return the tensors of a pickled object as safetensors, its numbers in their metadata. For a confined process.

    Raises:
        InputRejected: it is no pickle of torch or Python, it holds no tensor, or it names what no model has.
    """
    try:
        if zipfile.is_zipfile(path):
            content = torch.load(path, map_location="cpu", pickle_module=_PICKLE, weights_only=False)
        else:
            content = _unzipped(path)
    except Exception as error:  # where a broken pickle leads it
        raise InputRejected(f"it cannot be read: {str(error) or repr(error)}", code="pickle-refused") from error
    tensors, numbers = flat(content)
    if not tensors:
        raise InputRejected("it holds no tensor", code="pickle-refused")
    return save({name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()},
                {"numbers": json.dumps(numbers)})


def _unzipped(path: Path) -> Any:
    """torch's older form, or a plain pickle."""
    try:
        return torch.load(path, map_location="cpu", pickle_module=_PICKLE, weights_only=False)
    except pickle.UnpicklingError as error:
        if "which no model has" in str(error):
            raise
    except (RuntimeError, ValueError, EOFError, AttributeError, TypeError):
        pass
    with path.open("rb") as file:
        return _load(file)


def flat(content: Any) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Tensors and numbers of nested mappings, lists and modules, by dotted names.

    Raises:
        InputRejected: it nests too deeply, or has too many of them.
    """
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, float] = {}
    seen: set[int] = set()
    todo: list[tuple[str, Any, int]] = [("", content, 0)]
    while todo:
        name, value, depth = todo.pop()
        if depth > _MOST_DEPTH or len(tensors) + len(numbers) > _MOST_NAMES:
            raise InputRejected("it nests too deeply, or has more parts than a model has", code="pickle-refused")
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
            value = torch.from_numpy(np.ascontiguousarray(value))
        if isinstance(value, Tensor):
            tensors.setdefault(name, value)
        elif isinstance(value, int | float | np.floating | np.integer) and not isinstance(value, bool):
            number = float(value) if abs(float(value) if isinstance(value, np.generic) else value) <= _LARGEST else math.inf
            if math.isfinite(number):
                numbers.setdefault(name, number)
        elif isinstance(value, Mapping | list | tuple | _Inert) and id(value) not in seen:
            seen.add(id(value))
            todo += [(f"{name}.{key}" if name and key else name or key, each, depth + 1) for key, each in _members(value)]
    return tensors, numbers


_UNNAMED = ("_parameters", "_buffers", "_modules")
"""Where a module of torch keeps its members: no part of their names."""


def _members(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, _Inert):
        return [("", each) for each in value.__dict__.get("held", [])]
    if isinstance(value, Mapping):
        return [("" if key in _UNNAMED else str(key), each) for key, each in value.items()]
    return [(str(number), each) for number, each in enumerate(value)]


def classes_of(path: Path) -> list[str]:
    """Return the classes and functions that a pickle names, found without reading it; those of torch and Python left out."""
    names = set[str]()
    try:
        file = io.BytesIO(_pickle_bytes(path))
        for _ in range(_MOST_PICKLES):
            names |= set(_globals_of(file))
    except (OSError, ValueError, KeyError, IndexError, StopIteration, zipfile.BadZipFile):
        pass  # what was found until then
    own = sorted(name for name in names if name.split(".")[0] not in _USUAL)
    return [shown(name).strip("'") for name in own[:_MOST_CLASSES]]


def _globals_of(file: io.BytesIO) -> Iterator[str]:
    """Yield the globals that the next pickle in `file` names. A name may be two texts that occurred before."""
    pushed: list[str] = []
    memo: dict[int, str] = {}
    last = ""
    for opcode, argument, _ in pickletools.genops(file):
        if "UNICODE" in opcode.name:
            last = str(argument)
            pushed = [*pushed[-1:], last]
        elif opcode.name == "MEMOIZE":
            memo[len(memo)] = last
        elif opcode.name in ("BINPUT", "LONG_BINPUT"):
            memo[int(argument or 0)] = last
        elif opcode.name in ("BINGET", "LONG_BINGET"):
            pushed = [*pushed[-1:], memo.get(int(argument or 0), "")]
        else:
            last = ""
            if opcode.name == "GLOBAL":
                yield str(argument).replace(" ", ".")
            elif opcode.name == "STACK_GLOBAL":
                yield ".".join(pushed)


def _pickle_bytes(path: Path) -> bytes:
    if not zipfile.is_zipfile(path):
        return path.read_bytes()
    with zipfile.ZipFile(path) as file:
        return file.read(next(name for name in file.namelist() if name.endswith("data.pkl")))


def read_pickled(path: Path) -> FlatModule:
    """Return the tensors and numbers of the pickled module at `path`, read in a process without network, keys or other
    files.

    Raises:
        ConfigError: this machine cannot confine a process so.
        ArtifactError: the file is broken, holds no tensor, or names what no model has.
    """
    if not in_force().is_whole:
        raise ConfigError(
            f"{path} is pickled, and this machine cannot read it apart from network and files ({in_force().in_words()})",
            code="pickle-not-confined",
            remedy="Save a state dict in the project that made it: torch.save(module.state_dict(), ...); or use a kernel "
                   "with Landlock and seccomp",
        )
    path = path.resolve()
    memory = 4 * path.stat().st_size // 2**20 + _SPARE_MIB
    limits = Limits(_SECONDS, memory_mib=memory, max_answer_bytes=2**34)
    server = ForkServer([__name__])
    try:
        worker = server.fork(limits, Confinement.ARCHIVE)
        try:
            content = worker.call(Job(flatten, (path,), file=path))
        finally:
            worker.stop()
    except InputRejected as error:
        raise ArtifactError(
            f"{path}: {error.message}", code="adapted-model-unreadable",
            remedy="Save a state dict in the project that made it",
        ) from error
    finally:
        server.close()
    return flat_module_of(content, path)


def flat_module_of(content: Any, path: Path) -> FlatModule:
    """Parse the output of `flatten` for `path`; nothing in it is trusted.

    Raises:
        ArtifactError: it is no such content.
    """
    try:
        if not isinstance(content, bytes):
            raise ValueError("no bytes")
        length = int.from_bytes(content[:8], "little")
        numbers = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["numbers"])
        return FlatModule(load(content), {str(name): float(value) for name, value in numbers.items()})
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArtifactError(
            f"{path}: the process that read it gave no tensors: {error}", code="adapted-model-unreadable"
        ) from error


def read_plain(path: Path) -> FlatModule:
    """Read a file that holds only tensors and plain values: safetensors, or torch's weights-only format.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds something else.
    """
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt") as file:
                return FlatModule({name: file.get_tensor(name) for name in file.keys()}, {})  # noqa: SIM118 - no mapping
        except SafetensorError as error:
            raise ValueError(str(error)) from error
    from vidseek_training.torch_files import read_torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch's, of a pickle that is newer than its own
            return FlatModule(*flat(read_torch(path)))
    except InputRejected as error:
        raise ValueError(error.message) from error
