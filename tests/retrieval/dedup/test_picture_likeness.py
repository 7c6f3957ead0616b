from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.raising import raises
from tests.retrieval.embedding.test_embed_clips import write_shard
from tests.retrieval.pictures import picture
from vidseek_media.errors import ArtifactError
from vidseek_retrieval.dedup.picture_likeness import MIN_STEP_MS, fingerprint_of, is_flat, likeness, read_fingerprints


def alike(one: np.ndarray, other: np.ndarray) -> float:
    return float(likeness(fingerprint_of(one)[np.newaxis], fingerprint_of(other)[np.newaxis])[0, 0])


def as_jpeg(frame: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=20)
    return np.asarray(Image.open(file))


CHANGES = {
    "re-encoded": as_jpeg,
    "scaled": lambda frame: np.asarray(Image.fromarray(frame).resize((48, 36))),
    "letterboxed": lambda frame: np.pad(frame, ((20, 20), (0, 0), (0, 0))),
    "pillarboxed": lambda frame: np.pad(frame, ((0, 0), (30, 30), (0, 0))),
    "darker": lambda frame: (frame * 0.5 + 5).astype(np.uint8),
    "mirrored": lambda frame: frame[:, ::-1],
    "cropped": lambda frame: frame[7:-7, 10:-10],
}


@pytest.mark.parametrize("name", CHANGES)
def test_likeness__a_changed_picture_is_like_itself_and_no_other(name: str) -> None:
    for seed in range(5):
        changed = CHANGES[name](picture(seed))
        assert alike(picture(seed), changed) > 0.95
        assert max(alike(picture(other), changed) for other in range(5, 15)) < 0.9


def test_likeness__the_same_is_one_and_an_inverted_one_is_not() -> None:
    assert alike(picture(0), picture(0)) == pytest.approx(1.0, abs=1e-3)
    assert alike(picture(0), 255 - picture(0)) < 0.7


def test_look__flat_frames_show_nothing() -> None:
    for level in (0, 16, 255):
        fingerprint = fingerprint_of(np.full((30, 40, 3), level, np.uint8))
        assert not fingerprint.any() and is_flat(fingerprint[np.newaxis])[0]
    noisy = np.random.default_rng(0).integers(14, 18, size=(30, 40, 3)).astype(np.uint8)
    assert is_flat(fingerprint_of(noisy)[np.newaxis])[0]
    assert not is_flat(fingerprint_of(picture(0))[np.newaxis])[0]


def test_look__a_picture_on_a_wide_ground_keeps_its_ground() -> None:
    """What is thicker than a bar is part of the picture: a small thing in the middle is not blown up."""
    ground = np.zeros((60, 80, 3), np.uint8)
    ground[28:32, 38:42] = 255
    moved = np.zeros((60, 80, 3), np.uint8)
    moved[40:44, 60:64] = 255
    assert alike(ground, moved) < 0.5


def test_read_looks__by_video_in_order_of_time_and_thinned(tmp_path: Path) -> None:
    frames = [picture(seed) for seed in range(3)]
    write_shard(tmp_path / "shards" / "a.tar", {"a" * 32: [np.stack(frames)], "b" * 32: [np.stack(frames[:2])] * 2})
    fingerprints = read_fingerprints(tmp_path, ["b" * 32, "c" * 32])
    assert list(fingerprints) == ["b" * 32]
    # The clips begin at 0 and 1000 ms, their frames are 1 ms apart: one of each is kept.
    assert fingerprints["b" * 32].times_ms.tolist() == [0, 1000] and fingerprints["b" * 32].fingerprints.shape == (2, 2, 256)
    assert MIN_STEP_MS > 1
    with raises(ArtifactError, code="no-shards", remedy="dvc repro frames"):
        read_fingerprints(tmp_path / "none", ["a"])
