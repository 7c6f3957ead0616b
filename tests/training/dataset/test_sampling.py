from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.training.tiny import Archive, Row, write_archive
from vidseek_media.tables import GROUPS, write_table
from vidseek_training import backbones
from vidseek_training.backbones import Backbone
from vidseek_training.dataset.negatives import RightOnes
from vidseek_training.dataset.pair_set import PairSet, load_pairs
from vidseek_training.dataset.sampling import BaseVectors, Data, Sampler, Term
from vidseek_training.settings import TrainSettings

# The videos 1 and 2 are near-duplicates; one contrast is true of its clip by another of its captions; two captions are one
# text to the model, which knows neither word.
ROWS = [
    Row(1, 0, "train", "dark", "red", contrast="a video", axis="colour"), Row(1, 0, "train", "dark", "red", text="a video"),
    Row(1, 1, "train", "dark", "blue", contrast="a dark red video", axis="colour"), Row(2, 0, "train", "bright", "red"),
    Row(3, 0, "train", "dark", "white", text="a mauve video"), Row(4, 0, "train", "dark", "cyan", text="a beige video"),
]
SETTINGS = TrainSettings(
    batch=6, replay=6, word_dropout=0.0, shift_share=0.0, brightness=0.0, random_frames=False, text_view_weight=0.1,
    clip_view_weight=0.1,
)


@pytest.fixture(scope="module")
def model(backbone: Path) -> Backbone:
    return backbones.load(backbone)


@pytest.fixture(scope="module")
def pairs(model: Backbone, tmp_path_factory: pytest.TempPathFactory) -> PairSet:
    archive: Archive = write_archive(tmp_path_factory.mktemp("masked"), ROWS)
    groups = [{"video_id": row.video_id, "group": ROWS[0].video_id if row.video < 3 else row.video_id} for row in ROWS]
    write_table(archive.pairs.parent / "groups.parquet", [dict(each) for each in {tuple(g.items()) for g in groups}], GROUPS)
    return load_pairs(archive.pairs, archive.frames, model.spec, split="train")


def _rows_of(pairs: PairSet, clips: NDArray[np.uint8], ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which pairs these clips and captions are."""
    found = []
    for clip, line in zip(clips, ids, strict=True):
        same = [
            row for row in range(len(pairs)) if np.array_equal(pairs.frames[row], clip)
            and np.array_equal(pairs.ids[row][: len(line)], line) and not pairs.ids[row][len(line) :].any()
        ]
        assert len(same) == 1
        found += same
    return np.array(found)


@pytest.mark.parametrize("side", ["domain", "general"])
def test_draw__every_loss_leaves_out_what_is_right(model: Backbone, pairs: PairSet, side: str) -> None:
    batch = Sampler(Data(pairs, pairs, pairs), SETTINGS, model, np.random.default_rng(0), size=6).draw()
    term = batch.terms[0 if side == "domain" else 1]
    texts = batch.ids[term.right.start - len(batch.clips) : term.right.stop - len(batch.clips)]
    rows = _rows_of(pairs, batch.clips[term.left], texts[:6])
    contrasts = rows[pairs.has_contrast[rows]]
    wanted = RightOnes(pairs, same_video=False, overlap=1.0).of(rows, contrasts)
    assert len(contrasts) == 2 and np.array_equal(term.same, wanted)
    place = {int(row): at for at, row in enumerate(rows)}
    table = pairs.table
    named = {(r.video_id[-1], r.caption): at for at, r in enumerate(table.itertuples())}
    near, far = place[named["2", "a bright red video"]], place[named["1", "a dark blue video"]]
    assert term.same[near, far] and term.same[far, near]
    assert not term.same[far, place[named["1", "a dark red video"]]]  # two clips of one video
    assert term.same[place[named["3", "a mauve video"]], place[named["4", "a beige video"]]]


def test_draw__views_of_either_kind_leave_out_what_is_right_either_way(model: Backbone, pairs: PairSet) -> None:
    batch = Sampler(Data(pairs, pairs, None), SETTINGS, model, np.random.default_rng(0), size=6).draw()
    main, clips, texts = batch.terms
    wanted = main.same[:, :6] | main.same[:, :6].T
    assert clips.of_views and texts.of_views
    assert np.array_equal(clips.same, wanted) and np.array_equal(texts.same, wanted)


def test_draw__the_text_tower_s_warm_up_leaves_out_the_same(model: Backbone, pairs: PairSet) -> None:
    known = np.eye(6, model.spec.dimension, dtype=np.float32)
    settings = SETTINGS.model_copy(update={"text_view_weight": 0.0})
    sampler = Sampler(
        Data(pairs, pairs, None), settings, model, np.random.default_rng(1), size=6, base=BaseVectors(known, known, known),
        clips_are_known=True,
    )
    batch = sampler.draw()
    term: Term = batch.terms[0]
    rows = batch.clips.argmax(1)  # the vector of a pair says which it is
    assert np.array_equal(
        term.same, RightOnes(pairs, same_video=False, overlap=1.0).of(rows, rows[pairs.has_contrast[rows]])
    )
