"""The vector `video`: a clip's frames, embedded by the vision tower. Every clip has it, and searches use it by default."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from vidseek_retrieval.vectors.registry import IndexVector, register

if TYPE_CHECKING:
    from vidseek_retrieval.index.values import Tables, Value


@register
class VideoVector(IndexVector):
    """The embedding of a clip, as the stage `embed` wrote it."""

    name = "video"
    kind = "dense"
    weight = 1.0
    of_every_clip = True

    def values(self, tables: Tables) -> Callable[[str], Value | None]:
        """Return a function from a clip id to the clip's row of the embeddings."""
        places, rows = tables.places, tables.embeddings.vectors
        return lambda clip_id: rows[places[clip_id]] if clip_id in places else None
