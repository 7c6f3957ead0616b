"""The admin routes: the archive's state and reports, rollback, feedback, near-duplicates. They have a key of their own."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Path, Query, Request
from fastapi.responses import FileResponse, Response

from serving.api.admin_schemas import (
    ArchiveAnswer,
    DecideAnswer,
    DecideRequest,
    DuplicatesAnswer,
    FeedbackListAnswer,
    FindRequest,
    FreezeAnswer,
    Nothing,
    RollbackAnswer,
    RollbackRequest,
    StateAnswer,
)
from serving.api.duplicate_search import Finding, Found
from serving.api.jobs import Jobs
from serving.api.routes import THUMBNAIL_HEADERS, body_of, refusals
from serving.api.saved import Saved
from serving.api.suggestions import Suggesting
from serving.api.tags import Tagging
from serving.engine import Engine
from serving.http.bodies import read_body
from serving.inputs.media import VideoGone, find_media
from vidseek.actions import feedback
from vidseek.archive import ALIAS, Archive
from vidseek.reports.overview import overview, report_file
from vidseek_media.errors import ArtifactError, InputRejected
from vidseek_retrieval.dedup.decisions import Decisions, decide_rows, key_of, pair_of, read_decisions

MAX_SAID = 1000
REPORT_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:",
}


class LiveChanged(InputRejected):
    """Another collection is live than the one that was seen."""

    category = "live_changed"
    code = "live-changed"


class NothingBefore(InputRejected):
    """There is no collection to go back to, or none that the model can search."""

    category = "no_rollback"
    code = "no-rollback"


class ReportGone(InputRejected):
    """The report was not written yet."""

    category = "report_not_found"
    code = "report-not-found"


class Admin:
    """What the admin routes ask of an archive.

    Args:
        archive: Whose.
        engine: For its threads, and its decoders.
    """

    def __init__(self, archive: Archive, engine: Engine) -> None:
        self._archive = archive
        self._engine = engine
        self.finding = Finding(archive)
        self.jobs = Jobs(archive, engine)
        self.tagging = Tagging(archive, engine, self.jobs)
        self.suggesting = Suggesting(archive, engine)
        self.saved = Saved(archive, engine)

    async def overview(self) -> dict[str, Any]:
        """Return the archive's state."""
        return await self._engine.on_archive(lambda: overview(self._archive))

    async def roll_back(self, live: str) -> str:
        """Make the previous collection live in the place of `live`, and give its name.

        Raises:
            LiveChanged: another one is live.
            NothingBefore: there is none, or it is of another encoder_version than the bundle.
        """
        return await self._engine.on_archive(lambda: self._roll_back(live))

    async def said(self, limit: int) -> dict[str, Any]:
        """Feedback, the newest first."""
        said, _ = await self._engine.on_archive(lambda: feedback.read(self._archive.feedback))
        newest = sorted(said, key=lambda each: each.said_at, reverse=True)[:limit]
        names = ("query", "clip_id", "relevant", "said_at")
        return {"num": len(said), "said": [{name: getattr(each, name) for name in names} for each in newest]}

    async def freeze(self) -> dict[str, Any]:
        """Write feedback to its table."""
        table = self._archive.decisions / feedback.TABLE
        return asdict(await self._engine.on_archive(lambda: feedback.freeze(self._archive.feedback, table)))

    async def duplicates(self) -> dict[str, Any]:
        """Return the near-duplicates that were found, and the decisions."""
        found = await self._engine.on_archive(self.finding.last)
        decisions = await self._engine.on_archive(lambda: read_decisions(self._archive.decisions))
        state = "failed" if self.finding.problem else "found" if found else "never"
        return {
            "state": "running" if self.finding.is_running else state, "problem": self.finding.problem,
            "found_at": found.found_at if found else None, "collection": found.collection if found else None,
            "threshold": found.threshold if found else None, "revision": decisions.revision,
            "rows": _rows(found, decisions) if found else [],
        }

    async def decide(self, asked: DecideRequest) -> dict[str, Any]:
        """Write decisions down."""
        found = await self._engine.on_archive(self.finding.last)
        done = await self._engine.on_archive(lambda: decide_rows(
            self._archive.decisions, revision=asked.revision, found=found.rows if found else (), accept=asked.accept,
            refuse=asked.refuse,
        ))
        return {"revision": done.revision, "num_accepted": len(done.accepted), "num_refused": len(done.refused)}

    async def still(self, video_id: str, at_ms: int) -> bytes:
        """Return a JPEG of a video's frame at a time in ms.

        Raises:
            VideoGone, MediaGone: it is not there.
        """
        uri = await self._engine.on_archive(lambda: self._uri_of(video_id))
        media = await self._engine.on_archive(lambda: find_media(self._archive.source, uri))
        return await self._engine.still(media, at_ms)

    async def report(self, name: str) -> FilePath:
        """Return the file of a report. Raises ReportGone."""
        path = await self._engine.on_archive(lambda: report_file(self._archive, name))
        if path is None:
            raise ReportGone(f"the report {name} was not written yet", remedy="Run `dvc repro`")
        return path

    def close(self) -> None:
        """Stop what runs."""
        self.finding.close()

    def _roll_back(self, live: str) -> str:
        from vidseek_retrieval.index.aliases import require_published, rollback  # pandas: the service starts without it

        backend = self._archive.backend()
        alias = require_published(backend, ALIAS)
        if alias.collection != live:
            raise LiveChanged(f"live is {alias.collection}, not {live}", remedy="Look at what is live again")
        if not alias.previous:
            raise NothingBefore(f"{ALIAS!r} has no earlier collection", remedy="Publish what you want live")
        version = (overview(self._archive)["model"] or {}).get("encoder_version")
        if not alias.previous[0].startswith(f"clips-{version}-"):
            raise NothingBefore(
                f"{alias.previous[0]} was made by another model than the one in models/encoder ({version})",
                remedy="Bring the model back first (`git checkout` of dvc.lock, then `dvc checkout models/encoder`), and "
                       "`vidseek index rollback`",
            )
        return rollback(backend)

    def _uri_of(self, video_id: str) -> str:
        import pyarrow.parquet as pq

        path = self._archive.ingest / "videos.parquet"
        try:
            rows = pq.read_table(path, columns=["uris"], filters=[("video_id", "=", video_id)]).to_pylist()
        except (OSError, ValueError) as error:
            raise ArtifactError(
                f"{path} cannot be read: {error}", code="json-unreadable", remedy="Run `dvc repro`",
            ) from error
        if not rows:
            raise VideoGone.of(video_id)
        return str(rows[0]["uris"][0])


def add_admin(app: FastAPI, admin: Admin) -> None:
    """Put the admin routes into `app`."""
    _add_archive(app, admin)
    _add_feedback(app, admin)
    _add_duplicates(app, admin)


def _add_archive(app: FastAPI, admin: Admin) -> None:
    @app.get("/v1/admin/archive", response_model=ArchiveAnswer)
    async def archive() -> dict[str, Any]:
        """Return what was ingested and rejected, gates, figures, collections and model."""
        return await admin.overview()

    @app.get(
        "/v1/admin/reports/{name}", response_class=Response,
        responses={200: {"content": {"text/html": {}}}, **refusals(404, 422)},
    )
    async def report(
        name: Annotated[Literal["pairs", "embeddings", "report"], Path(description="As /v1/admin/archive lists them.")]
    ) -> Response:
        """Return a report page of a stage; it is self-contained."""
        return FileResponse(await admin.report(name), media_type="text/html", headers=REPORT_HEADERS)

    @app.post(
        "/v1/admin/rollback", response_model=RollbackAnswer, openapi_extra=body_of(RollbackRequest),
        responses=refusals(409, 413, 415, 422),
    )
    async def roll_back(request: Request) -> dict[str, str]:
        """Make the collection live that was live before."""
        asked = await read_body(request, RollbackRequest)
        return {"live": await admin.roll_back(asked.live)}

    @app.get(
        "/v1/admin/videos/{video_id}/still", response_class=Response,
        responses={200: {"content": {"image/jpeg": {}}}, **refusals(404, 422, 504)},
    )
    async def still(
        video_id: Annotated[str, Path(pattern="^[0-9a-f]{32}$")],
        at_ms: Annotated[int, Query(ge=0, le=2**40, description="From the begin of the video.")] = 0,
    ) -> Response:
        """Return the frame of a video at a time."""
        return Response(await admin.still(video_id, at_ms), media_type="image/jpeg", headers=THUMBNAIL_HEADERS)


def _add_feedback(app: FastAPI, admin: Admin) -> None:
    @app.get("/v1/admin/feedback", response_model=FeedbackListAnswer, responses=refusals(422))
    async def said(limit: Annotated[int, Query(ge=1, le=MAX_SAID)] = 200) -> dict[str, Any]:
        """Return feedback on hits, newest first."""
        return await admin.said(limit)

    @app.post(
        "/v1/admin/feedback/freeze", response_model=FreezeAnswer, openapi_extra=body_of(Nothing),
        responses=refusals(413, 415, 422),
    )
    async def freeze(request: Request) -> dict[str, Any]:
        """Write what was said to data/decisions/feedback.parquet, as `vidseek feedback freeze` does."""
        await read_body(request, Nothing)
        return await admin.freeze()


def _add_duplicates(app: FastAPI, admin: Admin) -> None:
    @app.get("/v1/admin/duplicates", response_model=DuplicatesAnswer)
    async def duplicates() -> dict[str, Any]:
        """Return the near-duplicates that were found, with the decision on each."""
        return await admin.duplicates()

    @app.post(
        "/v1/admin/duplicates/find", response_model=StateAnswer, status_code=202, openapi_extra=body_of(FindRequest),
        responses=refusals(409, 413, 415, 422),
    )
    async def find(request: Request) -> dict[str, str]:
        """Begin to look for near-duplicates, as `vidseek dedup` does; GET /v1/admin/duplicates says when it has ended."""
        asked = await read_body(request, FindRequest)
        admin.finding.start(precision=asked.precision)
        return {"state": "running"}

    @app.post(
        "/v1/admin/duplicates/decide", response_model=DecideAnswer, openapi_extra=body_of(DecideRequest),
        responses=refusals(409, 413, 415, 422),
    )
    async def decide(request: Request) -> dict[str, Any]:
        """Write down which rows are duplicates and which are none, for the next publish."""
        return await admin.decide(await read_body(request, DecideRequest))


def _rows(found: Found, decisions: Decisions) -> list[dict[str, Any]]:
    accepted = {key_of(row) for row in decisions.accepted}
    return [
        {
            "key": key_of(row), **asdict(row), "uri": found.uris[row.video_id], "of_uri": found.uris[row.duplicate_of],
            "reason": found.reasons.get(key_of(row)),
            "decision": "accepted" if key_of(row) in accepted
                        else "refused" if pair_of(row) in decisions.refused else "open",
        }
        for row in found.rows
    ]
