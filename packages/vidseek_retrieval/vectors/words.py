"""The sparse vector `words`: BM25 weights of the words of a clip's text, or of its file name, and parts of the words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from vidseek_retrieval.vectors.registry import IndexVector, register

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vidseek_retrieval.index.values import Tables, Value


@register
class WordsVector(IndexVector):
    """BM25's weights of the words of a clip's text. They are split by our code before a backend sees them."""

    name = "words"
    kind = "sparse"
    of_text = True
    evidence = "captions"

    def values(self, tables: Tables) -> Callable[[str], Value | None]:
        """Return a function from a clip id to the weights of the clip's words; None for a clip without words."""
        from vidseek_retrieval.index.bm25 import WordEncoder, with_parts

        texts, encoder = tables.texts, WordEncoder(tables.language)

        def value(clip_id: str) -> Value | None:
            text = texts.get(clip_id)
            words = encoder.document(text.words) if text else None
            return with_parts(words, text.words) if text and words and words.indices else None

        return value

    def fields(self, tables: Tables) -> Callable[[str], Mapping[str, Any]]:
        """Return a function from a clip id to its text, as one segment of the clip's span."""
        texts, spans = tables.texts, tables.spans

        def values(clip_id: str) -> Mapping[str, Any]:
            text = texts.get(clip_id)
            return {self.evidence: [[*spans[clip_id], text.words]]} if text and text.words else {}

        return values

    def source(self, tables: Tables) -> Callable[[str], bytes]:
        """Return a function to the video's texts; the language is a setting."""
        return tables.text_source

    def query(self, direction: NDArray[np.float32], text: str, *, language: str) -> Value | None:
        """Return the query's words, each with weight 1; None for a query without text."""
        from vidseek_retrieval.index.bm25 import WordEncoder

        return WordEncoder(language).query(text) if text else None
