from __future__ import annotations

import csv
from pathlib import Path

import pytest

from vidseek_quality.languages import UNSURE, known_languages, languages_of


def test_languages_of__tells_sentences_and_owns_up_where_it_cannot() -> None:
    texts = [
        "a man walks his dog along the beach in the evening", "ein roter Ball rollt langsam über die grüne Wiese",
        "deux hommes parlent sur le quai du port", "犬が草原を走る", "gate", "", "12:30",
    ]
    assert languages_of(texts) == ["en", "de", "fr", "ja", UNSURE, UNSURE, UNSURE]


def test_known_languages__are_those_it_tells() -> None:
    assert {"en", "de", "fr", "ja", "ar", "zh"} <= known_languages()
    assert UNSURE not in known_languages()


@pytest.mark.realdata
def test_languages_of__english_captions_are_never_clearly_another_language(realdata: Path) -> None:
    with (realdata / "B_image_text" / "flickr8k_dev" / "captions.csv").open(encoding="utf-8", newline="") as file:
        found = languages_of([row["caption"] for row in csv.DictReader(file)])
    assert set(found) == {"en", UNSURE}
    assert found.count("en") > 0.75 * len(found)
