from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.training.tiny import SIDE, Archive
from vidseek_training import backbones
from vidseek_training.dataset.pair_set import PairSet, load_pairs
from vidseek_training.evaluation.embedding import embed_clips, embed_frames, embed_pairs, validation_rows


def test_embed_frames__of_more_frames_than_the_backbone_takes_those_at_the_centres(backbone: Path) -> None:
    model = backbones.load(backbone)
    frames = np.random.default_rng(0).integers(0, 256, (3, 6, SIDE, SIDE, 3)).astype(np.uint8)
    assert model.spec.num_frames == 2
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


def test_embed_pairs__of_some_rows_is_what_all_of_them_give(backbone: Path, archive: Archive) -> None:
    model = backbones.load(backbone)
    pairs = load_pairs(archive.pairs, archive.frames, model.spec, split="validation")
    rows = np.array([9, 2, 2, 14])
    whole, some = embed_pairs(model, pairs), embed_pairs(model, pairs, rows=rows)
    for name in ("videos", "texts", "contrasts"):
        assert np.allclose(getattr(some, name), getattr(whole, name)[rows], atol=1e-6), name


@pytest.mark.parametrize(("towers", "videos", "texts"), [
    (("video",), 3, 0), (("text",), 0, 3), (("video", "text"), 3, 3),
])
def test_embed_pairs__a_tower_without_an_adapter_is_not_run_again(
    backbone: Path, archive: Archive, monkeypatch: pytest.MonkeyPatch, towers: tuple[str, ...], videos: int, texts: int
) -> None:
    model = backbones.load(backbone)
    pairs = load_pairs(archive.pairs, archive.frames, model.spec, split="train")
    pairs = replace(pairs, table=pairs.table.assign(contrast=""))
    base, rows, ran = embed_pairs(model, pairs), np.array([0, 5, 7]), {"videos": 0, "texts": 0}

    def count(kind: str, usual: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
        def counted(inputs: torch.Tensor) -> torch.Tensor:
            ran[kind] += len(inputs)
            return usual(inputs)

        return counted

    monkeypatch.setattr(model, "embed_videos", count("videos", model.embed_videos))
    monkeypatch.setattr(model, "embed_texts", count("texts", model.embed_texts))
    found = embed_pairs(model, pairs, rows=rows, base=base, towers=towers)
    assert ran == {"videos": videos, "texts": texts}  # a contrast that is the caption is not computed either
    assert np.allclose(found.videos, base.videos[rows], atol=1e-6)
    assert np.allclose(found.contrasts, base.texts[rows], atol=1e-6)


@given(
    captions=st.lists(st.integers(1, 4), min_size=1, max_size=30), most=st.integers(1, 40), seed=st.integers(0, 3)
)
def test_look_rows__are_a_gallery_of_whole_clips_first_fixed_by_the_seed(
    captions: list[int], most: int, seed: int
) -> None:
    clips = [f"clip {number}" for number, count in enumerate(captions) for _ in range(count)]
    ids = np.zeros((len(clips), 1), np.int64)
    pairs = PairSet(pd.DataFrame({"clip_id": clips}), np.empty((len(clips), 0), np.uint8), ids, ids)
    rows = validation_rows(pairs, most, seed=seed)
    chosen = pairs.table.clip_id.iloc[rows]
    assert len(rows) == min(most, len(clips)) and len(set(rows.tolist())) == len(rows)
    assert (np.diff(rows) > 0).all()
    assert chosen.nunique() == (len(captions) if len(clips) <= most else min(most, len(captions)))
    assert np.array_equal(rows, validation_rows(pairs, most, seed=seed))
