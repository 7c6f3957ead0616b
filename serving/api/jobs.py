"""The routes of videos and jobs, behind the admin key. They queue and look; `vidseek watch` does the work."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import Annotated, Any

from fastapi import FastAPI, Path, Query, Request
from fastapi.responses import JSONResponse

from serving.api.admin_schemas import Nothing
from serving.api.job_schemas import (
    JOB_ID_PATTERN,
    VIDEO_ID_PATTERN,
    AddRequest,
    JobAnswer,
    JobsAnswer,
    RemovalAnswer,
    State,
)
from serving.api.routes import body_of, refusals
from serving.engine import Engine
from serving.http.bodies import read_body
from serving.http.clients import Busy
from serving.inputs.media import VideoGone
from serving.inputs.video_upload import PART, receive_video
from vidseek.actions.forget import decide_forgotten, plan_forget
from vidseek.archive import Archive
from vidseek.jobs.intake import Destination, check_name, require_room
from vidseek.jobs.job_table import Job, new_id
from vidseek.jobs.submitting import JobQueueFull, Queue
from vidseek.jobs.watching import watcher_of
from vidseek_media.errors import ArtifactError, InputRejected
from vidseek_media.forgotten import read_forgotten
from vidseek_media.output import disk_fault

MAX_JOBS = 200
JobInPath = Annotated[str, Path(pattern=JOB_ID_PATTERN, description="As POST /v1/videos gives it.")]


class NoRoom(ArtifactError):
    """The disk has no room for the upload."""

    category = "no_room"
    code = "no-room"


class Jobs:
    """What these routes ask of an archive.

    Args:
        archive: The archive.
        engine: For its threads.
    """

    def __init__(self, archive: Archive, engine: Engine) -> None:
        self.archive = archive
        self.engine = engine
        self.queue = Queue(archive)
        self._num_uploads = 0

    @property
    def max_upload_bytes(self) -> int:
        """Of one video."""
        return self.queue.settings.max_upload_mb * 2**20

    async def upload(self, request: Request) -> Job:
        """Receive a video, and queue it.

        Raises:
            Busy: as many uploads are under way as may be.
            NoRoom: the disk does not take it.
            InputRejected: it is no form with one file that may be a video, or too large.
            ConfigError: no video can be put into the source.
            JobQueueFull: too many jobs wait.
        """
        if self._num_uploads >= self.queue.settings.max_uploads:
            raise Busy(
                f"{self._num_uploads} videos are being uploaded already", code="too-many-uploads",
                remedy="Try again when one of them has ended",
            )
        self._num_uploads += 1
        try:
            return await self._receive(request)
        except OSError as error:
            fault = disk_fault(error)
            if fault is None:
                raise
            raise NoRoom(fault.message, remedy=fault.remedy) from error
        finally:
            self._num_uploads -= 1

    async def publish(self, name: str) -> None:
        """Queue a run that publishes what people decided, unless one waits. A full queue has runs enough.

        Args:
            name: Of the job, for people.
        """
        await self.engine.in_thread(lambda: self._publish(name))

    async def _receive(self, request: Request) -> Job:
        await self.engine.in_thread(lambda: Destination.of(self.archive, self.queue.settings))
        await self.engine.in_thread(self.queue.has_room)
        declared = request.headers.get("content-length", "")
        size = int(declared) if declared.isdigit() and len(declared) < 20 else 0
        await self.engine.in_thread(lambda: require_room(self.archive.jobs, size))
        job_id = new_id()
        path = self.queue.file_of(job_id)
        name = await receive_video(request, path, max_bytes=self.max_upload_bytes, check_name=check_name)
        # The file has a job, or is removed, also where nobody waits for the answer any more.
        queued = asyncio.ensure_future(
            self.engine.in_thread(lambda: self.queue.add_copy(job_id, name, origin="upload"))
        )
        return await asyncio.shield(queued)

    def _publish(self, name: str) -> None:
        if not self.queue.table.queued(limit=1):  # any run publishes
            with suppress(JobQueueFull):
                self.queue.add_scan(name)


def add_jobs(app: FastAPI, jobs: Jobs) -> None:
    """Put the routes of videos and jobs into `app`."""
    _add_videos(app, jobs)
    _add_listing(app, jobs)


def _add_videos(app: FastAPI, jobs: Jobs) -> None:
    engine, queue = jobs.engine, jobs.queue
    file = {"type": "string", "format": "binary", "description": f"Of at most {jobs.max_upload_bytes // 2**20} MB."}
    body = body_of(AddRequest)
    body["requestBody"]["content"]["multipart/form-data"] = {
        "schema": {"type": "object", "properties": {PART: file}, "required": [PART], "additionalProperties": False},
    }

    @app.post(
        "/v1/videos", response_model=JobAnswer, status_code=202, openapi_extra=body,
        responses=refusals(400, 413, 415, 422, 504, 507),
    )
    async def add_video(request: Request) -> JSONResponse:
        """Add a video: the part `file` of a form, or JSON with the URL of an allowed host or a path inside the source.

        The answer is a job; GET /v1/jobs/{id} says how far it is. It is searched when `vidseek watch` has worked on it.
        """
        kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
        if kind == "application/json":
            asked = await read_body(request, AddRequest)
            add = partial(queue.add_path, asked.path or "") if asked.url is None else partial(queue.add_url, asked.url)
            job = await engine.in_thread(add)
        else:
            job = await jobs.upload(request)
        return JSONResponse(job.to_json(), status_code=202, headers={"Location": f"/v1/jobs/{job.id}"})

    @app.delete("/v1/videos/{video_id}", response_model=RemovalAnswer, status_code=202, responses=refusals(404, 422, 504))
    async def remove_video(
        video_id: Annotated[str, Path(pattern=VIDEO_ID_PATTERN, description="As hits name it.")]
    ) -> dict[str, Any]:
        """Forget a video, as `vidseek forget` does: no answer shows it from now on. Its file in the source stays."""
        return await engine.in_thread(lambda: _forget(jobs.archive, queue, video_id))


def _forget(archive: Archive, queue: Queue, video_id: str) -> dict[str, Any]:
    """Decide that a video is forgotten: from now on no answer shows it. A job does the rest.

    Raises:
        VideoGone: there is none, or it is forgotten already.
    """
    try:
        if video_id in read_forgotten(archive.decisions).video_ids:
            raise VideoGone(f"{video_id} is forgotten already", remedy="`vidseek forget --undo` takes it back")
        plan = plan_forget(archive, video_id)
    except (ArtifactError, VideoGone):
        raise
    except InputRejected as error:
        raise VideoGone.of(video_id) from error
    decide_forgotten(archive, plan)
    job = queue.add_removal(video_id, plan.video.uris[0])
    kept = list(plan.video.uris) if plan.kept else []
    return {"video_id": video_id, "forgotten": True, "kept": kept, "job": job.to_json()}


def _add_listing(app: FastAPI, jobs: Jobs) -> None:
    engine, table = jobs.engine, jobs.queue.table

    @app.get("/v1/jobs", response_model=JobsAnswer, responses=refusals(422, 504))
    async def list_jobs(
        limit: Annotated[int, Query(ge=1, le=MAX_JOBS)] = 50,
        offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
        state: Annotated[list[State] | None, Query(description="Only these; repeat it for several.", max_length=6)] = None,
    ) -> dict[str, Any]:
        """Return the jobs, the newest first. Those that ended long ago are no longer kept."""
        found, total = await engine.in_thread(lambda: table.list_jobs(limit=limit, offset=offset, states=state or []))
        is_watched = await engine.in_thread(lambda: watcher_of(jobs.archive)) is not None
        return {
            "jobs": [job.to_json() for job in found], "total": total, "is_watched": is_watched,
            "max_upload_mb": jobs.queue.settings.max_upload_mb,
        }

    @app.get("/v1/jobs/{job_id}", response_model=JobAnswer, responses=refusals(404, 422, 504))
    async def get_job(job_id: JobInPath) -> dict[str, Any]:
        """Return one job: its state, its progress, what came of it."""
        return (await engine.in_thread(lambda: table.get(job_id))).to_json()

    @app.post(
        "/v1/jobs/{job_id}/retry", response_model=JobAnswer, status_code=202, openapi_extra=body_of(Nothing),
        responses=refusals(404, 409, 413, 415, 422, 504),
    )
    async def retry_job(job_id: JobInPath, request: Request) -> dict[str, Any]:
        """Put a job that failed, died or was cancelled into the queue again."""
        await read_body(request, Nothing)
        return (await engine.in_thread(lambda: table.retry(job_id))).to_json()

    @app.delete("/v1/jobs/{job_id}", response_model=JobAnswer, responses=refusals(404, 409, 422, 504))
    async def cancel_job(job_id: JobInPath) -> dict[str, Any]:
        """Take a job that waits out of the queue. One that runs goes on to its end."""
        return (await engine.in_thread(lambda: table.cancel(job_id))).to_json()
