"""Creates clip-caption pairs, split so that a source video and its near-duplicates are on one side only."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from vidseek_media.errors import ConfigError
from vidseek_media.records import Refusal, Rejection, Video
from vidseek_media.sources.ingest import read_videos
from vidseek_media.splitting.both_sides import hashes_of_videos
from vidseek_media.splitting.remembered import remembered_both_sides, remembered_near_duplicates
from vidseek_media.splitting.video_groups import groups_of
from vidseek_media.tables import BOTH_SIDES, CAPTIONS, FRAMES, GROUPS, PAIRS, REJECTED, is_among, read_table, write_table
from vidseek_training.dataset.judgements import Judgements, Side, no_feedback, sides_of, with_judgements
from vidseek_training.dataset.training_set import WAITING, frozen_captions
from vidseek_training.settings import PairSettings

DEFAULT_GALLERY = "default"
_OF_FRAMES = ["clip_id", "video_id", "quality_flags", "hashes", "frames_digest"]
"""Columns of FRAMES that pairs are made from."""


@dataclass(frozen=True)
class PairsReport:
    """num_in (captions) = num_out (pairs) - confirmed hits + num_rejected + num_waiting; num_out is the sum of the splits.

    Of a frozen training set the captions are those of its pairs, and those that came since.
    """

    num_in: int
    num_out: int
    num_train: int
    num_validation: int
    num_test: int
    num_rejected: int
    num_waiting: int
    """Captions that would make a pair, and came after the training set was frozen."""
    num_groups: int
    """Of videos that are on one side."""
    num_validation_groups: int
    """Those that validation has pairs of; a proof wants 25."""
    num_in_largest_group: int
    """Videos; where that is most of them, the archive cannot be split by what it shows (a camera that never moves)."""
    num_captions_on_both_sides: int
    """Pairs of validation and test whose caption is also one of a training pair."""
    num_clips_on_both_sides: int
    """Clips of validation and test that show what a training clip shows, though most of their videos differs."""
    judgements: Judgements = field(default_factory=Judgements)
    """What people said of hits. Those that made pairs are among `num_out`, and not among `num_in`."""


def make_pairs(
    ingest_dir: Path,
    caption_dir: Path,
    frames_dir: Path,
    *,
    out: Path,
    settings: PairSettings,
    memory: Path,
    decided: Iterable[tuple[str, str]] = (),
    frozen: pd.DataFrame | None = None,
    feedback: pd.DataFrame | None = None,
) -> PairsReport:
    """Write `pairs.parquet`, `groups.parquet`, `both_sides.parquet`, `waiting.parquet` and `rejected.parquet` into `out`.

    A pair is a caption that has a clip whose frames are there; clips with one of `settings.skip_quality_flags`
    make none. Videos of one group are on one side: clips of one longer video, what the source says is one,
    near-duplicates, and what people decided. A group's split is the one that the source states, else that of
    `split_videos`. Where the source contradicts itself about a video, all captions of that video are rejected; where it
    states videos of a group on several sides, those of the test come before those of the validation, and these before
    those of the training, and the others are rejected. Without captions all tables are empty.

    `train`, `select` and `export` depend on the pairs and their groups alone: both tables are byte-identical where the
    pairs and their frames are the same, whatever else the archive holds.

    Args:
        settings: Which captions make pairs, the shares of the splits, and what is a near-duplicate.
        memory: Folder that remembers what was compared, outside `out`: only what is new is compared, with all.
        decided: Pairs of video ids that people say show the same.
        frozen: The frozen training set, of the schema PAIRS: its pairs alone are made, with today's frames, and the other
            captions that would make a pair wait. None: nothing is frozen.
        feedback: What people said of hits, of the schema FEEDBACK; see `with_judgements`. None: nothing. With a frozen set
            it waits. It changes the side of no video that has captions.

    Raises:
        ConfigError: the shares of validation and test leave nothing for training.
        ArtifactError: a table is missing or broken.
    """
    captions = read_table(caption_dir / "captions.parquet", CAPTIONS)
    captions, later = (captions, captions[:0]) if frozen is None else frozen_captions(captions, frozen)
    frames = read_table(frames_dir / "frames.parquet", FRAMES, columns=_OF_FRAMES)
    named = pa.array(frames["frames_digest"], pa.string()).to_pylist()
    digests = dict(zip(frames["clip_id"].tolist(), named, strict=True))
    has_frames = set(digests)
    skipped = _skipped(frames, settings.skip_quality_flags)
    stated_splits = _stated_splits(captions)
    usable = captions[is_among(captions["clip_id"], has_frames - set(skipped))]
    contradicted = {video_id for video_id, own in stated_splits.items() if len(own) > 1}
    usable = usable[~usable["video_id"].isin(contradicted)]
    feedback = no_feedback() if feedback is None else feedback
    judged = frames[
        is_among(frames["clip_id"], set(feedback["clip_id"]) - set(skipped))
        & ~is_among(frames["video_id"], contradicted)
    ]
    captioned = set(usable["video_id"].tolist())
    compared = frames[
        is_among(frames["clip_id"], usable["clip_id"])
        | is_among(frames["clip_id"], judged.loc[~is_among(judged["video_id"], captioned), "clip_id"])
    ]
    alike = _alike(
        captioned, read_videos(ingest_dir), compared, max_bits=settings.near_duplicate_bits,
        min_share=settings.near_duplicate_share, memory=memory,
    )
    decided = list(decided)
    groups = _groups(sorted(captioned), [*decided, *(pair for pair in alike if captioned.issuperset(pair))])
    splits = split_groups(
        groups, stated_splits, validation_share=settings.validation_share, test_share=settings.test_share, seed=settings.seed
    )
    fits = [not (own := stated_splits.get(v)) or splits[v] in own for v in usable["video_id"].tolist()]
    pairs = _pairs_of(usable[np.array(fits, bool)], splits, digests)
    rejections = [
        _rejection(row, why) for row in captions.drop(pairs.index).itertuples(index=False)
        if (why := _why_not(row.clip_id, stated_splits[row.video_id], has_frames) or skipped.get(row.clip_id)
            or _on_another_side(stated_splits[row.video_id], splits[row.video_id], groups[row.video_id]))
    ]
    reasons = [_why_not(clip_id, set(), has_frames) or skipped.get(clip_id) for clip_id in later["clip_id"]]
    rejections += [_rejection(row, why) for row, why in zip(later.itertuples(index=False), reasons, strict=True) if why]
    waiting = later[np.array([not why for why in reasons], bool)]
    judgements = Judgements(num_waiting=len(feedback))
    if frozen is None and not feedback.empty:
        stated = {v: Side(next(iter(own)), v) for v, own in stated_splits.items() if len(own) == 1}
        known = stated | {v: Side(splits[v], groups[v]) for v in groups}
        sides = sides_of(judged["video_id"], known, [*decided, *alike], partial(split_of_group, settings))
        pairs, judgements = with_judgements(pairs, feedback, judged, sides.get)
        groups |= {v: sides[v].group for v in set(pairs["video_id"].tolist()) - captioned}
    write_table(out / WAITING, waiting, CAPTIONS)
    write_table(out / "rejected.parquet", [dataclasses.asdict(r) for r in rejections], REJECTED)
    write_table(out / "groups.parquet", [{"video_id": v, "group": g} for v, g in sorted(groups.items())], GROUPS)
    write_table(out / "pairs.parquet", pairs, PAIRS)
    both = remembered_both_sides(
        pairs, frames, max_bits=settings.near_duplicate_bits or 0, min_share=settings.near_duplicate_share, memory=memory,
    )
    write_table(out / "both_sides.parquet", both, BOTH_SIDES)
    counts = Counter(pairs["split"].tolist())
    sizes = Counter(groups.values())
    return PairsReport(
        num_in=len(captions) + len(later), num_out=len(pairs), num_waiting=len(waiting),
        num_train=counts["train"], num_validation=counts["validation"], num_test=counts["test"],
        num_rejected=len(rejections), num_groups=len(sizes),
        num_validation_groups=len({groups[video_id] for video_id in pairs["video_id"][pairs["split"] == "validation"]}),
        num_in_largest_group=max(sizes.values(), default=0),
        num_captions_on_both_sides=int(both["same_caption"].sum()),
        num_clips_on_both_sides=int(both.loc[both["same_frames"], "clip_id"].nunique()),
        judgements=judgements,
    )


def split_of_group(settings: PairSettings, group: str) -> str:
    """Return the split of a group of videos that have no captions: by the hash of its name alone.

    Args:
        settings: The shares of the splits.
        group: Name of the group; of a video by itself, its id.
    """
    shares = {"validation_share": settings.validation_share, "test_share": settings.test_share}
    return split_videos([group], **shares, seed=settings.seed)[group]


def split_groups(
    groups: Mapping[str, str],
    stated_splits: Mapping[str, Set[str]],
    *,
    validation_share: float,
    test_share: float,
    seed: int,
) -> dict[str, str]:
    """Assign `train`, `validation` or `test` to each video, the same to all videos of a group.

    Args:
        groups: The group of each video, which is the id of one of its videos.
        stated_splits: The splits that the source states for each video: none or one.
        validation_share: Share of the groups for validation, from 0 to 1.
        test_share: Share of the groups for test, from 0 to 1.
        seed: Seed of the assignment.
    """
    stated: dict[str, str] = {}
    for video_id, group in groups.items():
        for stated_split in stated_splits.get(video_id, ()):
            stated[group] = min(stated_split, stated.get(group, stated_split), key=_STRONGEST.index)
    free = {group for group in groups.values() if group not in stated}
    splits = stated | split_videos(free, validation_share=validation_share, test_share=test_share, seed=seed)
    return {video_id: splits[group] for video_id, group in groups.items()}


def _pairs_of(captions: pd.DataFrame, splits: Mapping[str, str], digests: Mapping[str, object]) -> pd.DataFrame:
    """Return the pairs of these captions, in the schema PAIRS, row for row."""
    return pd.DataFrame({
        "clip_id": captions["clip_id"], "video_id": captions["video_id"], "caption": captions["text"],
        "split": [splits[video_id] for video_id in captions["video_id"].tolist()],
        "gallery": [name or DEFAULT_GALLERY for name in captions["gallery"].tolist()],
        "contrast": captions["contrast"], "axis": captions["axis"],
        "frames_digest": [digests[clip_id] for clip_id in captions["clip_id"].tolist()], "writer": captions["writer"],
    })


_STRONGEST = ("test", "validation", "train")


def _alike(
    captioned: Set[str], videos: Iterable[Video], frames: pd.DataFrame, *, max_bits: int | None, min_share: float,
    memory: Path,
) -> list[tuple[str, str]]:
    """Return pairs of the videos of `frames` that show the same, or that the source calls one. Others than `captioned` do
    not decide which of these are pairs.
    """
    together: list[tuple[str, str]] = []
    first: dict[str, str] = {}
    wanted = set(frames["video_id"].unique())
    for video in sorted(videos, key=lambda video: video.video_id not in captioned):
        if (name := video.clip_of or video.source_id) and video.video_id in wanted:
            together.append((first.setdefault(name, video.video_id), video.video_id))
    if max_bits is not None:
        hashes = hashes_of_videos(frames)
        together += remembered_near_duplicates(hashes, max_bits=max_bits, min_share=min_share, memory=memory)
    return together


def _groups(video_ids: Sequence[str], together: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return the group of each of `video_ids`, named by the first of its videos. Pairs may be of other videos too."""
    # Two that are one with a third are one, also where the third has no caption; a group is named by one that has.
    others = sorted({video_id for pair in together for video_id in pair}.difference(video_ids))
    groups = groups_of([*video_ids, *others], together)
    names: dict[str, str] = {}
    return {video_id: names.setdefault(groups[video_id], video_id) for video_id in video_ids}


def _on_another_side(stated_splits: Set[str], split: str, group: str) -> Refusal | None:
    if stated_splits and split not in stated_splits:
        return Refusal(
            f"it is stated to be in {next(iter(stated_splits))}, and shows the same as {group} and others, "
            f"which are in {split}", code="splits-disagree",
        )
    return None


def split_videos(
    video_ids: Iterable[str], *, validation_share: float, test_share: float, seed: int
) -> dict[str, str]:
    """Assign `train`, `validation` or `test` to each video by a hash of its id, so that a new video moves no other.

    With three or more videos, a share above 0 gets at least one, so that a small archive can be tried too.

    Args:
        video_ids: Ids of the videos.
        validation_share: Share of the videos for validation, from 0 to 1.
        test_share: Share of the videos for test, from 0 to 1.
        seed: Seed of the hash.

    Raises:
        ConfigError: a share is negative, or nothing is left for training.
    """
    if min(validation_share, test_share) < 0 or validation_share + test_share >= 1:
        raise ConfigError(
            f"pairs.validation_share is {validation_share} and pairs.test_share {test_share}, "
            "wanted shares of at least 0 that together stay under 1", code="setting-out-of-range",
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
    """Return the position of a video in [0, 1), by a hash of its id."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{video_id}".encode()).digest()[:8], "big") / 2**64


def _skipped(frames: pd.DataFrame, skip_quality_flags: Sequence[str]) -> dict[str, Refusal]:
    """Return the reason by clip_id of the clips that say nothing."""
    found = {}
    lists = pa.array(frames["quality_flags"], pa.list_(pa.string()))  # nearly all are empty
    flagged = frames[np.asarray(pc.fill_null(pc.list_value_length(lists), 0), np.bool_)]
    for clip_id, quality_flags in zip(flagged["clip_id"].tolist(), flagged["quality_flags"].tolist(), strict=True):
        if own := [flag for flag in skip_quality_flags if flag in quality_flags]:
            reason = f"its clip is {' and '.join(own)} (pairs.skip_quality_flags)"
            found[clip_id] = Refusal(reason, code="clip-without-content")
    return found


def _stated_splits(captions: pd.DataFrame) -> dict[str, set[str]]:
    """Return the splits that the source states, by video_id."""
    stated_splits: dict[str, set[str]] = defaultdict(set)
    for video_id, split in zip(captions["video_id"].tolist(), captions["split"].tolist(), strict=True):
        if split:
            stated_splits[video_id].add(split)
    return stated_splits


def _rejection(row: Any, why: Refusal) -> Rejection:
    """Return the rejection of a row of captions."""
    subject = row.video_id if pd.isna(row.clip_id) else row.clip_id
    return Rejection(subject, "pairs", f"{why.reason}: {row.text[:60]!r}", code=why.code)


def _why_not(clip_id: object, stated_splits: set[str], has_frames: set[str]) -> Refusal | None:
    if len(stated_splits) > 1:
        reason = f"its video is stated to be in {' and '.join(sorted(stated_splits))}, one video is on one side"
        return Refusal(reason, code="splits-disagree")
    if pd.isna(clip_id):
        return Refusal("it is of a whole video of several clips", code="no-such-clip")
    return None if clip_id in has_frames else Refusal("its clip has no frames", code="clip-without-frames")
