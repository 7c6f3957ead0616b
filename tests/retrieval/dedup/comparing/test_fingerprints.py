from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.retrieval.dedup.comparing.videos import letterboxed
from tests.retrieval.pictures import picture
from vidseek_retrieval.dedup.comparing.fingerprints import (
    SIDE,
    WHOLE_PICTURE,
    Rectangle,
    features,
    inside_of,
    is_flat,
    picture_of,
    unit,
)

CHANGES = {
    "scaled": lambda frame: np.asarray(Image.fromarray(frame).resize((48, 36))),
    "letterboxed": letterboxed,
    "pillarboxed": lambda frame: np.pad(frame, ((0, 0), (30, 30), (0, 0))),
    "darker": lambda frame: (frame * 0.5 + 5).astype(np.uint8),
}


def look(frame: np.ndarray, *, has_bars: bool = False) -> np.ndarray:
    pictures = picture_of(frame)[np.newaxis]
    return unit(features(pictures, inside_of(pictures) if has_bars else WHOLE_PICTURE))[0]


@pytest.mark.parametrize("name", CHANGES)
def test_features__a_changed_picture_is_like_itself_and_no_other(name: str) -> None:
    for seed in range(5):
        changed = look(CHANGES[name](picture(seed)), has_bars=name.endswith("boxed"))
        own = look(picture(seed)) @ changed
        assert own > 0.75 and max(look(picture(other)) @ changed for other in range(5, 15)) < own - 0.03


@given(st.floats(0, 0.3), st.floats(0, 0.3), st.integers(0, 50))
def test_features__mirrored_are_those_of_a_mirrored_picture(left: float, right: float, seed: int) -> None:
    pictures = picture_of(picture(seed))[np.newaxis]
    part, turned = Rectangle(0, 1, left, 1 - right), Rectangle(0, 1, right, 1 - left)
    np.testing.assert_allclose(
        features(pictures, part, is_mirrored=True), features(pictures[:, :, ::-1], turned), atol=0.2
    )


def test_features__are_linear_so_that_a_mixture_lies_between() -> None:
    one, other = (picture_of(picture(seed)).astype(np.float32)[np.newaxis] for seed in (1, 2))
    mixed = features((one + other) / 2, WHOLE_PICTURE)
    np.testing.assert_allclose(mixed, (features(one, WHOLE_PICTURE) + features(other, WHOLE_PICTURE)) / 2, atol=1e-2)


def test_is_flat__black_and_noise_show_nothing() -> None:
    noisy = np.random.default_rng(0).integers(14, 18, size=(30, 40, 3)).astype(np.uint8)
    shown = np.stack([picture_of(each) for each in (np.full((30, 40, 3), 16, np.uint8), noisy, picture(0))])
    assert is_flat(shown).tolist() == [True, True, False]


def test_inside_of__bars_are_those_of_the_video_and_a_wide_ground_is_none() -> None:
    # One dark frame has no range in any line; the others say where the picture is.
    frames = [letterboxed(picture(seed)) for seed in range(4)] + [np.zeros((130, 120, 3), np.uint8)]
    inside = inside_of(np.stack([picture_of(frame) for frame in frames]))
    assert inside.top == pytest.approx(20 / 130, abs=1 / SIDE) and inside.bottom == pytest.approx(110 / 130, abs=1 / SIDE)
    assert (inside.left, inside.right) == (0.0, 1.0)
    ground = np.zeros((60, 80, 3), np.uint8)
    ground[28:32, 38:42] = 255
    assert inside_of(picture_of(ground)[np.newaxis]) == WHOLE_PICTURE
    assert inside_of(np.zeros((3, SIDE, SIDE), np.uint8)) == WHOLE_PICTURE
