"""The suites as readable code: for each table its rules, the words of each beside which rows keep it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vidseek_media.ids import clip_ids_of
from vidseek_quality.thresholds import PairThresholds

SPLITS = ("train", "validation", "test")

Rules: TypeAlias = dict[str, NDArray[np.bool_]]
"""What is wanted, in words: which rows keep it."""


@dataclass(frozen=True)
class Table:
    """One table to validate, row by row."""

    name: str
    ids: pd.Series
    """What an offending row is called."""
    rules: Rules
    mostly: float = 1.0
    """The share of the rows that must keep each rule."""


@dataclass(frozen=True)
class Measure:
    """What a number about a table as a whole must be."""

    statistic: str
    wanted: str
    at_least: float | None = None
    at_most: float | None = None


@dataclass(frozen=True)
class Whole:
    """The measures of one gate."""

    name: str
    statistics: Mapping[str, int | float | None]
    measures: tuple[Measure, ...]


def video_rules(videos: pd.DataFrame) -> Rules:
    """Of the schema VIDEOS."""
    uris = videos["uris"].map(list)
    listed = uris.explode()
    shared = set(listed[listed.duplicated(keep=False) & listed.notna()])
    return {
        "a video is listed once": _is_single(videos["video_id"]),
        "a video_id is 32 hex digits": _matches(videos["video_id"], "^[0-9a-f]{32}$"),
        "a video has a duration": (videos["duration_ms"] >= 1).to_numpy(),
        "a video has a size": ((videos["width"] >= 1) & (videos["height"] >= 1)).to_numpy(),
        "a video has a file": (uris.map(len) >= 1).to_numpy(),
        "a file is of one video": ~np.array([not shared.isdisjoint(own) for own in uris], dtype=bool),
    }


def clip_rules(clips: pd.DataFrame, videos: pd.DataFrame) -> Rules:
    """Of the schemas CLIPS and VIDEOS."""
    video = _places(clips["video_id"], videos["video_id"])
    end_of_video = np.append(videos["duration_ms"].to_numpy(), np.iinfo(np.int64).max)[video]  # -1: no such video
    start, end = clips["start_ms"].to_numpy(), clips["end_ms"].to_numpy()
    own_ids = clip_ids_of(clips["video_id"], start.tolist(), end.tolist())
    return {
        "a clip is listed once": _is_single(clips["clip_id"]),
        "every clip's video is in the videos table": video >= 0,
        "a clip begins at 0 ms or later": start >= 0,
        "a clip ends after it begins": start < end,
        "a clip ends with its video or before": end <= end_of_video,
        "the clips of a video are numbered in order of time": _is_in_order(clips, start, end),
        "a clip_id is that of the clip's video and span": clips["clip_id"].to_numpy() == own_ids,
    }


def frame_rules(frames: pd.DataFrame, clips: pd.DataFrame, refused: pd.Series) -> tuple[Rules, Rules]:
    """Of the schemas FRAMES and CLIPS, for the rows of each; `refused` lists the clips that have no frames."""
    place = _places(frames["clip_id"], clips["clip_id"])
    is_done = _places(clips["clip_id"], refused) >= 0
    is_done[place[place >= 0]] = True
    of_frames = {
        "a clip has its frames once": _is_single(frames["clip_id"]),
        "frames are of a clip that the clips table lists": place >= 0,
        "a clip has at least one good frame": (frames["num_repeated"] < frames["num_frames"]).to_numpy(),
    }
    return of_frames, {"a clip has frames or was rejected": is_done}


def caption_rules(captions: pd.DataFrame, clips: pd.DataFrame, videos: pd.DataFrame, wanted: PairThresholds) -> Rules:
    """Of the schemas CAPTIONS, CLIPS and VIDEOS; a caption of a whole video has no clip."""
    of_clip = captions["clip_id"].notna().to_numpy()
    clip = _places(captions["clip_id"], clips["clip_id"])
    video_of_clip = _taken(clips["video_id"], clip)
    return {
        "every caption's video is in the videos table": _places(captions["video_id"], videos["video_id"]) >= 0,
        "every caption's clip is in the clips table, and of its video":
            ~of_clip | ((clip >= 0) & _equal(video_of_clip, captions["video_id"])),
        "no caption of any clip is blank": ~_is_blank(captions["text"]),
        f"captions of any clip have at most {wanted.max_caption_length} characters":
            _lengths(captions["text"]) <= wanted.max_caption_length,
        "a caption costs nothing or more": (captions["cost_usd"] >= 0).to_numpy(),
    }


def pair_rules(
    pairs: pd.DataFrame, clips: pd.DataFrame, wanted: PairThresholds, groups: pd.DataFrame | None = None
) -> Rules:
    """Of the schemas PAIRS, CLIPS and GROUPS; a video that `groups` does not list is a group of its own."""
    shortest, longest = wanted.min_caption_length, wanted.max_caption_length
    caption, length = pairs["caption"], _lengths(pairs["caption"])
    is_there, has_id = caption.notna().to_numpy(), pairs["clip_id"].notna().to_numpy()
    clip = _places(pairs["clip_id"], clips["clip_id"])
    split, video = pairs["split"], pd.factorize(pairs["video_id"])[0]
    rules = {
        "every pair has a clip_id": has_id,
        "every pair's clip_id is in the clips table": ~has_id | (clip >= 0),
        "every pair names the video of its clip": (clip < 0) | _equal(_taken(clips["video_id"], clip), pairs["video_id"]),
        "a clip has the same caption only once": ~pairs.duplicated(["clip_id", "caption"], keep=False).to_numpy(),
        "every pair has a caption": is_there,
        "no caption is blank": ~is_there | ~_is_blank(caption),
        f"captions have {shortest} to {longest} characters": ~is_there | ((shortest <= length) & (length <= longest)),
        f"no caption is written over and over: each is at most {wanted.max_caption_share} of all":
            shares_of(caption, min_repeats=wanted.min_caption_repeats) <= wanted.max_caption_share,
        "every pair has a split": split.notna().to_numpy(),
        f"split is one of {SPLITS}": (split.isna() | split.isin(SPLITS)).to_numpy(),
        "no leak: all pairs of a video are in one split": _num_splits(video, split) <= 1,
    }
    if groups is not None:
        place = _places(pairs["video_id"], groups["video_id"])
        group = np.append(pd.factorize(groups["group"])[0], 0)[place]
        own = np.where(place >= 0, group, len(groups) + video)
        rules["no leak: near-duplicates, and clips of one longer video, are in one split"] = _num_splits(own, split) <= 1
    if wanted.one_caption_per_clip:
        rules["a clip has one caption"] = _is_single(pairs["clip_id"])
    return rules


def shares_of(texts: pd.Series, *, min_repeats: int) -> NDArray[np.float64]:
    """Which share of all `texts` says the same as each, case and outer blanks aside.

    0 where it is said at most `min_repeats` times, and where there is none or a blank one (other rules name those).
    """
    codes, said = pd.factorize(texts.str.strip().str.lower())
    repeats = np.append(np.bincount(codes[codes >= 0], minlength=len(said)), 0)[codes]
    return np.where((repeats > min_repeats) & ~_is_blank(texts), repeats / max(len(texts), 1), 0.0)


def arrow_of(texts: pd.Series) -> pa.Array:
    """The same texts, a missing one null."""
    values = pa.array(texts, type=pa.string(), from_pandas=True)
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def _is_single(ids: pd.Series) -> NDArray[np.bool_]:
    return ~ids.duplicated(keep=False).to_numpy()


def _is_in_order(clips: pd.DataFrame, start: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each clip's index is its place, from 0, among those of its video by (start, end)."""
    video = pd.factorize(clips["video_id"])[0]
    order = np.lexsort((clips["index"].to_numpy(), end, start, video))
    sizes = np.bincount(video)
    place = np.empty(len(clips), dtype=np.int64)
    place[order] = np.arange(len(clips)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return clips["index"].to_numpy() == place


def _num_splits(owners: NDArray[np.int64], splits: pd.Series) -> NDArray[np.int64]:
    """How many splits the owner of each row has; missing ones do not count."""
    codes, names = pd.factorize(splits)
    there = np.zeros((int(owners.max(initial=-1)) + 2, len(names) + 1), dtype=bool)  # the last ones: of -1, none
    there[owners, codes] = True
    return there[:, :-1].sum(axis=1)[owners]


def _places(of: pd.Series, among: pd.Series) -> NDArray[np.int64]:
    """Where each of `of` stands first in `among`; -1 where it does not, or is missing."""
    found = pc.index_in(arrow_of(of), value_set=arrow_of(among), skip_nulls=True)
    return found.fill_null(-1).to_numpy().astype(np.int64)


def _taken(values: pd.Series, places: NDArray[np.int64]) -> pa.Array:
    """`values` at `places`; null at -1."""
    return arrow_of(values).take(pa.array(places, mask=places < 0))


def _equal(one: pa.Array, other: pd.Series) -> NDArray[np.bool_]:
    return pc.equal(one, arrow_of(other)).fill_null(False).to_numpy(zero_copy_only=False)


def _is_blank(texts: pd.Series) -> NDArray[np.bool_]:
    return pc.equal(pc.utf8_trim_whitespace(arrow_of(texts)), "").fill_null(True).to_numpy(zero_copy_only=False)


def _lengths(texts: pd.Series) -> NDArray[np.int64]:
    """In characters; 0 where there is none."""
    return pc.utf8_length(arrow_of(texts)).fill_null(0).to_numpy().astype(np.int64)


def _matches(texts: pd.Series, pattern: str) -> NDArray[np.bool_]:
    return pc.match_substring_regex(arrow_of(texts), pattern).fill_null(False).to_numpy(zero_copy_only=False)
