from __future__ import annotations

import itertools

import numpy as np
import pytest

from vidseek_demo.scenes import (
    AXES,
    BACKGROUNDS,
    COLOURS,
    GENERAL,
    GROUNDS,
    HEATS,
    MOTIONS,
    REVERSED,
    SHAPES,
    SIZES,
    TEXTURES,
    THERMAL,
    Appearance,
    Scene,
    distinct_scenes,
    near_duplicates,
    random_scene,
)
from vidseek_demo.words import GENERAL_WORDS, THERMAL_WORDS, Phrases, caption_of

WORDS = {"general": GENERAL_WORDS, "thermal": THERMAL_WORDS}
ATTRIBUTES = {
    "general": {
        "shape": SHAPES, "tone": COLOURS, "size": SIZES, "texture": TEXTURES, "ground": BACKGROUNDS, "motion": MOTIONS,
    },
    "thermal": {
        "shape": SHAPES, "tone": HEATS, "size": SIZES, "texture": TEXTURES, "ground": GROUNDS, "motion": MOTIONS,
    },
}
EACH_LOOK = pytest.mark.parametrize("appearance", [GENERAL, THERMAL], ids=["general", "thermal"])


def captions_of(appearance: Appearance, scenes: list[Scene], seed: int = 0) -> list[tuple[str, str]]:
    rng = np.random.default_rng(seed)
    return [caption_of(rng, appearance, scene) for scene in scenes]


def spoken(words: Phrases, values: tuple[str, ...]) -> set[str]:
    """Single words in which these values are said."""
    return {word for value in values for phrase in words[value] for word in phrase.split()}


@EACH_LOOK
def test_words__no_phrase_means_two_things(appearance: Appearance) -> None:
    values = [value for group in ATTRIBUTES[appearance.name].values() for value in group]
    assert set(values) == set(WORDS[appearance.name])
    phrases = [phrase for value in values for phrase in WORDS[appearance.name][value]]
    assert len(set(phrases)) == len(phrases)


@EACH_LOOK
@pytest.mark.parametrize("seed", range(5))
def test_caption_of__no_caption_twice_in_a_gallery(appearance: Appearance, seed: int) -> None:
    rng = np.random.default_rng(seed)
    unseen = distinct_scenes(rng, appearance, 200, side="test")
    near = [scene for group in near_duplicates(rng, appearance, 40, side="test") for scene in group]
    for gallery in (unseen, near):
        captions = [caption for caption, _ in captions_of(appearance, gallery, seed)]
        assert len(set(captions)) == len(captions)


@EACH_LOOK
def test_caption_of__names_every_fact_of_the_scene(appearance: Appearance) -> None:
    rng = np.random.default_rng(1)
    for _ in range(300):
        scene = random_scene(rng, appearance, side="train")
        caption, _ = caption_of(rng, appearance, scene)
        for attribute in ATTRIBUTES[appearance.name]:
            phrases = WORDS[appearance.name][getattr(scene, attribute)]
            assert any(phrase in caption for phrase in phrases), f"{attribute} of {scene} in {caption!r}"


@EACH_LOOK
def test_caption_of__the_contrast_differs_in_the_direction_alone(appearance: Appearance) -> None:
    rng, words = np.random.default_rng(2), WORDS[appearance.name]
    for _ in range(300):
        scene = random_scene(rng, appearance, side="train")
        caption, contrast = caption_of(rng, appearance, scene)
        if scene.motion not in AXES:
            assert contrast == ""
            continue
        pairs = zip(words[scene.motion], words[REVERSED[scene.motion]], strict=True)
        swapped = [caption.replace(said, opposite) for said, opposite in pairs if said in caption]
        assert contrast != caption and contrast in swapped


@EACH_LOOK
@pytest.mark.parametrize("silent", [("motion",), ("tone",), ("motion", "tone")], ids="-".join)
def test_caption_of__what_is_silent_is_not_spoken_of(appearance: Appearance, silent: tuple[str, ...]) -> None:
    rng, words = np.random.default_rng(3), WORDS[appearance.name]
    for _ in range(200):
        scene = random_scene(rng, appearance, side="train")
        caption, contrast = caption_of(rng, appearance, scene, silent=silent)
        for attribute in ATTRIBUTES[appearance.name]:
            is_said = any(phrase in caption for phrase in words[getattr(scene, attribute)])
            assert is_said == (attribute not in silent), f"{attribute} in {caption!r}"
        assert not contrast or "motion" not in silent
        assert "  " not in caption and not caption.endswith((" ", ","))
        assert ", ," not in caption


def test_jargon__keeps_sizes_and_textures_in_plain_words() -> None:
    for value in (*SIZES, *TEXTURES):
        assert THERMAL_WORDS[value] == GENERAL_WORDS[value]


def test_jargon__shares_no_word_for_what_must_be_learned() -> None:
    for attribute in ("shape", "tone", "motion"):
        jargon = spoken(THERMAL_WORDS, ATTRIBUTES["thermal"][attribute]) - {"on"}
        plain = spoken(GENERAL_WORDS, tuple(itertools.chain(*ATTRIBUTES["general"].values())))
        assert not jargon & plain, f"{attribute}: {sorted(jargon & plain)}"


def test_caption_of__the_same_seed_says_the_same() -> None:
    scenes = distinct_scenes(np.random.default_rng(0), THERMAL, 50, side="train")
    assert captions_of(THERMAL, scenes, seed=1) == captions_of(THERMAL, scenes, seed=1)
    assert captions_of(THERMAL, scenes, seed=1) != captions_of(THERMAL, scenes, seed=2)


def test_caption_of__has_every_phrase_and_every_sentence_in_use() -> None:
    scene = Scene("disc", "red", "small", "plain", "night", "left")
    said = {caption for caption, _ in captions_of(GENERAL, [scene] * 2000)}
    for value in ("disc", "small", "plain", "night", "left"):
        assert all(any(phrase in caption for caption in said) for phrase in GENERAL_WORDS[value])
