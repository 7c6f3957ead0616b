"""The routes of saved searches. Reading wants the key, saving and removing the admin key."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import FastAPI, Path, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from serving.api.request_schemas import Filters, SearchField
from serving.api.routes import body_of, refusals
from serving.api.schema_fields import Asked, ClipId, OneOrMore, Text, Url
from serving.engine import Engine
from serving.http.bodies import read_body
from vidseek.archive import Archive
from vidseek.saved.feeds import MEDIA_TYPES, atom_feed, json_feed
from vidseek.saved.listing import list_saved, newest, newest_moments
from vidseek.saved.records import SavedQuery
from vidseek.saved.saved_table import SavedTable
from vidseek.saved.saving import MAX_NAME, save_search

SHOWN = 10
"""Moments of each search in the list of all."""
SavedInPath = Annotated[str, Path(pattern=r"^[0-9a-f]{20}$", description="As GET /v1/saved has it.")]


class SaveRequest(Asked):
    """A search to save. Texts and clips are looked for together, as POST /v1/search does."""

    model_config = ConfigDict(
        validate_by_name=True, validate_by_alias=True, json_schema_extra={"examples": [
            {"text": "a crane lifts a container", "min_confidence": 0.3, "name": "cranes"},
            {"text": '"white van"', "in": ["speech", "ocr"], "webhook": "https://hooks.example/vidseek"},
        ]},
    )

    name: Annotated[str, Field(max_length=MAX_NAME)] = Field("", description="For people; the words by default.")
    text: OneOrMore[Text] = Field((), description="What to look for, in words.")
    clip_id: OneOrMore[ClipId] = Field((), description="A clip of the archive: more of this.")
    negative_text: OneOrMore[Text] = Field((), description="What moments shall not show, in words.")
    negative_clip_id: OneOrMore[ClipId] = Field((), description="A clip of the archive: less of this.")
    filters: Filters = Field(default_factory=dict, description="As of a search.")
    fields: OneOrMore[SearchField] = Field((), alias="in", description="What is looked at; by default all.")
    min_confidence: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="From which a moment counts; by default saved.min_confidence."
    )
    min_score: Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)] | None = Field(
        None, description="The least score of a moment. A search by look that has no confidence must have it."
    )
    webhook: Url = Field("", description="Where new moments are sent: of a host in saved.webhook_hosts.")

    @property
    def query(self) -> SavedQuery:
        """Return what is looked for."""
        return SavedQuery(
            self.text, self.negative_text, self.clip_id, self.negative_clip_id, self.filters, self.fields,
            self.min_confidence, self.min_score,
        )


class SavedFault(BaseModel):
    """Why a saved search could not be asked of the last publish. It is asked of the same videos after the next."""

    code: str
    message: str


class SavedAnswer(BaseModel):
    """A saved search."""

    id: str
    name: str
    query: dict[str, Any] = Field(description="As it was saved, with its least confidence.")
    webhook_host: str | None
    created_at: str
    looked_at: str | None = Field(description="Of the last publish that was looked at.")
    error: SavedFault | None
    num_before: int = Field(description="Moments of the archive that it found when it was saved, up to 10,000.")
    num_new: int
    moments: list[dict[str, Any]] = Field(description=(
        "What was new, the newest first: hits with `id`, `found_at`, `delivery` (null without a webhook; pending, sending, "
        "sent, failed, unknown), `attempts` and `told`."
    ))


class SavedListAnswer(BaseModel):
    """All saved searches, the oldest first, each with its newest moments."""

    saved: list[SavedAnswer]


class RemovedAnswer(BaseModel):
    """The saved search that was removed."""

    removed: str


def add_saved(app: FastAPI, archive: Archive, engine: Engine) -> None:
    """Put the routes of this module into `app`.

    Args:
        app: The application.
        archive: The archive.
        engine: For its threads, its model and its index.
    """

    @app.post(
        "/v1/saved", response_model=SavedAnswer, status_code=201, openapi_extra=body_of(SaveRequest),
        responses=refusals(400, 413, 415, 422, 504),
    )
    async def save(request: Request) -> dict[str, Any]:
        """Save a search: what later publishes bring for it is listed, in its feed, and sent to its webhook."""
        asked = await read_body(request, SaveRequest)
        saved = await engine.live.answer(lambda opened: engine.in_thread(
            lambda: save_search(archive, asked.query, opened.searcher, name=asked.name, webhook=asked.webhook)
        ))
        return await engine.in_thread(lambda: newest(archive, saved.id))

    @app.get("/v1/saved", response_model=SavedListAnswer)
    async def list_all() -> dict[str, Any]:
        """List the saved searches, each with its newest moments."""
        return {"saved": await engine.in_thread(lambda: list_saved(archive, most=SHOWN))}

    @app.get("/v1/saved/{saved_id}", response_model=SavedAnswer, responses=refusals(404, 422))
    async def look(saved_id: SavedInPath) -> dict[str, Any]:
        """Return a saved search with what was new for it."""
        return await engine.in_thread(lambda: newest(archive, saved_id))

    @app.delete("/v1/saved/{saved_id}", response_model=RemovedAnswer, responses=refusals(404, 422))
    async def remove(saved_id: SavedInPath) -> dict[str, Any]:
        """Remove a saved search with its moments; what was not sent yet is not sent any more."""
        await engine.in_thread(lambda: SavedTable(archive.saved).remove(saved_id))
        return {"removed": saved_id}

    feed_of: Any = {200: {"content": {each: {} for each in MEDIA_TYPES.values()}}}

    @app.get("/v1/saved/{saved_id}/feed.{kind}", response_class=Response, responses={**feed_of, **refusals(404, 422)})
    async def feed(saved_id: SavedInPath, kind: Literal["atom", "json"]) -> Response:
        """Return what was new as a feed: Atom, or JSON Feed 1.1."""
        search, moments = await engine.in_thread(lambda: newest_moments(archive, saved_id))
        if kind == "json":
            return JSONResponse(json_feed(search, moments), media_type=MEDIA_TYPES[kind])
        return Response(atom_feed(search, moments), media_type=MEDIA_TYPES[kind])
