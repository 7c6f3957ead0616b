"""Pairs with their frames, ready for a model: tokens, and frames resized once and kept on disk."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from vidseek_encoder.preprocess import normalise, resize_frames
from vidseek_encoder.tokenize import Tokenizer
from vidseek_media.errors import ArtifactError
from vidseek_media.records import ClipFrames
from vidseek_media.shards import list_shards, read_shard
from vidseek_media.tables import FRAMES, PAIRS, read_table
from vidseek_training.backbones import BackboneSpec


@dataclass(frozen=True)
class PairSet:
    """Pairs of one split, row by row."""

    table: pd.DataFrame
    """Schema PAIRS, a row for each pair, sorted by clip_id."""
    frames: NDArray[np.uint8]
    """Shape (n, T, side, side, 3), resized as the backbone wants; a memory map on disk."""
    ids: NDArray[np.int64]
    """Shape (n, context): the captions' tokens."""
    contrast_ids: NDArray[np.int64]
    """Shape (n, context): the contrasts' tokens; the caption's own where there is none."""

    def __len__(self) -> int:
        return len(self.table)

    @property
    def captions(self) -> list[str]:
        """The texts of the pairs."""
        return list(self.table.caption)

    @property
    def has_contrast(self) -> NDArray[np.bool_]:
        """Shape (n,): where the source gave a caption that is false of the clip."""
        flags: NDArray[np.bool_] = (self.table.contrast != "").to_numpy(bool)
        return flags


def load_pairs(pairs: Path, frames: Path, spec: BackboneSpec, *, split: str) -> PairSet:
    """The pairs of `split` with their frames.

    Args:
        pairs: The pairs table.
        frames: The frames stage's folder.
        spec: Of the backbone that they are for.
        split: train, validation or test.

    Raises:
        ArtifactError: a pair's clip is in no shard.
    """
    table = read_table(pairs, PAIRS)
    table = table[table.split == split].sort_values("clip_id", kind="stable").reset_index(drop=True)
    table = table.fillna({"contrast": "", "axis": "", "gallery": "default"})
    tokenizer = Tokenizer.load(spec.tokenizer, context=spec.context, pad_id=spec.pad_id)
    ids = tokenizer.encode(list(table.caption))
    contrasts = [row.contrast or row.caption for row in table.itertuples()]
    return PairSet(table, _gather_frames(frames, list(table.clip_id), spec), ids, tokenizer.encode(contrasts))


def _gather_frames(folder: Path, clip_ids: list[str], spec: BackboneSpec) -> NDArray[np.uint8]:
    """The frames of `clip_ids`, in that order, in a file that vanishes with the process: flat memory for any archive."""
    shape = (len(clip_ids), spec.frames, spec.side, spec.side, 3)
    if not clip_ids:
        return np.empty(shape, np.uint8)
    places: dict[str, list[int]] = {}
    for row, clip_id in enumerate(clip_ids):
        places.setdefault(clip_id, []).append(row)
    with tempfile.TemporaryFile() as file:
        gathered = np.memmap(file, np.uint8, "w+", shape=shape)
    shards = read_table(folder / "frames.parquet", FRAMES)
    for shard in sorted(set(shards[shards.clip_id.isin(places)].shard)):
        for clip in read_shard(folder / shard):
            rows = places.pop(str(clip.clip_id), None)
            if rows is not None:
                gathered[rows] = _fit(clip, spec)
    if places:
        raise ArtifactError(
            f"{len(places)} pairs have no frames in {folder}, the first {next(iter(places))}",
            remedy="Run `dvc repro frames` again",
        )
    return gathered


def _fit(clip: ClipFrames, spec: BackboneSpec) -> NDArray[np.uint8]:
    """T frames of the backbone's side; of more frames those nearest to the centres of T equal bins."""
    count = len(clip.frames)
    if count < spec.frames:
        raise ArtifactError(
            f"clip {clip.clip_id} has {count} frames, {spec.name} wants {spec.frames}",
            remedy=f"Set frames.num_frames to at least {spec.frames}",
        )
    picks = ((np.arange(spec.frames) + 0.5) * count / spec.frames).astype(int)
    resized: NDArray[np.uint8] = resize_frames(clip.frames[picks][None], side=spec.side, resize=spec.resize)[0]
    return resized


def sample_clips(frames: Path, spec: BackboneSpec, *, count: int) -> NDArray[np.uint8]:
    """Frames of the first `count` clips of the shards: (n, T, side, side, 3)."""
    found: list[NDArray[np.uint8]] = []
    for shard in list_shards(frames):
        for clip in read_shard(shard):
            found.append(_fit(clip, spec))
            if len(found) == count:
                return np.stack(found)
    return np.stack(found) if found else np.empty((0, spec.frames, spec.side, spec.side, 3), np.uint8)


def to_pixels(frames: NDArray[np.uint8], spec: BackboneSpec) -> Tensor:
    """Frames (n, T, side, side, 3) to what the model takes: float (n, T, 3, side, side)."""
    return torch.from_numpy(normalise(frames, mean=spec.mean, deviation=spec.deviation))


def batches(num_rows: int, size: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Rows in random order, epoch after epoch, without end; every batch has `size` rows (or all, if fewer)."""
    size = min(size, num_rows)
    left = np.empty(0, np.int64)
    while True:
        if len(left) < size:
            # What is left of an epoch opens the next batch, so that no pair is seen less often than another.
            fresh = rng.permutation(num_rows)
            left = np.concatenate([left, fresh[~np.isin(fresh, left)], fresh[np.isin(fresh, left)]])
        yield left[:size]
        left = left[size:]


def augment(
    frames: NDArray[np.uint8], rng: np.random.Generator, *, shift_share: float, brightness: float
) -> NDArray[np.uint8]:
    """One view of each clip: one shift, one gain and one level for all its frames. No flip: captions speak of sides."""
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
    """Texts with each token left out by the chance `share`; first and end token stay, padding closes the gaps."""
    result = np.full_like(ids, pad_id)
    ends = (ids != pad_id).cumsum(1).argmax(1)
    for row, (line, end) in enumerate(zip(ids, ends, strict=True)):
        keep = rng.uniform(size=end + 1) >= share
        keep[[0, end]] = True
        kept = line[: end + 1][keep]
        result[row, : len(kept)] = kept
    return result


def cut_padding(ids: NDArray[np.int64], *, pad_id: int) -> NDArray[np.int64]:
    """Texts (n, context) without the columns at the end that hold only padding; one column stays."""
    used = np.flatnonzero((ids != pad_id).any(0))
    return ids[:, : int(used[-1]) + 1 if len(used) else 1]
