from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.training.tiny import SIDE
from vidseek_training import backbones
from vidseek_training.embedding import embed_frames


def test_embed_frames__of_more_frames_than_the_backbone_takes_those_at_the_centres(backbone: Path) -> None:
    model = backbones.load(backbone)
    frames = np.random.default_rng(0).integers(0, 256, (3, 6, SIDE, SIDE, 3)).astype(np.uint8)
    assert model.spec.frames == 2
    found = embed_frames(model, frames)
    assert np.array_equal(found, embed_frames(model, frames[:, [1, 4]]))
    assert not np.allclose(found, embed_frames(model, frames[:, [0, 3]]), atol=1e-4)
    assert embed_frames(model, frames[:0]).shape == (0, model.spec.dimension)
