"""Dataset of (clip, caption) pairs: token ids and frames, resized once and cached on disk."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from vidseek_encoder.preprocess import centre_frames, normalise, resize_frames
from vidseek_encoder.tokenize import Tokenizer
from vidseek_media.errors import ArtifactError
from vidseek_media.records import ClipFrames
from vidseek_media.splitting.video_groups import video_groups
from vidseek_media.tables import FRAMES, PAIRS, read_table
from vidseek_training.backbones import BackboneSpec
from vidseek_training.evaluation.proof import proof_mask

Half = Literal["choosing", "proof"]


@dataclass(frozen=True)
class FramesOfPairs:
    """The frames of pairs, row by row, each clip stored once however many captions it has."""

    stored: NDArray[np.uint8]
    """Shape (clips, T, side, side, 3); a memory map on disk."""
    place: NDArray[np.int64]
    """Shape (n,): the clip of each pair."""

    def __getitem__(self, rows: Any) -> NDArray[np.uint8]:
        """Return the frames of `rows`, any index of one axis; a copy in memory."""
        return np.asarray(self.stored[self.place[rows]])

    def __len__(self) -> int:
        return len(self.place)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (n, T, side, side, 3)."""
        return (len(self.place), *self.stored.shape[1:])


@dataclass(frozen=True)
class PairSet:
    """Pairs of one split, row by row."""

    table: pd.DataFrame
    """Schema PAIRS and the column `group`, a row for each pair, sorted by clip_id."""
    frames: NDArray[np.uint8] | FramesOfPairs
    """Shape (n, T, side, side, 3), resized as the backbone wants. More than T with all frames."""
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

    @property
    def groups(self) -> NDArray[np.str_]:
        """Shape (n,): the group of videos of each pair, which intervals resample."""
        return self.table["group" if "group" in self.table else "video_id"].to_numpy(np.str_)

    def clips(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return a row of each clip, shape (clips,), and the clip of each pair, shape (n,). A clip may have several
        captions.
        """
        owner, _ = pd.factorize(self.table.clip_id)
        first = np.flatnonzero(~self.table.clip_id.duplicated().to_numpy(bool))
        return first, owner


def load_pairs(
    pairs: Path, frames: Path, spec: BackboneSpec, *, split: str, all_frames: bool = False, most: int | None = None,
    half: Half | None = None,
) -> PairSet:
    """Load the pairs of a split with their frames.

    Args:
        pairs: The pairs table.
        frames: Output of the stage `frames`.
        spec: Spec of the backbone that uses them.
        split: `train`, `validation` or `test`.
        all_frames: Whether to keep all stored frames, from which `choose_frames` chooses, if all clips have as many.
        most: Load only the first pairs, at most this many; None loads all.
        half: Load only one half of the pairs (`proof.proof_mask`): the choosing or the proof half; None loads both.

    Raises:
        ArtifactError: the clip of a pair is in no shard, or its frames are not those that the pairs table names.
    """
    table = read_table(pairs, PAIRS)
    table = table[table.split == split].sort_values("clip_id", kind="stable").reset_index(drop=True)
    table["group"] = video_groups(pairs, table.video_id)
    if half is not None:
        table = table[proof_mask(table.group) == (half == "proof")].reset_index(drop=True)
    table = table[:most]
    table = table.fillna({"contrast": "", "axis": "", "gallery": "default"})
    tokenizer = Tokenizer.load(spec.tokenizer, context=spec.context_length, pad_id=spec.pad_id)
    ids = tokenizer.encode(list(table.caption))
    contrasts = [row.contrast or row.caption for row in table.itertuples()]
    digests = dict(zip(table.clip_id, table.frames_digest.fillna(""), strict=True))
    gathered = _gather_frames(frames, list(table.clip_id), spec, all_frames=all_frames, digests=digests)
    return PairSet(table, gathered, ids, tokenizer.encode(contrasts))


def _gather_frames(
    folder: Path, clip_ids: list[str], spec: BackboneSpec, *, all_frames: bool, digests: Mapping[str, str]
) -> FramesOfPairs:
    """Return the frames of `clip_ids`, in that order, in a file that vanishes with the process: flat memory for any archive.

    `digests` names the frames of each clip; empty where the pairs table is of an earlier version.
    """
    # Its writer imports the decoders, which pairs that lie in memory do not need.
    from vidseek_media.frame_store.stored_clips import read_frames, stored_clips

    listed = read_table(folder / "frames.parquet", FRAMES, columns=["clip_id", "num_frames"])
    counts = set(listed.num_frames[listed.clip_id.isin(clip_ids)])
    num_frames = int(counts.pop()) if all_frames and len(counts) == 1 else spec.num_frames
    num_frames = max(num_frames, spec.num_frames)
    place, clips = pd.factorize(np.array(clip_ids, dtype=object))
    shape = (len(clips), num_frames, spec.image_size_px, spec.image_size_px, 3)
    if not clip_ids:
        return FramesOfPairs(np.empty(shape, np.uint8), place)
    places = {str(clip_id): row for row, clip_id in enumerate(clips)}
    with tempfile.TemporaryFile() as file:
        gathered = np.memmap(file, np.uint8, "w+", shape=shape)
    for clip in read_frames(folder, stored_clips(folder, clip_ids=places)):
        _check_digest(clip, digests[str(clip.clip_id)], folder)
        gathered[places.pop(str(clip.clip_id))] = _fit(clip, spec, num_frames)
    if places:
        raise ArtifactError(
            f"{len(places)} clips have no frames in {folder}, the first {next(iter(places))}", code="frames-missing",
            remedy="Run `dvc repro frames` again",
        )
    return FramesOfPairs(gathered, place)


def _check_digest(clip: ClipFrames, wanted: str, folder: Path) -> None:
    """Refuse frames that are not those of the pair: DVC watches the pairs table for training, and not the frames."""
    if wanted and clip.digest != wanted:
        raise ArtifactError(
            f"{folder}: the frames of clip {clip.clip_id} have the digest {clip.digest}, the pairs table says {wanted}",
            code="frames-changed", remedy="Run `dvc repro frames pairs`",
        )


def _fit(clip: ClipFrames, spec: BackboneSpec, num_frames: int) -> NDArray[np.uint8]:
    """`num_frames` of the backbone's side; of more frames those nearest to the centres of as many equal bins."""
    count = len(clip.frames)
    if count < spec.num_frames:
        raise ArtifactError(
            f"clip {clip.clip_id} has {count} frames, {spec.name} wants {spec.num_frames}", code="frames-do-not-fit",
            remedy=f"Set frames.num_frames to at least {spec.num_frames}",
        )
    frames = clip.frames[centre_frames(count, num_frames)][None]
    resized: NDArray[np.uint8] = resize_frames(frames, spec.resizing)[0]
    return resized


def sample_clips(frames: Path, spec: BackboneSpec, *, count: int) -> NDArray[np.uint8]:
    """Return the frames of the first clips, uint8 of shape (n, T, side, side, 3).

    Args:
        frames: Output of the stage `frames`.
        spec: Spec of the backbone that uses them.
        count: Number of clips.
    """
    from vidseek_media.frame_store.stored_clips import read_frames, stored_clips

    found = [_fit(clip, spec, spec.num_frames) for clip in read_frames(frames, stored_clips(frames)[:count])]
    return np.stack(found) if found else np.empty((0, spec.num_frames, spec.image_size_px, spec.image_size_px, 3), np.uint8)


def to_pixels(frames: NDArray[np.uint8], spec: BackboneSpec, device: torch.device | None = None) -> Tensor:
    """Convert frames into the model's input.

    A GPU receives the bytes and normalises them itself, with equal results. On an H100, normalising on the CPU and
    transferring
    floats took 8 of 10 ms for a clip of ViT-B/32.

    Args:
        frames: uint8 of shape (n, T, side, side, 3).
        spec: Spec of the backbone.
        device: Device of the result; None is the CPU.

    Returns:
        float of shape (n, T, 3, side, side).
    """
    if device is None or device.type == "cpu":
        return torch.from_numpy(normalise(frames, image_mean=spec.image_mean, image_std=spec.image_std))
    return _normalise_there(torch.from_numpy(np.array(frames)).to(device), spec)


def _normalise_there(frames: Tensor, spec: BackboneSpec) -> Tensor:
    """`normalise` of bytes that lie on a device."""
    levels = np.arange(256, dtype=np.uint8)[None, None, :, None, None].repeat(3, axis=4)  # one column of 256
    tables = normalise(levels, image_mean=spec.image_mean, image_std=spec.image_std)[0, 0, :, :, 0]
    channels = [
        torch.take(torch.from_numpy(tables[channel]).to(frames.device), frames[..., channel].long()) for channel in range(3)
    ]
    return torch.stack(channels, dim=2)


class Batches:
    """Rows in random order, epoch after epoch, without end; every batch has `size` rows (or all, if fewer).

    Attributes:
        left: Rows of the running epoch that are still to come; with the generator's state all there is to go on from.
    """

    def __init__(self, num_rows: int, size: int, rng: np.random.Generator) -> None:
        self._num_rows, self.size, self._rng = num_rows, min(size, num_rows), rng
        self.left = np.empty(0, np.int64)

    def draw(self) -> NDArray[np.int64]:
        """Return the next batch, shape (size,)."""
        if len(self.left) < self.size:
            # What is left of an epoch opens the next batch, so that no pair is seen less often than another.
            fresh = self._rng.permutation(self._num_rows)
            known = np.isin(fresh, self.left)
            self.left = np.concatenate([self.left, fresh[~known], fresh[known]])
        rows, self.left = self.left[: self.size], self.left[self.size :]
        return rows


def cut_padding(ids: NDArray[np.int64], *, pad_id: int) -> NDArray[np.int64]:
    """Remove the last columns that contain only padding; at least one column stays.

    Args:
        ids: Token ids, shape (n, context).
        pad_id: Id of the padding token.
    """
    used = np.flatnonzero((ids != pad_id).any(0))
    return ids[:, : int(used[-1]) + 1 if len(used) else 1]
