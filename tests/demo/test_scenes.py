from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from vidseek_demo.scenes import (
    AXES,
    GENERAL,
    MOTIONS,
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

SIDES = ("train", "validation", "test")


def all_scenes(appearance: Appearance) -> list[Scene]:
    return [
        Scene(*facts)
        for facts in itertools.product(SHAPES, appearance.tones, SIZES, TEXTURES, appearance.grounds, MOTIONS)
    ]


def combination(scene: Scene) -> tuple[str, str, str]:
    return scene.shape, scene.tone, scene.axis


def differences(one: Scene, other: Scene) -> list[str]:
    return [
        field.name for field in dataclasses.fields(Scene) if getattr(one, field.name) != getattr(other, field.name)
    ]


@pytest.mark.parametrize("appearance", [GENERAL, THERMAL], ids=["general", "thermal"])
def test_side__no_flip_and_no_reversal_leaves_it(appearance: Appearance) -> None:
    for scene in all_scenes(appearance):
        flips = {scene.mirrored(), scene.reversed(), scene.mirrored().reversed()}
        assert {flip.side for flip in flips} == {scene.side}


@pytest.mark.parametrize("appearance", [GENERAL, THERMAL], ids=["general", "thermal"])
def test_side__a_combination_of_shape_tone_and_axis_is_on_one_only(appearance: Appearance) -> None:
    sides: dict[tuple[str, str, str], set[str]] = {}
    for scene in all_scenes(appearance):
        sides.setdefault(combination(scene), set()).add(scene.side)
    assert all(len(found) == 1 for found in sides.values())
    counts = {side: sum(found == {side} for found in sides.values()) for side in SIDES}
    assert min(counts.values()) > 0
    # 6, 1 and 1 of 8 by a hash over a few hundred combinations.
    assert counts["train"] / sum(counts.values()) == pytest.approx(6 / 8, abs=0.08)


@pytest.mark.parametrize("appearance", [GENERAL, THERMAL], ids=["general", "thermal"])
def test_side__every_shape_tone_and_motion_is_learned_somewhere(appearance: Appearance) -> None:
    train = [scene for scene in all_scenes(appearance) if scene.side == "train"]
    assert {scene.shape for scene in train} == set(SHAPES)
    assert {scene.tone for scene in train} == set(appearance.tones)
    assert {scene.motion for scene in train} == set(MOTIONS)


def test_reversed_and_mirrored__twice_is_the_scene_itself() -> None:
    for motion in MOTIONS:
        scene = Scene("star", "red", "small", "plain", "fog", motion)
        assert scene.reversed().reversed() == scene
        assert scene.mirrored().mirrored() == scene
        assert (scene.reversed() != scene) == (motion in AXES)
        assert scene.reversed().axis == scene.mirrored().axis == scene.axis


@pytest.mark.parametrize("side", SIDES)
def test_distinct_scenes__are_different_visible_and_on_their_side(side: str) -> None:
    scenes = distinct_scenes(np.random.default_rng(3), GENERAL, 300, side=side)  # type: ignore[arg-type]
    assert len(set(scenes)) == 300
    assert {scene.side for scene in scenes} == {side}
    assert not [s for s in scenes if s.axis == "turning" and s.shape in ("disc", "ring") and s.texture == "plain"]
    assert {scene.ground for scene in scenes} == set(GENERAL.grounds)


@pytest.mark.parametrize("appearance", [GENERAL, THERMAL], ids=["general", "thermal"])
def test_near_duplicates__differ_from_the_first_in_one_fact(appearance: Appearance) -> None:
    groups = near_duplicates(np.random.default_rng(4), appearance, 40, side="test")
    assert len(groups) == 40
    for first, backwards, *others in groups:
        assert backwards == first.reversed() and differences(first, backwards) == ["motion"]
        changed = [differences(first, other) for other in others]
        assert len(others) == 3 and all(len(facts) == 1 for facts in changed)
        assert len({facts[0] for facts in changed}) == 3
        assert all(other.axis != first.axis for other in others if other.motion != first.motion)
    scenes = [scene for group in groups for scene in group]
    assert len(set(scenes)) == 200
    assert all(scene.side == "test" and scene.is_visible for scene in scenes)


def test_scenes__the_same_seed_gives_the_same() -> None:
    def draw(seed: int) -> object:
        rng = np.random.default_rng(seed)
        return (
            distinct_scenes(rng, THERMAL, 20, side="validation"), near_duplicates(rng, GENERAL, 5, side="test"),
            random_scene(rng, THERMAL, side="train"),
        )

    assert draw(11) == draw(11)
    assert draw(11) != draw(12)
