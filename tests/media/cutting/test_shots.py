from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.videos.rendered import join_scenes, rendered_scene
from bench.videos.shots import Score, score
from tests.raising import raises
from vidseek_media.cutting.shots import find_all_cuts, find_cuts, shot_spans
from vidseek_media.errors import ConfigError
from vidseek_media.ids import video_id_of
from vidseek_media.settings import ShotSettings

pytest.importorskip("scenedetect")

MakeVideo = Callable[..., Path]
SETTINGS = ShotSettings(threshold=3.0, min_content=15.0, min_seconds=2.0, max_seconds=10.0)


@pytest.mark.parametrize(
    ("cuts_ms", "duration_ms", "wanted"),
    [
        ([], 8000, [(0, 8000)]),
        ([3000, 6000], 9000, [(0, 3000), (3000, 6000), (6000, 9000)]),
        ([3000, 4000], 9000, [(0, 3000), (3000, 9000)]),  # a shot of 1 s is joined to the next
        ([1000, 1500], 9000, [(0, 9000)]),
        ([3000, 8000], 9000, [(0, 3000), (3000, 9000)]),  # the last one to the one before
        ([1000, 2000, 3000, 4000], 5000, [(0, 2000), (2000, 5000)]),
        ([], 21_000, [(0, 7000), (7000, 14_000), (14_000, 21_000)]),  # over 10 s: equal parts
        ([], 10_001, [(0, 5001), (5001, 10_001)]),
        ([0, 9000, 12_000], 9000, [(0, 9000)]),  # nothing begins at the ends or outside
        ([], 500, [(0, 500)]),
    ],
)
def test_shot_spans__by_hand(cuts_ms: list[int], duration_ms: int, wanted: list[tuple[int, int]]) -> None:
    assert list(shot_spans(cuts_ms, duration_ms, min_ms=2000, max_ms=10_000)) == wanted


@pytest.mark.parametrize(("low", "high", "threshold"), [(5.0, 5.0, 3.0), (-1.0, 5.0, 3.0), (1.0, 5.0, 0.0)])
def test_shot_settings__refuse_what_makes_no_shots(low: float, high: float, threshold: float) -> None:
    with raises(ConfigError, code="setting-out-of-range", naming="cut.shots"):
        ShotSettings(threshold=threshold, min_content=15.0, min_seconds=low, max_seconds=high)


def test_find_cuts__finds_every_cut_of_a_video_at_its_frame(tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    truth = join_scenes(path, [rendered_scene(seed) for seed in range(5)], ["cut"] * 4, seed=0)
    assert find_cuts(path, settings=SETTINGS) == [boundary.first * 40 for boundary in truth]  # 25 frames a second


def test_find_cuts__of_one_scene_finds_none(tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    assert join_scenes(path, [rendered_scene(7)], [], seed=0) == []
    assert find_cuts(path, settings=SETTINGS) == []


def test_find_all_cuts__decodes_a_video_once(tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    [cut] = join_scenes(path, [rendered_scene(1), rendered_scene(2)], ["cut"], seed=3)
    paths = {video_id_of(path): path}
    first = find(tmp_path, paths)
    path.unlink()
    assert first == find(tmp_path, paths) == ({video_id: [cut.first * 40] for video_id in paths}, {})


def test_find_all_cuts__other_settings_look_again_and_other_lengths_do_not(tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    join_scenes(path, [rendered_scene(1), rendered_scene(2)], ["cut"], seed=3)
    paths = {video_id_of(path): path}
    cuts, _ = find(tmp_path, paths)
    assert find(tmp_path, paths, ShotSettings(min_content=250.0)) == ({video_id: [] for video_id in paths}, {})
    path.unlink()
    assert find(tmp_path, paths, ShotSettings(min_seconds=1.0, max_seconds=5.0)) == (cuts, {})


def test_find_all_cuts__a_video_that_cannot_be_decoded_costs_its_own_shots(tmp_path: Path, make_video: MakeVideo) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    good, bad = make_video(tmp_path / "good.mp4", num_frames=20), tmp_path / "bad.mp4"
    cuts, lost = find(tmp_path, {video_id_of(bad): bad, video_id_of(good): good})
    assert cuts == {video_id_of(good): []}
    assert "bad.mp4: its shots were not found: cannot be opened as video" in lost[video_id_of(bad)].reason
    assert not lost[video_id_of(bad)].retryable


def test_find_all_cuts__of_a_replaced_file_remembers_nothing(tmp_path: Path) -> None:
    path, other = tmp_path / "video.mp4", tmp_path / "other.mp4"
    [cut] = join_scenes(path, [rendered_scene(1), rendered_scene(2)], ["cut"], seed=3)
    join_scenes(other, [rendered_scene(5)], [], seed=3)
    video_id, content = video_id_of(path), path.read_bytes()
    path.write_bytes(other.read_bytes())
    cuts, lost = find(tmp_path, {video_id: path})
    assert not cuts and "not those that were ingested" in lost[video_id].reason
    assert lost[video_id].retryable
    path.write_bytes(content)
    assert find(tmp_path, {video_id: path}) == ({video_id: [cut.first * 40]}, {})


def test_score__counts_a_second_hit_at_one_boundary_as_false() -> None:
    from bench.videos.rendered import Boundary

    truth = [Boundary("cut", 10, 10), Boundary("dissolve", 50, 60), Boundary("fade", 90, 110)]
    scores = score(truth, [12, 48, 55, 80])
    assert scores["cut"] == Score(1, 1, 0)
    assert scores["dissolve"] == Score(1, 1, 1)  # 48 is within 2 frames of 50, 55 is a second one
    assert scores["fade"] == Score(1, 0, 1)  # 80 is 10 frames before the fade begins, and 20 after the dissolve's end
    assert scores["all"] == Score(3, 2, 2)
    assert (scores["all"].precision, scores["all"].recall) == (0.5, pytest.approx(2 / 3))


@pytest.mark.slow
@pytest.mark.realdata
def test_find_cuts__finds_what_the_detector_found_before(realdata: Path) -> None:
    """A regression against PySceneDetect's own run with its defaults; it makes the frames small in another way, by which
    one cut of four comes to lie just below its threshold. By eye the video also has a dissolve around frame 546 and a fade,
    which is dark from frame 364 to 400."""
    folder = realdata / "E_shot_boundaries"
    wanted = json.loads((folder / "goldens" / "testvideo.mp4.AdaptiveDetector.default.json").read_text())["cuts"]

    def found(settings: ShotSettings) -> list[int]:
        return [round(time_ms * 30 / 1001) for time_ms in find_cuts(folder / "testvideo.mp4", settings=settings)]

    hard = found(SETTINGS.model_copy(update={"gradual": False}))
    assert all(min(abs(cut - other) for other in wanted) <= 2 for cut in hard)
    assert len(hard) >= len(wanted) - 1
    all_found = found(SETTINGS)
    fade, dissolve = sorted(set(all_found) - set(hard))
    assert 364 <= fade <= 400 and abs(dissolve - 546) <= 5
    assert all(cut in all_found or 364 <= cut <= 400 for cut in hard)


def find(
    folder: Path, paths: dict[str, Path], settings: ShotSettings = SETTINGS
) -> tuple[dict[str, list[int]], dict[str, str]]:
    return find_all_cuts(paths, settings=settings.model_copy(update={"workers": 1}), memory=folder / "shots")
