"""`video`: a clip's frames, by the video tower. Every clip has it, and it ranks where nothing else is said."""

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
        """The row of each clip in the embeddings."""
        places, rows = tables.places, tables.embeddings.vectors
        return lambda clip_id: rows[places[clip_id]] if clip_id in places else None
