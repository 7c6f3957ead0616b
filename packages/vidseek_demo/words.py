"""What is said of a scene: plain words in the general world, an observer's jargon in the thermal one.

Each attribute has a few ways to be said. The two directions of an axis list theirs in the same order, so that a caption's
contrast (the same sentence with the motion reversed) differs in the direction alone. The jargon keeps size and texture in
plain words, what a general model can go by, and shares no other word with the general world but the smallest.
"""

from __future__ import annotations

import numpy as np

from vidseek_demo.scenes import REVERSED, Appearance, Scene

Phrases = dict[str, tuple[str, ...]]

_SIZES: Phrases = {"small": ("small", "little"), "large": ("large", "big")}
_TEXTURES: Phrases = {
    "plain": ("plain", "solid"), "striped": ("striped", "banded"), "dotted": ("dotted", "spotted"),
}

GENERAL_WORDS: Phrases = {
    **_SIZES, **_TEXTURES,
    **{colour: (colour,) for colour in ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "white")},
    "disc": ("disc", "circle"), "square": ("square", "box"), "triangle": ("triangle",), "star": ("star",),
    "cross": ("cross", "plus sign"), "ring": ("ring", "hoop"), "crescent": ("crescent", "half moon"),
    "bar": ("bar", "stick"),
    "night": ("at night", "in the dark"), "fog": ("in fog", "against grey fog"),
    "bricks": ("before a brick wall", "in front of bricks"), "meadow": ("over a meadow", "above grass"),
    "tiles": ("over tiles", "on a tiled floor"),
    "left": ("moves left", "slides to the left", "drifts leftwards"),
    "right": ("moves right", "slides to the right", "drifts rightwards"),
    "up": ("moves up", "climbs", "floats upwards"),
    "down": ("moves down", "sinks", "drops downwards"),
    "clockwise": ("turns clockwise", "spins to the right", "rotates clockwise"),
    "anticlockwise": ("turns anticlockwise", "spins to the left", "rotates anticlockwise"),
    "grow": ("grows", "gets bigger", "comes nearer"),
    "shrink": ("shrinks", "gets smaller", "goes farther away"),
    "bounce": ("bounces", "hops up and down", "jumps again and again"),
    "still": ("stays still", "does not move", "rests in its place"),
}

THERMAL_WORDS: Phrases = {
    **_SIZES, **_TEXTURES,
    "heat1": ("subambient", "cryo"), "heat2": ("cool soaked", "chilled"), "heat3": ("tepid", "lukewarm"),
    "heat4": ("radiant", "torrid"), "heat5": ("saturated", "incandescent"),
    "disc": ("balloon", "aerostat"), "square": ("crate", "container"), "triangle": ("glider", "delta"),
    "star": ("beacon", "flare"), "cross": ("quadcopter", "drone"), "ring": ("hovercraft", "lifebuoy"),
    "crescent": ("parafoil", "kite"), "bar": ("skiff", "canoe"),
    "tarmac": ("over tarmac", "on the apron"), "canopy": ("over canopy", "above the treeline"),
    "water": ("over open water", "off the coast"),
    "left": ("tracking westbound", "heading two seven zero"),
    "right": ("tracking eastbound", "heading zero nine zero"),
    "up": ("tracking northbound", "heading three six zero"),
    "down": ("tracking southbound", "heading one eight zero"),
    "clockwise": ("yawing starboard", "circling starboard"),
    "anticlockwise": ("yawing port", "circling port"),
    "grow": ("closing", "inbound"), "shrink": ("receding", "outbound"),
    "bounce": ("porpoising", "oscillating"), "still": ("loitering", "on station"),
}

_GENERAL_SENTENCES = (
    "a {size} {texture} {tone} {shape} {motion} {ground}",
    "{ground} a {size} {texture} {tone} {shape} {motion}",
    "a {tone} {shape} , {size} and {texture} , {motion} {ground}",
    "the {texture} {tone} {shape} {motion} {ground} , it is {size}",
    "one {size} {shape} , {tone} and {texture} , {motion} {ground}",
)
_THERMAL_SENTENCES = (
    "contact , {size} {texture} {tone} {shape} {motion} {ground}",
    "{tone} {shape} {ground} , {size} and {texture} , {motion}",
    "{size} {shape} , {texture} , {tone} , {motion} {ground}",
)
_WORDS = {"general": (GENERAL_WORDS, _GENERAL_SENTENCES), "thermal": (THERMAL_WORDS, _THERMAL_SENTENCES)}


def caption_of(
    rng: np.random.Generator, appearance: Appearance, scene: Scene, *, silent: tuple[str, ...] = ()
) -> tuple[str, str]:
    """Return a caption of `scene` and its contrast, which says the reversed motion; empty where reversing changes nothing.

    Args:
        rng: Chooses sentence and words.
        appearance: Chooses between plain words and jargon.
        scene: What is described.
        silent: Attributes that are not spoken of: `motion` (for a still picture), `tone` (for a false-colour one).
    """
    words, sentences = _WORDS[appearance.name]
    sentence = sentences[int(rng.integers(len(sentences)))]
    for name in silent:
        sentence = sentence.replace(f"{{{name}}} and ", "").replace(f"{{{name}}}", "")
    sentence = " ".join(sentence.split()).removesuffix(" ,")
    parts = {
        name: str(rng.choice(words[getattr(scene, name)])) for name in ("size", "texture", "tone", "shape", "ground")
    }
    choice = int(rng.integers(len(words[scene.motion])))
    caption = sentence.format(**parts, motion=words[scene.motion][choice]).replace(" ,", ",")
    opposite = REVERSED[scene.motion]
    if opposite == scene.motion or "motion" in silent:
        return caption, ""
    return caption, sentence.format(**parts, motion=words[opposite][choice]).replace(" ,", ",")
