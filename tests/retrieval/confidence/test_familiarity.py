from __future__ import annotations

import json

import numpy as np
import pytest

from tests.retrieval.archive import unit_rows
from vidseek_retrieval.confidence.familiarity import MAX_AXES, MIN_CAPTIONS, Familiarity

CAPTIONS = [f"a radiant crate over water {number}" for number in range(60)]


def plane(num: int, *, seed: int = 0) -> np.ndarray:
    """Vectors of 16 values of which the last twelve are 0."""
    return np.concatenate([unit_rows(num, 4, seed=seed), np.zeros((num, 12), np.float32)], axis=1)


def test_ood_distance__what_lies_outside_of_the_captions_plane() -> None:
    known = Familiarity.of(CAPTIONS, plane(60))
    assert known is not None
    within, outside = plane(1, seed=1)[0], np.eye(16, dtype=np.float32)[10]
    assert known.ood_distance(within) < -5 and known.ood_distance(outside) == pytest.approx(np.log(1.0), abs=0.1)
    half = (within + outside) / np.sqrt(2)
    assert known.ood_distance(within) < known.ood_distance(half) < known.ood_distance(outside)


@pytest.mark.parametrize(("text", "share"), [
    ("a radiant crate", 0.0), ("A RADIANT, crate!", 0.0), ("a red crate", 1 / 3), ("a cat", 0.5), ("чайник", 1.0),
    ("...", 1.0), ("", 1.0),
])
def test_oov_rate__the_share_of_words_that_no_caption_had(text: str, share: float) -> None:
    known = Familiarity.of(CAPTIONS, plane(60))
    assert known is not None and known.oov_rate(text) == pytest.approx(share)


def test_of__too_few_captions_make_nothing_familiar() -> None:
    num = MIN_CAPTIONS - 1
    assert Familiarity.of(CAPTIONS[:num], plane(num)) is None


def test_json__is_read_back_and_measures_the_same() -> None:
    vectors = unit_rows(400, 128)
    known = Familiarity.of([f"w{number % 50}" for number in range(400)], vectors)
    assert known is not None and len(known.axes) == MAX_AXES
    again = Familiarity.from_json(json.loads(json.dumps(known.to_json())))
    assert again.words == known.words
    (query,) = unit_rows(1, 128, seed=5)
    assert again.ood_distance(query) == known.ood_distance(query)
    with pytest.raises((KeyError, ValueError)):
        Familiarity.from_json({"words": [], "dimension": 7})


def test_learned__words_are_of_all_captions_and_vectors_of_a_fair_draw() -> None:
    captions = [f"word{number}" for number in range(5000)]
    embedded: list[str] = []

    def embed(texts: list[str]) -> np.ndarray:
        embedded.extend(texts)
        return np.random.default_rng(0).normal(size=(len(texts), 8)).astype(np.float32)

    known = Familiarity.learned(captions, embed)
    assert known is not None and known.words == set(captions)
    places = [captions.index(text) for text in embedded]
    assert len(set(places)) == 2000 and places == sorted(places) and abs(np.mean(places) - 2500) < 100
    assert Familiarity.learned(captions[:10], embed) is None and len(embedded) == 2000
