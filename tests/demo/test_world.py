from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from tests.raising import raises
from tests.waiting import wait_until
from vidseek_demo import world
from vidseek_demo.scenes import AXES, GENERAL, THERMAL, Scene
from vidseek_demo.world import FPS, SIDE_PX, Part, WorldSize, render_world

SIZE = WorldSize(
    domain=(Part("train", "seen", 4), Part("test", "near", 5)), general=(Part("train", "seen", 2),),
)
VIDEOS = {"domain": ["test-near-00.mp4", "train-seen-00.mp4"], "general": ["train-seen-00.mp4"]}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world")
    render_world(out, size=SIZE, seed=3, workers=1)
    return out


def pictures_of(path: Path) -> NDArray[np.uint8]:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def files_of(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, path.stat().st_ino)
        for path in folder.rglob("*") if path.is_file()
    }


def test_render_world__videos_are_real_h264(rendered: Path) -> None:
    for name, files in VIDEOS.items():
        assert sorted(path.name for path in (rendered / name).glob("*.mp4")) == files
        for file in files:
            with av.open(str(rendered / name / file)) as container:
                stream = container.streams.video[0]
                assert stream.codec_context.name == "h264" and stream.pix_fmt == "yuv420p"
                assert (stream.width, stream.height) == (SIDE_PX, SIDE_PX)
                assert stream.average_rate == FPS


def test_render_world__captions_tile_each_video(rendered: Path) -> None:
    for name, files in VIDEOS.items():
        captions = pd.read_csv(rendered / name / "captions.csv", keep_default_na=False)
        assert sorted(set(captions.file)) == files
        for file, rows in captions.groupby("file"):
            assert rows.start.iloc[0] == 0
            assert list(rows.start[1:]) == list(rows.end[:-1])
            assert rows.end.iloc[-1] == len(pictures_of(rendered / name / str(file))) / FPS


def test_render_world__a_cut_is_where_the_captions_say(rendered: Path) -> None:
    captions = pd.read_csv(rendered / "domain" / "captions.csv")
    rows = captions[captions.file == "train-seen-00.mp4"]
    pictures = pictures_of(rendered / "domain" / "train-seen-00.mp4").astype(int)
    changes = np.abs(np.diff(pictures, axis=0)).mean((1, 2, 3))
    cuts = sorted(np.argsort(changes)[-(len(rows) - 1) :] + 1)
    assert cuts == [round(start * FPS) for start in rows.start[1:]]


def test_render_world__says_split_gallery_contrast_and_axis(rendered: Path) -> None:
    captions = pd.read_csv(rendered / "domain" / "captions.csv", keep_default_na=False)
    counts = captions.groupby(["split", "gallery"]).size().to_dict()
    assert counts == {("train", "seen"): 4, ("test", "near"): 5}
    assert captions.caption.is_unique
    assert ((captions.contrast != "") == (captions.axis != "")).all()
    assert set(captions.axis) <= {*AXES.values(), ""} and (captions.axis != "").any()


@pytest.mark.slow
def test_render_world__the_same_seed_gives_the_same_world(rendered: Path, tmp_path: Path) -> None:
    render_world(tmp_path, size=SIZE, seed=3, workers=2)
    for name, files in VIDEOS.items():
        ours, again = rendered / name, tmp_path / name
        assert (ours / "captions.csv").read_bytes() == (again / "captions.csv").read_bytes()
        for file in files:
            assert np.array_equal(pictures_of(ours / file), pictures_of(again / file))


def test_render_world__a_second_call_leaves_every_file(rendered: Path) -> None:
    before = files_of(rendered)
    render_world(rendered, size=SIZE, seed=3, workers=1)
    assert files_of(rendered) == before


def test_render_world__another_seed_takes_the_old_ones_place(tmp_path: Path) -> None:
    small = WorldSize(domain=(Part("train", "seen", 1),), general=(Part("train", "seen", 1),))
    render_world(tmp_path, size=small, seed=0, workers=1)
    before = (tmp_path / "domain" / "captions.csv").read_bytes()
    render_world(tmp_path, size=small, seed=1, workers=1)
    assert (tmp_path / "domain" / "captions.csv").read_bytes() != before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["domain", "general"]


def test_render_world__a_full_disk_leaves_the_world_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = WorldSize(domain=(Part("train", "seen", 1),), general=(Part("train", "seen", 1),))
    render_world(tmp_path / "old", size=small, seed=0, workers=1)
    before = files_of(tmp_path / "old")

    def full(appearance: object, shots: object) -> Iterator[NDArray[np.uint8]]:
        yield np.zeros((SIDE_PX, SIDE_PX, 3), np.uint8)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(world, "_pictures", full)
    for out in ("old", "new"):
        with raises(OSError, naming="No space"):
            render_world(tmp_path / out, size=small, seed=1, workers=1)
    assert files_of(tmp_path / "old") == before
    assert list((tmp_path / "new").iterdir()) == []


def test_render_world__what_a_killed_call_left_goes_with_the_next(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from vidseek_demo.world import WorldSize, render_world;"
        "render_world(Path(sys.argv[1]), size=WorldSize.demo(), workers=1)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True, stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: list(tmp_path.glob(".domain.*/*.mp4")) or process.poll() is not None)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert list(tmp_path.glob(".domain.*/*.mp4")) and not (tmp_path / "domain").exists()
    small = WorldSize(domain=(Part("train", "seen", 1),), general=(Part("train", "seen", 1),))
    render_world(tmp_path, size=small, workers=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["domain", "general"]


def test_plan__the_demo_keeps_splits_and_galleries_in_videos_of_their_own() -> None:
    size = WorldSize.demo()
    for appearance, parts in ((THERMAL, size.domain), (GENERAL, size.general)):
        plan = world._plan(appearance, parts, np.random.default_rng(0))
        for shots in plan.values():
            assert len({(shot.split, shot.gallery) for shot in shots}) == 1
            is_train = shots[0].split == "train"
            assert (60 if is_train else 10) <= sum(shot.num_frames for shot in shots) / FPS <= (180 if is_train else 60)
        held_out_videos = Counter(name.rsplit("-", 1)[0] for name in plan if not name.startswith("train"))
        assert all(held_out_videos[f"test-{part.gallery}"] >= 20 for part in parts if part.split == "test")
        if appearance is THERMAL:  # what is proven on: 20 videos, and 5 to choose by
            assert held_out_videos["validation-unseen"] + held_out_videos["validation-near"] >= 25
        for part in parts:
            own = [shot for shots in plan.values() for shot in shots if (shot.split, shot.gallery) == (
                part.split, part.gallery)]
            assert len(own) == part.num_scenes == len({shot.caption for shot in own})
            assert {shot.scene.side for shot in own} == {part.split}
        train = {_combination(shot.scene) for shots in plan.values() for shot in shots if shot.split == "train"}
        held_out = {_combination(shot.scene) for shots in plan.values() for shot in shots if shot.split != "train"}
        assert not train & held_out


def _combination(scene: Scene) -> tuple[str, str, str]:
    return scene.shape, scene.tone, scene.axis
