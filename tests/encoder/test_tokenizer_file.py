from __future__ import annotations

import base64
import json
import resource
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex as Pattern
from tokenizers import Tokenizer as Made
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from tests.raising import raises
from vidseek_encoder import tokenizer_file
from vidseek_encoder.tokenize import Tokenizer
from vidseek_encoder.tokenizer_file import read_tokenizer
from vidseek_media.errors import ArtifactError

WORDS = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "a": 4, "b": 5, "\u2581a": 6, "aa": 7}
ENDS = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def no_trial(_: bytes) -> None:
    raise AssertionError("a trial was wanted")


def clip() -> Made:
    made = Made(models.BPE(WORDS, [("a", "a")], unk_token="<unk>", end_of_word_suffix=""))
    made.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Pattern(r"\s+"), " "), normalizers.Lowercase()]
    )
    words = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    made.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Pattern(words), behavior="removed", invert=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 1))
    return made


def bert() -> Made:
    made = Made(models.WordPiece(WORDS, unk_token="<unk>"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    made.post_processor = ENDS
    return made


def siglip() -> Made:
    made = Made(models.Unigram([(word, -float(number)) for word, number in WORDS.items()], unk_id=3))
    made.normalizer = normalizers.Sequence([
        normalizers.Lowercase(), normalizers.Replace(Pattern("[!\"#$%&'()*+,\\-./:;<=>?@\\[\\]\\\\^_`{|}~]"), ""),
        normalizers.Replace(Pattern(r"\s+"), " "), normalizers.Strip(),
    ])
    made.pre_tokenizer, made.post_processor = pre_tokenizers.Metaspace(), ENDS
    return made


def gemma() -> Made:
    made = Made(models.BPE(WORDS, [("a", "a")], unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Replace(" ", "\u2581")
    made.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous")
    made.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    return made


@pytest.mark.parametrize("make", [clip, bert, siglip, gemma])
def test_read_tokenizer__those_of_published_models_are_read_without_a_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[], Made]
) -> None:
    monkeypatch.setattr(tokenizer_file, "_try_out", no_trial)
    make().save(str(tmp_path / "tokenizer.json"))
    read = read_tokenizer(tmp_path / "tokenizer.json")
    assert read.encode("a aa b").ids == make().encode("a aa b").ids


def of(tmp_path: Path, **parts: Any) -> Path:
    """A tokenizer.json of whole words, some of its parts in the place of others."""
    made = Made(models.WordLevel(WORDS, unk_token="<unk>"))
    made.pre_tokenizer, made.post_processor = pre_tokenizers.Whitespace(), ENDS
    content = json.loads(made.to_str())
    for name, part in parts.items():
        content[name] = {**content[name], **part} if name == "model" else part
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    return tmp_path / "tokenizer.json"


def replace(pattern: str, content: str, *, kind: str = "String") -> dict[str, Any]:
    return {"type": "Replace", "pattern": {kind: pattern}, "content": content}


def charsmap(mapped: bytes) -> dict[str, str]:
    content = base64.b64encode(struct.pack("<I", 4) + b"\0" * 4 + mapped).decode()
    return {"type": "Precompiled", "precompiled_charsmap": content}


def chain(*parts: dict[str, Any], times: int, key: str = "normalizers") -> dict[str, Any]:
    return {"type": "Sequence", key: [*parts] * times}


BYTES = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": False}
BERT = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True}
LETTERS = {"type": "Split", "pattern": {"Regex": "."}, "behavior": "Isolated", "invert": False}


def added(content: str, num: int) -> list[dict[str, Any]]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "special"), False)
    return [{"id": 8 + n, "content": f"{content}{n}", "normalized": True, **flags} for n in range(num)]


TEMPLATE = {"type": "TemplateProcessing", "pair": [], "special_tokens": {}}
TEXT = {"Sequence": {"id": "A", "type_id": 0}}
BOMBS: dict[str, dict[str, Any]] = {
    "a becomes aa, again and again": {"normalizer": {"type": "Sequence", "normalizers": [replace("a", "aa")] * 12}},
    "sequences in sequences": {
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Sequence", "normalizers": [replace("a", "a")] * 9}] * 2}
    },
    "one letter becomes a book": {"normalizer": replace("a", "a" * 100_000)},
    "between all letters": {"normalizer": replace("", "aaaaaaaa")},
    "a pattern that matches nothing": {"normalizer": replace("b*", "aaaaaaaa", kind="Regex")},
    "a pattern that goes back": {"normalizer": replace("(a+)+b", "", kind="Regex")},
    "a splitter that goes back": {
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": r"(\w+\s?)*$"}, "behavior": "Isolated", "invert": False}
    },
    "a long prefix": {"normalizer": {"type": "Prepend", "prepend": "a" * 1000}},
    "a map to a book": {"normalizer": charsmap(b"a" * 100_000)},
    "a map that is cut off": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
    "a map whose table is none": {"normalizer": charsmap(b"a\0")},
    "an unknown normalizer": {"normalizer": {"type": "Python", "code": "1"}},
    "an unknown splitter": {"pre_tokenizer": {"type": "FixedLength", "length": 1}},
    "the text again and again": {"post_processor": {**TEMPLATE, "single": [TEXT] * 9}},
    "many ends": {"post_processor": {
        **TEMPLATE, "single": [TEXT],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [1] * 10**5, "tokens": ["<s>"] * 10**5}},
    }},
    "many added tokens": {"added_tokens": added("x", 20_001)},
    "added tokens that grow": {"added_tokens": added("\ufdfa" * 60, 10_000), "normalizer": {"type": "NFKC"}},
    "bytes of bytes": {"normalizer": chain({"type": "ByteLevel"}, times=15)},
    "bytes of bytes, split": {"pre_tokenizer": chain(BYTES, times=15, key="pretokenizers")},
    "a sign before each letter": {"pre_tokenizer": chain(
        LETTERS, {"type": "Metaspace", "replacement": "x", "prepend_scheme": "always", "split": False}, times=8,
        key="pretokenizers",
    )},
    "one letter of Unicode that is 18": {"normalizer": chain({"type": "NFKC"}, replace("\u0644", "\ufdfa"), times=7)},
    "accents taken apart": {"normalizer": chain({"type": "NFD"}, replace("\u0308", "\u01d5"), times=7)},
    "spaces around Chinese letters": {"normalizer": chain(BERT, replace(" ", "\u4e2d"), times=7)},
    "small letters of two signs": {"normalizer": chain({"type": "Lowercase"}, replace("\u0307", "\u0130"), times=8)},
    "map upon map": {"normalizer": chain(charsmap(b"a" * 33), times=2)},
    "a text that is not there": {"post_processor": {**TEMPLATE, "single": [{"Sequence": {"id": "B", "type_id": 0}}]}},
    "a token that is not there": {"post_processor": {
        **TEMPLATE, "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, TEXT]
    }},
    "ends upon ends": {"post_processor": chain(
        {"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1], "trim_offsets": True, "add_prefix_space": True},
        times=15, key="processors",
    )},
    "an unknown word that is unknown": {"model": {"type": "BPE", "merges": [], "unk_token": "none"}},
    "a suffix of every letter": {"model": {"type": "BPE", "merges": [], "end_of_word_suffix": "a" * 10_000}},
    "pieces of long words": {
        "model": {"type": "WordPiece", "max_input_chars_per_word": 10**9, "continuing_subword_prefix": "#"}
    },
    "merges by chance": {"model": {"type": "BPE", "merges": [], "dropout": 0.5}},
    "numbers that are none": {"model": {"vocab": {"a": -1, "<unk>": 10**30}}},
    "no model": {"model": {"type": "Script"}},
}


def computed() -> float:
    """The computing time of this process and of those that it has started and that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


@pytest.mark.parametrize("what", BOMBS)
def test_read_tokenizer__refuses_what_takes_minutes_or_gigabytes(tmp_path: Path, what: str) -> None:
    path = of(tmp_path, **BOMBS[what])
    began = computed()
    with raises(ArtifactError, code="tokenizer-broken", naming="tokenizer.json"):
        Tokenizer.load(path, context=16, pad_id=0).encode(["abc"])
    assert computed() - began < 45


def test_read_tokenizer__a_pattern_of_its_own_is_tried_once(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = of(tmp_path, normalizer=replace("x[yz]+", "", kind="Regex"))
    assert read_tokenizer(path).encode("a").ids == [1, 4, 2]
    monkeypatch.setattr(tokenizer_file, "_try_out", no_trial)
    read_tokenizer(path)
    (memo,) = (cache / "vidseek" / "tokenizers").iterdir()
    memo.parent.chmod(0o777)  # others could have put it there
    with pytest.raises(AssertionError, match="trial"):
        read_tokenizer(path)
    memo.parent.chmod(0o700)
    of(tmp_path, normalizer=replace("x[yz]*", "", kind="Regex"))
    with pytest.raises(AssertionError, match="trial"):
        read_tokenizer(path)


def test_try_out__is_ended_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_file, "TRIAL_SECONDS", 0.01)
    with raises(ArtifactError, code="tokenizer-broken"):
        read_tokenizer(of(tmp_path, normalizer=replace("x[yz]+", "", kind="Regex")))


def test_read_tokenizer__one_of_clips_size_takes_a_tenth_of_a_second(tmp_path: Path) -> None:
    letters = {f"{number:x}</w>": number for number in range(49_408)}
    made = clip()
    made.model = models.BPE({**letters, **{word: 49_408 + n for n, word in enumerate(WORDS)}}, [])
    made.save(str(tmp_path / "tokenizer.json"))

    def seconds(read: Callable[[], object]) -> float:
        times = []
        for _ in range(3):
            began = time.process_time()
            read()
            times.append(time.process_time() - began)
        return min(times)

    alone = seconds(lambda: Made.from_file(str(tmp_path / "tokenizer.json")))
    checked = seconds(lambda: read_tokenizer(tmp_path / "tokenizer.json"))
    assert checked - alone < 0.1
