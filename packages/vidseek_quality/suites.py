"""The suites as readable code: each expectation beside the words that a failing run will say.

Importing this module imports Great Expectations, which costs seconds: only `gates` does, when a gate runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import great_expectations.expectations as gxe
import pandas as pd
from great_expectations.expectations.expectation import Expectation

from vidseek_quality.thresholds import EmbeddingThresholds, PairThresholds

SPLITS = ("train", "validation", "test")

LENGTH_TOLERANCE = 1e-3
"""fp16 rounding of a unit vector of 1,024 values stays under this."""


@dataclass(frozen=True)
class Table:
    """One table to validate: its rows, the column that names an offending row, and what is expected of it."""

    name: str
    rows: pd.DataFrame
    id_column: str | None
    """None for a table of one row, whose columns are measures of the whole."""
    expectations: list[Expectation]


def video_expectations() -> list[Expectation]:
    """What each row of the videos table (`gates.video_rows`) must be."""
    return [
        gxe.ExpectColumnValuesToBeUnique(column="video_id", notes="a video is listed once"),
        gxe.ExpectColumnValuesToMatchRegex(
            column="video_id", regex=r"^[0-9a-f]{32}$", notes="a video_id is 32 hex digits"
        ),
        gxe.ExpectColumnValuesToBeBetween(column="duration_ms", min_value=1, notes="a video has a duration"),
        gxe.ExpectColumnValuesToBeBetween(column="num_uris", min_value=1, notes="a video has a file"),
        gxe.ExpectColumnValuesToBeInSet(
            column="num_shared_uris", value_set=[0], notes="a file is of one video"
        ),
    ]


def clip_expectations() -> list[Expectation]:
    """What each row of the clips table, joined to its video (`gates.clip_rows`), must be."""
    return [
        gxe.ExpectColumnValuesToBeUnique(column="clip_id", notes="a clip is listed once"),
        gxe.ExpectColumnValuesToNotBeNull(column="duration_ms", notes="every clip's video is in the videos table"),
        gxe.ExpectColumnValuesToBeBetween(column="start_ms", min_value=0, notes="a clip begins at 0 ms or later"),
        _all_true("is_span", "a clip ends after it begins"),
        _all_true("is_inside", "a clip ends with its video or before"),
        _all_true("has_own_id", "a clip_id is that of the clip's video and span"),
    ]


def caption_expectations(wanted: PairThresholds) -> list[Expectation]:
    """What each row of the captions table, joined to its clip (`gates.caption_rows`), must be."""
    return [
        _all_true("has_video", "every caption's video is in the videos table"),
        _all_true("has_clip", "every caption's clip is in the clips table, and of its video"),
        gxe.ExpectColumnValuesToMatchRegex(column="text", regex=r"\S", notes="no caption of any clip is blank"),
        gxe.ExpectColumnValueLengthsToBeBetween(
            column="text", max_value=wanted.max_caption_length,
            notes=f"captions of any clip have at most {wanted.max_caption_length} characters",
        ),
        gxe.ExpectColumnValuesToBeBetween(column="cost_usd", min_value=0, notes="a caption costs nothing or more"),
    ]


def pair_expectations(wanted: PairThresholds, *, judge_groups: bool) -> list[Expectation]:
    """What each row of the pairs table, joined to its clip (`gates.pair_rows`), must be."""
    shortest, longest = wanted.min_caption_length, wanted.max_caption_length
    expectations = [
        gxe.ExpectColumnValuesToNotBeNull(column="clip_id", notes="every pair has a clip_id"),
        gxe.ExpectColumnValuesToNotBeNull(column="clip_video_id", notes="every pair's clip_id is in the clips table"),
        _all_true("same_video", "every pair names the video of its clip"),
        gxe.ExpectCompoundColumnsToBeUnique(
            column_list=["clip_id", "caption"], notes="a clip has the same caption only once"
        ),
        gxe.ExpectColumnValuesToNotBeNull(column="caption", notes="every pair has a caption"),
        gxe.ExpectColumnValuesToMatchRegex(column="caption", regex=r"\S", notes="no caption is blank"),
        gxe.ExpectColumnValueLengthsToBeBetween(
            column="caption", min_value=shortest, max_value=longest,
            notes=f"captions have {shortest} to {longest} characters",
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="caption_share", max_value=wanted.max_caption_share,
            notes=f"no caption is written over and over: each is at most {wanted.max_caption_share} of all",
        ),
        gxe.ExpectColumnValuesToNotBeNull(column="split", notes="every pair has a split"),
        gxe.ExpectColumnValuesToBeInSet(column="split", value_set=list(SPLITS), notes=f"split is one of {SPLITS}"),
        gxe.ExpectColumnValuesToBeInSet(
            column="num_splits_of_video", value_set=[1], notes="no leak: all pairs of a video are in one split"
        ),
    ]
    if judge_groups:
        expectations.append(gxe.ExpectColumnValuesToBeInSet(
            column="num_splits_of_group", value_set=[1],
            notes="no leak: near-duplicates, and clips of one longer video, are in one split",
        ))
    if wanted.one_caption_per_clip:
        expectations.append(gxe.ExpectColumnValuesToBeUnique(column="clip_id", notes="a clip has one caption"))
    return expectations


def pair_measures(wanted: PairThresholds) -> list[Expectation]:
    """What the pairs table as a whole must be."""
    return [_at_most("rejected_share", wanted.max_rejected_share, "captions and pairs that were rejected")]


def embedding_expectations(*, encoder_version: str, dimension: int, variant: str) -> list[Expectation]:
    """What each embedding, joined to its frames (`gates.embedding_rows`), must be."""
    return [
        gxe.ExpectColumnValuesToBeUnique(column="clip_id", notes="a clip is embedded once"),
        _all_true("has_frames", "every embedding is of a clip that frames.parquet lists"),
        _all_true("has_embedding", "every clip that frames.parquet lists is embedded"),
        gxe.ExpectColumnValuesToBeInSet(
            column="num_values", value_set=[dimension], notes=f"an embedding has {dimension} values"
        ),
        gxe.ExpectColumnValuesToBeInSet(
            column="num_not_finite", value_set=[0], notes="no value is NaN or infinite"
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="length", min_value=1 - LENGTH_TOLERANCE, max_value=1 + LENGTH_TOLERANCE,
            notes=f"embeddings have unit length, within {LENGTH_TOLERANCE}",
        ),
        gxe.ExpectColumnValuesToBeInSet(
            column="encoder_version", value_set=[encoder_version],
            notes=f"every embedding is of encoder_version {encoder_version}",
        ),
        gxe.ExpectColumnValuesToBeInSet(
            column="variant", value_set=[variant], notes=f"every embedding is written by variant {variant}"
        ),
    ]


def embedding_measures(wanted: EmbeddingThresholds, *, judge_collapse: bool) -> list[Expectation]:
    """What the embeddings as a whole must be; `judge_collapse` is false where there are too few to tell."""
    some = gxe.ExpectColumnMinToBeBetween(column="num_embeddings", min_value=1, notes="there is at least one embedding")
    if not judge_collapse:
        return [some]
    lowest = wanted.min_effective_rank
    return [
        some,
        _at_most("mean_cosine", wanted.max_mean_cosine, "no collapse: mean cosine between clips"),
        gxe.ExpectColumnMinToBeBetween(
            column="effective_rank", min_value=lowest, notes=f"no collapse: effective rank is at least {lowest}"
        ),
    ]


def _all_true(column: str, notes: str) -> Expectation:
    return gxe.ExpectColumnValuesToBeInSet(column=column, value_set=[True], notes=notes)


def _at_most(column: str, most: float, what: str) -> Expectation:
    return gxe.ExpectColumnMaxToBeBetween(column=column, max_value=most, notes=f"{what}: at most {most}")
