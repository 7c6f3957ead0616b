"""Chooses and changes what a training sees of a clip and its caption: other frames, another crop, fewer words."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vidseek_encoder.preprocess import centre_frames
from vidseek_training.settings import TrainSettings


def make_views(
    frames: NDArray[np.uint8], num_frames: int, settings: TrainSettings, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Return one augmented view of each clip, uint8 of shape (n, T, side, side, 3).

    Args:
        frames: uint8 of shape (n, N, side, side, 3), N at least `num_frames`.
        num_frames: Number of frames of a view (T).
        settings: Strength of the augmentation.
        rng: Draws frames, shifts and brightness.
    """
    chosen = choose_frames(frames, num_frames, rng if settings.random_frames else None)
    return augment(chosen, rng, shift_share=settings.shift_share, brightness=settings.brightness)


def choose_frames(
    frames: NDArray[np.uint8], num_frames: int, rng: np.random.Generator | None
) -> NDArray[np.uint8]:
    """Choose frames of each clip, one from each of equally long bins.

    Args:
        frames: Shape (n, N, side, side, 3), N at least `num_frames`.
        num_frames: Number of frames to choose (T).
        rng: Chooses at random within the bins; None takes their centres, as in serving.

    Returns:
        Shape (n, T, side, side, 3).
    """
    count = frames.shape[1]
    if count == num_frames:
        return np.asarray(frames)
    if rng is None:
        return np.asarray(frames[:, centre_frames(count, num_frames)])
    edges = np.arange(num_frames) * count / num_frames
    picks = (edges + rng.uniform(size=(len(frames), num_frames)) * count / num_frames).astype(int)
    return np.take_along_axis(frames, picks[:, :, None, None, None], axis=1)


def augment(
    frames: NDArray[np.uint8], rng: np.random.Generator, *, shift_share: float, brightness: float
) -> NDArray[np.uint8]:
    """Return an augmented view of each clip, with one shift, gain and level for all its frames.

    Clips are not flipped, since captions mention sides.

    Args:
        frames: uint8 of shape (n, T, side, side, 3).
        rng: Draws the changes.
        shift_share: Largest shift as a share of the side.
        brightness: Largest change of gain and level, from 0 to 1.
    """
    largest = round(shift_share * frames.shape[2])
    views = np.empty_like(frames, subok=False)
    for row, clip in enumerate(frames):
        down, right = (int(step) for step in rng.integers(-largest, largest + 1, 2))
        gain, level = 1 + rng.uniform(-brightness, brightness), rng.uniform(-brightness, brightness) * 128
        padded = np.pad(clip, ((0, 0), (largest,) * 2, (largest,) * 2, (0, 0)), mode="edge")
        top, left = largest + down, largest + right
        table = np.clip(np.arange(256) * gain + level, 0, 255).astype(np.uint8)
        views[row] = table[padded[:, top : top + clip.shape[1], left : left + clip.shape[2]]]
    return views


def drop_words(ids: NDArray[np.int64], rng: np.random.Generator, *, share: float, pad_id: int) -> NDArray[np.int64]:
    """Drop tokens of texts at random; first and end token stay, and padding fills the end.

    Args:
        ids: Token ids, shape (n, context).
        rng: Draws the tokens.
        share: Probability that a token is dropped, from 0 to 1.
        pad_id: Id of the padding token.
    """
    result = np.full_like(ids, pad_id)
    ends = (ids != pad_id).cumsum(1).argmax(1)
    for row, (line, end) in enumerate(zip(ids, ends, strict=True)):
        keep = rng.uniform(size=end + 1) >= share
        keep[[0, end]] = True
        kept = line[: end + 1][keep]
        result[row, : len(kept)] = kept
    return result
