"""Converts texts into token ids of one length, with the tokenizer.json of the bundle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer as _Tokenizer

from vidseek_encoder.tokenizer_file import REMEDY, read_tokenizer, rust_errors
from vidseek_media.errors import ArtifactError, InputRejected, foreign

_LEAST = 2
"""Fewest tokens of a batch: the exporter would treat an axis of length 1 as constant."""

_UNKNOWN = "\u4dff \U0010fffd"
"""Letters that hardly any vocabulary contains. The unknown token that a file names for them may be missing."""


class Tokenizer:
    """A tokenizer with a fixed context length."""

    def __init__(self, tokenizer: _Tokenizer, *, context: int, pad_id: int) -> None:
        # The limit counts the tokens that the template adds, so that a long text keeps its end token.
        tokenizer.enable_truncation(max_length=context)
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self.context = context
        self.pad_id = pad_id

    @classmethod
    def load(cls, path: Path, *, context: int, pad_id: int) -> Tokenizer:
        """Read a tokenizer.json.

        Args:
            path: The file.
            context: Largest number of tokens of a text, start and end included.
            pad_id: Id of the padding token.

        Raises:
            ArtifactError: the file is missing, is not a tokenizer, or `tokenizer_file` refuses it.
        """
        tokenizer = read_tokenizer(path)
        with foreign(
            ArtifactError, f"{path} leaves no room in {context} tokens", code="tokenizer-broken", remedy=REMEDY,
            errors=ValueError,  # a template that adds more tokens than there is room for
        ), rust_errors():
            loaded = cls(tokenizer, context=context, pad_id=pad_id)
        try:
            longest = max(loaded.count(["", "a " * context, _UNKNOWN]))
        except InputRejected as error:  # the fault of the file, not of who sends a text later
            raise ArtifactError(
                f"{path} cannot tokenize: {error.message}", code="tokenizer-broken", remedy=REMEDY,
            ) from error
        if longest > context:
            raise ArtifactError(
                f"{path} makes {longest} tokens where {context} were wanted", code="tokenizer-broken", remedy=REMEDY,
            )
        return loaded

    def encode(self, texts: Sequence[str], *, trim: bool = False) -> NDArray[np.int64]:
        """Return the token ids of texts: int64, shape (n, context), cut to the context length (the end token is kept) and
        padded.

        Args:
            texts: n texts, valid Unicode.
            trim: Whether to pad only to the longest of these texts, so that the second axis may be shorter.

        Raises:
            InputRejected: an element is not a text, or not valid Unicode.
        """
        found = [encoding.ids for encoding in self._encode(texts)]
        width = max(map(len, found), default=0) if trim else self.context
        ids = np.full((len(texts), max(width, _LEAST)), self.pad_id, dtype=np.int64)
        for row, numbers in zip(ids, found, strict=True):
            row[: len(numbers)] = numbers
        return ids

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text that the model reads: at most the context length, without padding.

        Args:
            texts: n texts, valid Unicode.

        Raises:
            InputRejected: an element is not a text, or not valid Unicode.
        """
        return [len(encoding.ids) for encoding in self._encode(texts)]

    def are_cut(self, texts: Sequence[str]) -> list[bool]:
        """Return whether each text has more tokens than the context holds.

        Args:
            texts: n texts, valid Unicode.

        Raises:
            InputRejected: an element is not a text, or not valid Unicode.
        """
        return [bool(encoding.overflowing) for encoding in self._encode(texts)]

    def _encode(self, texts: Sequence[str]) -> list[Any]:
        require_texts(texts)
        with foreign(
            InputRejected, "a text cannot be tokenized", code="text-not-tokenized", remedy="Send valid Unicode",
            errors=ValueError,  # a lone surrogate, say
        ), rust_errors():
            encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=True)
        return list(encodings)


def require_texts(texts: Sequence[str]) -> None:
    """Check that `texts` is a list of texts.

    Raises:
        InputRejected: it is a single text, or contains something else.
    """
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise InputRejected(f"wanted a list of texts, got {type(texts).__name__} of something else", code="texts-not-a-list")
