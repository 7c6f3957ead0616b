"""The registry of the index's vectors: each vector is one file that registers itself.

The vectors of vidseek are the modules of this folder that call `register`. Another package adds a vector by an entry point
of the group `vidseek.index_vectors` that names an `IndexVector` class.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from vidseek_media.errors import ConfigError
from vidseek_media.plugins import Registry, modules_in

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vidseek_retrieval.index.values import Tables, Value

ENTRY_POINTS = "vidseek.index_vectors"
FieldKind = Literal["keyword", "integer", "float", "datetime"]
"""The kinds of payload indexes."""


class IndexVector(abc.ABC):
    """A named vector of the clips in a collection.

    Import heavy modules, numpy included, inside the methods: every command loads all vectors when it reads params.

    Attributes:
        name: Name of the vector in Qdrant, in params (`publish.index.vectors`, `search.weights`) and in the API.
        kind: `dense` vectors lie in the encoder's space; `sparse` ones are ranked by BM25 (IDF on the server).
        weight: Weight in a search if neither query nor params state one.
        of_every_clip: Whether every clip has it; true only for `video`.
        quantized: Whether a dense vector is quantised according to `publish.index.quantization`.
        measured: Whether a publish measures the recall of searches by this dense vector.
        of_text: Whether it is made from the text of a clip: its title, captions, or name.
        filter_fields: Payload fields that it adds, each with the kind of its index. `fields` returns their values.
        evidence: Of a sparse vector: the payload field with the texts that its words come from, lists of start_ms, end_ms
            and text. `fields` returns it too. Searches name it in `in`.
        run_together: Whether the words of these texts may lack the spaces between them.
    """

    name: ClassVar[str]
    kind: ClassVar[Literal["dense", "sparse"]]
    weight: ClassVar[float] = 0.0
    of_every_clip: ClassVar[bool] = False
    quantized: ClassVar[bool] = True
    measured: ClassVar[bool] = True
    of_text: ClassVar[bool] = False
    filter_fields: ClassVar[Mapping[str, FieldKind]] = {}
    evidence: ClassVar[str] = ""
    run_together: ClassVar[bool] = False

    @abc.abstractmethod
    def values(self, tables: Tables) -> Callable[[str], Value | None]:
        """Return a function from a clip id to the value of this vector; None for a clip without one.

        Args:
            tables: Output of the stages for the published clips.

        Raises:
            ArtifactError: a table is missing or broken.
        """

    def fields(self, tables: Tables) -> Callable[[str], Mapping[str, Any]]:
        """Return a function from a clip id to the values of `filter_fields` and `evidence`; missing values are left out."""
        return lambda clip_id: {}

    def source(self, tables: Tables) -> Callable[[str], bytes] | None:
        """Return a function from a video id to bytes that differ if a value or field of one of its clips does.

        A publish compares them to find the videos that changed. None, the default, makes and compares all values.

        Args:
            tables: Output of the stages for the published clips.
        """
        return None

    def query(self, direction: NDArray[np.float32], text: str, *, language: str) -> Value | None:
        """Return the value that this vector is compared with in a search; None if the query has none.

        Args:
            direction: The query's vector in the encoder's space: float32 of shape (dimension,), unit length.
            text: Text of the query, or "".
            language: Language of the collection's words.
        """
        return direction


REGISTRY: Registry[IndexVector] = Registry(
    IndexVector, what="the vector", group=ENTRY_POINTS, modules=partial(modules_in, "vidseek_retrieval.vectors"),  # type: ignore[type-abstract]
    broken=partial(ConfigError, code="vector-not-loaded"), twice=partial(ConfigError, code="vector-twice"),
)
register = REGISTRY.register


def index_vectors() -> tuple[IndexVector, ...]:
    """Return all vectors: the one that every clip has first, the others by name.

    Raises:
        ConfigError: an installed package registers an unusable vector.
    """
    return tuple(sorted(REGISTRY.load().values(), key=lambda each: (not each.of_every_clip, each.name)))


def vector_names(kind: Literal["dense", "sparse"] | None = None) -> tuple[str, ...]:
    """Return the names of all vectors, or of those of one kind, in the order of `index_vectors`."""
    return tuple(each.name for each in index_vectors() if kind in (None, each.kind))


def index_vector(name: str) -> IndexVector:
    """Return the vector with this name.

    Raises:
        KeyError: no vector is registered under the name.
    """
    return REGISTRY.load()[name]


def filter_fields() -> dict[str, FieldKind]:
    """Return the payload fields that vectors add, each with the kind of its index."""
    return {field: kind for each in index_vectors() for field, kind in sorted(each.filter_fields.items())}


def evidence_vectors() -> dict[str, IndexVector]:
    """Return the vectors of words that searches may be limited to, by the payload field of their texts."""
    return {each.evidence: each for each in index_vectors() if each.evidence}
