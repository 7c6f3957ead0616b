"""The suites as code: the rules of each table, each with its wording and the rows that meet it."""

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
"""The wording of each rule, and which rows meet it."""


@dataclass(frozen=True)
class Table:
    """A table to validate row by row."""

    name: str
    ids: pd.Series
    """The id that names each row in reports."""
    rules: Rules
    mostly: float = 1.0
    """Share of the rows that must meet each rule, from 0 to 1."""


@dataclass(frozen=True)
class Measure:
    """Bounds for a number that describes a whole table."""

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
    """Return the rules of a table of the schema VIDEOS."""
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
    """Return the rules of the clips.

    Args:
        clips: Table of the schema CLIPS.
        videos: Table of the schema VIDEOS.
    """
    video = _places(clips["video_id"], videos["video_id"])
    end_of_video = np.append(videos["duration_ms"].to_numpy(), np.iinfo(np.int64).max)[video]  # -1: no such video
    start, end = clips["start_ms"].to_numpy(), clips["end_ms"].to_numpy()
    own_ids = clip_ids_of(clips["video_id"].tolist(), start.tolist(), end.tolist())
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
    """Return the rules of the frames, for the rows of frames and for the rows of clips.

    Args:
        frames: Table of the schema FRAMES.
        clips: Table of the schema CLIPS.
        refused: Ids of the clips that were rejected and have no frames.
    """
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
    """Return the rules of the captions. A caption of a whole video has no clip.

    Args:
        captions: Table of the schema CAPTIONS.
        clips: Table of the schema CLIPS.
        videos: Table of the schema VIDEOS.
        wanted: Thresholds of the pairs gate.
    """
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
    """Return the rules of the pairs.

    Args:
        pairs: Table of the schema PAIRS.
        clips: Table of the schema CLIPS.
        wanted: Thresholds of the pairs gate.
        groups: Table of the schema GROUPS; a video that it does not list is a group of its own.
    """
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
    """Return for each text the share of all texts that are equal to it, ignoring case and outer blanks.

    Args:
        texts: n texts. Missing and blank texts get 0, since other rules name them.
        min_repeats: A text that occurs at most this often gets 0.

    Returns:
        Shape (n,), from 0 to 1.
    """
    codes, said = pd.factorize(texts.str.strip().str.lower())
    repeats = np.append(np.bincount(codes[codes >= 0], minlength=len(said)), 0)[codes]
    return np.where((repeats > min_repeats) & ~_is_blank(texts), repeats / max(len(texts), 1), 0.0)


def arrow_of(texts: pd.Series) -> pa.Array:
    """Convert texts to Arrow; missing ones become null."""
    values = pa.array(texts, type=pa.string(), from_pandas=True)
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def _is_single(ids: pd.Series) -> NDArray[np.bool_]:
    return ~ids.duplicated(keep=False).to_numpy()


def _is_in_order(clips: pd.DataFrame, start: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether the index of each clip is its rank, from 0, by (start, end) among the clips of its video."""
    video = pd.factorize(clips["video_id"])[0]
    order = np.lexsort((clips["index"].to_numpy(), end, start, video))
    sizes = np.bincount(video)
    place = np.empty(len(clips), dtype=np.int64)
    place[order] = np.arange(len(clips)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return clips["index"].to_numpy() == place


def _num_splits(owners: NDArray[np.int64], splits: pd.Series) -> NDArray[np.int64]:
    """Return the number of splits of each row's owner; missing splits do not count."""
    codes, names = pd.factorize(splits)
    there = np.zeros((int(owners.max(initial=-1)) + 2, len(names) + 1), dtype=bool)  # the last ones: of -1, none
    there[owners, codes] = True
    return there[:, :-1].sum(axis=1)[owners]


def _places(of: pd.Series, among: pd.Series) -> NDArray[np.int64]:
    """Return the first position of each of `of` in `among`; -1 if it is absent or missing."""
    found = pc.index_in(arrow_of(of), value_set=arrow_of(among), skip_nulls=True)
    return found.fill_null(-1).to_numpy().astype(np.int64)


def _taken(values: pd.Series, places: NDArray[np.int64]) -> pa.Array:
    """Return `values` at `places`; null where the place is -1."""
    return arrow_of(values).take(pa.array(places, mask=places < 0))


def _equal(one: pa.Array, other: pd.Series) -> NDArray[np.bool_]:
    return pc.equal(one, arrow_of(other)).fill_null(False).to_numpy(zero_copy_only=False)


def _is_blank(texts: pd.Series) -> NDArray[np.bool_]:
    return pc.equal(pc.utf8_trim_whitespace(arrow_of(texts)), "").fill_null(True).to_numpy(zero_copy_only=False)


def _lengths(texts: pd.Series) -> NDArray[np.int64]:
    """Return the number of characters of each text; 0 for a missing one."""
    return pc.utf8_length(arrow_of(texts)).fill_null(0).to_numpy().astype(np.int64)


def _matches(texts: pd.Series, pattern: str) -> NDArray[np.bool_]:
    return pc.match_substring_regex(arrow_of(texts), pattern).fill_null(False).to_numpy(zero_copy_only=False)
