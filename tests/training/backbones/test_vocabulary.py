from __future__ import annotations

import gzip
import json
import re
import string
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertTokenizer, CLIPTokenizer
from transformers.models.siglip2.tokenization_siglip2 import Siglip2Tokenizer

from tests.raising import raises
from tests.training.tiny import write_tokenizer
from vidseek_encoder.tokenizer_file import read_tokenizer
from vidseek_media.errors import ArtifactError
from vidseek_training.backbones.files.tokenizer_files import _letters, _merges_of, clip_tokenizer, find_tokenizer

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


@pytest.mark.slow
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
    assert after.encode("A RED video").ids == before.encode("a red video").ids
    assert before.encode("RED").ids != before.encode("red").ids
    other = Tokenizer.from_file(str(ready))
    other.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    other.save(str(ready))
    assert find_tokenizer(tmp_path, lowercase=True) == ready


CAPTIONS = st.text(st.one_of(
    st.sampled_from(" \t\n.,!?;:'\"-_/\\<>()[]{}&#@%+=*^|~`$aAbBcCdDeErRsS01"),
    # Small letters of these depend on what is beside them in Python (final sigma), or are two signs.
    st.characters(exclude_characters="\u03a3\u0130", exclude_categories=("Cs", "Cc")),
), max_size=24)
PIECES = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((sign, -3.0) for sign in "\u2581abcders01.,!'<>/")]
PIECES += [("\u2581a", -2.0), ("\u2581red", -1.5), ("car", -1.5)]


def siglip_tokenizer(*rule: normalizers.Normalizer) -> Tokenizer:
    """Unigrams as SentencePiece's, behind this rule."""
    tokenizer = Tokenizer(models.Unigram(PIECES, unk_id=2))
    tokenizer.normalizer = normalizers.Sequence([*rule, normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), "\u2581")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return tokenizer


WITHOUT_SOME = "[!\"#$%&'()*+,\\-.:;=?@\\[\\]^_`{|}~]"
RULES: dict[str, list[normalizers.Normalizer]] = {
    "none": [], "small letters": [normalizers.Lowercase()],
    "most punctuation": [normalizers.Lowercase(), normalizers.Replace(Regex(WITHOUT_SOME), ""), normalizers.Strip()],
}


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
def test_find_tokenizer__siglip_s_texts_have_no_punctuation_whatever_its_file_says(tmp_path: Path, rule: str) -> None:
    """The rule of transformers' SiglipTokenizer, written out; without sentencepiece that class does not import."""
    siglip_tokenizer(*RULES[rule]).save(str(tmp_path / "tokenizer.json"))
    found = Tokenizer.from_file(str(find_tokenizer(tmp_path, lowercase=True, unpunctuated=True)))
    plain = siglip_tokenizer()

    @settings(max_examples=200, deadline=None)
    @given(text=CAPTIONS)
    def same(text: str) -> None:
        form = text.lower()
        for sign in string.punctuation:
            form = form.replace(sign, "")
        form = re.sub(r"\s+", " ", form).strip()
        assert found.encode(text).ids == plain.encode(form).ids

    same()
    assert found.encode("A RED car!").tokens == ["\u2581a", "\u2581red", "\u2581", "car", "</s>"]


def test_find_tokenizer__unigrams_of_others_keep_their_punctuation(tmp_path: Path) -> None:
    siglip_tokenizer().save(str(tmp_path / "tokenizer.json"))
    found = Tokenizer.from_file(str(find_tokenizer(tmp_path, lowercase=True)))
    assert found.encode("A RED car!").ids == siglip_tokenizer().encode("a red car!").ids


def test_find_tokenizer__a_file_with_the_whole_rule_is_taken_as_it_is(tmp_path: Path) -> None:
    whole = [
        normalizers.Lowercase(), normalizers.Replace(Regex(f"[{re.escape(string.punctuation)}]"), ""),
        normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip(),
    ]
    siglip_tokenizer(*whole).save(str(tmp_path / "tokenizer.json"))
    assert find_tokenizer(tmp_path, lowercase=True, unpunctuated=True) == tmp_path / "tokenizer.json"


def test_find_tokenizer__siglip_2_s_texts_are_those_of_transformers(tmp_path: Path) -> None:
    """Small letters, and punctuation stays."""
    letters = "\u2581abcdefghijklmnopqrstuvwxyzABR.,!'-/<>"
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *letters, "re", "red"]
    vocabulary = {word: place for place, word in enumerate(words)}
    merges = [("r", "e"), ("re", "d")]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, fuse_unk=True, unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    found = Tokenizer.from_file(str(find_tokenizer(tmp_path, lowercase=True, unpunctuated=True)))
    theirs = Siglip2Tokenizer(vocab=vocabulary, merges=merges)

    @settings(max_examples=200, deadline=None)
    @given(text=CAPTIONS)
    def same(text: str) -> None:
        assert found.encode(text).ids == theirs(text)["input_ids"]

    same()
    assert found.encode("A Red!").tokens == ["a", "\u2581", "red", "!"]


def test_find_tokenizer__none_or_a_broken_one_is_an_error_that_names_it(tmp_path: Path) -> None:
    with raises(ArtifactError, code="tokenizer-absent", naming="tokenizer.json"):
        find_tokenizer(tmp_path)
    (tmp_path / "bpe_simple_vocab_16e6.txt.gz").write_bytes(b"not gzip")
    with raises(ArtifactError, code="tokenizer-broken", naming=tmp_path):
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
