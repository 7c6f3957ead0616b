"""What goes in and comes out of the admin routes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from serving.api.schema_fields import COLLECTION_PATTERN, ClipId

_ANSWER = ConfigDict(extra="forbid")
_ASKED = ConfigDict(extra="forbid", frozen=True)
RowKey = Annotated[str, Field(max_length=200, description="The key of a row of GET /v1/admin/duplicates.")]


class Videos(BaseModel):
    """What was ingested."""

    model_config = _ANSWER

    num: int
    total_ms: int


class RejectedRow(BaseModel):
    """One input that was refused."""

    model_config = _ANSWER

    id: str
    reason: str
    code: str = Field(description="The kind of fault, for programs: docs/errors.md.")
    kind: str = Field(description="What was refused: a file, a clip, a caption, ...")
    retryable: bool = Field(description="Whether another run may mend it with nothing changed.")


class RejectedOf(BaseModel):
    """What a stage refused."""

    model_config = _ANSWER

    stage: str
    num: int
    first: list[RejectedRow] = Field(description="The first fifty.")


class Gate(BaseModel):
    """What a gate found."""

    model_config = _ANSWER

    name: str
    passed: bool
    failures: list[str] = Field(description="What was wanted, and how many rows are not so.")


class Interval(BaseModel):
    """A figure with its 95 % interval."""

    model_config = _ANSWER

    value: float
    low: float | None = Field(description="None where too few videos were asked about to say: see `note`.")
    high: float | None
    num_groups: int | None = Field(None, description="Groups of videos that the queries come from.")
    note: str | None = Field(None, description="Why there is no interval.")


class Figure(BaseModel):
    """R@1 on the test queries of a gallery."""

    model_config = _ANSWER

    gallery: str
    num_queries: int
    base: Interval
    adapted: Interval


class Proof(BaseModel):
    """What the adapter was proven with."""

    model_config = _ANSWER

    num_queries: int
    num_groups: int = Field(description="Of videos.")
    times_used: float = Field(description="How often these rows had been used for a proof before.")
    alpha: float | None = Field(description="The level of the last proof; None where nothing new was put to the proof.")


class Model(BaseModel):
    """The encoder bundle."""

    model_config = _ANSWER

    encoder_version: str
    backbone: str
    variants: list[str]
    setting: str | None = Field(description="Of the adapter that won, or base; None where nothing was selected.")
    proof: Proof | None = Field(description="None where nothing was selected, or by an earlier version.")


class CollectionInfo(BaseModel):
    """A published collection."""

    model_config = _ANSWER

    name: str
    num_clips: int
    made_at: str
    encoder_version: str
    is_live: bool
    is_kept: bool = Field(description="For a rollback.")
    is_base: bool = Field(description="Of `vidseek base`.")


class ArchiveAnswer(BaseModel):
    """The archive's state; what has not run yet is null or empty."""

    model_config = _ANSWER

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


class RollbackRequest(BaseModel):
    """Make the collection live that was live before."""

    model_config = _ASKED

    live: Annotated[str, Field(
        pattern=COLLECTION_PATTERN, description="What is live now, as was seen: where it is another one, nothing is done."
    )]


class RollbackAnswer(BaseModel):
    """The alias moved."""

    model_config = _ANSWER

    live: str


class Said(BaseModel):
    """What somebody said of a clip for a query."""

    model_config = _ANSWER

    query: str
    clip_id: ClipId
    relevant: bool
    said_at: str


class FeedbackListAnswer(BaseModel):
    """What was said, the newest first."""

    model_config = _ANSWER

    num: int = Field(description="Of all.")
    said: list[Said]


class Nothing(BaseModel):
    """An empty object: that a body must be sent as JSON keeps other pages of a browser from asking."""

    model_config = _ASKED


class FreezeAnswer(BaseModel):
    """What was written to data/decisions/feedback.parquet."""

    model_config = _ANSWER

    num_said: int
    num_rows: int
    num_broken: int


class FindRequest(BaseModel):
    """Look for near-duplicates."""

    model_config = _ASKED

    precision: Annotated[float, Field(ge=0.5, le=0.999, allow_inf_nan=False)] = 0.95


class ThresholdInfo(BaseModel):
    """What it is worth that these are called equal."""

    model_config = _ANSWER

    precision: float = Field(description="Expected of the pairs that were found here.")
    recall: float = Field(description="Of made copies.")


class DuplicateReason(BaseModel):
    """How the two videos were aligned, and what differs."""

    model_config = _ANSWER

    speed: float
    offset_ms: int = Field(description="`time * speed + offset_ms` of the video is the time of the one that it duplicates.")
    is_mirrored: bool
    likeness: float = Field(description="Mean similarity of the aligned frames, up to 1.")
    motion: float = Field(description="Correlation of what moves in them, up to 1.")
    differences: list[str]
    moments_ms: list[tuple[int, int]] = Field(description="Times of the two at which the same is to be seen.")


class DuplicateRow(BaseModel):
    """A span that shows what a span of another video does."""

    model_config = _ANSWER

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


class DuplicatesAnswer(BaseModel):
    """What was found by the last search for near-duplicates, and what was decided of it."""

    model_config = _ANSWER

    state: Literal["never", "running", "failed", "found"]
    problem: str = Field(description="Why it failed, or empty.")
    found_at: str | None
    collection: str | None
    threshold: ThresholdInfo | None
    revision: str = Field(description="Of all decisions; goes into POST /v1/admin/duplicates/decide.")
    rows: list[DuplicateRow]


class StateAnswer(BaseModel):
    """It has begun."""

    model_config = _ANSWER

    state: Literal["running"]


class DecideRequest(BaseModel):
    """Which of the rows that were found are duplicates, and which are none."""

    model_config = _ASKED

    revision: Annotated[str, Field(pattern="^[0-9a-f]{16}$", description="As was seen; another one is refused.")]
    accept: Annotated[list[RowKey], Field(max_length=10_000, fail_fast=True)] = []
    refuse: Annotated[list[RowKey], Field(max_length=10_000, fail_fast=True)] = []


class DecideAnswer(BaseModel):
    """What is decided now. Searches follow after the next publish."""

    model_config = _ANSWER

    revision: str
    num_accepted: int
    num_refused: int = Field(description="Pairs of videos.")
