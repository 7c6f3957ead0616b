"""Pictures that differ: coloured blobs on a slope, drawn by a seed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

HEIGHT, WIDTH = 90, 120


def picture(seed: int, *, at: float = 0.0) -> NDArray[np.uint8]:
    """uint8 RGB (90, 120, 3); with `at` the blobs move, so that a video is no still."""
    draws = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    image = np.stack([rows * draws.uniform(0.2, 0.8) + columns * draws.uniform(-0.4, 0.4) + 80] * 3, axis=2)
    for _ in range(6):
        row, column = draws.uniform(0.15, 0.85) * HEIGHT, draws.uniform(0.15, 0.85) * WIDTH
        speed = draws.uniform(-8, 8, size=2)
        shape = (rows - row - speed[0] * at) ** 2 + (columns - column - speed[1] * at) ** 2
        image += np.exp(-shape / (2 * draws.uniform(6, 14) ** 2))[..., np.newaxis] * draws.uniform(-140, 140, size=3)
    return np.clip(image, 20, 235).astype(np.uint8)


def moving_frames(seed: int, *, num: int, scene: int = 6) -> list[NDArray[np.uint8]]:
    """`num` frames, half a second apart, with a new scene after each `scene` frames."""
    return [picture(1000 * seed + place // scene, at=place % scene / 2) for place in range(num)]
