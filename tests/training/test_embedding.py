from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.training.tiny import SIDE, Archive
from vidseek_training import backbones
from vidseek_training.data import PairSet, load_pairs
from vidseek_training.embedding import embed_clips, embed_frames


def test_embed_frames__of_more_frames_than_the_backbone_takes_those_at_the_centres(backbone: Path) -> None:
    model = backbones.load(backbone)
    frames = np.random.default_rng(0).integers(0, 256, (3, 6, SIDE, SIDE, 3)).astype(np.uint8)
    assert model.spec.frames == 2
    found = embed_frames(model, frames)
    assert np.array_equal(found, embed_frames(model, frames[:, [1, 4]]))
    assert not np.allclose(found, embed_frames(model, frames[:, [0, 3]]), atol=1e-4)
    assert embed_frames(model, frames[:0]).shape == (0, model.spec.dimension)


def test_embed_clips__computes_a_clip_once_however_many_captions_it_has(
    backbone: Path, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = backbones.load(backbone)
    pairs = load_pairs(archive.pairs, archive.frames, model.spec, split="validation")
    rows = np.array([3, 0, 3, 5, 0, 3])
    several = PairSet(pairs.table.iloc[rows], pairs.frames[rows], pairs.ids[rows], pairs.contrast_ids[rows])
    computed: list[int] = []
    usual = model.embed_videos
    monkeypatch.setattr(model, "embed_videos", lambda pixels: computed.append(len(pixels)) or usual(pixels))
    found = embed_clips(model, several)
    assert sum(computed) == 3
    assert np.allclose(found, embed_frames(model, pairs.frames)[rows], atol=1e-6)
