"""Converts texts into sparse BM25 weights, with one tokenizer for both backends, for documents and queries."""

from __future__ import annotations

import re
from functools import lru_cache

import qdrant_edge as qdrant

from vidseek_media.errors import ConfigError
from vidseek_retrieval.index.values import SparseVector
from vidseek_retrieval.lexical.word_parts import UNSPACED, document_parts, parts_of_run, with_joined
from vidseek_retrieval.settings import MULTILINGUAL

AVERAGE_LENGTH = 24.0
"""Words of a document of average length: a title and some captions."""

_NUMBER = re.compile(r"(?<![A-Za-z\d])\d+(?![A-Za-z\d])")
"""A number that stands alone or in a script without spaces. The multilingual tokenizer drops it (seen in 0.9.0), and
`camera 12` would be any camera; with letters before it, it is a word."""
_AS_LETTERS = str.maketrans("0123456789", "ghijklmnop")
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
        self.numbers = lru_cache(maxsize=20_000)(lambda word: frozenset(self.query(word).indices))
        """Returns the numbers of a word, as a query has them; remembered, since hits share their words."""

    def document(self, text: str) -> SparseVector:
        """Return the weights of a text for the index; empty if it has no words."""
        return _words_of(self._model.embed_document(_spaced(text, of_document=True)))

    def query(self, text: str) -> SparseVector:
        """Return the weights of a query: 1 for each of its words."""
        return _words_of(self._model.embed_query(_spaced(text, of_document=False)))


def with_parts(words: SparseVector, text: str, *, run_together: bool = False) -> SparseVector:
    """Return the weights of a text with those of the parts of its words, which have the weight 1 each.

    Args:
        words: The weights of the text.
        text: The text.
        run_together: As `document_parts` has it.
    """
    parts = sorted(document_parts(text, run_together=run_together) - set(words.indices))
    return SparseVector((*words.indices, *parts), (*words.values, *[1.0] * len(parts)))


def _spaced(text: str, *, of_document: bool) -> str:
    """Return a text as the tokenizer shall read it: in plain spelling, and runs without spaces cut into equal parts.

    A tokenizer that knows such a language cuts one text in one place and another elsewhere, so that a query of two words of
    it finds nothing. A document has single letters too, for a query of one.
    """
    def parts(run: re.Match[str]) -> str:
        each = parts_of_run(run[0])
        if of_document and len(each[0]) == 2:
            each += list(run[0])
        return f" {' '.join(map(_in_letters, each))} "

    return _NUMBER.sub(r" num\g<0> ", UNSPACED.sub(parts, with_joined(text)))


def _in_letters(part: str) -> str:
    """Return a part as a word of a to p that no tokenizer cuts."""
    return "qz" + "".join(f"{ord(letter):05x}" for letter in part).translate(_AS_LETTERS)


def _words_of(vector: qdrant.SparseVector) -> SparseVector:
    return SparseVector(tuple(vector.indices), tuple(vector.values))
