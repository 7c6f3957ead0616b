"""The common form of all error answers, from errors of vidseek or of the framework."""

from __future__ import annotations

import http as http_module
import json
import logging
import uuid
from collections.abc import Mapping
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from serving.api.admin import LiveChanged, NothingBefore, ReportGone
from serving.api.duplicate_search import AlreadyRunning
from serving.api.jobs import NoRoom
from serving.batcher import QueueFull
from serving.engine import CollectionGone
from serving.http.bodies import NotUnderstood, WrongType
from serving.http.body_limit import BodyTooLarge, BodyTooSlow
from serving.http.clients import Busy
from serving.http.guard import AdminOff, CrossSite, KeyNeeded, KeyWrong
from serving.http.safe_headers import SAFE_HEADERS
from serving.inputs.media import ClipGone, MediaGone, RangeNotThere, VideoGone
from serving.model import ModelGone
from vidseek.jobs.job_table import JobGone, JobState
from vidseek.jobs.submitting import JobQueueFull
from vidseek.saved.saved_table import SavedGone
from vidseek_media.errors import ConfigError, GateFailed, InputRejected, VidseekError
from vidseek_media.output import disk_fault
from vidseek_retrieval.dedup.decisions import DecisionsChanged

STATUS: Mapping[type[VidseekError], int] = {
    KeyWrong: 401,
    KeyNeeded: 403,
    AdminOff: 403,
    CrossSite: 403,
    CollectionGone: 404,
    ClipGone: 404,
    ModelGone: 404,
    MediaGone: 404,
    ReportGone: 404,
    VideoGone: 404,
    JobGone: 404,
    SavedGone: 404,
    LiveChanged: 409,
    NothingBefore: 409,
    AlreadyRunning: 409,
    DecisionsChanged: 409,
    JobState: 409,
    BodyTooSlow: 408,
    BodyTooLarge: 413,
    WrongType: 415,
    RangeNotThere: 416,
    InputRejected: 422,
    ConfigError: 500,
    GateFailed: 500,
    NoRoom: 507,
    VidseekError: 503,
}
"""The first kind that fits; ArtifactError, DeviceError and ServiceError are a service that is not ready, or busy."""

RETRY_AFTER_SECONDS = 1

log = logging.getLogger("vidseek.serving")


def answer_error(error: VidseekError, request_id: str) -> Response:
    """Convert an error of vidseek into an answer; faults of the service are logged too.

    Args:
        error: The error.
        request_id: Id of the request, in the answer and the log.
    """
    status = next(status for kind, status in STATUS.items() if isinstance(error, kind))
    if status >= 500 and not isinstance(error, QueueFull | JobQueueFull | Busy):
        log.error("%s: %s", error.category, error, extra={"request_id": request_id})
    answer = _answer(request_id, status, error.category, error.message, error.remedy, fault=error.code)
    if status == 401:
        answer.headers["WWW-Authenticate"] = "Bearer"
    return answer


async def ours(request: Request, error: Exception) -> Response:
    """Convert an error that vidseek raises on purpose into an answer."""
    assert isinstance(error, VidseekError)
    return answer_error(error, _id_of(request))


async def invalid(request: Request, error: Exception) -> Response:
    """Convert the framework's refusal of a path into an answer."""
    assert isinstance(error, RequestValidationError | ValidationError)
    return answer_error(NotUnderstood.of(error), _id_of(request))


async def timeout(request: Request, error: Exception) -> Response:
    """Answer that the request took longer than the settings allow."""
    return _answer(_id_of(request), 504, "timeout", "it took too long", "Try again, or with less at once")


async def http(request: Request, error: Exception) -> Response:
    """Convert an error of the framework into an answer: unknown route, wrong method, or broken multipart body."""
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_request")
    message = str(error.detail).lower()
    answer = _answer(_id_of(request), error.status_code, code, message, "/openapi.json lists the routes")
    answer.headers.update(error.headers or {})
    return answer


async def gone(request: Request, error: Exception) -> Response:
    """Answer a client that disconnected while it sent its body."""
    return Response(status_code=499)  # nobody reads it


async def unexpected(request: Request, error: Exception) -> Response:
    """Answer an internal fault without details, which are in the log with the request id; a full disk is reported."""
    answer = await disk(request, error)
    answer.headers["X-Request-Id"] = _id_of(request)  # this is made outside of what puts it into the others
    return answer


async def disk(request: Request, error: Exception) -> Response:
    """Answer that the disk is full; any other error is an internal fault."""
    if (fault := disk_fault(error)) is not None:
        return answer_error(fault, _id_of(request))
    log.error("internal_error", exc_info=error, extra={"request_id": _id_of(request)})
    message = "something went wrong on our side"
    return _answer(_id_of(request), 500, "internal_error", message, "The log has the request id")


def _id_of(request: Request) -> str:
    return str(getattr(request.state, "request_id", ""))


def raw_answer(status: int, code: str, message: str, remedy: str) -> bytes:
    """Return an error as the bytes of an HTTP answer that closes the connection, before there is a request.

    Args:
        status: HTTP status.
        code: The API's code.
        message: What came, and what was wanted.
        remedy: What the user can do.
    """
    request_id = uuid.uuid4().hex
    body = json.dumps(_body(request_id, code, message, remedy)).encode()
    lines = [
        f"HTTP/1.1 {status} {http_module.HTTPStatus(status).phrase}",
        "content-type: application/json", f"content-length: {len(body)}", f"x-request-id: {request_id}", "connection: close",
        *(f"{name}: {value}" for name, value in SAFE_HEADERS.items()),
        *([f"retry-after: {RETRY_AFTER_SECONDS}"] if status == 503 else []),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def _answer(request_id: str, status: int, code: str, message: str, remedy: str, *, fault: str = "") -> Response:
    return JSONResponse(
        _body(request_id, code, message, remedy, fault=fault),
        status_code=status,
        headers={"Retry-After": str(RETRY_AFTER_SECONDS)} if status == 503 else None,
    )


def _body(request_id: str, code: str, message: str, remedy: str, *, fault: str = "") -> dict[str, Any]:
    """`code` is an error's category, `fault` its code; what is no error of ours has only the one."""
    told = {"code": code, "fault": fault or code.replace("_", "-"), "message": message, "remedy": remedy}
    return {"error": told, "request_id": request_id}
