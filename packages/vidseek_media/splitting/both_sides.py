"""What stands on both sides of a split although no video does: captions that say the same, clips that show the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vidseek_media.splitting.perceptual_hashes import lie_near
from vidseek_media.tables import BOTH_SIDES, FRAMES, read_table

Hashes = Mapping[str, NDArray[np.uint64]]
Flags = NDArray[np.bool_]


def hashes_of(frames: pd.DataFrame) -> dict[str, NDArray[np.uint64]]:
    """The different hashes of each clip's frames, by clip_id; `frames` has the columns clip_id and hashes of FRAMES."""
    return {
        clip_id: np.unique(np.array([] if own is None else own, np.uint64))
        for clip_id, own in zip(frames["clip_id"], frames["hashes"], strict=True)
    }


def read_hashes(frames: Path) -> dict[str, NDArray[np.uint64]]:
    """`hashes_of` the frames stage's folder.

    Raises:
        ArtifactError: the table is missing or broken.
    """
    return hashes_of(read_table(frames / "frames.parquet", FRAMES, columns=["clip_id", "hashes"]))


def said_elsewhere(captions: Iterable[str], others: Iterable[str]) -> Flags:
    """Which of `captions` are among `others`, case and spaces aside: shape (captions,)."""
    known = {_folded(text) for text in others}
    return np.array([_folded(text) in known for text in captions], np.bool_)


def shown_elsewhere(
    clip_ids: Iterable[str], hashes: Hashes, others: Iterable[str], other_hashes: Hashes, *, max_bits: int, min_share: float
) -> Flags:
    """Which of `clip_ids` show what some of `others` show: shape (clips,).

    That is, of the clip's different frames at least `min_share` lie within `max_bits` bits of one of the others'. A clip
    whose frames are all plain has no hash, and is none of them.
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
    """The rows of `pairs` for validation and test whose caption or clip stands in training too, as BOTH_SIDES."""
    held, learned = pairs[pairs["split"] != "train"], pairs[pairs["split"] == "train"]
    found = held[["clip_id", "caption", "split"]].copy()
    found["same_caption"] = said_elsewhere(held["caption"], learned["caption"])
    found["same_frames"] = shown_elsewhere(
        held["clip_id"], hashes, learned["clip_id"], hashes, max_bits=max_bits, min_share=min_share
    )
    return found[found["same_caption"] | found["same_frames"]].reset_index(drop=True)


def read_both_sides(pairs: Path) -> pd.DataFrame:
    """What the pairs stage found, from its folder; no row where it was written by an earlier version.

    Raises:
        ArtifactError: the table is broken.
    """
    path = pairs / "both_sides.parquet"
    if not path.is_file():
        return pd.DataFrame({name: [] for name in BOTH_SIDES.names})
    return read_table(path, BOTH_SIDES)


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())
