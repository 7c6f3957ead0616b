"""What goes in and comes out of the admin routes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from serving.api.schema_fields import COLLECTION_PATTERN, Answer, Asked, ClipId

RowKey = Annotated[str, Field(max_length=200, description="The key of a row of GET /v1/admin/duplicates.")]


class Videos(Answer):
    """What was ingested."""

    num: int
    total_ms: int


class RejectedRow(Answer):
    """One input that was refused."""

    id: str
    reason: str
    code: str = Field(description="The kind of fault, for programs: docs/errors.md.")
    kind: str = Field(description="What was refused: a file, a clip, a caption, ...")
    retryable: bool = Field(description="Whether another run may mend it with nothing changed.")


class RejectedOf(Answer):
    """What a stage refused."""

    stage: str
    num: int
    first: list[RejectedRow] = Field(description="The first fifty.")


class Gate(Answer):
    """What a gate found."""

    name: str
    passed: bool
    failures: list[str] = Field(description="What was wanted, and how many rows are not so.")


class Interval(Answer):
    """A figure with its 95 % interval."""

    value: float
    low: float | None = Field(description="None where too few videos were asked about to say: see `note`.")
    high: float | None
    num_groups: int | None = Field(None, description="Groups of videos that the queries come from.")
    note: str | None = Field(None, description="Why there is no interval.")


class Figure(Answer):
    """R@1 on the test queries of a gallery."""

    gallery: str
    num_queries: int
    base: Interval
    adapted: Interval


class Proof(Answer):
    """What the adapter was proven with."""

    num_queries: int
    num_groups: int = Field(description="Of videos.")
    times_used: float = Field(description="How often these rows had been used for a proof before.")
    alpha: float | None = Field(description="The level of the last proof; None where nothing new was put to the proof.")


class Model(Answer):
    """The encoder bundle."""

    encoder_version: str
    backbone: str
    variants: list[str]
    setting: str | None = Field(description="Of the adapter that won, or base; None where nothing was selected.")
    proof: Proof | None = Field(description="None where nothing was selected, or by an earlier version.")


class CollectionInfo(Answer):
    """A published collection."""

    name: str
    num_clips: int
    made_at: str
    encoder_version: str
    is_live: bool
    is_kept: bool = Field(description="For a rollback.")
    is_base: bool = Field(description="Of `vidseek base`.")


class ArchiveAnswer(Answer):
    """The archive's state; what has not run yet is null or empty."""

    videos: Videos | None
    num_clips: int | None
    rejected: list[RejectedOf]
    gates: list[Gate]
    figures: list[Figure]
    reports: list[str] = Field(description="For /v1/admin/reports/{name}.")
    model: Model | None
    live: str | None
    previous: str | None = Field(description="What a rollback makes live.")
    collections: list[CollectionInfo]


class RollbackRequest(Asked):
    """Make the collection live that was live before."""

    live: Annotated[str, Field(
        pattern=COLLECTION_PATTERN, description="What is live now, as was seen: where it is another one, nothing is done."
    )]


class RollbackAnswer(Answer):
    """The alias moved."""

    live: str


class Said(Answer):
    """What somebody said of a clip for a query."""

    query: str
    clip_id: ClipId
    relevant: bool
    said_at: str


class FeedbackListAnswer(Answer):
    """What was said, the newest first."""

    num: int = Field(description="Of all.")
    said: list[Said]


class Nothing(Asked):
    """An empty object: that a body must be sent as JSON keeps other pages of a browser from asking."""


class FreezeAnswer(Answer):
    """What was written to data/decisions/feedback.parquet."""

    num_said: int
    num_rows: int
    num_broken: int


class FindRequest(Asked):
    """Look for near-duplicates."""

    precision: Annotated[float, Field(ge=0.5, le=0.999, allow_inf_nan=False)] = 0.95


class ThresholdInfo(Answer):
    """What it is worth that these are called equal."""

    precision: float = Field(description="Expected of the pairs that were found here.")
    recall: float = Field(description="Of made copies.")


class DuplicateReason(Answer):
    """How the two videos were aligned, and what differs."""

    speed: float
    offset_ms: int = Field(description="`time * speed + offset_ms` of the video is the time of the one that it duplicates.")
    is_mirrored: bool
    likeness: float = Field(description="Mean similarity of the aligned frames, up to 1.")
    motion: float = Field(description="Correlation of what moves in them, up to 1.")
    differences: list[str]
    moments_ms: list[tuple[int, int]] = Field(description="Times of the two at which the same is to be seen.")


class DuplicateRow(Answer):
    """A span that shows what a span of another video does."""

    key: str
    video_id: str
    uri: str
    start_ms: int
    end_ms: int
    duplicate_of: str
    of_uri: str
    of_start_ms: int
    of_end_ms: int
    kind: Literal["whole", "part"]
    score: float
    reason: DuplicateReason | None = Field(description="None where they are joined through a third video.")
    decision: Literal["open", "accepted", "refused"]


class DuplicatesAnswer(Answer):
    """What was found by the last search for near-duplicates, and what was decided of it."""

    state: Literal["never", "running", "failed", "found"]
    problem: str = Field(description="Why it failed, or empty.")
    found_at: str | None
    collection: str | None
    threshold: ThresholdInfo | None
    revision: str = Field(description="Of all decisions; goes into POST /v1/admin/duplicates/decide.")
    rows: list[DuplicateRow]


class StateAnswer(Answer):
    """It has begun."""

    state: Literal["running"]


class DecideRequest(Asked):
    """Which of the rows that were found are duplicates, and which are none."""

    revision: Annotated[str, Field(pattern="^[0-9a-f]{16}$", description="As was seen; another one is refused.")]
    accept: Annotated[list[RowKey], Field(max_length=10_000, fail_fast=True)] = Field([])
    refuse: Annotated[list[RowKey], Field(max_length=10_000, fail_fast=True)] = Field([])


class DecideAnswer(Answer):
    """What is decided now. Searches follow after the next publish."""

    revision: str
    num_accepted: int
    num_refused: int = Field(description="Pairs of videos.")
