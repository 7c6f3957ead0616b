"""The routes, and what the OpenAPI document says of them."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, Path, Request
from fastapi.responses import FileResponse, Response
from pydantic import BaseModel

from serving.api.answer_schemas import (
    ClipAnswer,
    EmbedAnswer,
    EmbeddingsAnswer,
    ErrorAnswer,
    FeedbackAnswer,
    Health,
    OneEmbedding,
    Readiness,
    SearchAnswer,
    Usage,
)
from serving.api.request_schemas import (
    EmbedClips,
    EmbeddingsRequest,
    EmbedImages,
    EmbedTexts,
    FeedbackRequest,
    SearchRequest,
)
from serving.api.schema_fields import CLIP_ID_PATTERN, LIMITS
from serving.engine import Engine
from serving.http.bodies import MAX_FILES, QUERY, read_body
from serving.inputs.media import takes_range
from serving.model import QueryVector
from vidseek.settings import ServeSettings
from vidseek_media.errors import InputRejected
from vidseek_media.fields.declared import declared_values
from vidseek_media.urls import bare_url

Body = TypeVar("Body", bound=BaseModel)
ClipInPath = Annotated[str, Path(pattern=CLIP_ID_PATTERN, description="A clip of the archive, as hits name it.")]
THUMBNAIL_HEADERS = {"Cache-Control": "private, max-age=86400"}

SEARCH_FILES = {"image": True, "clip": True, "negative_image": True, "not_image": True}


def add_routes(app: FastAPI, engine: Engine) -> None:
    """Put every route of the service into `app`."""
    _add_health(app, engine)
    _add_search(app, engine)
    _add_embed(app, engine)
    _add_embeddings(app, engine)
    _add_clips(app, engine)


def _add_health(app: FastAPI, engine: Engine) -> None:
    @app.get("/healthz", response_model=Health)
    async def healthz() -> dict[str, str]:
        """Answer that the process is up."""
        return {"status": "ok"}

    app.get("/livez", response_model=Health, include_in_schema=False)(healthz)  # where BentoML's own would be

    @app.get("/readyz", response_model=Readiness)
    async def readyz() -> dict[str, str]:
        """Answer whether searches are answered now."""
        return {"status": "ready", **await engine.ready()}

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Figures for Prometheus."""
        return Response(await engine.metrics_page(), media_type="text/plain; version=0.0.4")


def _add_search(app: FastAPI, engine: Engine) -> None:
    max_json = engine.settings.max_json_mb * 2**20

    @app.post(
        "/v1/search", response_model=SearchAnswer, openapi_extra=body_of(SearchRequest, SEARCH_FILES),
        responses=refusals(400, 404, 413, 415, 422, 504),
    )
    async def search(request: Request) -> dict[str, Any]:
        """Find moments by words, by a picture, by a clip, or by a clip of the archive."""
        return await engine.search(await read_body(request, SearchRequest, files=SEARCH_FILES, max_json_bytes=max_json))

    @app.post(
        "/v1/feedback", response_model=FeedbackAnswer, status_code=201, openapi_extra=body_of(FeedbackRequest),
        responses=refusals(404, 413, 415, 422, 504),
    )
    async def feedback(request: Request) -> dict[str, str]:
        """Say whether a clip is what a query was looking for."""
        asked = await read_body(request, FeedbackRequest)
        return {"said_at": await engine.record_feedback(query=asked.query, clip_id=asked.clip_id, relevant=asked.relevant)}


def _add_embed(app: FastAPI, engine: Engine) -> None:
    max_json = engine.settings.max_json_mb * 2**20
    common = refusals(400, 413, 415, 422, 504)

    @app.post(
        "/v1/embed/text", response_model=EmbedAnswer, openapi_extra=body_of(EmbedTexts),
        responses=refusals(413, 415, 422, 504),
    )
    async def embed_text(request: Request) -> Response:
        """Return a unit vector for each text."""
        asked = await read_body(request, EmbedTexts)
        return _vectors(await engine.embed_texts(asked.texts), asked.encoding)

    images = {"images": True}

    @app.post("/v1/embed/image", response_model=EmbedAnswer, openapi_extra=body_of(EmbedImages, images), responses=common)
    async def embed_image(request: Request) -> Response:
        """Return a unit vector for each picture."""
        asked = await read_body(request, EmbedImages, files=images, max_json_bytes=max_json)
        return _vectors(await engine.embed_images(asked.images), asked.encoding)

    clips = {"clips": True}

    @app.post("/v1/embed/video", response_model=EmbedAnswer, openapi_extra=body_of(EmbedClips, clips), responses=common)
    async def embed_video(request: Request) -> Response:
        """Return a unit vector for each video file, taken as one clip."""
        asked = await read_body(request, EmbedClips, files=clips, max_json_bytes=max_json)
        return _vectors(await engine.embed_clips(asked.clips), asked.encoding)


def _add_embeddings(app: FastAPI, engine: Engine) -> None:
    @app.post(
        "/v1/embeddings", response_model=EmbeddingsAnswer, openapi_extra=body_of(EmbeddingsRequest),
        responses=refusals(404, 413, 415, 422, 504),
    )
    async def embeddings(request: Request) -> Response:
        """Return a unit vector for each text, as clients of OpenAI's API ask for it."""
        asked = await read_body(request, EmbeddingsRequest)
        vectors, num_tokens = await engine.embed_for(asked.model, asked.input)
        dimension = len(vectors[0].values)
        if asked.dimensions not in (None, dimension):
            raise InputRejected(
                f"{asked.dimensions} dimensions were asked for", code="dimensions-not-offered",
                remedy=f"The model has {dimension}",
            )
        answer = EmbeddingsAnswer.model_construct(
            data=[
                OneEmbedding.model_construct(index=index, embedding=_written(each, asked.encoding_format))
                for index, each in enumerate(vectors)
            ],
            model=vectors[0].encoder_version, usage=Usage(prompt_tokens=num_tokens, total_tokens=num_tokens),
        )
        return Response(answer.model_dump_json(), media_type="application/json")


def _add_clips(app: FastAPI, engine: Engine) -> None:
    @app.get("/v1/clips/{clip_id}", response_model=ClipAnswer, responses=refusals(404, 422, 504))
    async def clip(clip_id: ClipInPath) -> dict[str, Any]:
        """Return the payload of a clip in the live index."""
        point, declared = await engine.clip(clip_id), await engine.browse(lambda live: live.metadata.declared)
        own = f"/v1/clips/{point.clip_id}"
        known = {name: point.payload.get(name) for name in ClipAnswer.model_fields}
        known["uri"] = bare_url(str(known["uri"] or ""))
        known["fields"] = declared_values(point.payload, declared)
        return {**known, "clip_id": point.clip_id, "thumbnail_url": f"{own}/thumbnail", "media_url": f"{own}/media"}

    @app.get(
        "/v1/clips/{clip_id}/thumbnail", response_class=Response,
        responses={200: {"content": {"image/jpeg": {}}}, **refusals(404, 422, 504)},
    )
    async def thumbnail(clip_id: ClipInPath) -> Response:
        """Return the frame in the middle of a clip."""
        content = await engine.strip(clip_id)
        return Response(content, media_type="image/jpeg", headers=THUMBNAIL_HEADERS)

    async def media(request: Request, clip_id: ClipInPath) -> Response:
        """Return the video file of a clip, or one range of its bytes."""
        found = await engine.media(clip_id)
        status = found.path.stat()
        if not takes_range(request.headers.get("range"), status.st_size):
            request.scope["headers"] = [each for each in request.scope["headers"] if each[0] != b"range"]
        # A browser that is shown something else than a video must not run it as a page.
        safe = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'"}
        return FileResponse(found.path, media_type=found.content_type, stat_result=status, headers=safe)

    answers: dict[int | str, dict[str, Any]] = {
        200: {"content": {"video/*": {}}}, 206: {"description": "The range", "content": {"video/*": {}}},
        **refusals(404, 416, 422, 504),
    }
    app.get("/v1/clips/{clip_id}/media", response_class=Response, responses=answers)(media)
    app.head("/v1/clips/{clip_id}/media", response_class=Response, responses=answers, include_in_schema=False)(media)


def _vectors(vectors: Sequence[QueryVector], encoding: str) -> Response:
    """Return an EmbedAnswer; written by hand, since validating thousands of numbers takes longer than encoding a text."""
    first = vectors[0]
    rows: list[Any] = [_written(each, encoding) for each in vectors]
    answer = EmbedAnswer.model_construct(
        encoder_version=first.encoder_version, variant=first.variant, dimension=len(first.values), embeddings=rows
    )
    return Response(answer.model_dump_json(), media_type="application/json")


def _written(vector: QueryVector, encoding: str) -> list[float] | str:
    if encoding == "base64":
        return base64.b64encode(vector.values.astype("<f4").tobytes()).decode()
    numbers: list[float] = vector.values.tolist()
    return numbers


_REFUSALS = {
    400: "The form's body is broken",
    408: "The body came too slowly",
    404: "There is no such clip, video, job, file or collection (any more)",
    409: "It is not as it was seen: look again",
    413: "The body is too large",
    415: "The body is of a type that is not taken",
    416: "The file has no such bytes",
    422: "The request cannot be used",
    504: "It took too long",
    507: "The disk has no room for it",
}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI description of error statuses; a route with a body (413) may also time out while reading it
    (408).
    """
    all_of_them = sorted({*statuses, *((408,) if 413 in statuses else ())})
    return {status: {"model": ErrorAnswer, "description": _REFUSALS[status]} for status in all_of_them}


def body_of(kind: type[BaseModel], files: Mapping[str, bool] | None = None) -> dict[str, Any]:
    """Return the OpenAPI description of a body: JSON, or a form if there are files."""
    schema = kind.model_json_schema()
    content: dict[str, Any] = {"application/json": {"schema": schema}}
    if files:
        file = {"type": "string", "format": "binary"}
        parts: dict[str, Any] = {
            name: {"type": "array", "items": file, "maxItems": MAX_FILES} if is_list else file
            for name, is_list in files.items()
        }
        for name in files:
            if schema["properties"][name].get("deprecated"):
                parts[name]["deprecated"] = True
        parts[QUERY] = {
            "type": "string", "contentMediaType": "application/json",
            "description": f"The same JSON, without {' and '.join(files)}.",
        }
        content["multipart/form-data"] = {"schema": {"type": "object", "properties": parts}}
    return {"requestBody": {"required": True, "content": content}}


def state_limits(document: Any, settings: ServeSettings) -> Any:
    """Replace the limits in the OpenAPI document by those of `settings`."""
    if isinstance(document, list):
        return [state_limits(each, settings) for each in document]
    if not isinstance(document, dict):
        return document
    stated = {name: state_limits(value, settings) for name, value in document.items() if name != LIMITS}
    if isinstance(limit := document.get(LIMITS), str):
        stated["maxItems" if "maxItems" in document else "maxLength"] = getattr(settings, limit)
    return stated
