"""The batches that the shipped backbones learn from: what is said must be what is seen."""

import numpy as np
import pytest
import torch

from vidseek_demo.scenes import AXES, COLOURS, MOTIONS, Scene
from vidseek_demo.train_backbones import FRAMES, SIDE, RenderedClips, Step, clip_batch, picture_batch
from vidseek_demo.words import GENERAL_WORDS


def videos_of(motion: str, *, count: int = 6) -> RenderedClips:
    """Clips that brighten from left to right by frame: each frame says its number, each side its side."""
    pictures = np.zeros((count, FRAMES, 3, SIDE, SIDE), np.uint8)
    poses = np.zeros((count, FRAMES, 3), np.float32)
    for frame in range(FRAMES):
        pictures[:, frame] = 20 + 20 * frame
        pictures[:, frame, :, :, SIDE // 2 :] += 40
        poses[:, frame] = (0.2 + 0.05 * frame, 0.5, 0.2)
    scene = Scene("star", "red", "large", "plain", "night", motion)
    return RenderedClips(pictures, [scene] * count, poses)


def says(caption: str, motion: str) -> bool:
    return any(phrase in caption for phrase in GENERAL_WORDS[motion])


@pytest.mark.parametrize("motion", ["left", "grow", "clockwise", "still"])
def test_clip_batch__captions_say_the_motion_that_is_seen(motion: str) -> None:
    batch = clip_batch(videos_of(motion), np.random.default_rng(0), 32, palettes=0.0)
    level = batch.pixels.mean((2, 4))  # n, T, height
    backwards = level[:, -1].mean(-1) < level[:, 0].mean(-1)
    mirrored = batch.pixels[..., : SIDE // 2].mean((1, 2, 3, 4)) > batch.pixels[..., SIDE // 2 :].mean((1, 2, 3, 4))
    assert backwards.any() and mirrored.any() and not backwards.all() and not mirrored.all()
    start = videos_of(motion).scenes[0]
    for row in range(32):
        seen = start.reversed() if backwards[row] else start
        seen = seen.mirrored() if mirrored[row] else seen
        assert batch.scenes[row] == seen
        assert says(batch.captions[row], seen.motion)
        first, last = batch.paths[row, :, 0].tolist()
        assert (first < last) == (bool(backwards[row]) == bool(mirrored[row]))


def test_clip_batch__half_are_the_other_half_run_backwards_and_contrasts_say_it() -> None:
    batch = clip_batch(videos_of("up"), np.random.default_rng(1), 16, palettes=0.0)
    motions = [scene.motion for scene in batch.scenes]
    assert [AXES[motion] for motion in motions] == ["up-down"] * 16
    assert all({motions[row], motions[8 + row]} == {"up", "down"} for row in range(8))
    assert len(batch.contrasts) == 16
    for scene, contrast in zip(batch.scenes, batch.contrasts, strict=True):
        assert says(contrast, scene.reversed().motion)


def test_clip_batch__in_false_colours_the_tone_is_not_spoken_of() -> None:
    batch = clip_batch(videos_of("left"), np.random.default_rng(2), 24, palettes=0.5)
    quiet = ["tone" in silent for silent in batch.silent]
    assert any(quiet) and not all(quiet)
    for caption, is_quiet in zip(batch.captions, quiet, strict=True):
        assert any(colour in caption.split() for colour in COLOURS) != is_quiet


def test_picture_batch__is_of_one_frame_and_silent_of_motion() -> None:
    batch = picture_batch(videos_of("left"), np.random.default_rng(3), 12, palettes=0.0)
    assert batch.pixels.shape == (12, 1, 3, SIDE, SIDE)
    assert batch.contrasts == []
    assert not any(says(caption, motion) for caption in batch.captions for motion in MOTIONS)
    assert torch.equal(batch.paths[:, 0], batch.paths[:, 1])


@pytest.mark.parametrize(("falls", "last"), [(True, 0.0), (False, 1.0)])
def test_rate_at__rises_then_falls_or_stays(falls: bool, last: float) -> None:
    step = Step("x", clip_batch, 8, 100, 2.0, falls, 0.0, 1.0, 0)
    assert [step.rate_at(number) for number in range(5)] == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0])
    assert step.rate_at(99) == pytest.approx(2 * last, abs=0.01)
