from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from vidseek_demo.render import Camera, Take
from vidseek_demo.scenes import AXES, GENERAL, SHAPES, SIZES, TEXTURES, THERMAL, Appearance, Scene

SIDE = 64
STEPS = [step / 8 for step in range(9)]
TAKE = Take(x=0.45, y=0.55, travel=0.4, angle=0.7, turn=2.5, radius_factor=1.0, sway=0.03, ground_seed=5)
AT_NIGHT = Scene("disc", "white", "small", "plain", "night", "still")
"""White on black: where the object is can be read off the brightness."""


def video(scene: Scene, take: Take = TAKE, appearance: Appearance = GENERAL) -> NDArray[np.uint8]:
    camera = Camera(appearance, scene, take, side_px=SIDE)
    return np.stack([camera.frame_at(u) for u in STEPS])


def moving(motion: str, shape: str = "disc") -> NDArray[np.bool_]:
    """Where the object is in each frame: (T, side, side)."""
    pictures = video(dataclasses.replace(AT_NIGHT, motion=motion, shape=shape))
    is_object: NDArray[np.bool_] = pictures.min(-1) > 200
    return is_object


def centres(masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The centre of mass of each frame as (x, y), y growing downwards."""
    return np.array([np.argwhere(mask).mean(0)[::-1] for mask in masks])


@pytest.mark.parametrize("appearance", [GENERAL, THERMAL], ids=["general", "thermal"])
def test_frame_at__the_same_take_gives_the_same_pictures(appearance: Appearance) -> None:
    scene = Scene("star", appearance.tones[0], "large", "striped", appearance.grounds[-1], "left")
    assert np.array_equal(video(scene, appearance=appearance), video(scene, appearance=appearance))
    elsewhere = dataclasses.replace(TAKE, ground_seed=6)
    assert not np.array_equal(video(scene, appearance=appearance), video(scene, elsewhere, appearance=appearance))
    assert video(scene, appearance=appearance).dtype == np.uint8 and video(scene, appearance=appearance).shape == (
        9,
        SIDE,
        SIDE,
        3,
    )


@pytest.mark.parametrize(
    ("motion", "column", "sign"), [("left", 0, -1), ("right", 0, 1), ("up", 1, -1), ("down", 1, 1)]
)
def test_frame_at__translations_go_where_they_say(motion: str, column: int, sign: int) -> None:
    path = centres(moving(motion))
    steps = sign * np.diff(path[:, column])
    assert (steps > 0).all()
    assert steps.sum() == pytest.approx(TAKE.travel * SIDE, abs=1)
    assert abs(path[-1, 1 - column] - path[0, 1 - column]) == pytest.approx(TAKE.sway * SIDE, abs=1)


@pytest.mark.parametrize(("motion", "sign"), [("grow", 1), ("shrink", -1)])
def test_frame_at__growing_and_shrinking_stay_in_place(motion: str, sign: int) -> None:
    masks = moving(motion)
    assert (sign * np.diff(masks.sum((1, 2))) > 0).all()
    assert np.ptp(centres(masks), axis=0).max() < 1


@pytest.mark.parametrize(("motion", "sign"), [("clockwise", 1), ("anticlockwise", -1)])
def test_frame_at__turns_go_round_as_they_say(motion: str, sign: int) -> None:
    # A crescent's mass lies off the middle that it turns about. With y downwards a growing angle is clockwise.
    x, y = (centres(moving(motion, "crescent")) - (TAKE.x * SIDE, TAKE.y * SIDE)).T
    turned = np.diff(np.unwrap(np.arctan2(y, x)))
    assert (sign * turned > 0).all()
    assert sign * turned.sum() == pytest.approx(TAKE.turn, abs=0.3)


def test_frame_at__a_bounce_comes_back_and_a_still_object_stays() -> None:
    x, y = centres(moving("bounce")).T
    assert np.ptp(x) < 1 and np.ptp(y) > 0.3 * TAKE.travel * SIDE
    assert {-1, 1} <= set(np.sign(np.round(np.diff(y))))
    still = moving("still")
    assert (still == still[0]).all()


@pytest.mark.parametrize("motion", sorted(AXES))
def test_reversed__is_the_video_run_backwards(motion: str) -> None:
    scene = Scene("crescent", "orange", "large", "dotted", "bricks", motion)
    # The reversed video starts where the other ended: turned on by the whole turn, swayed to the other side.
    turn = {"clockwise": TAKE.turn, "anticlockwise": -TAKE.turn}.get(motion, 0.0)
    take = dataclasses.replace(TAKE, angle=TAKE.angle + turn, sway=-TAKE.sway)
    backwards = video(scene)[::-1].astype(int)
    difference = np.abs(video(scene.reversed(), take).astype(int) - backwards)
    # The last bit of a float can move the edge of a dot: not more than a few pixels of all.
    assert (difference > 2).mean() < 1e-3
    assert (np.abs(video(scene, take).astype(int) - backwards) > 2).mean() > 0.02


@pytest.mark.parametrize("motion", ["left", "up", "clockwise", "grow"])
def test_mirrored__is_the_picture_mirrored(motion: str) -> None:
    shape = "crescent" if motion == "clockwise" else "disc"
    masks = moving(motion, shape)[:, :, ::-1]
    scene = dataclasses.replace(AT_NIGHT, motion=motion, shape=shape).mirrored()
    sway = -TAKE.sway if motion == "up" else TAKE.sway
    take = dataclasses.replace(TAKE, x=1 - TAKE.x, angle=math.pi - TAKE.angle, sway=sway)
    assert np.abs(centres(video(scene, take).min(-1) > 200) - centres(masks)).max() < 1


def test_draw__start_angles_are_uniform_over_the_circle() -> None:
    rng = np.random.default_rng(0)
    angles = np.sort([Take.draw(rng).angle for _ in range(3000)]) / (2 * math.pi)
    # Kolmogorov-Smirnov at 1 %: 1.63 / sqrt(n).
    assert np.abs(angles - (np.arange(3000) + 0.5) / 3000).max() < 1.63 / math.sqrt(3000)


@pytest.mark.parametrize("appearance", [GENERAL, THERMAL], ids=["general", "thermal"])
def test_frame_at__every_fact_shows(appearance: Appearance) -> None:
    base = Scene("square", appearance.tones[-1], "large", "plain", appearance.grounds[0], "still")
    for name, values in (
        ("shape", SHAPES), ("tone", appearance.tones), ("size", SIZES), ("texture", TEXTURES), ("ground", appearance.grounds)
    ):
        pictures = [
            video(dataclasses.replace(base, **{name: value}), appearance=appearance)[4].astype(int) for value in values
        ]
        for one in range(len(values)):
            for other in range(one):
                apart = (np.abs(pictures[one] - pictures[other]).max(-1) > 20).mean()
                assert apart > 0.01, f"{name}: {values[one]} looks like {values[other]}"


@pytest.mark.parametrize("ground", THERMAL.grounds)
@pytest.mark.parametrize("tone", THERMAL.tones)
def test_frame_at__every_heat_stands_out_from_every_ground(tone: str, ground: str) -> None:
    picture = video(Scene("disc", tone, "large", "plain", ground, "still"), appearance=THERMAL)[0].astype(int)
    x, y = int(TAKE.x * SIDE), int(TAKE.y * SIDE)
    inside, outside = picture[y + 4 : y + 10, x - 10 : x - 4], picture[:8, -8:]
    assert np.abs(inside.mean((0, 1)) - outside.mean((0, 1))).max() > 40
