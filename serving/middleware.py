"""Around every request: who may ask, an id that the answer and the log share, a line and figures, no body too large."""

from __future__ import annotations

import hmac
import ipaddress
import logging
import re
import time
import uuid
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.metrics import Metrics
from vidseek_media.errors import InputRejected, VidseekError

REQUEST_ID_HEADER = b"x-request-id"
OPEN_PATHS = frozenset({"/healthz", "/readyz"})
"""Whoever watches the process may ask these without a key."""
ADMIN_PREFIX = "/v1/admin/"
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")

log = logging.getLogger("vidseek.serving")


class BodyTooLarge(InputRejected):
    """The body has more bytes than the service takes."""

    code = "too_large"


class KeyWrong(InputRejected):
    """The request has no key, or another one."""

    code = "key_wrong"


class KeyNeeded(InputRejected):
    """The request came from elsewhere, and the service has no key to tell who may ask."""

    code = "key_needed"


class AdminOff(InputRejected):
    """The service has a key, but none for its admin routes."""

    code = "admin_off"


class RequestId:
    """Puts a request id into `scope["state"]` and the answer's headers: the caller's own where it gave a plain one."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = _header(scope, REQUEST_ID_HEADER)
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex.encode()
        scope.setdefault("state", {})["request_id"] = request_id.decode()

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), (REQUEST_ID_HEADER, request_id)]
            await send(message)

        await self.app(scope, receive, send_with_id)


class Record:
    """Writes one line into the log for every request, and counts it. What was asked for stays out of both."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begin = time.perf_counter()
        status = 500

        async def send_seen(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, send_seen)
        finally:
            self._record(scope, status, time.perf_counter() - begin)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        # The path of a request is anybody's text; the route is one of ours.
        route = getattr(scope.get("route"), "path", "none")
        self.metrics.requests.labels(route, str(status)).inc()
        self.metrics.request_seconds.labels(route).observe(seconds)
        facts = {"method": scope["method"], "route": route, "status": status, "milliseconds": round(1000 * seconds, 2)}
        log.info("request", extra={"request_id": scope["state"]["request_id"], **facts})


class Guard:
    """Lets in who has the key; without a key in the service, only who asks this machine itself, by its own name.

    The name counts because a page in a browser can make its own name point at this machine. The admin routes have a key of
    their own, which opens all others too; without it they are off wherever others may have the first key.

    Args:
        app: What is guarded.
        key: Compared in constant time with `Authorization: Bearer <key>`; None for a service without one.
        admin_key: The same for what lies under `ADMIN_PREFIX`.
        refuse: Makes the answer of an error.
    """

    def __init__(
        self, app: ASGIApp, *, key: str | None, refuse: Callable[[VidseekError, str], ASGIApp], admin_key: str | None = None
    ) -> None:
        self.app = app
        self.key = key.encode() if key else None
        self.admin_key = admin_key.encode() if admin_key else None
        self.refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        error = self._fault(scope) if scope["type"] == "http" and scope["path"] not in OPEN_PATHS else None
        if error is None:
            await self.app(scope, receive, send)
        else:
            await self.refuse(error, scope["state"]["request_id"])(scope, receive, send)

    def _fault(self, scope: Scope) -> VidseekError | None:
        is_admin = scope["path"].startswith(ADMIN_PREFIX)
        if is_admin and self.admin_key is None and self.key is not None:
            return AdminOff("this service has no admin key", remedy="Set VIDSEEK_ADMIN_KEY where the service runs")
        if is_admin and self.admin_key is not None:
            return self._fault_of_key(scope, (self.admin_key,), "the admin key")
        if self.key is not None:
            keys = (self.key,) if self.admin_key is None else (self.key, self.admin_key)
            return self._fault_of_key(scope, keys, "the key")
        address = (scope.get("server") or ("", None))[0]
        if is_loopback(address) and is_loopback(host_of(_header(scope, b"host").decode("latin-1"))):
            return None
        return KeyNeeded(
            "this service has no key, and answers only who asks 127.0.0.1 or localhost",
            remedy="Set VIDSEEK_API_KEY where the service runs, and send it as `Authorization: Bearer <key>`",
        )

    def _fault_of_key(self, scope: Scope, keys: tuple[bytes, ...], what: str) -> VidseekError | None:
        scheme, _, given = _header(scope, b"authorization").partition(b" ")
        is_right = [hmac.compare_digest(given.strip(), key) for key in keys]  # all of them, whichever fits
        if scheme.lower() == b"bearer" and any(is_right):
            return None
        return KeyWrong(f"the request does not have {what}", remedy=f"Send `Authorization: Bearer <{what[4:]}>`")


class BodyLimit:
    """Counts a body as it comes in, whatever its headers say, and raises BodyTooLarge in the route that reads it."""

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        num_bytes = 0

        async def receive_counted() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > self.max_bytes:
                raise BodyTooLarge(f"the body has more than {self.max_bytes} bytes", remedy="Send a smaller file")
            return message

        await self.app(scope, receive_counted if scope["type"] == "http" else receive, send)


class First:
    """Sends every request to an app of its own, but for those paths that are left to the app around which it lies."""

    def __init__(self, app: ASGIApp, *, first: ASGIApp, left: frozenset[str]) -> None:
        self.app = app
        self.first = first
        self.left = left

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        is_ours = scope["type"] == "http" and scope["path"] not in self.left
        await (self.first if is_ours else self.app)(scope, receive, send)


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine's own address or name, seen from itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def host_of(header: str) -> str:
    """The name in a Host header, without its port and without the brackets of IPv6."""
    inside = re.fullmatch(r"\[([^\]]*)\](?::\d*)?", header)
    return inside.group(1) if inside else header.split(":")[0]


def _header(scope: Scope, name: bytes) -> bytes:
    value: bytes = dict(scope["headers"]).get(name, b"")
    return value
