from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from tests.retrieval.dedup.comparing.videos import CHANGES, video
from vidseek_retrieval.dedup.comparing import candidates
from vidseek_retrieval.dedup.comparing.candidates import propose
from vidseek_retrieval.dedup.comparing.fingerprints import VideoFingerprint


@pytest.fixture(scope="module")
def archive() -> dict[str, VideoFingerprint]:
    changed = ("mirrored", "cropped", "darker")
    videos = {f"original-{seed}": video(seed, length_ms=3000) for seed in range(6)}
    copies = {f"{name}-{seed}": video(seed, length_ms=3000, change=CHANGES[name])
              for seed, name in enumerate(changed)}
    return videos | copies


def test_propose__in_tiles_of_any_size_the_same(
    archive: dict[str, VideoFingerprint], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against each pair by itself, and all at once."""
    alone = [pair for pair in combinations(sorted(archive), 2) if propose({each: archive[each] for each in pair})]
    for block, tile in ((512, 4096), (1, 1), (7, 10), (10, 7)):
        monkeypatch.setattr(candidates, "_BLOCK", block)
        monkeypatch.setattr(candidates, "_TILE", tile)
        assert list(propose(archive)) == alone
    assert {("mirrored-0", "original-0"), ("cropped-1", "original-1"), ("darker-2", "original-2")} <= set(alone)
    known = [each for each in archive if each != "original-0"]
    assert list(propose(archive, known=known)) == [pair for pair in alone if "original-0" in pair]
    assert propose(archive, known=list(archive)) == {}


def test_blocks__are_whole_videos() -> None:
    owners = np.array([0, 0, 0, 1, 2, 2, 2, 2, 2, 3], np.int32)
    assert list(candidates._blocks(owners, 4)) == [(0, 4), (4, 9), (9, 10)]
    assert list(candidates._blocks(owners, 100)) == [(0, 10)]
