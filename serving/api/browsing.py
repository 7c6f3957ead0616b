"""The routes that a page needs to let people browse: what can be filtered by, what lies around a clip, a strip of it."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from functools import partial
from typing import Annotated, Any

from fastapi import FastAPI, Query
from fastapi.responses import Response
from pydantic import Field

from serving.api.answer_schemas import ModelInfo, ModelsAnswer, TextSegment
from serving.api.routes import THUMBNAIL_HEADERS, ClipInPath, refusals
from serving.api.schema_fields import Answer
from serving.engine import LIVE, Engine
from serving.inputs.media import ClipGone
from vidseek_media.fields.declared import FieldKind
from vidseek_retrieval.confidence.calibration import is_current
from vidseek_retrieval.search.browse import MAX_NEIGHBOURS, ClipUnknown, FieldFacet, facets_of, neighbours, transcript

MAX_STRIP = 16


class FacetValue(Answer):
    """A value of a field."""

    value: str
    num_clips: int


class Lengths(Answer):
    """The shortest and the longest video."""

    least: int
    greatest: int


class Times(Answer):
    """The first and the last time that a video was published, RFC 3339."""

    least: str
    greatest: str


class OwnFieldFacet(Answer):
    """The values of a declared field."""

    kind: FieldKind
    many: bool = Field(description="Whether a clip has a list of values.")
    values: list[FacetValue] = Field(description="Of keywords and booleans, the most frequent first.")
    least: str | int | float | None = Field(description="Of numbers and times.")
    greatest: str | int | float | None


class FacetsAnswer(Answer):
    """By what a search over the live index can be narrowed."""

    collection: str
    num_clips: int
    channel: list[FacetValue] = Field(description="The most frequent first.")
    category: list[FacetValue]
    duration_ms: Lengths | None
    published_at: Times | None
    fields: dict[str, OwnFieldFacet] = Field(description="Declared fields that a filter may name.")


class Neighbour(Answer):
    """A clip of the same video."""

    clip_id: str
    start_ms: int
    end_ms: int


class NeighboursAnswer(Answer):
    """The clip and those before and after it, in order of time; none overlaps another."""

    video_id: str
    clips: list[Neighbour]


class TranscriptAnswer(Answer):
    """What is said and what stands on the screen in a video, in order of time."""

    video_id: str
    segments: list[TextSegment]


def _own_facet(facet: FieldFacet) -> dict[str, Any]:
    values = [{"value": value, "num_clips": num} for value, num in facet.values.items()]
    least, greatest = facet.bounds or (None, None)
    return {"kind": facet.kind, "many": facet.many, "values": values, "least": least, "greatest": greatest}


def add_browsing(app: FastAPI, engine: Engine) -> None:
    """Put the routes of this module into `app`."""

    @app.get("/v1/facets", response_model=FacetsAnswer, responses=refusals(504))
    async def facets() -> dict[str, Any]:
        """Return the values that the filters of a search can take."""
        name, num, found = await engine.browse(lambda live: (live.metadata.name, live.metadata.num_points, facets_of(live)))
        fields = {
            field: [{"value": value, "num_clips": num_clips} for value, num_clips in values.items()]
            for field, values in found.values.items()
        }
        ends = {
            field: None if span is None else {"least": span[0], "greatest": span[1]}
            for field, span in (("duration_ms", found.duration_ms), ("published_at", found.published_at))
        }
        own = {field: _own_facet(facet) for field, facet in found.fields.items()}
        return {"collection": name, "num_clips": num, **fields, **ends, "fields": own}

    @app.get("/v1/models", response_model=ModelsAnswer, responses=refusals(504))
    async def models() -> ModelsAnswer:
        """Return the models that a search may name, and whether the base's collection is up to date."""
        found = await engine.models()
        live = found[LIVE].content
        return ModelsAnswer(data=[
            ModelInfo(
                id=name, created=int(datetime.fromisoformat(metadata.created_at).timestamp()),
                encoder_version=metadata.encoder_version, collection=metadata.name, num_clips=metadata.num_points,
                has_confidence=metadata.calibration is not None and is_current(metadata.calibration),
                is_current=metadata.content == live if metadata.content and live else None,
            )
            for name, metadata in found.items()
        ])

    @app.get("/v1/clips/{clip_id}/neighbours", response_model=NeighboursAnswer, responses=refusals(404, 422, 504))
    async def around(
        clip_id: ClipInPath,
        num: Annotated[int, Query(ge=1, le=MAX_NEIGHBOURS, description="To either side, at most.")] = 3,
    ) -> dict[str, Any]:
        """Return the clips before and after a clip in its video."""
        await engine.clip(clip_id)  # what searches do not show has no neighbours either
        try:
            found = await engine.browse(partial(neighbours, clip_id=clip_id, num=num))
        except ClipUnknown as error:
            raise ClipGone(error.message, remedy=error.remedy) from error
        clips = [{"clip_id": each.clip_id, "start_ms": each.start_ms, "end_ms": each.end_ms} for each in found]
        return {"video_id": found[0].video_id, "clips": clips}

    @app.get("/v1/clips/{clip_id}/transcript", response_model=TranscriptAnswer, responses=refusals(404, 422, 504))
    async def said(clip_id: ClipInPath) -> dict[str, Any]:
        """Return what is said and what stands on the screen in a clip's video."""
        point = await engine.clip(clip_id)
        try:
            found = await engine.browse(partial(transcript, clip_id=clip_id))
        except ClipUnknown as error:
            raise ClipGone(error.message, remedy=error.remedy) from error
        return {"video_id": str(point.payload["video_id"]), "segments": [asdict(each) for each in found]}

    @app.get(
        "/v1/clips/{clip_id}/strip", response_class=Response,
        responses={200: {"content": {"image/jpeg": {}}}, **refusals(404, 422, 504)},
    )
    async def strip(
        clip_id: ClipInPath, frames: Annotated[int, Query(ge=1, le=MAX_STRIP)] = 4
    ) -> Response:
        """Frames of a clip side by side, at the centres of equal parts of it."""
        content = await engine.strip(clip_id, frames=frames)
        return Response(content, media_type="image/jpeg", headers=THUMBNAIL_HEADERS)
