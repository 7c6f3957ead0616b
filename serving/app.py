"""The routes: a FastAPI application that knows nothing of BentoML, so that tests can ask it directly."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from serving.batcher import QueueFull
from serving.engine import CollectionGone, Engine
from serving.middleware import BodyLimit, BodyTooLarge, RequestId
from serving.schemas import ErrorAnswer, Health, Readiness, SearchAnswer, SearchRequest
from vidseek_media.errors import ConfigError, GateFailed, InputRejected, VidseekError

STATUS: Mapping[type[VidseekError], int] = {
    BodyTooLarge: 413,
    CollectionGone: 404,
    InputRejected: 422,
    ConfigError: 500,
    GateFailed: 500,
    VidseekError: 503,
}
"""The first kind that fits; ArtifactError, DeviceError and ServiceError are a service that is not ready, or busy."""

RETRY_AFTER_SECONDS = 1
PARTS = ("query", "image", "clip")

log = logging.getLogger("vidseek.serving")


class NotUnderstood(InputRejected):
    """The request is not of the shape that the OpenAPI document shows."""

    code = "invalid_request"


class WrongType(InputRejected):
    """The body is neither JSON nor multipart."""

    code = "unsupported_media_type"


def create_app(engine: Engine) -> FastAPI:
    """The application over `engine`, which whoever calls this opens and closes."""
    app = FastAPI(
        title="vidseek",
        summary="Search a video archive by meaning.",
        docs_url=None,  # their pages load scripts from public servers
        redoc_url=None,
        responses={status: {"model": ErrorAnswer, "description": text} for status, text in (
            (404, "There is no such route, or no such collection any more"),
            (422, "The request cannot be used"),
            (500, "A fault of ours"),
            (503, "Busy or not ready; Retry-After says when to come again"),
        )},
    )
    app.add_middleware(BodyLimit, max_bytes=engine.settings.max_body_mb * 2**20)
    app.add_middleware(RequestId)
    app.add_exception_handler(VidseekError, _ours)
    app.add_exception_handler(TimeoutError, _timeout)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _unexpected)
    _add_routes(app, engine)
    return app


def _add_routes(app: FastAPI, engine: Engine) -> None:
    @app.get("/healthz", response_model=Health)
    async def healthz() -> dict[str, str]:
        """The process is up."""
        return {"status": "ok"}

    @app.get("/readyz", response_model=Readiness)
    async def readyz() -> dict[str, str]:
        """A search would be answered now."""
        return {"status": "ready", **await engine.ready()}

    @app.post(
        "/v1/search",
        response_model=SearchAnswer,
        responses={
            413: {"model": ErrorAnswer, "description": "The body is too large"},
            415: {"model": ErrorAnswer, "description": "The body is neither JSON nor multipart"},
            504: {"model": ErrorAnswer, "description": "It took too long"},
        },
        openapi_extra={"requestBody": {"required": True, "content": {
            "application/json": {"schema": SearchRequest.model_json_schema()},
            "multipart/form-data": {"schema": {
                "type": "object",
                "properties": {
                    "query": {"type": "string", "contentMediaType": "application/json",
                              "description": "The same JSON, without image and clip."},
                    "image": {"type": "string", "format": "binary"},
                    "clip": {"type": "string", "format": "binary"},
                },
            }},
        }}},
    )
    async def search(request: Request) -> dict[str, Any]:
        """Find moments by words, by a picture, or by a clip."""
        return await engine.search(await _read_request(request))


async def _read_request(request: Request) -> SearchRequest:
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind == "application/json":
        return _parsed(await request.body())
    if kind == "multipart/form-data":
        return await _read_parts(request)
    raise WrongType(
        f"the body is {kind or 'of no named type'}", remedy="Send application/json or multipart/form-data"
    )


async def _read_parts(request: Request) -> SearchRequest:
    """Part `query` with the JSON, parts `image` and `clip` with bytes."""
    async with request.form(max_files=len(PARTS), max_fields=len(PARTS)) as form:
        if unknown := sorted({name for name, _ in form.multi_items()} - set(PARTS)):
            raise NotUnderstood(f"there are parts {', '.join(unknown)}", remedy=f"Name them {', '.join(PARTS)}")
        parts = {name: await _bytes_of(part) for name, part in form.multi_items()}
    parsed = _parsed(parts.get("query", b"{}"))
    files: dict[str, Any] = {name: parts[name] for name in ("image", "clip") if name in parts}
    if clash := [name for name in files if getattr(parsed, name) is not None]:
        raise NotUnderstood(f"{clash[0]} is both in the query and a part", remedy="Send it once")
    return parsed.model_copy(update=files)


async def _bytes_of(part: UploadFile | str) -> bytes:
    return part.encode() if isinstance(part, str) else await part.read()


def _parsed(content: bytes) -> SearchRequest:
    try:
        return SearchRequest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        message = f"{place}: {first['msg']}" if place else first["msg"]
        raise NotUnderstood(message, remedy="/openapi.json shows what is taken") from error


def _answer(request: Request, status: int, code: str, message: str, remedy: str = "") -> Response:
    return JSONResponse(
        {"error": {"code": code, "message": message, "remedy": remedy},
         "request_id": getattr(request.state, "request_id", "")},
        status_code=status,
        headers={"Retry-After": str(RETRY_AFTER_SECONDS)} if status == 503 else None,
    )


async def _ours(request: Request, error: Exception) -> Response:
    assert isinstance(error, VidseekError)
    status = 415 if isinstance(error, WrongType) else next(s for kind, s in STATUS.items() if isinstance(error, kind))
    if status >= 500 and not isinstance(error, QueueFull):
        log.error("%s %s: %s", request.state.request_id, error.code, error)
    return _answer(request, status, error.code, error.message, error.remedy)


async def _timeout(request: Request, error: Exception) -> Response:
    return _answer(request, 504, "timeout", "the search took too long", "Try again, or with a shorter clip")


async def _http(request: Request, error: Exception) -> Response:
    """What the framework raises: no such route, a method that is not taken, a multipart body that is broken."""
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_request")
    answer = _answer(request, error.status_code, code, str(error.detail).lower(), "/openapi.json lists the routes")
    answer.headers.update(error.headers or {})
    return answer


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it


async def _unexpected(request: Request, error: Exception) -> Response:
    """A fault of ours: what it was is in the log (the framework raises it again after this), not in the answer."""
    return _answer(request, 500, "internal_error", "something went wrong on our side", "The log has the request id")
