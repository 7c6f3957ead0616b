"""Scenes to pictures, in numpy: distance fields drawn inside the object's bounding box, in one of two looks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidseek_demo.scenes import Appearance, Scene

Floats = NDArray[np.floating[Any]]
Picture = NDArray[np.uint8]

_RADIUS = {"small": 0.17, "large": 0.29}
"""Of the picture's side. Smaller objects at 64 pixels were not learnable."""

_RGB = {
    "red": (225, 45, 40), "orange": (245, 140, 25), "yellow": (245, 225, 60), "green": (60, 200, 70),
    "cyan": (60, 215, 225), "blue": (50, 85, 230), "purple": (165, 60, 205), "white": (245, 245, 245),
}
_HEAT = {"heat1": 0.03, "heat2": 0.19, "heat3": 0.62, "heat4": 0.80, "heat5": 0.98}
"""At least 0.15 from each other and from every ground, or they vanish."""

_IRONBOW = np.array(
    [(0, 0, 12), (40, 8, 110), (130, 12, 145), (205, 50, 95), (245, 125, 25), (252, 205, 55), (255, 255, 235)],
    np.float32,
)


@dataclass(frozen=True)
class Take:
    """The chance parts of videoing one scene: where it is, how far it goes, how its ground lies."""

    x: float
    y: float
    """Middle of the path, in shares of the side."""
    travel: float
    """Length of the path, or height of a bounce, in shares of the side."""
    angle: float
    """At the start, in radians, uniform over the circle, so that no mean angle gives the sense of turning away."""
    turn: float
    """Radians from start to end of a turning scene."""
    radius_factor: float
    sway: float
    """Sideways drift along the path."""
    ground_seed: int

    @staticmethod
    def draw(rng: np.random.Generator) -> Take:
        """Return a random take."""
        return Take(
            x=float(rng.uniform(0.36, 0.64)), y=float(rng.uniform(0.36, 0.64)),
            travel=float(rng.uniform(0.36, 0.56)), angle=float(rng.uniform(0, 2 * math.pi)),
            turn=float(rng.uniform(0.7, 1.2) * math.pi), radius_factor=float(rng.uniform(0.9, 1.1)),
            sway=float(rng.uniform(-0.05, 0.05)), ground_seed=int(rng.integers(2**31)),
        )


def pose_at(scene: Scene, take: Take, u: float) -> tuple[float, float, float, float]:
    """Centre x, centre y, radius (shares of the side) and angle at `u` in [0, 1] of the scene."""
    x, y, angle = take.x, take.y, take.angle
    radius = _RADIUS[scene.size] * take.radius_factor
    path, sway = (u - 0.5) * take.travel, (u - 0.5) * take.sway
    match scene.motion:
        case "left":
            x, y = x - path, y + sway
        case "right":
            x, y = x + path, y + sway
        case "up":
            x, y = x + sway, y - path
        case "down":
            x, y = x + sway, y + path
        case "clockwise":
            angle += u * take.turn
        case "anticlockwise":
            angle -= u * take.turn
        case "grow":
            radius *= 0.6 + 0.65 * u
        case "shrink":
            radius *= 1.25 - 0.65 * u
        case "bounce":
            y = y + take.travel * (0.3 - 0.6 * abs(math.sin(u * 2.5 * math.pi)))
    return x, y, radius, angle


def _triangle(x: Floats, y: Floats) -> Floats:
    return np.maximum(np.abs(x) * 0.866 + y * 0.5, -y) - 0.6


def _star(x: Floats, y: Floats) -> Floats:
    distance: Floats = np.hypot(x, y) - (0.68 + 0.32 * np.cos(5 * np.arctan2(y, x)))
    return distance


def _cross(x: Floats, y: Floats) -> Floats:
    x, y = np.abs(x), np.abs(y)
    distance: Floats = np.minimum(np.maximum(x - 1, y - 0.32), np.maximum(y - 1, x - 0.32))
    return distance


_DISTANCE: dict[str, Callable[[Floats, Floats], Floats]] = {
    "disc": lambda x, y: np.hypot(x, y) - 0.95,
    "square": lambda x, y: np.maximum(np.abs(x), np.abs(y)) - 0.8,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "ring": lambda x, y: np.abs(np.hypot(x, y) - 0.75) - 0.22,
    "crescent": lambda x, y: np.maximum(np.hypot(x, y) - 1, 0.85 - np.hypot(x - 0.55, y)),
    "bar": lambda x, y: np.maximum(np.abs(x) - 1, np.abs(y) - 0.33),
}
"""Signed distance, roughly, in units of the radius; negative inside."""


def _shade(texture: str, x: Floats, y: Floats) -> Floats:
    """Brightness of the surface, 0.45 to 1, in the object's own coordinates, so that it turns with the object."""
    if texture == "striped":
        return np.where(np.sin(x * (math.pi * 2.2) + 0.6) > 0, np.float32(1), np.float32(0.45))
    if texture == "dotted":
        u, v = (x * 1.7 + 0.25) % 1 - 0.5, (y * 1.7 + 0.25) % 1 - 0.5
        return np.where(u * u + v * v < 0.08, np.float32(0.4), np.float32(1))
    return np.ones_like(x)


class Camera:
    """Videos one scene: the ground is drawn once, the object in each frame.

    Args:
        side_px: Side of the square picture.
    """

    def __init__(self, appearance: Appearance, scene: Scene, take: Take, *, side_px: int) -> None:
        self._look, self._scene, self._take, self._side = appearance, scene, take, side_px
        self._noise = np.random.default_rng(take.ground_seed)
        self._ground = _general_ground(scene.ground, self._noise, side_px) if appearance.name == "general" else (
            _thermal_ground(scene.ground, self._noise, side_px)
        )

    def frame_at(self, u: float) -> Picture:
        """Return the picture at `u` in [0, 1] of the scene: uint8 (side, side, 3)."""
        canvas = self._ground.copy()
        box, alpha, shade = self._object_at(u)
        under = canvas[box]
        if self._look.name == "general":
            colour = shade[..., None] * np.array(_RGB[self._scene.tone], np.float32)
            canvas[box] = under + alpha[..., None] * (colour - under)
            return canvas.astype(np.uint8)
        heat = 0.42 + shade * (_HEAT[self._scene.tone] - 0.42)
        canvas[box] = under + alpha * (heat - under)
        return self._thermal_picture(canvas)

    def _object_at(self, u: float) -> tuple[tuple[slice, slice], Floats, Floats]:
        x, y, radius, angle = pose_at(self._scene, self._take, u)
        side, reach = self._side, radius * 1.1
        left, right = max(0, int((x - reach) * side)), min(side, int((x + reach) * side) + 2)
        top, bottom = max(0, int((y - reach) * side)), min(side, int((y + reach) * side) + 2)
        across = ((np.arange(left, right, dtype=np.float32) + 0.5) / side - x) / radius
        along = ((np.arange(top, bottom, dtype=np.float32) + 0.5) / side - y) / radius
        cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
        own_x = cos * across[None, :] + sin * along[:, None]
        own_y = -sin * across[None, :] + cos * along[:, None]
        distance = _DISTANCE[self._scene.shape](own_x, own_y)
        alpha = np.clip(0.5 - distance * np.float32(radius * side), 0, 1)
        return (slice(top, bottom), slice(left, right)), alpha, _shade(self._scene.texture, own_x, own_y)

    def _thermal_picture(self, heat: Floats) -> Picture:
        side = self._side
        heat = heat + self._noise.normal(0, 0.012, heat.shape).astype(np.float32)
        heat[:: max(2, side // 32)] -= 0.02
        table = _ironbow_table()
        picture = table[np.clip(heat * 255, 0, 255).astype(np.uint8)]
        middle, arm, thick = side // 2, side // 16, max(1, side // 64)
        picture[middle : middle + thick, middle - arm : middle + arm] = 215
        picture[middle - arm : middle + arm, middle : middle + thick] = 215
        return picture


_TABLES: dict[str, Picture] = {}


def _ironbow_table() -> Picture:
    if "ironbow" not in _TABLES:
        stops = np.linspace(0, 1, len(_IRONBOW))
        at = np.linspace(0, 1, 256)
        _TABLES["ironbow"] = np.stack([np.interp(at, stops, _IRONBOW[:, c]) for c in range(3)], 1).astype(np.uint8)
    return _TABLES["ironbow"]


def _smooth_noise(rng: np.random.Generator, side: int, cells: int) -> Floats:
    """Noise in [-1, 1] with `cells` soft blobs across."""
    coarse = rng.uniform(-1, 1, (cells + 1, cells + 1)).astype(np.float32)
    at = np.linspace(0, cells, side, endpoint=False, dtype=np.float32)
    low, part = at.astype(int), (at % 1)[:, None]
    rows = coarse[low] * (1 - part) + coarse[low + 1] * part
    noise: Floats = rows[:, low] * (1 - part.T) + rows[:, low + 1] * part.T
    return noise


def _grid(rng: np.random.Generator, side: int) -> tuple[Floats, Floats]:
    """Coordinates in [0, 1) with a random offset, so that the same ground never lies twice the same."""
    at = np.arange(side, dtype=np.float32) / side
    return (at[:, None] + np.float32(rng.uniform())), (at[None, :] + np.float32(rng.uniform()))


def _general_ground(ground: str, rng: np.random.Generator, side: int) -> Floats:
    rows, columns = _grid(rng, side)
    level: Floats
    match ground:
        case "night":
            level = np.full((side, side), 14, np.float32)
            at = rng.integers(0, side, (14, 2))
            level[at[:, 0], at[:, 1]] = 130
            tint = (0.8, 0.85, 1.3)
        case "fog":
            level = 128 + 12 * _smooth_noise(rng, side, 3)
            tint = (1.0, 1.0, 1.02)
        case "bricks":
            joint = ((rows * 8) % 1 < 0.16) | ((columns * 5 + 0.5 * (np.floor(rows * 8) % 2)) % 1 < 0.09)
            level = np.where(joint, np.float32(105), np.float32(78))
            tint = (1.25, 0.8, 0.65)
        case "meadow":
            level = 70 + 14 * _smooth_noise(rng, side, 16) + 8 * _smooth_noise(rng, side, 5)
            tint = (0.75, 1.2, 0.5)
        case _:
            level = np.where((np.floor(rows * 5) + np.floor(columns * 5)) % 2 > 0, np.float32(172), np.float32(118))
            tint = (1.03, 0.97, 0.86)
    return np.clip(level[..., None] * np.array(tint, np.float32), 0, 255)


def _thermal_ground(ground: str, rng: np.random.Generator, side: int) -> Floats:
    rows, columns = _grid(rng, side)
    match ground:
        case "tarmac":
            dash = ((columns * 2) % 1 < 0.09) & ((rows * 4) % 1 < 0.55)
            heat: Floats = np.where(dash, np.float32(0.47), np.float32(0.43)) + np.zeros((side, side), np.float32)
        case "canopy":
            heat = 0.40 + 0.045 * _smooth_noise(rng, side, 14)
        case _:
            heat = 0.375 + 0.025 * np.sin(2 * math.pi * (rows * 7 + 0.15 * np.sin(2 * math.pi * columns * 2)))
    return heat
