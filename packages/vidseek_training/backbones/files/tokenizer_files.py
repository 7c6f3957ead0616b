"""Finds the tokenizer.json of a backbone, or builds it from older tokenizer files."""

from __future__ import annotations

import functools
import gzip
import string
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from vidseek_encoder.tokenizer_file import MOST_BYTES, read_tokenizer
from vidseek_media.errors import ArtifactError
from vidseek_media.files.json_files import read_json

_START, _END = "<|startoftext|>", "<|endoftext|>"
_CLIP_TOKENS = 49408
_CLIP_WORDS = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)
"""What CLIP takes for a word (Radford et al. 2021): contractions, letters, one digit, other signs."""


def find_tokenizer(folder: Path, *, lowercase: bool = False, unpunctuated: bool = False) -> Path:
    """Return the tokenizer.json of a backbone.

    If there is none it is built from vocab.json and merges.txt, from BERT's vocab.txt, or from CLIP's
    bpe_simple_vocab_16e6.txt.gz. A built file lies in a temporary folder of the process, since a snapshot of the hub is
    never
    written to.

    Args:
        folder: The backbone's folder.
        lowercase: Whether texts were lower-cased before tokenizing, and a published tokenizer.json does not do so.
        unpunctuated: Whether texts of a unigram model also lost their ASCII punctuation, as with the first SigLIP.

    Raises:
        ArtifactError: none of these files exists, or it cannot be read.
    """
    ready = folder / "tokenizer.json"
    try:
        if ready.is_file():
            return _in_one_form(ready, unpunctuated=unpunctuated) if lowercase else ready
        if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
            vocabulary = read_json(folder / "vocab.json")
            with (folder / "merges.txt").open("rb") as file:
                return _write(clip_tokenizer(vocabulary, _merges_of(_bounded(file))))
        if (folder / "vocab.txt").is_file():
            with (folder / "vocab.txt").open("rb") as file:
                words = _bounded(file).replace("\r\n", "\n").removesuffix("\n").split("\n")
            return _write(wordpiece_tokenizer(words, lowercase=_lowers(folder)))
        plain = folder / "bpe_simple_vocab_16e6.txt.gz"
        if plain.is_file():
            with gzip.open(plain, "rb") as file:
                return _write(clip_tokenizer(None, _merges_of(_bounded(file))))
    except Exception as error:  # tokenizers raises bare Exception
        raise ArtifactError(f"the tokenizer in {folder} cannot be read: {error}", code="tokenizer-broken") from error
    raise ArtifactError(
        f"{ready} is missing, and so are vocab.json with merges.txt, vocab.txt and bpe_simple_vocab_16e6.txt.gz",
        code="tokenizer-absent",
        remedy="A backbone's folder holds its tokenizer",
    )


def clip_tokenizer(vocabulary: dict[str, int] | None, merges: Sequence[tuple[str, str]]) -> Tokenizer:
    """Create CLIP's byte-pair encoding.

    Args:
        vocabulary: Token ids; None takes CLIP's own, which follow from the merges.
        merges: Pairs in order. Without a vocabulary, merges beyond CLIP's 49,408 tokens are left out.
    """
    if vocabulary is None:
        letters = _letters()
        merges = merges[: _CLIP_TOKENS - 2 * len(letters) - 2]
        words = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges), _START, _END]
        vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocabulary, list(merges), end_of_word_suffix="</w>", unk_token=_END))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(_CLIP_WORDS), behavior="removed", invert=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    ends = [(_START, vocabulary[_START]), (_END, vocabulary[_END])]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{_START} $A {_END}", special_tokens=ends)
    tokenizer.add_special_tokens([_START, _END])
    return tokenizer


def wordpiece_tokenizer(words: Sequence[str], *, lowercase: bool) -> Tokenizer:
    """BERT's word pieces (Devlin et al. 2019), each Chinese character by itself.

    Args:
        words: The tokens in the order of their numbers, [CLS], [SEP] and [UNK] among them.
        lowercase: Whether texts are lower-cased and lose their accents.
    """
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    ends = [(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    tokenizer.add_special_tokens([token for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if token in vocabulary])
    return tokenizer


def _lowers(folder: Path) -> bool:
    """Whether tokenizer_config.json says that texts are lower-cased; BERT's default if it does not say."""
    path = folder / "tokenizer_config.json"
    said = read_json(path) if path.is_file() else {}
    return bool(said.get("do_lower_case", True)) if isinstance(said, dict) else True


def _letters() -> list[str]:
    """Return a letter for each byte, in the order of GPT-2: those that print stand for themselves and come first."""
    prints = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = len(set(range(256)) - set(prints))
    return [chr(byte) for byte in prints] + [chr(256 + number) for number in range(others)]


def _merges_of(text: str) -> list[tuple[str, str]]:
    """Return the pairs of a file of merges, whose first line names its version."""
    lines = text.split("\n")[1:]
    return [(first, second) for first, _, second in (line.partition(" ") for line in lines) if second]


def _bounded(file: IO[bytes] | gzip.GzipFile) -> str:
    """Return the text of a file, which may be packed: a small one may unpack to any size."""
    content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"it holds more than {MOST_BYTES // 2**20} MiB")
    return content.decode("utf-8")


def _in_one_form(path: Path, *, unpunctuated: bool) -> Path:
    """Return the tokenizer with a rule of how texts are written in front, where it is not in it already.

    SigLIP (SentencePiece's unigrams): small letters, no ASCII punctuation, one space between words, none around them, as
    transformers' SiglipTokenizer. SigLIP 2 (Gemma's byte pairs): small letters alone, as transformers' Siglip2Tokenizer.
    """
    tokenizer = read_tokenizer(path)
    is_first = unpunctuated and isinstance(tokenizer.model, models.Unigram)
    before = tokenizer.normalizer
    if before is not None and all(before.normalize_str(text) == before.normalize_str(form) for text, form in (
        (text, canonical(text) if is_first else text.lower()) for text in _FORMS
    )):
        return path
    rule: list[normalizers.Normalizer] = [normalizers.Lowercase()]
    if is_first:
        rule += [
            normalizers.Replace(Regex(_PUNCTUATION), ""), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip(),
        ]
    tokenizer.normalizer = normalizers.Sequence([*rule, *([] if before is None else [before])])
    return _write(tokenizer)


def canonical(text: str) -> str:
    """Return a text in the canonical form of the first SigLIP."""
    return " ".join(text.lower().translate(str.maketrans("", "", string.punctuation)).split())


_PUNCTUATION = "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\]\\\\^_`{|}~]"
"""ASCII's, as a pattern that `tokenizer_file` knows for harmless."""
_FORMS = ("A Red Car", "a  b", " a ", *(f"a{sign}b {sign} c" for sign in string.punctuation))
"""Texts that a tokenizer with the whole rule takes for the same as their form."""


@functools.cache
def _made() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="vidseek-tokenizers-")


def _write(tokenizer: Tokenizer) -> Path:
    folder = Path(tempfile.mkdtemp(dir=_made().name))
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"
