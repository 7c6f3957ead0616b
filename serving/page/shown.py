"""Pictures and videos for the browser, and videos from it: passed through with a key that never leaves the page's server.

An address here is signed, so that who has not seen the page cannot ask for what it shows. One to upload at is given to a
visitor whom the API let in with the admin key, and ends after an hour.
"""

from __future__ import annotations

import asyncio
import hmac
import re
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote, urlencode

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from serving.page.settings import PageSettings

PREFIX = "/shown"
KINDS = ("thumbnail", "strip", "media", "moment")
UPLOAD_SECONDS = 120.0
"""Without a byte in either direction."""
BUSY_TRIES = 20
"""A grid asks for more pictures at once than may wait for a decoder: those that the API sends away come again."""
BUSY_WAIT_SECONDS = 0.7
_CLIP_ID = re.compile(r"[0-9a-f-]{36}")
_SPAN = ("start_ms", "end_ms")
"""What a moment's address says beside the signature: whoever has one may see all of the video."""
_PASSED_ON = ("content-type", "content-disposition", "content-length", "content-range", "accept-ranges", "cache-control")
_SAFE = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
_SECRET = secrets.token_bytes(32)
_NO_PICTURE = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 160 90"><rect width="160" height="90" fill="#d8dbe0"/>'
    b'<path d="M70 33v24l22-12z" fill="#9aa0a8"/><path d="M58 69 102 21" stroke="#9aa0a8" stroke-width="4"/></svg>'
)


def address(clip_id: str, kind: str, **span: int) -> str:
    """Return the browser's URL of a clip's thumbnail, strip, video or moment.

    Args:
        clip_id: Id of the clip.
        kind: One of `KINDS`.
        span: `start_ms` and `end_ms` of a moment.
    """
    path = f"{PREFIX}/{quote(clip_id, safe='')}/{kind}"
    return f"{path}?{urlencode({'s': _signature(path), **span})}"


UPLOADS = "/added"
GRANT_SECONDS = 3600.0
_MOST_GRANTS = 1024
_grants: dict[str, tuple[str | None, float]] = {}
"""The key that each address uploads with, and until when, by its token."""


def upload_address(key: str | None, known: str | None = None) -> str:
    """Return an address of this page to which the browser may upload videos; the API is asked with `key`.

    Args:
        key: The admin key, which the API has taken; None where it wants none.
        known: An address that was given before; it is prolonged where it is for the same key.
    """
    token = (known or "").removeprefix(f"{UPLOADS}/")
    if _grants.get(token, ("", 0.0))[0] != key or token not in _grants:
        token = secrets.token_hex(16)
    now = time.monotonic()
    for old in [each for each, (_, until) in _grants.items() if until < now][:_MOST_GRANTS] or list(_grants)[:-_MOST_GRANTS]:
        _grants.pop(old, None)
    _grants[token] = (key, now + GRANT_SECONDS)
    return f"{UPLOADS}/{token}"


def _signature(path: str) -> str:
    return hmac.digest(_SECRET, path.encode(), "sha256").hex()[:32]


class MediaRoutes:
    """The routes, and the client that they share.

    Args:
        settings: Which API, and with which key.
    """

    def __init__(self, settings: PageSettings) -> None:
        self._settings = settings
        self._client: httpx.AsyncClient | None = None

    @property
    def routes(self) -> list[Route]:
        """For the page's server."""
        return [
            Route(f"{PREFIX}/{{clip_id}}/{{kind}}", self.of_clip),
            Route(f"{UPLOADS}/{{token}}", self.upload, methods=["POST"]),
        ]

    @asynccontextmanager
    async def open(self, _app: Any) -> AsyncIterator[dict[str, Any]]:
        """Hold a client while the page runs."""
        async with httpx.AsyncClient(timeout=60.0, trust_env=False) as client:
            self._client = client
            yield {}

    async def of_clip(self, request: Request) -> Response:
        """Return a thumbnail, a strip, a range of a video, or a moment as a file."""
        clip_id, kind = request.path_params["clip_id"], request.path_params["kind"]
        if kind not in KINDS or not _CLIP_ID.fullmatch(clip_id) or not _is_signed(request):
            return Response(status_code=404)
        key = self._settings.key
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        headers |= {"Range": request.headers["range"]} if "range" in request.headers else {}
        headers["Accept-Encoding"] = "identity"
        assert self._client is not None
        url = f"{self._settings.url}/v1/clips/{clip_id}/{kind}"
        span = {name: request.query_params[name] for name in _SPAN if name in request.query_params}
        try:
            answer = await self._ask(httpx.Request("GET", url, headers=headers, params=span or None))
        except httpx.HTTPError:
            return _no_picture(502)
        if not answer.is_success and answer.status_code != 416:
            await answer.aclose()
            return _no_picture(answer.status_code)
        passed = {name: answer.headers[name] for name in _PASSED_ON if name in answer.headers}
        return StreamingResponse(_through(answer), status_code=answer.status_code, headers={**passed, **_SAFE})

    async def upload(self, request: Request) -> Response:
        """Pass the form with a video on to the API as it comes, and give its answer."""
        key, until = _grants.get(request.path_params["token"], (None, 0.0))
        if until < time.monotonic():
            return Response(status_code=404)
        headers = {name: request.headers[name] for name in ("content-type", "content-length") if name in request.headers}
        headers |= {"Authorization": f"Bearer {key}"} if key else {}
        assert self._client is not None
        try:
            answer = await self._client.post(
                f"{self._settings.url}/v1/videos", content=request.stream(), headers=headers, timeout=UPLOAD_SECONDS
            )
        except httpx.HTTPError:
            told = {"error": {"message": "the API does not answer, or broke the upload off", "remedy": "Try again"}}
            return JSONResponse(told, status_code=502, headers=_SAFE)
        return Response(answer.content, status_code=answer.status_code, media_type="application/json", headers=_SAFE)

    async def _ask(self, asked: httpx.Request) -> httpx.Response:
        assert self._client is not None
        for _ in range(BUSY_TRIES):
            answer = await self._client.send(asked, stream=True)
            if answer.status_code != 503:
                return answer
            await answer.aclose()
            await asyncio.sleep(BUSY_WAIT_SECONDS)
        return answer


async def _through(answer: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for chunk in answer.aiter_raw():
            yield chunk
    finally:
        await answer.aclose()


def _is_signed(request: Request) -> bool:
    return hmac.compare_digest(request.query_params.get("s", "").encode(), _signature(request.url.path).encode())


def _no_picture(status: int) -> Response:
    headers = {**_SAFE, "Cache-Control": "no-store"}
    return Response(_NO_PICTURE, status_code=status, media_type="image/svg+xml", headers=headers)
