from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, normalizers
from transformers import BertTokenizer, CLIPTokenizer

from tests.training.tiny import write_tokenizer
from vidseek_encoder.tokenizer_file import read_tokenizer
from vidseek_media.errors import ArtifactError
from vidseek_training.backbones.vocabulary import _letters, _merges_of, clip_tokenizer, find_tokenizer

TEXTS = [
    "Hello World!", "A red  car\tat NIGHT, 2 dogs; it's the driver's.", "naïve café — 東京タワー 🚗", "",
    "don't we'll I'm 1234", "x" * 200, "<|endoftext|> inside",
]


def small_merges() -> list[tuple[str, str]]:
    return [("r", "e"), ("re", "d</w>"), ("c", "a"), ("ca", "r</w>"), ("a", "t</w>")]


def test_clip_tokenizer__letters_come_first_then_merges_then_the_ends() -> None:
    letters = _letters()
    assert len(letters) == len(set(letters)) == 256 and letters[0] == "!"
    tokenizer = clip_tokenizer(None, small_merges())
    assert tokenizer.get_vocab_size() == 512 + 5 + 2
    start, end = 512 + 5, 512 + 6
    assert tokenizer.encode("Red car").ids == [start, 512 + 1, 512 + 3, end]
    # No merge reaches "cat": `ca` is one, `t` ends the word.
    assert tokenizer.encode("cat").tokens[1:-1] == ["ca", "t</w>"]


def test_clip_tokenizer__is_that_of_transformers_on_the_same_vocabulary() -> None:
    ours = clip_tokenizer(None, small_merges())
    theirs = CLIPTokenizer(vocab=ours.get_vocab(), merges=small_merges())
    for text in TEXTS:
        assert ours.encode(text).ids == theirs(text)["input_ids"], text


@pytest.mark.realdata
def test_find_tokenizer__clip_s_published_vocabulary_gives_its_published_numbers(realdata: Path, tmp_path: Path) -> None:
    published = realdata / "C_models_tokenizers" / "bpe_simple_vocab_16e6.txt.gz"
    (tmp_path / published.name).write_bytes(published.read_bytes())
    tokenizer = Tokenizer.from_file(str(find_tokenizer(tmp_path)))
    known = json.loads((realdata / "C_models_tokenizers/known_answers/known_answers.json").read_text())
    known = known["openai/CLIP notebook (ViT-B/32)"]
    assert tokenizer.get_vocab_size() == known["vocab_size"]
    for text, numbers in known["tokenize"].items():
        assert tokenizer.encode(text).ids == numbers
    merges = _merges_of(gzip.decompress(published.read_bytes()).decode())[: known["vocab_size"] - 514]
    theirs = CLIPTokenizer(vocab=tokenizer.get_vocab(), merges=merges)
    for text in TEXTS:
        assert tokenizer.encode(text).ids == theirs(text)["input_ids"], text


def test_find_tokenizer__builds_from_vocabulary_and_merges(tmp_path: Path) -> None:
    vocabulary = clip_tokenizer(None, small_merges()).get_vocab()
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, small_merges())) + "\n")
    found = Tokenizer.from_file(str(find_tokenizer(tmp_path)))
    assert found.encode("a red car").ids == clip_tokenizer(None, small_merges()).encode("a red car").ids


def test_find_tokenizer__takes_what_is_there_and_lower_cases_once(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    ready = tmp_path / "tokenizer.json"
    assert find_tokenizer(tmp_path) == ready
    lowered = find_tokenizer(tmp_path, lowercase=True)
    assert lowered != ready
    before, after = (Tokenizer.from_file(str(path)) for path in (ready, lowered))
    assert after.encode("A RED film").ids == before.encode("a red film").ids
    assert before.encode("RED").ids != before.encode("red").ids
    other = Tokenizer.from_file(str(ready))
    other.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    other.save(str(ready))
    assert find_tokenizer(tmp_path, lowercase=True) == ready


def test_find_tokenizer__none_or_a_broken_one_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"tokenizer\.json is missing"):
        find_tokenizer(tmp_path)
    (tmp_path / "bpe_simple_vocab_16e6.txt.gz").write_bytes(b"not gzip")
    with pytest.raises(ArtifactError, match=str(tmp_path)):
        find_tokenizer(tmp_path)


def test_find_tokenizer__bert_s_vocabulary_is_read_as_transformers_reads_it(tmp_path: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"一只猫", "a", "red", "##der", "cat", "!", "e\u2028x", "é", "e"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    ours = read_tokenizer(find_tokenizer(tmp_path))
    theirs = BertTokenizer(str(tmp_path / "vocab.txt"), do_lower_case=True)
    for text in ("一只猫", "A redder CAT!", "a  red\tcat é É", "dog", ""):
        assert ours.encode(text).ids == theirs(text)["input_ids"], text
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert 1 in read_tokenizer(find_tokenizer(tmp_path)).encode("CAT").ids
