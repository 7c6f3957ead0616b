"""A sparse vector over the words of segments: what is said in a clip, or stands on the screen."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from vidseek_retrieval.vectors.registry import IndexVector

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vidseek_retrieval.index.values import Tables, Value

MAX_LETTERS = 8192
"""Of the texts of one clip, in its payload and its vector."""


class SegmentVector(IndexVector):
    """BM25's weights of the words of a clip's segments, and of parts of these words. A subclass names the field."""

    kind = "sparse"
    of_text = True
    weight = 0.0

    def values(self, tables: Tables) -> Callable[[str], Value | None]:
        """Return a function from a clip id to the weights of the clip's words; None for a clip without words."""
        from vidseek_retrieval.index.bm25 import WordEncoder, with_parts

        encoder, shown = WordEncoder(tables.language), self.fields(tables)

        def value(clip_id: str) -> Value | None:
            text = "\n".join(str(segment[2]) for segment in shown(clip_id).get(self.evidence, ()))
            words = encoder.document(text) if text else None
            return with_parts(words, text, run_together=self.run_together) if words and words.indices else None

        return value

    def fields(self, tables: Tables) -> Callable[[str], Mapping[str, Any]]:
        """Return a function from a clip id to its segments: start_ms, end_ms and text of each."""
        of_clips = tables.clip_segments(self.evidence)

        def values(clip_id: str) -> Mapping[str, Any]:
            kept, left = [], MAX_LETTERS
            for segment in of_clips.get(clip_id, ()):
                text = segment.text[:left]
                if text:
                    kept.append([segment.start_ms, segment.end_ms, text])
                left -= len(text)
            return {self.evidence: kept} if kept else {}

        return values

    def source(self, tables: Tables) -> Callable[[str], bytes]:
        """Return a function from a video id to a digest of its segments; the language is a setting."""
        of_videos = tables.segments(self.evidence)
        of_none = hashlib.sha256().digest()

        def digest(video_id: str) -> bytes:
            if not (segments := of_videos.get(video_id)):
                return of_none
            lines = (f"{each.start_ms} {each.end_ms} {each.text}" for each in segments)
            return hashlib.sha256("\n".join(lines).encode()).digest()

        return digest

    def query(self, direction: NDArray[np.float32], text: str, *, language: str) -> Value | None:
        """Return the query's words, each with weight 1; None for a query without text."""
        from vidseek_retrieval.index.bm25 import WordEncoder

        return WordEncoder(language).query(text) if text else None
