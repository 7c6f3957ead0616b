from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.raising import raises
from tests.tiny_bundle import CONTEXT, write_tiny_bundle
from vidseek_encoder.tokenize import Tokenizer
from vidseek_media.errors import ArtifactError, InputRejected


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    write_tiny_bundle(tmp_path)
    return Tokenizer.load(tmp_path / "tokenizer.json", context=CONTEXT, pad_id=0)


def test_encode__pads_to_context(tokenizer: Tokenizer) -> None:
    np.testing.assert_array_equal(tokenizer.encode(["red blue", ""]), [[1, 4, 6, 2, 0, 0], [1, 2, 0, 0, 0, 0]])


def test_encode__long_text_keeps_its_end_token(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(["red " * 2500])
    assert ids.tolist() == [[1, 4, 4, 4, 4, 2]] and ids.dtype == np.int64


def test_encode__trimmed_is_as_wide_as_the_longest(tokenizer: Tokenizer) -> None:
    np.testing.assert_array_equal(tokenizer.encode(["red blue", ""], trim=True), [[1, 4, 6, 2], [1, 2, 0, 0]])
    assert tokenizer.encode(["red " * 2500], trim=True).shape == (1, CONTEXT)
    assert tokenizer.encode([], trim=True).shape == (0, 2)


def test_count__what_is_read_without_padding(tokenizer: Tokenizer) -> None:
    assert tokenizer.count(["red blue", "", "red " * 2500]) == [4, 2, CONTEXT]


def test_encode__nothing(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode([]).shape == (0, CONTEXT)


@pytest.mark.parametrize("text", ["红色的球", "🟥" * 50, "كرة حمراء", "\x00\n\t", "é" * 100])
def test_encode__any_script(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.encode([text]).shape == (1, CONTEXT)


@pytest.mark.parametrize(("texts", "code"), [
    (["\ud800"], "text-not-tokenized"), ([None], "texts-not-a-list"), ("red", "texts-not-a-list"),
])
def test_encode__no_text_is_rejected(tokenizer: Tokenizer, texts: list[str], code: str) -> None:
    with raises(InputRejected, code=code):
        tokenizer.encode(texts)


@pytest.mark.parametrize("content", [None, b"", b"{}", b"\xff\xfe"])
def test_load__no_tokenizer(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_bytes(content)
    with raises(ArtifactError, code="tokenizer-broken", naming="tokenizer.json"):
        Tokenizer.load(path, context=4, pad_id=0)
