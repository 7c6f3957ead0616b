from __future__ import annotations

import numpy as np
import pytest

from vidseek_training.dataset.views import augment, choose_frames, drop_words


def numbered(count: int, length: int) -> np.ndarray:
    """Clips whose frames are of the brightness 10 * clip + frame."""
    levels = 10 * np.arange(count)[:, None] + np.arange(length)[None]
    return np.broadcast_to(levels[:, :, None, None, None], (count, length, 2, 2, 3)).astype(np.uint8)


def test_augment__applies_one_shift_and_one_light_to_all_frames_of_a_clip() -> None:
    rng = np.random.default_rng(0)
    still = rng.integers(60, 190, (20, 1, 24, 24, 3)).astype(np.uint8)
    clips = np.repeat(still, 5, axis=1)
    views = augment(clips, np.random.default_rng(1), shift_share=0.2, brightness=0.2)
    assert views.shape == clips.shape and views.dtype == np.uint8
    assert (views == views[:, :1]).all()
    # Each clip has a view of its own.
    assert len({view.tobytes() for view in views}) == 20
    assert np.array_equal(views, augment(clips, np.random.default_rng(1), shift_share=0.2, brightness=0.2))


def test_augment__shifts_no_farther_than_asked_and_never_flips() -> None:
    clip = np.zeros((1, 1, 20, 20, 3), np.uint8)
    clip[0, 0, 10, 8] = 200
    places = set()
    for seed in range(200):
        view = augment(clip, np.random.default_rng(seed), shift_share=0.1, brightness=0.0)[0, 0, :, :, 0]
        (place,) = np.argwhere(view == 200)
        places.add((int(place[0]) - 10, int(place[1]) - 8))
    assert places == {(down, right) for down in range(-2, 3) for right in range(-2, 3)}


def test_augment__with_nothing_asked_is_the_clip_itself() -> None:
    clip = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8, 3)).astype(np.uint8)
    assert np.array_equal(augment(clip, np.random.default_rng(0), shift_share=0.0, brightness=0.0), clip)


def test_drop_words__keeps_start_and_end_and_the_order() -> None:
    ids = np.array([[8, 1, 2, 3, 4, 9, 0, 0], [8, 5, 9, 0, 0, 0, 0, 0], [8, 1, 2, 3, 4, 5, 6, 9]])
    for seed in range(50):
        for before, after in zip(ids, drop_words(ids, np.random.default_rng(seed), share=0.5, pad_id=0), strict=True):
            kept = after[after != 0].tolist()
            assert kept[0] == 8 and kept[-1] == 9
            assert after[len(kept) :].tolist() == [0] * (8 - len(kept))
            words = iter(before.tolist())
            assert all(word in words for word in kept)


def test_drop_words__leaves_out_the_share_that_was_asked() -> None:
    ids = np.tile(np.array([8, *range(1, 7), 9]), (2000, 1))
    dropped = drop_words(ids, np.random.default_rng(0), share=0.3, pad_id=0)
    assert ((dropped != 0).sum(1) - 2).mean() == pytest.approx(6 * 0.7, abs=0.1)
    assert np.array_equal(drop_words(ids, np.random.default_rng(0), share=0.0, pad_id=0), ids)


def test_choose_frames__centres_or_one_at_random_of_each_bin() -> None:
    clips = numbered(3, 8)
    assert np.array_equal(choose_frames(clips, 8, np.random.default_rng(0)), clips)
    assert (choose_frames(clips, 2, None)[:, :, 0, 0, 0] - 10 * np.arange(3)[:, None] == [2, 6]).all()
    rng = np.random.default_rng(0)
    seen = np.stack([choose_frames(clips, 4, rng)[:, :, 0, 0, 0] - 10 * np.arange(3)[:, None] for _ in range(60)])
    assert (seen // 2 == np.arange(4)).all()  # bins of two frames
    assert {0, 1} == set((seen % 2).flatten())
    assert len({tuple(row) for row in seen[0]} | {tuple(row) for row in seen[1]}) > 1
