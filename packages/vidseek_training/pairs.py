"""Clip-caption pairs, split so that one source video is on one side only."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from vidseek_media.errors import ConfigError
from vidseek_media.marks import MARKS
from vidseek_media.records import Rejection
from vidseek_media.tables import CAPTIONS, FRAMES, PAIRS, REJECTED, read_table, write_table

DEFAULT_GALLERY = "default"


@dataclass(frozen=True)
class PairsReport:
    """num_in (captions) = num_out (pairs) + num_rejected, and num_out is the sum of the splits."""

    num_in: int
    num_out: int
    num_train: int
    num_validation: int
    num_test: int
    num_rejected: int


def make_pairs(
    caption_dir: Path,
    frames_dir: Path,
    *,
    out: Path,
    validation_share: float,
    test_share: float,
    seed: int,
    skip_marks: Sequence[str] = MARKS,
) -> PairsReport:
    """Write `pairs.parquet` and `rejected.parquet` into `out`: each caption that has a clip whose frames are there.

    Clips with one of `skip_marks` (black, flat, frozen) make no pairs.

    A video's split is the one that the source wishes, else that of `split_videos`. Where the source contradicts itself
    about a video, all captions of that video are rejected. Without captions both tables are empty.

    Raises:
        ConfigError: the shares are not shares.
        ArtifactError: a table is missing or broken.
    """
    captions = read_table(caption_dir / "captions.parquet", CAPTIONS)
    frames = read_table(frames_dir / "frames.parquet", FRAMES)
    has_frames = set(frames["clip_id"])
    skipped = _skipped(frames, skip_marks)
    wishes = _wishes(captions)
    usable = captions[captions["clip_id"].isin(has_frames - set(skipped))]
    free = {video_id for video_id in usable["video_id"] if not wishes[video_id]}
    splits = split_videos(free, validation_share=validation_share, test_share=test_share, seed=seed)
    rows: list[dict[str, object]] = []
    rejections: list[Rejection] = []
    for row in captions.itertuples(index=False):
        reason = _why_not(row.clip_id, wishes[row.video_id], has_frames) or skipped.get(row.clip_id, "")
        if reason:
            id = row.video_id if pd.isna(row.clip_id) else row.clip_id
            rejections.append(Rejection(id, "pairs", f"{reason}: {row.text[:60]!r}"))
            continue
        split = next(iter(wishes[row.video_id]), None) or splits[row.video_id]
        rows.append({
            "clip_id": row.clip_id, "video_id": row.video_id, "caption": row.text, "split": split,
            "gallery": row.gallery or DEFAULT_GALLERY, "contrast": row.contrast, "axis": row.axis,
        })
    write_table(out / "rejected.parquet", [dataclasses.asdict(r) for r in rejections], REJECTED)
    write_table(out / "pairs.parquet", rows, PAIRS)
    counts = {name: sum(row["split"] == name for row in rows) for name in ("train", "validation", "test")}
    return PairsReport(
        num_in=len(captions), num_out=len(rows), num_train=counts["train"], num_validation=counts["validation"],
        num_test=counts["test"], num_rejected=len(rejections),
    )


def split_videos(
    video_ids: Iterable[str], *, validation_share: float, test_share: float, seed: int
) -> dict[str, str]:
    """train, validation or test by video_id: each by a hash of its own id, so that a new video moves no other one.

    A share above 0 gets at least one video where there are three or more: an archive of a few files can be tried too.

    Raises:
        ConfigError: a share is negative, or they leave nothing to train on.
    """
    if min(validation_share, test_share) < 0 or validation_share + test_share >= 1:
        raise ConfigError(
            f"pairs.validation_share is {validation_share} and pairs.test_share {test_share}, "
            "wanted shares of at least 0 that together stay under 1",
            remedy="Set them in params.yaml",
        )
    places = {video_id: _place_of(video_id, seed) for video_id in video_ids}
    splits = {
        video_id: "test" if place < test_share else "validation" if place < test_share + validation_share else "train"
        for video_id, place in places.items()
    }
    if len(splits) >= 3:
        for name, share in (("test", test_share), ("validation", validation_share), ("train", 1.0)):
            if share > 0 and name not in splits.values():
                _move_one(splits, places, name)
    return splits


def _move_one(splits: dict[str, str], places: Mapping[str, float], name: str) -> None:
    """Give `name` one video of the largest split: that with the lowest hash."""
    sizes = {split: list(splits.values()).count(split) for split in sorted(set(splits.values()))}
    largest = max(sizes, key=lambda split: sizes[split])
    splits[min((v for v in splits if splits[v] == largest), key=lambda v: (places[v], v))] = name


def _place_of(video_id: str, seed: int) -> float:
    """Where in [0, 1) the video stands."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{video_id}".encode()).digest()[:8], "big") / 2**64


def _skipped(frames: pd.DataFrame, skip_marks: Sequence[str]) -> dict[str, str]:
    """The reason by clip_id of the clips that say nothing.

    Raises:
        ConfigError: a mark is unknown.
    """
    if unknown := [mark for mark in skip_marks if mark not in MARKS]:
        raise ConfigError(
            f"pairs.skip_marks lists {unknown[0]!r}, there are {', '.join(MARKS)}", remedy="Mend it in params.yaml"
        )
    found = {}
    for clip_id, marks in zip(frames["clip_id"], frames["marks"], strict=True):
        own = [mark for mark in skip_marks if marks is not None and mark in marks]
        if own:
            found[clip_id] = f"its clip is {' and '.join(own)} (pairs.skip_marks)"
    return found


def _wishes(captions: pd.DataFrame) -> dict[str, set[str]]:
    """The splits that the source wishes, by video_id."""
    wishes: dict[str, set[str]] = defaultdict(set)
    for video_id, split in zip(captions["video_id"], captions["split"], strict=True):
        if split:
            wishes[video_id].add(split)
    return wishes


def _why_not(clip_id: object, wishes: set[str], has_frames: set[str]) -> str:
    if len(wishes) > 1:
        return f"its video is wished into {' and '.join(sorted(wishes))}, one video is on one side"
    if pd.isna(clip_id):
        return "it is of a whole video of several clips"
    return "" if clip_id in has_frames else "its clip has no frames"
