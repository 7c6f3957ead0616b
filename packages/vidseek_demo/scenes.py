"""What can be seen in the demo world: scenes, which combinations are held out, and galleries of test scenes.

One moving object on a background. The combination of shape, tone and axis of motion decides the side (train, validation,
test) by a hash, so that a test scene is a combination that no training scene shows. The hash takes the axis and not the
direction: a mirrored or reversed training clip can then never become a test scene.
"""

from __future__ import annotations

import dataclasses
import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np

Side = Literal["train", "validation", "test"]

SHAPES = ("disc", "square", "triangle", "star", "cross", "ring", "crescent", "bar")
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "white")
HEATS = ("heat1", "heat2", "heat3", "heat4", "heat5")
SIZES = ("small", "large")
TEXTURES = ("plain", "striped", "dotted")
BACKGROUNDS = ("night", "fog", "bricks", "meadow", "tiles")
GROUNDS = ("tarmac", "canopy", "water")
MOTIONS = ("left", "right", "up", "down", "clockwise", "anticlockwise", "grow", "shrink", "bounce", "still")

AXES = {
    "left": "left-right", "right": "left-right", "up": "up-down", "down": "up-down",
    "clockwise": "turning", "anticlockwise": "turning", "grow": "grow-shrink", "shrink": "grow-shrink",
}
"""Axis of each motion that has a direction; `bounce` and `still` have none."""

REVERSED = {
    "left": "right", "right": "left", "up": "down", "down": "up", "clockwise": "anticlockwise",
    "anticlockwise": "clockwise", "grow": "shrink", "shrink": "grow", "bounce": "bounce", "still": "still",
}
"""What a motion becomes when the video runs backwards."""

MIRRORED = REVERSED | {"up": "up", "down": "down", "grow": "grow", "shrink": "shrink"}
"""What a motion becomes when the picture is mirrored left to right."""

ROUND = ("disc", "ring")
"""Shapes whose turning cannot be seen unless they carry stripes or dots."""


@dataclass(frozen=True)
class Appearance:
    """How a world is drawn: which tones and grounds its scenes have."""

    name: Literal["general", "thermal"]
    tones: tuple[str, ...]
    grounds: tuple[str, ...]


GENERAL = Appearance("general", COLOURS, BACKGROUNDS)
THERMAL = Appearance("thermal", HEATS, GROUNDS)


@dataclass(frozen=True)
class Scene:
    """One object in motion; all that its caption can say."""

    shape: str
    tone: str
    """A colour in the general look, a heat in the thermal one."""
    size: str
    texture: str
    ground: str
    motion: str

    @property
    def axis(self) -> str:
        """The axis of its motion, or the motion itself where it has no direction."""
        return AXES.get(self.motion, self.motion)

    @property
    def side(self) -> Side:
        """Which side of the hold-out its combination of shape, tone and axis is on: 6, 1 and 1 of 8."""
        bucket = zlib.crc32(f"{self.shape}|{self.tone}|{self.axis}".encode()) % 8
        return "test" if bucket == 0 else "validation" if bucket == 1 else "train"

    @property
    def is_visible(self) -> bool:
        """Whether its motion can be seen at all."""
        return not (self.axis == "turning" and self.shape in ROUND and self.texture == "plain")

    def reversed(self) -> Scene:
        """Return the scene of the same video run backwards."""
        return dataclasses.replace(self, motion=REVERSED[self.motion])

    def mirrored(self) -> Scene:
        """Return the scene of the same video mirrored left to right."""
        return dataclasses.replace(self, motion=MIRRORED[self.motion])


def _pick(rng: np.random.Generator, values: tuple[str, ...]) -> str:
    return values[int(rng.integers(len(values)))]


def random_scene(rng: np.random.Generator, appearance: Appearance, *, side: Side) -> Scene:
    """Return a random scene of `appearance` whose combination is on `side`."""
    while True:
        scene = Scene(
            _pick(rng, SHAPES), _pick(rng, appearance.tones), _pick(rng, SIZES), _pick(rng, TEXTURES),
            _pick(rng, appearance.grounds), _pick(rng, MOTIONS),
        )
        if scene.side == side and scene.is_visible:
            return scene


def distinct_scenes(rng: np.random.Generator, appearance: Appearance, num_scenes: int, *, side: Side) -> list[Scene]:
    """`num_scenes` different scenes on `side`."""
    found: dict[Scene, None] = {}
    while len(found) < num_scenes:
        found[random_scene(rng, appearance, side=side)] = None
    return list(found)


def near_duplicates(rng: np.random.Generator, appearance: Appearance, num_groups: int, *, side: Side) -> list[list[Scene]]:
    """Groups of five scenes that differ from the group's first in one fact each: the direction, then three others.

    A group's first scene moves along an axis, so that it can be reversed; its second is the reversed one. The three others
    differ in motion and shape, where `side` holds such a combination (a hold-out by combination leaves few of them), else in
    texture, size or ground. All scenes of all groups are different, visible and on `side`.
    """
    groups: list[list[Scene]] = []
    seen: set[Scene] = set()
    while len(groups) < num_groups:
        first = random_scene(rng, appearance, side=side)
        if first.motion not in AXES or seen & {first, first.reversed()}:
            continue
        group = [first, first.reversed()]
        for others in _one_fact_off(appearance, first):
            fitting = [scene for scene in others if scene.side == side and scene.is_visible and scene not in seen]
            if fitting and len(group) < 5:
                group.append(fitting[int(rng.integers(len(fitting)))])
        if len(group) == 5:
            seen.update(group)
            groups.append(group)
    return groups


def _one_fact_off(appearance: Appearance, scene: Scene) -> list[list[Scene]]:
    """Return the scenes that differ from `scene` in one fact: by motion along another axis, shape, texture, size, ground."""
    motions = tuple(motion for motion in MOTIONS if AXES.get(motion, motion) != scene.axis)
    facts = {"motion": motions, "shape": SHAPES, "texture": TEXTURES, "size": SIZES, "ground": appearance.grounds}
    return [
        [dataclasses.replace(scene, **{name: value}) for value in values if value != getattr(scene, name)]
        for name, values in facts.items()
    ]
