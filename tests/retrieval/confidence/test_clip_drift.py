"""Clips now against clips at publish."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.retrieval.archive import VERSION, clip_row, unit_rows, video_row, write_archive
from vidseek_quality.gates import Published
from vidseek_quality.vectors import Sample
from vidseek_retrieval.confidence.clip_drift import clip_drift, compare_clips
from vidseek_retrieval.index.open_backend import open_backend
from vidseek_retrieval.index.publish import publish


def sample(num: int, *, seed: int, towards: float = 0.0) -> Sample:
    """Unit vectors of 16 values, which lie the more towards the first axis."""
    vectors = unit_rows(num, 16, seed=seed) + np.eye(16, dtype=np.float32)[0] * towards
    ids = sorted(np.random.default_rng(seed).bytes(16).hex() for seed in range(num))
    return Sample(tuple(ids), vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def published(of: Sample) -> Published:
    return Published("clips-0-0", VERSION, of)


def test_compare__the_same_archive_new_clips_and_another_kind() -> None:
    live = sample(1500, seed=0)
    for steady in (live, sample(1500, seed=1)):
        found = compare_clips(published(live), steady)
        assert found.level == "steady" and found.told_apart is not None and found.told_apart < 0.2 and not found.reason
        assert found.num_reference + found.num_observed < 1200
    gone = compare_clips(published(live), sample(1500, seed=1, towards=1.0))
    assert gone.level == "act" and gone.told_apart is not None and gone.told_apart > 0.5


def test_compare__too_few_clips_give_no_number() -> None:
    found = compare_clips(published(sample(90, seed=0)), sample(90, seed=1, towards=2.0))
    assert found.psi is None and found.level is None and found.reason.startswith("too few clips: ")


def test_clip_drift__of_an_archive_and_what_cannot_be_compared(tmp_path: Path) -> None:
    backend, data = open_backend(tmp_path / "index"), tmp_path / "data"

    def look(version: str = VERSION) -> str:
        return clip_drift(
            backend, "clips", data / "embed", data / "cut", cut="windows", encoder_version=version
        ).reason

    assert look() == f"nothing is embedded in {data / 'embed'}"
    clips = [clip_row(f"{0:032x}", number, 1000 * number, 1000 * number + 1000) for number in range(900)]
    tables = write_archive(data, [video_row(f"{0:032x}", "a.mp4")], clips, unit_rows(900, 4))
    assert look() == "nothing is published"
    publish(**tables, index=tmp_path / "index")
    assert look("f" * 16) == f"{data / 'embed'} is of encoder_version {'f' * 16}, published is {VERSION}"
    found = clip_drift(backend, "clips", data / "embed", data / "cut", cut="windows", encoder_version=VERSION)
    assert found.level == "steady" and found.num_reference > 250
