"""The admin routes: the archive's state and reports, rollback, feedback, near-duplicates. They have a key of their own."""

from __future__ import annotations

from dataclasses import asdict
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
from serving.engine import Engine
from serving.http.bodies import read_body
from serving.inputs.media import VideoGone, find_media
from vidseek.actions import feedback
from vidseek.archive import ALIAS, Archive
from vidseek.reports.overview import overview, report_file
from vidseek_media.errors import ArtifactError, InputRejected, foreign
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
    """What the admin routes work on.

    Args:
        archive: The archive.
        engine: For its threads, its decoders and its index.
    """

    def __init__(self, archive: Archive, engine: Engine) -> None:
        self.archive = archive
        self.engine = engine
        self.finding = Finding(archive)
        self.jobs = Jobs(archive, engine)

    def close(self) -> None:
        """Stop what runs."""
        self.finding.close()


def add_admin(app: FastAPI, admin: Admin) -> None:
    """Put the admin routes into `app`."""
    _add_archive(app, admin)
    _add_feedback(app, admin)
    _add_duplicates(app, admin)


def _add_archive(app: FastAPI, admin: Admin) -> None:
    engine = admin.engine

    @app.get("/v1/admin/archive", response_model=ArchiveAnswer)
    async def archive() -> dict[str, Any]:
        """Return what was ingested and rejected, gates, figures, collections and model."""
        return await engine.on_archive(lambda: overview(admin.archive))

    @app.get(
        "/v1/admin/reports/{name}", response_class=Response,
        responses={200: {"content": {"text/html": {}}}, **refusals(404, 422)},
    )
    async def report(
        name: Annotated[Literal["pairs", "embeddings", "report"], Path(description="As /v1/admin/archive lists them.")]
    ) -> Response:
        """Return a report page of a stage; it is self-contained."""
        path = await engine.on_archive(lambda: report_file(admin.archive, name))
        if path is None:
            raise ReportGone(f"the report {name} was not written yet", remedy="Run `dvc repro`")
        return FileResponse(path, media_type="text/html", headers=REPORT_HEADERS)

    @app.post(
        "/v1/admin/rollback", response_model=RollbackAnswer, openapi_extra=body_of(RollbackRequest),
        responses=refusals(409, 413, 415, 422),
    )
    async def roll_back(request: Request) -> dict[str, str]:
        """Make the collection live that was live before."""
        asked = await read_body(request, RollbackRequest)
        return {"live": await engine.on_archive(lambda: _roll_back(admin.archive, asked.live))}

    @app.get(
        "/v1/admin/videos/{video_id}/still", response_class=Response,
        responses={200: {"content": {"image/jpeg": {}}}, **refusals(404, 422, 504)},
    )
    async def still(
        video_id: Annotated[str, Path(pattern="^[0-9a-f]{32}$")],
        at_ms: Annotated[int, Query(ge=0, le=2**40, description="From the begin of the video.")] = 0,
    ) -> Response:
        """Return the frame of a video at a time."""
        uri = await engine.on_archive(lambda: _uri_of(admin.archive, video_id))
        media = await engine.on_archive(lambda: find_media(admin.archive.source, uri))
        return Response(await engine.still(media, at_ms), media_type="image/jpeg", headers=THUMBNAIL_HEADERS)


def _roll_back(archive: Archive, live: str) -> str:
    """Make the previous collection live in the place of `live`, and give its name.

    Raises:
        LiveChanged: another one is live.
        NothingBefore: there is none, or it is of another encoder_version than the bundle.
    """
    from vidseek_retrieval.index.aliases import require_published, rollback  # pandas: the service starts without it

    backend = archive.backend()
    alias = require_published(backend, ALIAS)
    if alias.collection != live:
        raise LiveChanged(f"live is {alias.collection}, not {live}", remedy="Look at what is live again")
    if not alias.previous:
        raise NothingBefore(f"{ALIAS!r} has no earlier collection", remedy="Publish what you want live")
    version = (overview(archive)["model"] or {}).get("encoder_version")
    if not alias.previous[0].startswith(f"clips-{version}-"):
        raise NothingBefore(
            f"{alias.previous[0]} was made by another model than the one in models/encoder ({version})",
            remedy="Bring the model back first (`git checkout` of dvc.lock, then `dvc checkout models/encoder`), and "
                   "`vidseek index rollback`",
        )
    return rollback(backend)


def _uri_of(archive: Archive, video_id: str) -> str:
    import pyarrow.parquet as pq

    path = archive.ingest / "videos.parquet"
    fault = f"{path} cannot be read"
    with foreign(ArtifactError, fault, code="json-unreadable", remedy="Run `dvc repro`", errors=(OSError, ValueError)):
        rows = pq.read_table(path, columns=["uris"], filters=[("video_id", "=", video_id)]).to_pylist()
    if not rows:
        raise VideoGone.of(video_id)
    return str(rows[0]["uris"][0])


def _add_feedback(app: FastAPI, admin: Admin) -> None:
    engine, archive = admin.engine, admin.archive

    @app.get("/v1/admin/feedback", response_model=FeedbackListAnswer, responses=refusals(422))
    async def said(limit: Annotated[int, Query(ge=1, le=MAX_SAID)] = 200) -> dict[str, Any]:
        """Return feedback on hits, newest first."""
        every, _ = await engine.on_archive(lambda: feedback.read(archive.feedback))
        newest = sorted(every, key=lambda each: each.said_at, reverse=True)[:limit]
        names = ("query", "clip_id", "relevant", "said_at")
        return {"num": len(every), "said": [{name: getattr(each, name) for name in names} for each in newest]}

    @app.post(
        "/v1/admin/feedback/freeze", response_model=FreezeAnswer, openapi_extra=body_of(Nothing),
        responses=refusals(413, 415, 422),
    )
    async def freeze(request: Request) -> dict[str, Any]:
        """Write what was said to data/decisions/feedback.parquet, as `vidseek feedback freeze` does."""
        await read_body(request, Nothing)
        table = archive.decisions / feedback.TABLE
        return asdict(await engine.on_archive(lambda: feedback.freeze(archive.feedback, table)))


def _add_duplicates(app: FastAPI, admin: Admin) -> None:
    engine, finding, folder = admin.engine, admin.finding, admin.archive.decisions

    @app.get("/v1/admin/duplicates", response_model=DuplicatesAnswer)
    async def duplicates() -> dict[str, Any]:
        """Return the near-duplicates that were found, with the decision on each."""
        found = await engine.on_archive(finding.last)
        decisions = await engine.on_archive(lambda: read_decisions(folder))
        state = "failed" if finding.problem else "found" if found else "never"
        return {
            "state": "running" if finding.is_running else state, "problem": finding.problem,
            "found_at": found.found_at if found else None, "collection": found.collection if found else None,
            "threshold": found.threshold if found else None, "revision": decisions.revision,
            "rows": _rows(found, decisions) if found else [],
        }

    @app.post(
        "/v1/admin/duplicates/find", response_model=StateAnswer, status_code=202, openapi_extra=body_of(FindRequest),
        responses=refusals(409, 413, 415, 422),
    )
    async def find(request: Request) -> dict[str, str]:
        """Begin to look for near-duplicates, as `vidseek dedup` does; GET /v1/admin/duplicates says when it has ended."""
        asked = await read_body(request, FindRequest)
        finding.start(precision=asked.precision)
        return {"state": "running"}

    @app.post(
        "/v1/admin/duplicates/decide", response_model=DecideAnswer, openapi_extra=body_of(DecideRequest),
        responses=refusals(409, 413, 415, 422),
    )
    async def decide(request: Request) -> dict[str, Any]:
        """Write down which rows are duplicates and which are none, for the next publish."""
        asked = await read_body(request, DecideRequest)
        found = await engine.on_archive(finding.last)
        done = await engine.on_archive(lambda: decide_rows(
            folder, revision=asked.revision, found=found.rows if found else (), accept=asked.accept, refuse=asked.refuse,
        ))
        return {"revision": done.revision, "num_accepted": len(done.accepted), "num_refused": len(done.refused)}


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
