"""Converts texts into sparse BM25 weights, with one tokenizer for both backends, for documents and queries."""

from __future__ import annotations

import re

import qdrant_edge as qdrant

from vidseek_media.errors import ConfigError
from vidseek_retrieval.index.values import SparseVector
from vidseek_retrieval.lexical.word_parts import document_parts
from vidseek_retrieval.settings import MULTILINGUAL

AVERAGE_LENGTH = 24.0
"""Words of a document of average length: a title and some captions."""

_NUMBER = re.compile(r"(?<![A-Za-z\d])\d+(?![A-Za-z\d])")
"""A number that stands alone or in a script without spaces. The multilingual tokenizer drops it (seen in 0.9.0), and
`camera 12` would be any camera; with letters before it, it is a word."""
_LANGUAGES = frozenset(name.lower() for name in dir(qdrant.SnowballLanguage) if not name.startswith("_"))


class WordEncoder:
    """Weights of the words of a text. Safe to share between threads.

    A document's weights are BM25's term frequencies (k 1.2, b 0.75); how rare a word is in the archive is the index's to
    know, and it multiplies. Robertson and Zaragoza, 2009, "The Probabilistic Relevance Framework: BM25 and Beyond".

    Args:
        language: `multilingual`, or a language whose stop words are left out and whose words are stemmed.

    Raises:
        ConfigError: the language is none of those.
    """

    def __init__(self, language: str = MULTILINGUAL) -> None:
        if language != MULTILINGUAL and language not in _LANGUAGES:
            raise ConfigError(
                f"the language of words is {language!r}, wanted {MULTILINGUAL} or one of {', '.join(sorted(_LANGUAGES))}",
                code="unknown-choice",
                remedy="Set publish.index.language in params.yaml",
            )
        if language == MULTILINGUAL:
            config = qdrant.Bm25Config(
                avg_len=AVERAGE_LENGTH, tokenizer=qdrant.TokenizerType.Multilingual, stemmer=qdrant.DisabledStemmer(),
                stopwords=qdrant.StopwordsSet(languages=set(), custom=set()),
            )
        else:
            config = qdrant.Bm25Config(avg_len=AVERAGE_LENGTH, language=language)
        self._model = qdrant.Bm25(config)

    def document(self, text: str) -> SparseVector:
        """Return the weights of a text for the index; empty if it has no words."""
        return _words_of(self._model.embed_document(_keep_numbers(text)))

    def query(self, text: str) -> SparseVector:
        """Return the weights of a query: 1 for each of its words."""
        return _words_of(self._model.embed_query(_keep_numbers(text)))


def with_parts(words: SparseVector, text: str, *, run_together: bool = False) -> SparseVector:
    """Return the weights of a text with those of the parts of its words, which have the weight 1 each.

    Args:
        words: The weights of the text.
        text: The text.
        run_together: As `document_parts` has it.
    """
    parts = sorted(document_parts(text, run_together=run_together) - set(words.indices))
    return SparseVector((*words.indices, *parts), (*words.values, *[1.0] * len(parts)))


def _keep_numbers(text: str) -> str:
    return _NUMBER.sub(r" num\g<0> ", text)


def _words_of(vector: qdrant.SparseVector) -> SparseVector:
    return SparseVector(tuple(vector.indices), tuple(vector.values))
