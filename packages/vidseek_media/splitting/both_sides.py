"""Finds leaks across a split of videos: equal captions, and clips that show the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vidseek_media.splitting.perceptual_hashes import lie_near
from vidseek_media.tables import BOTH_SIDES, FRAMES, read_table

Hashes = Mapping[str, NDArray[np.uint64]]
Flags = NDArray[np.bool_]


def hashes_of(frames: pd.DataFrame) -> dict[str, NDArray[np.uint64]]:
    """Return the distinct hashes of each clip's frames by clip_id, from the columns clip_id and hashes of FRAMES."""
    return {
        clip_id: np.unique(np.array([] if own is None else own, np.uint64))
        for clip_id, own in zip(frames["clip_id"], frames["hashes"], strict=True)
    }


def hashes_of_videos(frames: pd.DataFrame) -> dict[str, NDArray[np.uint64]]:
    """Return the hashes of each video's frames by video_id, from the columns video_id and hashes of FRAMES."""
    places, video_ids = pd.factorize(frames["video_id"])
    values, sizes = joined_hashes(frames["hashes"], rows := np.argsort(places, kind="stable"))
    nums = np.bincount(places[rows], weights=sizes, minlength=len(video_ids)).astype(np.int64)
    return dict(zip(video_ids, np.split(values, np.cumsum(nums)[:-1]), strict=True)) if len(video_ids) else {}


def joined_hashes(
    hashes: pd.Series[Any], rows: Sequence[int] | NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Return the hashes of clips one after the other, and how many each clip has.

    Args:
        hashes: The column of FRAMES.
        rows: Places in it, in the order wanted.
    """
    lists = pa.array(hashes, pa.list_(pa.uint64())).take(pa.array(rows, pa.int64()))
    sizes = pc.fill_null(pc.list_value_length(lists), 0)
    return np.asarray(lists.flatten(), np.uint64), np.asarray(sizes, np.int64)


def read_hashes(frames: Path) -> dict[str, NDArray[np.uint64]]:
    """Return the distinct hashes of each clip's frames by clip_id, from the output of the stage `frames`.

    Raises:
        ArtifactError: the table is missing or broken.
    """
    return hashes_of(read_table(frames / "frames.parquet", FRAMES, columns=["clip_id", "hashes"]))


def said_elsewhere(captions: Iterable[str], others: Iterable[str]) -> Flags:
    """Return which captions also occur in another set, ignoring case and spaces.

    Args:
        captions: n captions.
        others: The other set.

    Returns:
        Boolean of shape (n,).
    """
    known = {folded(text) for text in others}
    return np.array([folded(text) in known for text in captions], np.bool_)


def shown_elsewhere(
    clip_ids: Iterable[str], hashes: Hashes, others: Iterable[str], other_hashes: Hashes, *, max_bits: int, min_share: float
) -> Flags:
    """Return which clips show the same as a clip of another set.

    A clip with only plain frames has no hashes, and never matches.

    Args:
        clip_ids: n clips.
        hashes: Hashes of their frames by clip_id.
        others: Clips of the other set.
        other_hashes: Hashes of their frames by clip_id.
        max_bits: Frames whose hashes differ in at most this many bits show the same.
        min_share: Share of a clip's distinct frames that must show the same as one of the others', from 0 to 1.

    Returns:
        Boolean of shape (n,).
    """
    ids = list(clip_ids)
    clips = list(dict.fromkeys(ids))
    nothing = np.empty(0, np.uint64)
    own = [hashes.get(clip, nothing) for clip in clips]
    theirs = [other_hashes.get(clip, nothing) for clip in dict.fromkeys(others)]
    near = lie_near(np.concatenate([nothing, *own]), np.concatenate([nothing, *theirs]), max_bits=max_bits)
    ends = np.cumsum([0, *map(len, own)])
    found = {
        clip: end > start and bool(near[start:end].mean() >= min_share)
        for clip, start, end in zip(clips, ends[:-1], ends[1:], strict=True)
    }
    return np.array([found[clip] for clip in ids], np.bool_)


def find_both_sides(pairs: pd.DataFrame, hashes: Hashes, *, max_bits: int, min_share: float) -> pd.DataFrame:
    """Return the validation and test pairs whose caption or clip also occurs in training, in the schema BOTH_SIDES.

    Args:
        pairs: The pairs, in the schema PAIRS.
        hashes: Hashes of the clips' frames by clip_id.
        max_bits: Frames whose hashes differ in at most this many bits show the same.
        min_share: Share of a clip's distinct frames that must show the same, from 0 to 1.
    """
    held, learned = pairs[pairs["split"] != "train"], pairs[pairs["split"] == "train"]
    found = held[["clip_id", "caption", "split"]].copy()
    found["same_caption"] = said_elsewhere(held["caption"], learned["caption"])
    found["same_frames"] = shown_elsewhere(
        held["clip_id"], hashes, learned["clip_id"], hashes, max_bits=max_bits, min_share=min_share
    )
    return found[found["same_caption"] | found["same_frames"]].reset_index(drop=True)


def read_both_sides(pairs: Path) -> pd.DataFrame:
    """Read the leaks that the stage `pairs` found, from its folder; none for the output of an earlier version.

    Raises:
        ArtifactError: the table is broken.
    """
    path = pairs / "both_sides.parquet"
    if not path.is_file():
        return pd.DataFrame({name: [] for name in BOTH_SIDES.names})
    return read_table(path, BOTH_SIDES)


def folded(text: str) -> str:
    """Return a text as it is compared: case and spaces make no difference."""
    return " ".join(text.casefold().split())
