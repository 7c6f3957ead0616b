"""The routes for editors: moments as a timeline, and a moment as a video file."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import quote

from fastapi import FastAPI, Query, Request
from fastapi.responses import Response
from pydantic import ConfigDict, Field

from serving.api.routes import ClipInPath, body_of, refusals
from serving.api.schema_fields import MAX_ITEMS, Answer, Asked, ClipId
from serving.engine import Engine
from serving.http.bodies import read_body
from serving.inputs.media import ClipGone
from vidseek.edit.events import Handles, LeftOut, Moment, Places, events_of, notes_of
from vidseek.edit.export import FORMATS, export_text
from vidseek_media.editing.located_spans import LocatedSpans
from vidseek_media.errors import InputRejected
from vidseek_media.fields.declared import DeclaredFields, declared_values
from vidseek_media.urls import bare_url

if TYPE_CHECKING:
    from vidseek_retrieval.index.backend import Point

MAX_MS = 10**9
AT_ONCE = 4
"""Videos whose packets are read at once for one export."""
Milliseconds = Annotated[int, Field(ge=0, le=MAX_MS)]


class ExportedMoment(Asked):
    """A moment of a timeline."""

    clip_id: ClipId
    start_ms: Milliseconds | None = Field(None, description="Of the hit; the clip's own without it.")
    end_ms: Milliseconds | None = Field(None, description="Exclusive.")


class ExportRequest(Asked):
    """Moments to write for an editor."""

    model_config = ConfigDict(json_schema_extra={"examples": [{
        "format": "otio", "moments": [{"clip_id": "1157d38b-4691-5e61-ba0c-ad2b11241343", "start_ms": 0, "end_ms": 1500}],
        "handles": "12f",
    }]})

    format: Literal["otio", "edl", "fcpxml", "csv", "json"]
    moments: Annotated[tuple[ExportedMoment, ...], Field(max_length=MAX_ITEMS)] = Field(
        description="In the order of the timeline; at most serve.max_moments."
    )
    handles: Annotated[str, Field(max_length=20)] = Field("0f", description="Kept around each moment: 12f or 0.5s.")
    name: Annotated[str, Field(max_length=200)] = Field("vidseek", description="Of the timeline.")
    media_root: Annotated[str, Field(max_length=1000)] = Field(
        "", description="The source's folder on the editor's machine. Without it, files are named as from that folder."
    )


class MomentLeftOut(Answer):
    """A moment that is not in the timeline."""

    clip_id: str
    reason: str
    code: str


class ExportAnswer(Answer):
    """A file for an editor, and what is to be known of it."""

    file_name: str
    media_type: str
    content: str
    num_events: int
    notes: list[str] = Field(description="Of timecode and frame rates.")
    left_out: list[MomentLeftOut] = Field(description="Moments whose clips or files are gone, or were forgotten.")


def add_editing(app: FastAPI, engine: Engine) -> None:
    """Put the routes of this module into `app`."""

    @app.post(
        "/v1/export", response_model=ExportAnswer, openapi_extra=body_of(ExportRequest),
        responses=refusals(413, 415, 422, 504),
    )
    async def export(request: Request) -> dict[str, Any]:
        """Write moments as a timeline (OpenTimelineIO, EDL, FCPXML) or a table."""
        return await _exported(engine, await read_body(request, ExportRequest))

    @app.get(
        "/v1/clips/{clip_id}/moment", response_class=Response,
        responses={200: {"content": {"video/mp4": {}}}, **refusals(404, 422, 504)},
    )
    async def moment(
        clip_id: ClipInPath,
        start_ms: Annotated[int | None, Query(ge=0, le=MAX_MS, description="Of the hit; the clip's own without it.")] = None,
        end_ms: Annotated[int | None, Query(ge=0, le=MAX_MS, description="Exclusive.")] = None,
    ) -> Response:
        """Return a moment of the clip's video as an MP4 file, exact to the frame, with its sound."""
        point = await engine.clip(clip_id)
        start, end = _span(point.payload, start_ms, end_ms)
        longest = engine.settings.max_moment_seconds
        if end - start > 1000 * longest:
            raise InputRejected(
                f"the moment has {(end - start) / 1000:g} s, at most {longest:g} are given", code="moment-too-long",
                remedy="Ask for less, or run `vidseek clip` where the archive is",
            )
        content = await engine.moment(await engine.file_of(point), (start, end))
        stem = PurePosixPath(bare_url(str(point.payload.get("uri", "")))).stem
        name = quote(f"{stem}_{start}-{end}.mp4", safe="")
        headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{name}", "X-Content-Type-Options": "nosniff"}
        return Response(content, media_type="video/mp4", headers=headers)


def _span(payload: Mapping[str, Any], start_ms: int | None, end_ms: int | None) -> tuple[int, int]:
    start = int(payload["start_ms"]) if start_ms is None else start_ms
    end = int(payload["end_ms"]) if end_ms is None else end_ms
    if start >= end:
        raise InputRejected(
            f"the moment is [{start}, {end}) ms", code="span-outside", remedy="Take start_ms and end_ms of a hit",
        )
    return start, end


async def _exported(engine: Engine, asked: ExportRequest) -> dict[str, Any]:
    handles, most = Handles.parse(asked.handles), engine.settings.max_moments
    if len(asked.moments) > most:
        raise InputRejected(
            f"{len(asked.moments)} moments are asked for, at most {most} are exported", code="too-many-events",
            remedy="Export them in parts",
        )
    points = await engine.points([each.clip_id for each in asked.moments])
    declared = await engine.browse(lambda live: live.metadata.declared)
    moments, left_out = _moments_of(asked.moments, points, declared)
    located, faults = await _located(engine, moments, points)
    left_out += [LeftOut(each, *faults[each.video_id]) for each in moments if each.video_id in faults]
    kept = [each for each in moments if each.video_id in located]
    if left_out and not kept:
        raise InputRejected(
            f"no moment can be exported: {left_out[0].reason}", code="nothing-to-export", remedy="Take hits of a new search",
        )
    places = Places(root=asked.media_root)
    urls = {each.video_id: places.url_of(each.uri, None) for each in reversed(kept)}
    events = events_of(kept, located, urls, handles)
    content = await engine.in_thread(lambda: export_text(events, asked.format, asked.name))
    return {
        "file_name": f"{_file_stem(asked.name)}.{asked.format}", "media_type": FORMATS[asked.format].media_type,
        "content": content, "num_events": len(events), "notes": notes_of(events),
        "left_out": [{"clip_id": each.moment.clip_id, "reason": each.reason, "code": each.code} for each in left_out],
    }


def _file_stem(name: str) -> str:
    return "".join(char if char.isalnum() or char in " -_" else "_" for char in name).strip()[:80] or "vidseek"


def _moments_of(
    asked: Sequence[ExportedMoment], points: Mapping[str, Point], declared: DeclaredFields
) -> tuple[list[Moment], list[LeftOut]]:
    moments: list[Moment] = []
    left_out: list[LeftOut] = []
    for each in asked:
        point = points.get(each.clip_id)
        if point is None:
            reason = f"the live index has no clip {each.clip_id} (any more)"
            left_out.append(LeftOut(Moment("", "", 0, 0, clip_id=each.clip_id), reason, ClipGone.code))
            continue
        payload = point.payload
        moments.append(Moment(
            str(payload["video_id"]), str(payload.get("uri", "")), *_span(payload, each.start_ms, each.end_ms),
            title=str(payload.get("title") or ""), clip_id=point.clip_id,
            fields=declared_values(payload, declared),
        ))
    return moments, left_out


async def _located(
    engine: Engine, moments: Sequence[Moment], points: Mapping[str, Point]
) -> tuple[dict[str, LocatedSpans], dict[str, tuple[str, str]]]:
    """Return the times of each video, and of those that cannot be read the reason and its code."""
    located: dict[str, LocatedSpans] = {}
    faults: dict[str, tuple[str, str]] = {}
    turn = asyncio.Semaphore(AT_ONCE)
    by_video: dict[str, list[Moment]] = {}
    for each in moments:
        by_video.setdefault(each.video_id, []).append(each)

    async def read(video_id: str, of_video: Sequence[Moment]) -> None:
        async with turn:
            try:
                media = await engine.file_of(points[of_video[0].clip_id])
                located[video_id] = await engine.locate(media, [(each.start_ms, each.end_ms) for each in of_video])
            except InputRejected as error:
                faults[video_id] = f"{bare_url(of_video[0].uri)}: {error.message}", error.code

    await asyncio.gather(*(read(video_id, of_video) for video_id, of_video in by_video.items()))
    return located, faults
