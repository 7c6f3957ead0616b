"""Reads tokenizer.json so that no file can take minutes or gigabytes for a few letters.

A tokenizer file describes steps that replace, split and match text. It comes from a model hub, or from someone else with a
bundle. Only listed parts are accepted (those of CLIP, SigLIP, ViCLIP, BERT and XLM-R), each with bounds. A file that brings
patterns or tables of its own is also tried in a process with limits. Results are remembered by the sha256 of the file.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer as _Tokenizer

from vidseek_encoder.patterns import KNOWN, require_tame
from vidseek_media.errors import ArtifactError, is_panic
from vidseek_media.files.json_files import parse_json
from vidseek_media.names import shown

MOST_BYTES = 64 * 2**20
"""Largest file. SigLIP 2's, the largest known one, has 34 MB."""
MOST_TOKENS = 1_000_000
MOST_TOKEN_LETTERS = 1024
MOST_VOCABULARY_LETTERS = 8_000_000
"""Most letters of all tokens together: a trie takes a hundred bytes for each. XLM-R's 250,000 tokens have 2 million."""
MOST_ADDED = 20_000
MOST_ADDED_LETTERS = 1_000_000
MOST_PARTS = 16
"""Most normalizers or pre-tokenizers, nested ones included."""
MOST_GROWTH = 256.0
"""Most letters that normalizers and pre-tokenizers together may make of one. XLM-R's map and its space sign reach 66."""
MOST_PUT_IN = 8.0
"""Most letters that one replacement may insert for one letter."""
MOST_GROWN_LETTERS = 8_000_000
"""Most letters of all added tokens after normalization, which happens when the file is read."""
MOST_AFFIX = 16
"""Most letters of a prefix or suffix of a text or word."""
MOST_CHARSMAP_BYTES = 4 * 2**20
MOST_MAPPED_BYTES = 128
"""Most bytes that a precompiled map may insert for one letter. Unicode's longest mapping has 33."""
MOST_WORD_LETTERS = 1000
"""Longest word of WordPiece in letters; its run time is quadratic in this."""
MOST_TEMPLATE = 16
TRIAL_SECONDS = 600.0
"""For a process whose computing time has a limit of its own: a loaded machine may take its time."""
CHECKED: Final = "2"
"""Version of the checks. Increase it when a check changes: remembered results of other versions are ignored."""
REMEMBERED_FROM_BYTES = 2**20
"""Smallest file whose result is remembered. Checking a smaller one takes a few milliseconds."""
REMEDY = "Run `dvc repro export` to write it again, or take the file that the model was published with"

Part = Mapping[str, Any]


def read_tokenizer(path: Path) -> _Tokenizer:
    """Read a tokenizer.json.

    Raises:
        ArtifactError: the file is missing or broken, or has parts that vidseek does not need and that could do harm.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        _check(content)
        with rust_errors():
            return _Tokenizer.from_str(content.decode("utf-8"))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        why = str(error) if isinstance(error, OSError | ValueError) else repr(error)
        raise ArtifactError(
            f"{path} cannot be read as a tokenizer: {why}", code="tokenizer-broken", remedy=REMEDY,
        ) from error


@contextmanager
def rust_errors() -> Iterator[None]:
    """Convert all errors of the tokenizers library, panics included, into ValueError."""
    try:
        yield
    except Exception as error:  # it raises bare Exception
        raise ValueError(str(error)) from error
    except BaseException as error:
        if not is_panic(error):
            raise
        raise ValueError(str(error)) from error


def _check(content: bytes) -> None:
    if len(content) > MOST_BYTES:
        raise ValueError(f"it is larger than {MOST_BYTES // 2**20} MiB")
    memo = _memo_of(content) if len(content) >= REMEMBERED_FROM_BYTES else None
    if memo is not None and _remembers(memo):
        return
    wants_trial = check_content(parse_json(content))
    if wants_trial:
        memo = memo or _memo_of(content)
        if _remembers(memo):
            return
        _try_out(content)
    if memo is not None:
        _remember(memo)


def check_content(content: Part) -> bool:
    """Check the JSON of a tokenizer against the accepted parts and bounds.

    Returns:
        Whether a trial is needed as well. If False, the tokenizer is harmless.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: it is not a tokenizer, or a part is not accepted.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"it is {shown(content)}, wanted a table")
    _check_model(content["model"])
    normalizers = _flat(content.get("normalizer"), "normalizers")
    splitters = _flat(content.get("pre_tokenizer"), "pretokenizers")
    growth = math.prod([_rule(_NORMALIZERS, part, "a normalizer")(part) for part in normalizers])
    _check_added(content.get("added_tokens") or [], growth)
    growth *= math.prod([_rule(_SPLITTERS, part, "a pre-tokenizer")(part) for part in splitters])
    if growth > MOST_GROWTH:
        raise ValueError(f"it makes up to {growth:.0f} letters of one, wanted at most {MOST_GROWTH:.0f}")
    for part in _flat(content.get("post_processor"), "processors"):
        _rule(_PROCESSORS, part, "a post-processor")(part)
    return any(_is_own(part) for part in (*normalizers, *splitters))


def _is_own(part: Part) -> bool:
    """Whether the part has a pattern or table that is not a known one."""
    if part["type"] == "Precompiled":
        return True
    pattern = part.get("pattern")
    return isinstance(pattern, Mapping) and "Regex" in pattern and pattern["Regex"] not in _USUAL


def _rule(rules: Mapping[str, Callable[[Part], Any]], part: Part, what: str) -> Callable[[Part], Any]:
    if part["type"] not in rules:
        raise ValueError(f"{what} is of type {shown(part['type'])}, wanted one of {', '.join(sorted(rules))}")
    return rules[part["type"]]


def _flat(part: Part | None, key: str) -> list[Part]:
    """Return the parts of a sequence, with nested sequences flattened."""
    waiting: list[Part] = [] if part is None else [part]
    found: list[Part] = []
    while waiting:
        each = waiting.pop(0)
        if not isinstance(each, Mapping) or not isinstance(each.get("type"), str):
            raise ValueError(f"a part of it is {shown(each)}, wanted a table with a type")
        if each["type"] == "Sequence":
            waiting = [*_list(each[key], MOST_PARTS, key), *waiting]
        found.append(each)
        if len(found) + len(waiting) > MOST_PARTS:
            raise ValueError(f"it has more than {MOST_PARTS} {key}")
    return [each for each in found if each["type"] != "Sequence"]


def _check_model(model: Part) -> None:
    kind = model.get("type", "BPE" if "merges" in model else "WordLevel")
    if kind not in ("BPE", "WordPiece", "WordLevel", "Unigram"):
        raise ValueError(f"its model is of type {shown(kind)}, wanted BPE, WordPiece, WordLevel or Unigram")
    vocabulary = model["vocab"]
    if kind == "Unigram":
        pairs = _list(vocabulary, MOST_TOKENS, "vocab")
        if not all(isinstance(pair, list) and len(pair) == 2 and math.isfinite(pair[1]) for pair in pairs):
            raise ValueError("its vocabulary is no list of tokens with finite scores")
        tokens: Sequence[str] = [pair[0] for pair in pairs]
    else:
        if not isinstance(vocabulary, Mapping) or len(vocabulary) > MOST_TOKENS:
            raise ValueError(f"its vocabulary is no table of at most {MOST_TOKENS} tokens")
        if not all(isinstance(number, int) and 0 <= number < 2**31 for number in vocabulary.values()):
            raise ValueError("its vocabulary has numbers that are none of a token")
        tokens = list(vocabulary)
    if not all(isinstance(token, str) for token in tokens) or max(map(len, tokens), default=0) > MOST_TOKEN_LETTERS:
        raise ValueError(f"a token of its vocabulary is no text of at most {MOST_TOKEN_LETTERS} letters")
    if sum(map(len, tokens)) > MOST_VOCABULARY_LETTERS:
        raise ValueError(f"the tokens of its vocabulary have more than {MOST_VOCABULARY_LETTERS} letters together")
    _list(model.get("merges") or [], MOST_TOKENS, "merges")
    if model.get("dropout"):
        raise ValueError("its model drops merges at random: the same text would give other tokens each time")
    for name in ("continuing_subword_prefix", "end_of_word_suffix", "unk_token"):
        _affix(model.get(name), f"model.{name}", most=256 if name == "unk_token" else MOST_AFFIX)
    longest = model.get("max_input_chars_per_word", 100)
    if not isinstance(longest, int) or not 0 < longest <= MOST_WORD_LETTERS:
        raise ValueError(f"max_input_chars_per_word is {shown(longest)}, wanted 1 to {MOST_WORD_LETTERS}")


def _check_added(added: object, growth: float) -> None:
    tokens = _list(added, MOST_ADDED, "added_tokens")
    for token in tokens:
        text = token["content"]
        if not isinstance(text, str) or not 0 < len(text) <= MOST_TOKEN_LETTERS:
            raise ValueError(f"an added token is {shown(text)}, wanted a text of 1 to {MOST_TOKEN_LETTERS} letters")
        if not isinstance(token["id"], int) or not 0 <= token["id"] < 2**31:
            raise ValueError(f"the number of an added token is {shown(token['id'])}")
    if sum(len(token["content"]) for token in tokens) > MOST_ADDED_LETTERS:
        raise ValueError(f"its added tokens have more than {MOST_ADDED_LETTERS} letters together")
    if growth * sum(len(token["content"]) for token in tokens if token.get("normalized", True)) > MOST_GROWN_LETTERS:
        raise ValueError(f"its added tokens grow to more than {MOST_GROWN_LETTERS} letters together")


def _growing(most: float) -> Callable[[Part], float]:
    """Return the rule of a part that may turn one letter into `most` letters."""
    return lambda part: most


def _replace(part: Part) -> float:
    content = part["content"]
    if not isinstance(content, str) or len(content) > MOST_AFFIX:
        raise ValueError(f"a normalizer puts {shown(content)} in, wanted a text of at most {MOST_AFFIX} letters")
    shortest = _pattern(part["pattern"])
    growth = max(1.0, len(content) / shortest) if shortest else 1.0 + len(content)
    if growth > MOST_PUT_IN:
        raise ValueError(f"a normalizer puts {growth:.0f} letters in the place of one, wanted at most {MOST_PUT_IN:.0f}")
    return growth


def _pattern(pattern: Part) -> int:
    """Return the smallest number of letters that a pattern can match."""
    if set(pattern) == {"String"} and isinstance(pattern["String"], str):
        if not 0 < len(pattern["String"]) <= MOST_TOKEN_LETTERS:
            raise ValueError(f"a pattern is a text of {len(pattern['String'])} letters")
        return len(pattern["String"])
    if set(pattern) == {"Regex"} and isinstance(pattern["Regex"], str):
        require_tame(pattern["Regex"])
        return 1 if pattern["Regex"] in _USUAL else 0
    raise ValueError(f"a pattern is {shown(pattern)}, wanted a String or a Regex")


def _prepend(part: Part) -> float:
    _affix(part["prepend"], "what a normalizer puts before a text")
    return 1.0


def _precompiled(part: Part) -> float:
    text = part["precompiled_charsmap"]
    if not isinstance(text, str) or len(text) > 4 * MOST_CHARSMAP_BYTES // 3:
        raise ValueError(f"a precompiled map is no text of at most {MOST_CHARSMAP_BYTES} bytes")
    try:
        table = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"a precompiled map is not base64: {error}") from error
    size = struct.unpack_from("<I", table)[0] if len(table) >= 4 else len(table)
    if size % 4 or 4 + size > len(table):
        raise ValueError("a precompiled map is cut off")
    longest = max(map(len, table[4 + size :].split(b"\0")))
    if longest > MOST_MAPPED_BYTES:
        raise ValueError(f"a precompiled map makes {longest} bytes of one letter, wanted at most {MOST_MAPPED_BYTES}")
    return max(1.0, longest)


def _metaspace(part: Part) -> float:
    replacement = part.get("replacement", "\u2581")
    if not isinstance(replacement, str) or len(replacement) != 1:
        raise ValueError(f"the sign for a space is {shown(replacement)}, wanted one letter")
    return 2.0  # before each piece that comes in, and a piece may be one letter


def _split(part: Part) -> float:
    _pattern(part["pattern"])
    return 1.0


def _template(part: Part) -> None:
    for name in ("single", "pair"):
        pieces = _list(part.get(name) or [], MOST_TEMPLATE, name)
        if sum("Sequence" in piece for piece in pieces) > 2:
            raise ValueError(f"its template {name} takes a text more than once")
    tokens = part.get("special_tokens") or {}
    if len(tokens) > MOST_TEMPLATE:
        raise ValueError(f"its template has {len(tokens)} special tokens, wanted at most {MOST_TEMPLATE}")
    for token in tokens.values():
        for name in ("ids", "tokens"):
            _list(token[name], MOST_TEMPLATE, name)
    if sum("Sequence" in piece for piece in part["single"]) != 1:
        raise ValueError("its template does not take a text just once")


def _affix(value: object, what: str, *, most: int = MOST_AFFIX) -> None:
    if value is not None and (not isinstance(value, str) or len(value) > most):
        raise ValueError(f"{what} is {shown(value)}, wanted a text of at most {most} letters")


def _list(value: object, most: int, what: str) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise ValueError(f"{what} is no list of at most {most}")
    return value


_USUAL = KNOWN | {
    r"\s+", r" {2,}", r"\s{2,}", r"\s",
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
    r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+""",
    r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+""",
    "[!\"#$%&'\\(\\)\\*\\+,\\-.:;=\\?@\\[\\]\\^_`{\\|}~]", "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\]\\\\^_`{|}~]",
}
"""Patterns of CLIP, GPT-2, SigLIP, T5 and XLM-R. They match at least one letter, and need no trial."""

_NORMALIZERS: Mapping[str, Callable[[Part], float]] = {
    **dict.fromkeys(("Strip", "StripAccents", "Nmt"), _growing(1.0)),
    # What Unicode has in the place of one letter, at most: U+FDFA has 18, and is the longest.
    "NFC": _growing(3.0), "NFD": _growing(4.0), "NFKC": _growing(18.0), "NFKD": _growing(18.0), "Lowercase": _growing(2.0),
    "BertNormalizer": _growing(4.0),  # spaces around Chinese letters, Korean ones taken apart
    "ByteLevel": _growing(4.0),  # a letter for each byte
    "Replace": _replace, "Prepend": _prepend, "Precompiled": _precompiled,
}
_SPLITTERS: Mapping[str, Callable[[Part], float]] = {
    **dict.fromkeys(
        ("BertPreTokenizer", "Whitespace", "WhitespaceSplit", "Punctuation", "Digits", "CharDelimiterSplit",
         "UnicodeScripts"), _growing(1.0),
    ),
    "ByteLevel": lambda part: 5.0 if part.get("add_prefix_space", True) else 4.0,
    "Metaspace": _metaspace, "Split": _split,
}
_PROCESSORS: Mapping[str, Callable[[Part], Any]] = {
    **dict.fromkeys(("ByteLevel", "BertProcessing", "RobertaProcessing"), _growing(1.0)), "TemplateProcessing": _template,
}


def _try_out(content: bytes) -> None:
    """Tokenize some texts in a process with limits.

    Raises:
        ValueError: tokenizing fails, or takes more time or memory than allowed.
    """
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PATH": os.environ.get("PATH", ""),
                   "RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-m", "vidseek_encoder.tokenizer_trial"]
    try:
        done = subprocess.run(
            command, env=environment, input=content, capture_output=True, timeout=TRIAL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"tokenizing a few texts took longer than {TRIAL_SECONDS:.0f} s") from error
    if done.returncode:
        said = done.stdout.decode(errors="replace").strip()
        raise ValueError(said or "tokenizing a few texts took more memory or computing time than it may, or crashed")


def _memo_of(content: bytes) -> Path:
    """Return the file whose presence means that this content was found harmless."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    return cache / "vidseek" / "tokenizers" / f"{hashlib.sha256(content).hexdigest()}-{CHECKED}"


def _remembers(memo: Path) -> bool:
    """Whether the file exists and only this user can have created it."""
    try:
        folder = memo.parent.stat()
        return memo.is_file() and folder.st_uid == os.getuid() and not folder.st_mode & 0o022
    except OSError:
        return False


def _remember(memo: Path) -> None:
    try:
        memo.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        memo.touch(mode=0o600)
    except OSError:
        pass  # no home, or one that cannot be written: it is checked again the next time
