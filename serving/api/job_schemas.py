"""What goes in and comes out of the routes of videos and jobs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from serving.api.schema_fields import Answer, Asked

State = Literal["queued", "running", "done", "rejected", "failed", "cancelled"]
JOB_ID_PATTERN = "^[0-9a-f]{20}$"
VIDEO_ID_PATTERN = "^[0-9a-f]{32}$"


class AddRequest(Asked):
    """A video that lies elsewhere: exactly one of both."""

    url: Annotated[str | None, Field(max_length=2000, description="Of a host in serve.url_hosts.")] = None
    path: Annotated[str | None, Field(max_length=4000, description="Of a file that lies below ingest.source.")] = None

    @model_validator(mode="after")
    def _one(self) -> AddRequest:
        if (self.url is None) == (self.path is None):
            raise ValueError("wanted exactly one of url and path")
        return self


class JobFault(Answer):
    """Why a job was rejected or failed."""

    code: str = Field(description="Of docs/errors.md.")
    message: str
    remedy: str


class JobAnswer(Answer):
    """A job: a video that is added or taken out, or a run because the source changed."""

    id: str
    kind: Literal["add", "remove", "scan"]
    origin: str
    name: str
    state: State
    stage: str = Field(description="That runs now, or ran last; empty before the first.")
    progress: float = Field(description="0 to 1.")
    attempts: int
    uri: str | None = Field(description="Its name in the source.")
    video_id: str | None
    num_clips: int | None = Field(description="In which it is searched.")
    duplicate: bool = Field(description="Whether its bytes were in the archive already.")
    note: str = Field(description="What is left to do, or what the file equals.")
    error: JobFault | None
    created_at: str
    started_at: str | None
    finished_at: str | None
    seconds: float | None


class JobsAnswer(Answer):
    """Jobs, the newest first."""

    jobs: list[JobAnswer]
    total: int = Field(description="Of all that are kept, in the states that were asked for.")
    max_upload_mb: int = Field(description="Of one video.")
    is_watched: bool = Field(description="Whether `vidseek watch` runs; without it nobody works on the queue.")


class RemovalAnswer(Answer):
    """No answer shows the video any more. The job takes it out of tables, frames and index."""

    video_id: str
    forgotten: Literal[True]
    kept: list[str] = Field(description="Files of the source that stay where they are: vidseek removes none of yours.")
    job: JobAnswer
