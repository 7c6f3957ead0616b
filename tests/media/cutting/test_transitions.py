from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.videos.rendered import join_scenes, rendered_scene
from vidseek_media.cutting.shots import find_cuts
from vidseek_media.cutting.transitions import Pace, add_gradual, cells_of, find_dissolves, find_fades, without_flashes
from vidseek_media.settings import ShotSettings

PACE = Pace.of(1 / 25)
ONE, OTHER = (np.random.default_rng(seed).integers(40, 220, (60, 3)).astype(float) for seed in (1, 2))


def video(*parts: list[NDArray[np.float64]]) -> NDArray[np.uint8]:
    """Frames of 60 cells, with the noise of a camera."""
    frames = np.stack([frame for part in parts for frame in part])
    return np.clip(frames + np.random.default_rng(0).normal(0, 1, frames.shape), 0, 255).astype(np.uint8)


def still(cells: NDArray[np.float64], count: int = 50) -> list[NDArray[np.float64]]:
    return [cells] * count


def mixed(a: NDArray[np.float64], b: NDArray[np.float64], count: int = 20) -> list[NDArray[np.float64]]:
    return [a + (b - a) * (n + 1) / (count + 1) for n in range(count)]


def test_find_dissolves__gives_the_middle_of_a_mix() -> None:
    assert find_dissolves(video(still(ONE), mixed(ONE, OTHER), still(OTHER)), PACE) == [pytest.approx(59.5, abs=1)]


@pytest.mark.parametrize("name", ["still", "cut", "drift", "light", "grey light", "flash"])
def test_add_gradual__finds_none_where_there_is_none(name: str) -> None:
    drift = [np.roll(np.kron(ONE, np.ones((20, 1))), 3 * n, axis=0)[10::20] for n in range(150)]
    samples = {
        "still": video(still(ONE, 150)), "cut": video(still(ONE), still(OTHER)), "drift": video(drift),
        "light": video(still(ONE), mixed(ONE, ONE * 0.4), still(ONE * 0.4)),
        "grey light": video(still(ONE), mixed(ONE, ONE / 2 + 110), still(ONE / 2 + 110)),
        "flash": video(still(ONE), still(ONE + 60, 2), still(ONE)),
    }
    assert add_gradual([], samples[name], PACE) == []


@pytest.mark.parametrize("count", [8, 12, 16, 24, 32])
def test_find_dissolves__of_any_usual_length(count: int) -> None:
    [at] = find_dissolves(video(still(ONE), mixed(ONE, OTHER, count), still(OTHER)), PACE)
    assert 50 <= at < 50 + count


@pytest.mark.parametrize("length", [1, 3, 6])
def test_without_flashes__a_picture_that_comes_back_was_never_gone(length: int) -> None:
    lit = np.clip(ONE * 0.4 + 140, 0, 255)
    seen = video(still(ONE), still(lit, length), still(ONE), still(OTHER))
    ends = len(seen) - 50
    assert without_flashes([50, 50 + length, ends], seen, PACE) == [ends]


def test_without_flashes__a_lamp_that_stays_on_is_no_cut() -> None:
    assert without_flashes([50], video(still(ONE), still(ONE * 0.4)), PACE) == []


def test_without_flashes__keeps_cuts_to_another_picture_and_to_black() -> None:
    black = np.zeros_like(ONE)
    seen = video(still(ONE), still(OTHER), still(black), still(ONE))
    assert without_flashes([50, 100, 150], seen, PACE) == [50, 100, 150]
    assert without_flashes([], seen, PACE) == []


def test_without_flashes__keeps_where_a_picture_comes_up_from_black_below_a_title() -> None:
    title = np.zeros_like(ONE)
    title[50:] = 40
    seen = video(still(title), mixed(title, ONE, 25), still(ONE))
    assert without_flashes([51], seen, PACE) == [51]


def test_find_fades__gives_the_darkest_frame_between_two_bright_shots() -> None:
    black = ONE * 0
    cells = video(still(ONE), mixed(ONE, black), mixed(black, OTHER), still(OTHER))
    assert find_fades(cells, PACE) == [pytest.approx(69.5, abs=1)]
    assert find_fades(video(mixed(black, ONE), still(ONE), mixed(ONE, black)), PACE) == []  # of the video's own ends
    assert find_fades(video(still(ONE / 6), still(OTHER / 6)), PACE) == []  # night


def test_add_gradual__keeps_the_cuts_and_counts_each_transition_once() -> None:
    black = ONE * 0
    fade = [*mixed(ONE, black), *mixed(black, OTHER)]
    cells = video(still(ONE), still(OTHER), mixed(OTHER, ONE), still(ONE), fade, still(OTHER))
    found = add_gradual([50, 190], cells, PACE)  # the second one: the detector's, in the dark of the fade
    assert found == [50, pytest.approx(109.5, abs=1), pytest.approx(189.5, abs=1)]


def test_add_gradual__a_cut_to_black_is_no_fade() -> None:
    assert add_gradual([50], video(still(ONE), still(ONE * 0, 20), mixed(ONE * 0, OTHER), still(OTHER)), PACE) == [50]


def test_add_gradual__of_a_video_shorter_than_a_dissolve_changes_nothing() -> None:
    for count in (1, 5, 24):
        assert add_gradual([], video(still(ONE, count)), PACE) == []


def test_pace__goes_by_the_clock() -> None:
    assert Pace.of(1 / 25) == Pace(half=12, second=25)
    assert Pace.of(1 / 50) == Pace(half=24, second=50)
    assert Pace.of(1.0) == Pace(half=5, second=6)


@pytest.mark.parametrize("shape", [(144, 256), (144, 144), (256, 144), (10, 10), (23, 300)])
def test_cells_of__are_the_means_of_equal_parts(shape: tuple[int, int]) -> None:
    ramp = np.broadcast_to(np.linspace(0, 200, shape[1]).astype(np.uint8)[None, :, None], (*shape, 3))
    cells = cells_of(ramp)
    assert cells.shape == (max(shape[0] // 24, 1) * max(shape[1] // 24, 1), 3)
    assert abs(float(cells.mean()) - float(ramp.mean())) < 10


def test_find_cuts__finds_a_dissolve_and_a_fade_in_a_video(tmp_path: Path) -> None:
    pytest.importorskip("scenedetect")
    path = tmp_path / "video.mp4"
    cut, fade, dissolve = join_scenes(path, [rendered_scene(seed) for seed in (3, 9, 5, 12)], ["cut", "fade", "cut"], seed=0)
    settings = ShotSettings()
    found = [time_ms // 40 for time_ms in find_cuts(path, settings=settings)]
    assert found[0] == cut.first and found[2] == dissolve.first and fade.first <= found[1] <= fade.last
