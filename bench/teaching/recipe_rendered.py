"""Material of `bench.teaching.recipe`: single pictures of the demo's scenes, with captions.

    python -m bench.teaching.recipe render DIR

The general world is learned from scratch. There are four domains: `jargon`, the general world with invented names for
colours, shapes and grounds; `rotated`, the general world in false colours (red is shown as green, green as blue, blue as
red), and `negative`, the same as photographic negatives, both described in the same words; and `thermal`, the demo's domain,
where pictures and words are others. Captions do not speak of motion. What a picture shows apart from motion (shape, tone,
size, texture, ground) decides its side by a hash, so that no held-out combination is ever learned from.
"""

from __future__ import annotations

import dataclasses
import io
import re
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vidseek_demo.render import Camera, Take
from vidseek_demo.scenes import GENERAL, SHAPES, SIZES, TEXTURES, THERMAL, Appearance, Scene
from vidseek_demo.words import GENERAL_WORDS, caption_of

SIDE_PX, NUM_CAPTIONS = 128, 3
WORLDS = {"general": GENERAL, "thermal": THERMAL, "negative": GENERAL, "rotated": GENERAL, "jargon": GENERAL}
NUM_TRAIN = {"general": 8000, "thermal": 900, "negative": 900, "rotated": 900, "jargon": 900}
"""More than there are scenes: another take of a scene is another picture."""
NUM_VALIDATION, NUM_TEST = 100, 200
JARGON = {
    "red": "zorb", "orange": "velk", "yellow": "drint", "green": "mosk", "cyan": "gavet", "blue": "lirp", "purple": "sonk",
    "white": "brell", "disc": "quab", "square": "hux", "triangle": "fesk", "star": "nurl", "cross": "kadge", "ring": "pruv",
    "crescent": "yilt", "bar": "dorv", "night": "on plim", "fog": "on tarq", "bricks": "on gropp", "meadow": "on jelp",
    "tiles": "on krin",
}
"""What the team of the domain `jargon` calls colours, shapes and grounds. Each is two tokens that the base never saw."""


@dataclasses.dataclass(frozen=True)
class Rendered:
    """Pictures of one side, as JPEG files, with their captions."""

    names: list[str]
    jpegs: list[bytes]
    captions: list[list[str]]


def rendered_sides() -> dict[str, Rendered]:
    """Return train, validation and test of all worlds; in validation and test no two pictures show the same."""
    sides = {}
    for name, appearance in WORLDS.items():
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        by_side = _scenes(appearance)
        for side, most in (("train", None), ("validation", NUM_VALIDATION), ("test", NUM_TEST)):
            scenes = [by_side[side][place] for place in rng.permutation(len(by_side[side]))][:most]
            if side == "train":
                scenes = [scenes[place % len(scenes)] for place in range(NUM_TRAIN[name])]
            sides[f"{name}_{side}"] = _drawn(f"{name}_{side}", scenes, appearance, rng)
    return sides


def _scenes(appearance: Appearance) -> dict[str, list[Scene]]:
    """All that can be seen in still pictures of a world, by side."""
    share = {0: "test", 1: "test", 2: "validation"} if appearance is THERMAL else {0: "test", 1: "validation"}
    found: dict[str, list[Scene]] = {"train": [], "validation": [], "test": []}
    facts = [
        (shape, tone, size, texture, ground) for shape in SHAPES for tone in appearance.tones for size in SIZES
        for texture in TEXTURES for ground in appearance.grounds
    ]
    for each in facts:
        found[share.get(zlib.crc32("|".join(each).encode()) % 8, "train")].append(Scene(*each, motion="still"))
    return found


def _drawn(name: str, scenes: list[Scene], appearance: Appearance, rng: np.random.Generator) -> Rendered:
    out = Rendered([], [], [])
    for number, scene in enumerate(scenes):
        file = io.BytesIO()
        camera = Camera(appearance, scene, Take.draw(rng), side_px=SIDE_PX)
        picture = camera.frame_at(float(rng.uniform()))
        Image.fromarray(_seen(picture, name.partition("_")[0])).save(file, "JPEG", quality=95)
        out.names.append(f"{name}-{number}")
        out.jpegs.append(file.getvalue())
        out.captions.append(_said_of(scene, appearance, rng, jargon=name.startswith("jargon")))
    return out


def _seen(picture: NDArray[np.uint8], world: str) -> NDArray[np.uint8]:
    if world == "negative":
        return 255 - picture
    return np.ascontiguousarray(np.roll(picture, 1, axis=2)) if world == "rotated" else picture


def _said_of(scene: Scene, appearance: Appearance, rng: np.random.Generator, *, jargon: bool) -> list[str]:
    """Different captions of a scene."""
    found: dict[str, Any] = {}
    while len(found) < NUM_CAPTIONS:
        caption, _ = caption_of(rng, appearance, scene, silent=("motion",))
        found[in_jargon(caption) if jargon else caption] = None
    return list(found)


def in_jargon(caption: str) -> str:
    """Return a caption of the general world with the names of `JARGON` in the place of its words.

    Args:
        caption: As `caption_of` writes it.
    """
    for thing, name in JARGON.items():
        said = "|".join(re.escape(each) for each in sorted(GENERAL_WORDS[thing], key=len, reverse=True))
        caption = re.sub(rf"\b(?:{said})\b", name, caption)
    return caption
