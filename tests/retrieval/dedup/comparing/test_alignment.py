from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.retrieval.dedup.comparing.videos import CHANGES, STEP_MS, of_frames, video
from tests.retrieval.pictures import picture
from vidseek_retrieval.dedup.comparing.alignment import align
from vidseek_retrieval.dedup.judging.scoring import log_odds


@given(st.integers(0, 3000), st.integers(0, 20))
@settings(max_examples=6, deadline=None)
def test_align__a_trim_has_a_constant_offset_and_the_same_speed(start_ms: int, seed: int) -> None:
    found = align(video(seed, start_ms=start_ms, length_ms=4000), video(seed, length_ms=8000))
    assert found is not None
    assert found.by.speed == 1 and found.by.offset_ms == pytest.approx(start_ms, abs=0.75 * STEP_MS)
    assert found.one_ms[0] <= 150 and found.one_ms[1] >= 3700 and log_odds(found.evidence) > 2


@pytest.mark.parametrize("speed", [0.8, 1.25, 1.5])
def test_align__another_speed_is_found(speed: float) -> None:
    found = align(video(4, length_ms=int(9000 / speed), speed=speed), video(4, length_ms=9000))
    assert found is not None and found.by.speed == pytest.approx(speed, abs=0.06)
    assert log_odds(found.evidence) > 2


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGES)
def test_align__a_changed_copy_is_one_and_another_video_is_none(name: str) -> None:
    copy = video(7, start_ms=60, change=CHANGES[name])
    found = align(copy, video(7))
    assert found is not None and log_odds(found.evidence) > 0.5
    assert found.by.speed == 1 and found.by.offset_ms == pytest.approx(60, abs=100)
    assert found.view.is_mirrored == (name == "mirrored")
    other = align(copy, video(8))
    assert other is None or log_odds(other.evidence) < 0


def test_align__turned_is_the_other_way_round() -> None:
    one, other = video(3, start_ms=1000, length_ms=4000, speed=1.25), video(3, length_ms=8000)
    found = align(one, other)
    assert found is not None
    back = found.turned()
    assert back.by.speed == pytest.approx(1 / found.by.speed)
    assert (back.one_ms, back.other_ms) == (found.other_ms, found.one_ms)
    times = np.array([500.0, 2000.0])
    np.testing.assert_allclose(back.by.times(found.by.times(times)), times)
    again = back.turned()
    assert again.by.speed == pytest.approx(found.by.speed) and again.by.offset_ms == pytest.approx(found.by.offset_ms)
    assert again.view == found.view and again.near_ms == pytest.approx(found.near_ms)


def test_align__black_is_like_nothing() -> None:
    black = of_frames([np.zeros((90, 120, 3), np.uint8)] * 12)
    assert align(black, black) is None and align(black, video(1)) is None


def test_align__two_recordings_of_a_still_camera_are_not_one() -> None:
    """A room, and a person who walks from left to right in one, and back and forth in the other."""
    room = picture(3)

    def walk(*places: int) -> list[np.ndarray]:
        frames = [room.copy() for _ in places]
        for frame, place in zip(frames, places, strict=True):
            frame[30:80, place : place + 20] = (220, 200, 170)
        return frames

    once = walk(*range(0, 96, 8))
    again = of_frames(walk(*[88, 40, 8, 64, 24, 80, 0, 56, 16, 72, 32, 48]))
    different, same = align(of_frames(once), again), align(of_frames(once), of_frames([frame // 2 for frame in once]))
    assert same is not None and log_odds(same.evidence) > 2
    assert different is None or log_odds(different.evidence) < 0.5


def test_align__a_still_is_like_itself() -> None:
    still = of_frames([picture(5)] * 12)
    found = align(still, of_frames([(picture(5) * 0.8).astype(np.uint8)] * 12))
    assert found is not None and found.evidence.energy == pytest.approx(0, abs=0.01) and log_odds(found.evidence) > 1
    other = align(still, of_frames([picture(6)] * 12))
    assert other is None or log_odds(other.evidence) < 0
