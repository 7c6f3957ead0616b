"""The registry of the index's vectors: a vector is one file that registers itself, and all else goes by what it says.

The vectors that come with vidseek are the modules of this folder that call `register`. Another package brings its own by an
entry point of the group `vidseek.index_vectors` that names an `IndexVector` class.
"""

from __future__ import annotations

import abc
import functools
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from vidseek_media.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vidseek_retrieval.index.values import Tables, Value

ENTRY_POINTS = "vidseek.index_vectors"
FieldKind = Literal["keyword", "integer", "datetime"]


class IndexVector(abc.ABC):
    """A named vector of the clips in a collection.

    Its module imports what is heavy in its methods, numpy too: every command looks at all vectors when it reads params.

    Attributes:
        name: Of the vector, in Qdrant, in params (`publish.index.vectors`, `search.weights`) and in the API.
        kind: `dense` vectors lie in the space of the encoder; `sparse` ones are compared by BM25's rule (IDF on the server).
        weight: How much it counts in a search where neither query nor params say.
        of_every_clip: Whether each clip must have it; true for `video` alone.
        quantized: Whether a dense vector is quantised where `publish.index.quantization` says so.
        measured: Whether a publish measures the recall of searches by a dense vector, beside its counts and lengths.
        of_text: Whether it is made of what was written about a clip: of its title, captions, or name.
        filter_fields: Payload fields that it brings, each with an index of this kind. `fields` gives their values.
    """

    name: ClassVar[str]
    kind: ClassVar[Literal["dense", "sparse"]]
    weight: ClassVar[float] = 0.0
    of_every_clip: ClassVar[bool] = False
    quantized: ClassVar[bool] = True
    measured: ClassVar[bool] = True
    of_text: ClassVar[bool] = False
    filter_fields: ClassVar[Mapping[str, FieldKind]] = {}

    @abc.abstractmethod
    def values(self, tables: Tables) -> Callable[[str], Value | None]:
        """What gives the value of a clip by its id, None where the clip has none, from what the stages left.

        Raises:
            ArtifactError: a table is missing or broken.
        """

    def fields(self, tables: Tables) -> Callable[[str], Mapping[str, Any]]:
        """What gives the values of `filter_fields` of a clip by its id; those that it lacks are left out."""
        return lambda clip_id: {}

    def query(self, direction: NDArray[np.float32], text: str, *, language: str) -> Value | None:
        """What a query is compared by with this vector; None where it cannot be.

        Args:
            direction: What is looked for, in the space of the encoder: shape (dimension,), unit length.
            text: What was asked in words, or "".
            language: Of the words of the collection.
        """
        return direction


_REGISTERED: dict[str, IndexVector] = {}


def register(vector: type[IndexVector]) -> type[IndexVector]:
    """Make a vector known; the decorator of its class.

    Raises:
        ConfigError: another class is registered under this name.
    """
    known = _REGISTERED.get(vector.name)
    if known is not None and _origin(type(known)) != _origin(vector):
        raise ConfigError(
            f"the vector {vector.name!r} comes from {_origin(vector)} and from {_origin(type(known))}",
            code="vector-twice", remedy="Give one of them another name, or uninstall its package",
        )
    _REGISTERED[vector.name] = vector()
    return vector


def index_vectors() -> tuple[IndexVector, ...]:
    """All vectors: the one of every clip first, then by name.

    Raises:
        ConfigError: an installed package names a vector that cannot be used.
    """
    _load_all()
    return tuple(sorted(_REGISTERED.values(), key=lambda each: (not each.of_every_clip, each.name)))


def vector_names(kind: Literal["dense", "sparse"] | None = None) -> tuple[str, ...]:
    """The names of all vectors (of this kind), in the order of `index_vectors`."""
    return tuple(each.name for each in index_vectors() if kind in (None, each.kind))


def index_vector(name: str) -> IndexVector:
    """The vector of this name.

    Raises:
        KeyError: none is registered under it.
    """
    _load_all()
    return _REGISTERED[name]


def filter_fields() -> dict[str, FieldKind]:
    """The payload fields that vectors bring, each with the kind of its index."""
    return {field: kind for each in index_vectors() for field, kind in sorted(each.filter_fields.items())}


@functools.cache
def _load_all() -> None:
    """Import the modules of this folder, and what other packages bring."""
    package = importlib.import_module("vidseek_retrieval.vectors")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    for point in entry_points(group=ENTRY_POINTS):
        _load_point(point)


def _load_point(point: EntryPoint) -> None:
    where = f"the entry point {point.name!r} of {ENTRY_POINTS} ({point.value})"
    remedy = "Fix or uninstall the package that brings it"
    try:
        found = point.load()
    except Exception as error:  # another package's code may raise anything
        raise ConfigError(f"{where} cannot be loaded: {error!r}", code="vector-not-loaded", remedy=remedy) from error
    if not (isinstance(found, type) and issubclass(found, IndexVector)):
        raise ConfigError(
            f"{where} is {found!r}, wanted a class derived from {IndexVector.__name__}", code="vector-not-loaded",
            remedy=remedy,
        )
    register(found)


def _origin(vector: type[IndexVector]) -> str:
    return f"{vector.__module__}.{vector.__qualname__}"
