from __future__ import annotations

import numpy as np
import pytest

from vidseek_media.cutting.small_frames import SmallFrame, SmallFrames, detail_of


@pytest.mark.parametrize("shape", [(144, 256), (144, 144), (256, 144), (10, 10), (23, 300), (1, 1), (144, 4000)])
def test_of__keeps_means_of_equal_parts(shape: tuple[int, int]) -> None:
    ramp = np.broadcast_to(np.linspace(0, 200, shape[1]).astype(np.uint8)[None, :, None], (*shape, 3))
    frame = SmallFrame.of(ramp)
    assert frame.cells.shape == (max(shape[0] // 24, 1) * max(shape[1] // 24, 1), 3)
    assert frame.grey.shape == tuple(max(length // 12, 1) for length in shape)
    assert abs(float(frame.cells.mean()) - float(ramp.mean())) < 10
    assert abs(float(frame.grey.mean()) - float(ramp.mean())) < 10


def test_detail_of__an_equal_mix_of_two_pictures_has_half_of_theirs() -> None:
    one, other = np.random.default_rng(0).uniform(40, 220, (2, 24, 42)).astype(np.float32)
    assert detail_of((one + other) / 2) == pytest.approx((detail_of(one) + detail_of(other)) / 4, rel=0.05)


def test_detail_of__black_bars_have_none() -> None:
    picture = np.random.default_rng(0).uniform(150, 220, (24, 42)).astype(np.float32)
    barred = picture.copy()
    barred[:3] = barred[-3:] = 16
    assert detail_of(barred) == pytest.approx(detail_of(picture[3:-3]) * 18 / 24)
    assert detail_of(np.zeros((24, 42), np.float32)) == 0


def test_brightness__is_that_of_grey() -> None:
    frames = SmallFrames.of([SmallFrame.of(np.full((48, 48, 3), level, np.uint8)) for level in (0, 90)])
    assert frames.brightness() == pytest.approx([0, 90])
