"""The application: a FastAPI one that knows nothing of BentoML, so that tests can ask it directly."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from serving import answers, browsing, routes
from serving.admin import Admin, add_admin
from serving.clients import Client
from serving.engine import Engine
from serving.middleware import BodyLimit, Guard, Record, RequestId
from serving.schemas import ErrorAnswer
from vidseek.service import KEY_VARIABLE
from vidseek_media.errors import ConfigError, VidseekError
from vidseek_media.secret import secret

SHORTEST_KEY = 16


def create_app(
    engine: Engine, *, key: str | None = None, admin: Admin | None = None, admin_key: str | None = None
) -> FastAPI:
    """The application over `engine`, which whoever calls this opens and closes.

    Args:
        engine: Answers.
        key: What callers must show; without one only this machine itself is answered.
        admin: Answers the admin routes; without it there are none.
        admin_key: What callers of those must show; without one they are off where there is a `key`.
    """
    app = FastAPI(
        title="vidseek",
        summary="Search a video archive by meaning.",
        docs_url=None,  # their pages load scripts from public servers
        redoc_url=None,
        responses={status: {"model": ErrorAnswer, "description": text} for status, text in (
            (401, "The key is missing or wrong"),
            (403, "The service has no key for it, or was asked from elsewhere without one"),
            (500, "A fault of ours"),
            (503, "Busy or not ready; Retry-After says when to come again"),
        )},
    )
    app.add_middleware(Client)
    app.add_middleware(BodyLimit, max_bytes=engine.settings.max_body_mb * 2**20)
    app.add_middleware(Guard, key=key, admin_key=admin_key, refuse=answers.answer_error)
    app.add_middleware(Record, metrics=engine.metrics)
    app.add_middleware(RequestId)
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
    if admin is not None:
        add_admin(app, admin)
    return app


def key_from_environment(variable: str = KEY_VARIABLE) -> str | None:
    """What VIDSEEK_API_KEY (or another variable, or the file that it names with `_FILE`) holds; None where it is not set.

    Raises:
        ConfigError: it is too short to be secret, or no header could carry it.
    """
    key = secret(variable)
    if key is None:
        return None
    if len(key) < SHORTEST_KEY or not key.isascii() or not key.isprintable() or key != key.strip():
        raise ConfigError(
            f"{variable} has {len(key)} characters, wanted at least {SHORTEST_KEY} plain ones",
            remedy="Make one with `openssl rand -hex 32`",
        )
    return key
