from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.raising import raises
from tests.training.tiny import CONTEXT, SIDE, WORDS, Row, all_colours, frames_of, write_archive, write_viclip
from vidseek_media.errors import ArtifactError
from vidseek_media.tables import PAIRS, read_table, write_table
from vidseek_training import backbones
from vidseek_training.backbones import BackboneSpec
from vidseek_training.dataset.pair_set import (
    Batches,
    _normalise_there,
    cut_padding,
    load_pairs,
    sample_clips,
    to_pixels,
)
from vidseek_training.dataset.views import choose_frames


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> BackboneSpec:
    return backbones.load(write_viclip(tmp_path_factory.mktemp("backbone"))).spec


def words_of(ids: np.ndarray) -> str:
    return " ".join(WORDS[number] for number in ids if number)


def test_load_pairs__rows_of_the_split_with_their_own_frames(tmp_path: Path, spec: BackboneSpec) -> None:
    rows = [*all_colours(1, "train"), *all_colours(2, "test", contrasts=True)]
    archive = write_archive(tmp_path, rows)
    pairs = load_pairs(archive.pairs, archive.frames, spec, split="test")
    assert len(pairs) == 16 and set(pairs.table.split) == {"test"}
    assert list(pairs.table.clip_id) == sorted(pairs.table.clip_id)
    by_clip = {row.clip_id: row for row in rows}
    for number, pair in enumerate(pairs.table.itertuples()):
        row = by_clip[pair.clip_id]
        assert pairs.captions[number] == row.caption
        # JPEG at quality 95 blurs the noise, not the colour.
        wanted = frames_of(row).mean((0, 1, 2))
        assert np.abs(pairs.frames[number].mean((0, 1, 2)) - wanted).max() < 5
        assert words_of(pairs.ids[number]) == f"<start> {row.caption} <end>"
        assert words_of(pairs.contrast_ids[number]) == f"<start> {row.contrast} <end>"
    assert pairs.has_contrast.all()


def test_load_pairs__refuses_frames_that_the_pairs_table_does_not_name(tmp_path: Path, spec: BackboneSpec) -> None:
    """The same clips with other frames: DVC does not watch the shards for training."""
    archive = write_archive(tmp_path, all_colours(1, "train"))
    table = read_table(archive.pairs, PAIRS)
    changed = table.frames_digest.where(table.index != 3, "0" * 32)
    write_table(archive.pairs, table.assign(frames_digest=changed), PAIRS)
    with raises(ArtifactError, code="frames-changed", naming=table.clip_id[3]):
        load_pairs(archive.pairs, archive.frames, spec, split="train")
    write_table(archive.pairs, table.assign(frames_digest=None), PAIRS)  # of an earlier version: not known
    assert len(load_pairs(archive.pairs, archive.frames, spec, split="train")) == 16


def test_load_pairs__without_a_contrast_the_captions_tokens_stand_in(tmp_path: Path, spec: BackboneSpec) -> None:
    archive = write_archive(tmp_path, all_colours(1, "train"))
    pairs = load_pairs(archive.pairs, archive.frames, spec, split="train")
    assert not pairs.has_contrast.any() and np.array_equal(pairs.ids, pairs.contrast_ids)
    nothing = load_pairs(archive.pairs, archive.frames, spec, split="validation")
    assert len(nothing) == 0 and nothing.frames.shape == (0, 2, SIDE, SIDE, 3)
    assert nothing.ids.shape == (0, CONTEXT)


def test_load_pairs__two_captions_of_a_clip_have_the_same_frames(tmp_path: Path, spec: BackboneSpec) -> None:
    twice = [Row(1, 0, "train", "dark", "red"), Row(1, 0, "train", "dark", "red", text="a red video")]
    archive = write_archive(tmp_path, [*twice, Row(1, 1, "train", "dark", "blue")])
    pairs = load_pairs(archive.pairs, archive.frames, spec, split="train")
    red = [number for number, caption in enumerate(pairs.captions) if "red" in caption]
    assert len(red) == 2 and np.array_equal(pairs.frames[red[0]], pairs.frames[red[1]])


def test_load_pairs__a_clip_in_no_shard_is_an_error_that_names_it(tmp_path: Path, spec: BackboneSpec) -> None:
    rows = all_colours(1, "train")
    archive = write_archive(tmp_path / "a", rows[:-1])
    whole = write_archive(tmp_path / "b", rows)
    with raises(ArtifactError, code="frames-missing", naming=rows[-1].clip_id):
        load_pairs(whole.pairs, archive.frames, spec, split="train")


def test_load_pairs__of_more_frames_picks_those_at_bin_centres(tmp_path: Path, spec: BackboneSpec) -> None:
    # 8 frames for a backbone of 2: bins [0, 4) and [4, 8), centres 2 and 6.
    row = Row(1, 0, "train", "bright", "white")
    archive = write_archive(tmp_path, [row], num_frames=8)
    pairs = load_pairs(archive.pairs, archive.frames, spec, split="train")
    stored = frames_of(row, num_frames=8).astype(int)
    nearest = [int(np.abs(stored - frame.astype(int)).mean((1, 2, 3)).argmin()) for frame in pairs.frames[0]]
    assert nearest == [2, 6]
    assert np.array_equal(sample_clips(archive.frames, spec, count=3)[0], pairs.frames[0])


def test_load_pairs__too_few_or_too_large_frames(tmp_path: Path, spec: BackboneSpec) -> None:
    few = write_archive(tmp_path / "few", all_colours(1, "train"), num_frames=1)
    with raises(ArtifactError, code="frames-do-not-fit", naming=("1 frames", "wants 2")) as caught:
        load_pairs(few.pairs, few.frames, spec, split="train")
    assert "frames.num_frames" in caught.value.remedy
    large = write_archive(tmp_path / "large", all_colours(1, "train"), side=48)
    assert load_pairs(large.pairs, large.frames, spec, split="train").frames.shape == (16, 2, SIDE, SIDE, 3)


def test_sample_clips__the_first_of_the_shards_as_many_as_there_are(tmp_path: Path, spec: BackboneSpec) -> None:
    archive = write_archive(tmp_path, [*all_colours(1, "train"), *all_colours(2, "train")])
    assert sample_clips(archive.frames, spec, count=20).shape == (20, 2, SIDE, SIDE, 3)
    assert len(sample_clips(archive.frames, spec, count=99)) == 32


def test_to_pixels__is_channels_first_and_normalised(spec: BackboneSpec) -> None:
    frames = np.zeros((1, 2, 4, 4, 3), np.uint8)
    frames[..., 1] = 255
    pixels = to_pixels(frames, spec)
    assert pixels.shape == (1, 2, 3, 4, 4)
    levels = zip((0, 1, 0), spec.image_mean, spec.image_std, strict=True)
    wanted = [(level - mean) / deviation for level, mean, deviation in levels]
    assert pixels[0, 1, :, 2, 3].tolist() == pytest.approx(wanted, rel=1e-6)


def test_to_pixels__on_a_device_are_the_same_numbers(spec: BackboneSpec) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 3, 16, 16, 3), np.uint8)
    frames[0, 0, :, :, 0] = np.arange(256).reshape(16, 16)
    assert torch.equal(_normalise_there(torch.from_numpy(frames), spec), to_pixels(frames, spec))
    assert torch.equal(to_pixels(frames, spec, torch.device("cpu")), to_pixels(frames, spec))
    assert to_pixels(frames[1:], spec, torch.device("meta")).device.type == "meta"


@pytest.mark.parametrize(("num_rows", "size"), [(10, 4), (12, 4), (7, 7), (5, 3), (9, 8)])
def test_batches__see_every_row_once_an_epoch(num_rows: int, size: int) -> None:
    stream = Batches(num_rows, size, np.random.default_rng(0))
    seen = [stream.draw() for _ in range(3 * num_rows)]
    assert all(len(set(batch.tolist())) == size for batch in seen)
    rows = np.concatenate(seen)
    for epoch in range(3):
        assert sorted(rows[epoch * num_rows : (epoch + 1) * num_rows]) == list(range(num_rows))
    assert rows[:num_rows].tolist() != rows[num_rows : 2 * num_rows].tolist()


def test_batches__fewer_rows_than_the_batch_are_the_batch() -> None:
    assert sorted(Batches(3, 32, np.random.default_rng(0)).draw()) == [0, 1, 2]


def test_cut_padding__leaves_what_the_longest_text_needs() -> None:
    ids = np.array([[5, 3, 0, 0, 0], [5, 0, 4, 6, 0]])  # a zero within a text is no padding at the end
    assert cut_padding(ids, pad_id=0).tolist() == [[5, 3, 0, 0], [5, 0, 4, 6]]
    assert cut_padding(np.zeros((2, 3), np.int64), pad_id=0).shape == (2, 1)
    assert cut_padding(ids, pad_id=9).shape == ids.shape


def test_batches__go_on_from_what_was_left_and_the_generator_s_state() -> None:
    rng = np.random.default_rng(3)
    one = Batches(10, 4, rng)
    one.draw()
    left, state = one.left.copy(), rng.bit_generator.state
    wanted = [one.draw().tolist() for _ in range(6)]
    other_rng = np.random.default_rng(9)
    other = Batches(10, 4, other_rng)
    other.left, other_rng.bit_generator.state = left, state
    assert [other.draw().tolist() for _ in range(6)] == wanted


def test_load_pairs__all_frames_are_kept_where_they_are_wanted(tmp_path: Path, spec: BackboneSpec) -> None:
    archive = write_archive(tmp_path, all_colours(1, "train"), num_frames=5)
    kept = load_pairs(archive.pairs, archive.frames, spec, split="train", all_frames=True).frames
    assert kept.shape[1] == 5
    plain = load_pairs(archive.pairs, archive.frames, spec, split="train").frames
    assert np.array_equal(choose_frames(kept[:], spec.num_frames, None), plain[:])
