"""The FastAPI application, independent of BentoML, so that tests can call it directly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from serving.api import browsing, editing, routes
from serving.api.admin import Admin, add_admin
from serving.api.answer_schemas import ErrorAnswer
from serving.api.jobs import add_jobs
from serving.api.saved import add_saved
from serving.api.suggestions import add_suggestions
from serving.api.tags import Tagging, add_tags
from serving.engine import Engine
from serving.http import answers, bodies
from serving.http.body_limit import BodyLimit, Uploads
from serving.http.clients import Client, ProxiedClients, Proxies
from serving.http.guard import Guard
from serving.http.middleware import Record, RequestId
from serving.http.safe_headers import SafeHeaders
from serving.inputs.video_upload import FORM_BYTES
from vidseek.service import KEY_VARIABLE
from vidseek.settings import ServeSettings
from vidseek_media.errors import ConfigError, VidseekError
from vidseek_media.secret import secret

SHORTEST_KEY = 16


def create_app(
    engine: Engine, *, key: str | None = None, admin: Admin | None = None, admin_key: str | None = None
) -> FastAPI:
    """Create the application. The caller opens and closes the engine.

    Args:
        engine: Answers the routes.
        key: API key that callers must send; without one, only this machine is answered.
        admin: Answers the admin routes; None leaves them out.
        admin_key: Key for the admin routes; without one they are disabled if `key` is set.
    """
    app = FastAPI(
        title="vidseek",
        summary="Search a video archive by meaning.",
        description=_limits_of(engine.settings),
        docs_url=None,  # their pages load scripts from public servers
        redoc_url=None,
        responses={status: {"model": ErrorAnswer, "description": text} for status, text in (
            (400, "The request is no HTTP"),
            (401, "The key is missing or wrong"),
            (403, "The service has no key for it, or was asked from elsewhere, or by a page of another site, without one"),
            (408, "The headers did not come in time"),
            (431, "The headers are too large"),
            (500, "A fault of ours"),
            (503, "Busy or not ready; Retry-After says when to come again"),
        )},
    )
    # Written to the disk as they come. A byte is a byte: the form around the file counts too.
    streamed = {"/v1/videos": admin.jobs.max_upload_bytes + FORM_BYTES} if admin is not None else {}
    _add_middleware(app, engine, key, admin_key, streamed)
    app.add_exception_handler(VidseekError, answers.ours)
    app.add_exception_handler(RequestValidationError, answers.invalid)
    app.add_exception_handler(TimeoutError, answers.timeout)
    app.add_exception_handler(HTTPException, answers.http)
    app.add_exception_handler(OSError, answers.disk)
    app.add_exception_handler(ClientDisconnect, answers.gone)
    app.add_exception_handler(Exception, answers.unexpected)
    app.state.engine = engine
    routes.add_routes(app, engine)
    browsing.add_browsing(app, engine)
    editing.add_editing(app, engine)
    if admin is not None:
        add_admin(app, admin)
        add_jobs(app, admin.jobs)
        add_tags(app, Tagging(admin.archive, engine, admin.jobs))
        add_suggestions(app, admin.archive, engine)
        add_saved(app, admin.archive, engine)
    document = app.openapi

    def openapi() -> dict[str, Any]:
        stated: dict[str, Any] = routes.state_limits(document(), engine.settings)
        return stated

    app.openapi = openapi  # type: ignore[method-assign]
    return app


def _add_middleware(
    app: FastAPI, engine: Engine, key: str | None, admin_key: str | None, streamed: Mapping[str, int]
) -> None:
    """Add the middleware; the one that is added last receives a request first."""
    limits = engine.settings.connections
    proxies = Proxies(limits.trusted_proxies)
    uploads = Uploads(limits.max_uploads_mb * 2**20)
    engine.metrics.watch_uploads(lambda: uploads.num_bytes)
    app.add_middleware(Client, proxies=proxies)
    app.add_middleware(BodyLimit, settings=engine.settings, uploads=uploads, proxies=proxies, streamed=streamed)
    app.add_middleware(ProxiedClients, proxies=proxies, most=limits.max_per_client, refuse=answers.answer_error)
    app.add_middleware(Guard, key=key, admin_key=admin_key, refuse=answers.answer_error)
    app.add_middleware(Record, metrics=engine.metrics)
    app.add_middleware(SafeHeaders)
    app.add_middleware(RequestId)


def _limits_of(settings: ServeSettings) -> str:
    limits = settings.connections
    return (
        f"Limits: JSON, also as the part `query` of a form, has at most {settings.max_json_mb} MB, a form "
        f"{settings.max_body_mb} MB and {bodies.MAX_FILES} files. JSON has at most {bodies.MAX_VALUES} values, "
        f"{bodies.MAX_KEYS} keys an object, {bodies.MAX_DEPTH} levels, and numbers of 64 bits. The headers of a request "
        f"have at most {limits.max_header_kb} KB and come within {limits.header_seconds:g} s; a body comes within "
        f"{limits.body_seconds:g} s and a second more for each {limits.min_body_kb_per_second} KB."
    )


def key_from_environment(variable: str = KEY_VARIABLE) -> str | None:
    """Return the API key in VIDSEEK_API_KEY (or another variable, or the file named with `_FILE`); None if it is not set.

    Raises:
        ConfigError: it is too short to be secret, or no header could carry it.
    """
    key = secret(variable)
    if key is None:
        return None
    if len(key) < SHORTEST_KEY or not key.isascii() or not key.isprintable() or key != key.strip():
        raise ConfigError(
            f"{variable} has {len(key)} characters, wanted at least {SHORTEST_KEY} plain ones", code="key-too-short",
            remedy="Make one with `openssl rand -hex 32`",
        )
    return key
