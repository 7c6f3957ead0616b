from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.videos.rendered import join_scenes, rendered_scene
from vidseek_media.cutting.shots import find_cuts
from vidseek_media.cutting.small_frames import SmallFrame, SmallFrames
from vidseek_media.cutting.transitions import Pace, add_gradual, find_dissolves, find_fades, merge_fades, without_flashes
from vidseek_media.settings import ShotSettings

PACE = Pace.of(1 / 25)
ONE, OTHER = (np.random.default_rng(seed).integers(40, 220, (60, 3)).astype(float) for seed in (1, 2))


def video(*parts: list[NDArray[np.float64]]) -> SmallFrames:
    """Frames of 60 cells, 6 by 10, with the noise of a camera."""
    frames = np.stack([frame for part in parts for frame in part])
    noisy = np.clip(frames + np.random.default_rng(0).normal(0, 1, frames.shape), 0, 255).astype(np.uint8)
    return SmallFrames.of([SmallFrame.of(each.reshape(6, 10, 3).repeat(24, 0).repeat(24, 1)) for each in noisy])


def still(cells: NDArray[np.float64], count: int = 50) -> list[NDArray[np.float64]]:
    return [cells] * count


def mixed(a: NDArray[np.float64], b: NDArray[np.float64], count: int = 20) -> list[NDArray[np.float64]]:
    return [a + (b - a) * (n + 1) / (count + 1) for n in range(count)]


def test_find_dissolves__gives_the_middle_of_a_mix() -> None:
    assert find_dissolves(video(still(ONE), mixed(ONE, OTHER), still(OTHER)), PACE) == [pytest.approx(59.5, abs=1)]


@pytest.mark.parametrize("name", ["still", "cut", "drift", "light", "grey light", "flash"])
def test_add_gradual__finds_none_where_there_is_none(name: str) -> None:
    drift = [np.roll(np.kron(ONE, np.ones((20, 1))), 3 * n, axis=0)[10::20] for n in range(150)]
    parts = {
        "still": [still(ONE, 150)], "cut": [still(ONE), still(OTHER)], "drift": [drift],
        "light": [still(ONE), mixed(ONE, ONE * 0.4), still(ONE * 0.4)],
        "grey light": [still(ONE), mixed(ONE, ONE / 2 + 110), still(ONE / 2 + 110)],
        "flash": [still(ONE), still(ONE + 60, 2), still(ONE)],
    }
    assert add_gradual([], video(*parts[name]), PACE) == []


@pytest.mark.parametrize("count", [8, 12, 16, 24, 32])
def test_find_dissolves__of_any_usual_length(count: int) -> None:
    [at] = find_dissolves(video(still(ONE), mixed(ONE, OTHER, count), still(OTHER)), PACE)
    assert 50 <= at < 50 + count


@pytest.mark.parametrize("length", [1, 3, 6])
def test_without_flashes__a_picture_that_comes_back_was_never_gone(length: int) -> None:
    lit = np.clip(ONE * 0.4 + 140, 0, 255)
    seen = video(still(ONE), still(lit, length), still(ONE), still(OTHER))
    ends = len(seen.cells) - 50
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


def test_find_fades__gives_the_dark_between_two_bright_shots() -> None:
    black = ONE * 0
    cells = video(still(ONE), mixed(ONE, black), mixed(black, OTHER), still(OTHER))
    [fade] = find_fades(cells, PACE)
    assert fade.middle == pytest.approx(69.5, abs=1)
    assert fade.first < 69 and fade.last > 70
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


@pytest.mark.slow
def test_find_cuts__finds_a_dissolve_and_a_fade_in_a_video(tmp_path: Path) -> None:
    pytest.importorskip("scenedetect")
    path = tmp_path / "video.mp4"
    cut, fade, dissolve = join_scenes(path, [rendered_scene(seed) for seed in (3, 9, 5, 12)], ["cut", "fade", "cut"], seed=0)
    settings = ShotSettings()
    found = [time_ms // 40 for time_ms in find_cuts(path, settings=settings)]
    assert found[0] == cut.first and found[2] == dissolve.first and fade.first <= found[1] <= fade.last



def test_find_dissolves__a_pan_to_another_view_is_none() -> None:
    wide = np.random.default_rng(3).integers(40, 220, (6, 60, 3)).astype(np.uint8).repeat(24, 0).repeat(24, 1)
    pan = [wide[:, min(max(n - 40, 0), 30) * 24 :][:, :256] for n in range(110)]
    assert find_dissolves(SmallFrames.of([SmallFrame.of(frame) for frame in pan]), PACE) == []


def test_find_dissolves__finds_one_below_black_bars() -> None:
    def barred(cells: NDArray[np.float64]) -> NDArray[np.uint8]:
        picture = cells.reshape(6, 10, 3).repeat(24, 0).repeat(24, 1)
        picture[:18] = picture[-18:] = 16
        return picture.astype(np.uint8)

    frames = [barred(cells) for part in (still(ONE), mixed(ONE, OTHER), still(OTHER)) for cells in part]
    assert find_dissolves(SmallFrames.of([SmallFrame.of(frame) for frame in frames]), PACE) == [pytest.approx(59.5, abs=1)]


def test_without_flashes__keeps_a_cut_to_another_picture_of_like_colours() -> None:
    """Sky above and ground below in both: only what stands there differs."""
    rows = np.linspace(230, 40, 12)[:, None, None]
    one, other = (
        (rows + np.random.default_rng(seed).normal(0, 12, (12, 20, 1)) + np.zeros(3)).clip(0, 255) for seed in (1, 2)
    )
    frames = [SmallFrame.of(view.astype(np.uint8).repeat(12, 0).repeat(12, 1)) for view in [one] * 20 + [other] * 20]
    assert without_flashes([20], SmallFrames.of(frames), PACE) == [20]


def test_without_flashes__a_change_of_hue_alone_is_none() -> None:
    assert without_flashes([50], video(still(ONE), still(ONE + 2)), PACE) == []


def test_merge_fades__one_fade_found_twice_counts_in_its_dark() -> None:
    black = ONE * 0
    frames = video(still(ONE), mixed(ONE, black), mixed(black, OTHER), still(OTHER), still(ONE))
    assert merge_fades([52, 88, 140], frames, PACE) == [pytest.approx(69.5, abs=1), 140]


def test_add_gradual__a_long_dark_is_one_fade_with_the_cuts_in_it() -> None:
    """The picture comes up from a title on black; PySceneDetect sees a cut where it begins to."""
    title = np.zeros_like(ONE)
    title[50:] = 40
    frames = video(still(ONE), mixed(ONE, title), still(title, 24), mixed(title, OTHER), still(OTHER))
    assert add_gradual([95], frames, PACE) == [pytest.approx(82, abs=2)]
