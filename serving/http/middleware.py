"""Middleware: authentication, cross-site requests, request id, access log, metrics, limits of bodies and of clients."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import logging
import re
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.http.clients import Proxies, peer_of
from serving.http.sites import is_of_other_site
from serving.metrics import Metrics
from vidseek.settings import ServeSettings
from vidseek_media.errors import InputRejected, ServiceError, VidseekError

REQUEST_ID_HEADER = b"x-request-id"
OPEN_PATHS = frozenset({"/healthz", "/livez", "/readyz"})
"""Whoever watches the process may ask these without a key."""
ADMIN_PREFIX = "/v1/admin/"
FREE_PATHS = frozenset({"/healthz", "/livez", "/openapi.json"})
"""A GET of these costs and changes nothing, so another site may cause it."""
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")

log = logging.getLogger("vidseek.serving")


class BodyTooLarge(InputRejected):
    """The body has more bytes than the service takes."""

    category = "too_large"
    code = "body-too-large"


class KeyWrong(InputRejected):
    """The request has no key, or another one."""

    category = "key_wrong"
    code = "key-wrong"


class KeyNeeded(InputRejected):
    """The request came from elsewhere, and the service has no key to tell who may ask."""

    category = "key_needed"
    code = "key-needed"


class AdminOff(InputRejected):
    """The service has a key, but none for its admin routes."""

    category = "admin_off"
    code = "admin-off"


class CrossSite(InputRejected):
    """A page of another site in a browser caused the request."""

    category = "cross_site"
    code = "cross-site"


class BodyTooSlow(InputRejected):
    """The bytes of the body came too slowly."""

    category = "too_slow"
    code = "body-too-slow"


class Busy(ServiceError):
    """All places for requests or for uploads are taken."""

    category = "busy"


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
        metadata = {"method": scope["method"], "route": route, "status": status, "milliseconds": round(1000 * seconds, 2)}
        log.info("request", extra={"request_id": scope["state"]["request_id"], **metadata})


class Guard:
    """Lets in who has the key; without a key in the service, only who asks this machine itself, by its own name.

    The name counts because a page in a browser can make its own name point at this machine. What a page of another site
    causes in a browser is refused (docs/decisions/2026-11-27-cross-site-requests.md). The admin routes have a key of
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
        error = self._fault(scope) if scope["type"] == "http" else None
        if error is None:
            await self.app(scope, receive, send)
        else:
            await self.refuse(error, scope["state"]["request_id"])(scope, receive, send)

    def _fault(self, scope: Scope) -> VidseekError | None:
        if scope["path"] in OPEN_PATHS:
            return _fault_of_site(scope) if self.key is None else None
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
            return _fault_of_site(scope)
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


@dataclass(eq=False)
class Upload:
    """A body that is being read, or whose request is being answered."""

    client: str
    begin: float
    num_bytes: int = 0
    waited: float = 0.0
    """Seconds in which the service waited for the client."""
    is_complete: bool = False
    is_given_up: bool = False
    """It gave way to others, and counts no more."""
    timeout: asyncio.Timeout | None = None
    """Runs while the service waits for the client."""

    def rate(self) -> float:
        """Bytes a second since it began."""
        return self.num_bytes / max(time.monotonic() - self.begin, 1e-3)

    def gives_way(self) -> bool:
        """Whether it waits for its client, and is not new."""
        return self.timeout is not None and not self.is_given_up and time.monotonic() - self.begin > 1.0


class Uploads:
    """The bytes of all bodies in the process, below a limit; a client has half of it at most.

    Where the limit is reached, the slowest upload that waits for its client gives way. So bodies that were sent half and
    left so do not keep others out.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        """Of all bodies."""
        self._of_client: Counter[str] = Counter()
        self._open: set[Upload] = set()

    @contextmanager
    def one(self, client: str) -> Iterator[Upload]:
        """A body that counts until its request ends."""
        upload = Upload(client, time.monotonic())
        self._open.add(upload)
        try:
            yield upload
        finally:
            self._open.discard(upload)
            if not upload.is_given_up:
                self._count(upload, -upload.num_bytes)

    def add(self, upload: Upload, num_bytes: int) -> None:
        """Count bytes that have come.

        Raises:
            Busy: there is no room, and nothing that gives way.
        """
        upload.num_bytes += num_bytes
        self._count(upload, num_bytes)
        while self._of_client[upload.client] > self.max_bytes // 2:
            self._make_room(upload, [each for each in self._open if each.client == upload.client])
        while self.num_bytes > self.max_bytes:
            self._make_room(upload, self._open)

    def _make_room(self, upload: Upload, among: Iterable[Upload]) -> None:
        slow = [each for each in among if each is not upload and each.gives_way()]
        victim = min(slow, key=Upload.rate, default=upload)
        victim.is_given_up = True
        self._count(victim, -victim.num_bytes)
        if victim is upload:
            raise Busy(
                "too many bytes of other uploads are in flight", code="too-many-uploads", remedy="Try again in a second",
            )
        assert victim.timeout is not None
        victim.timeout.reschedule(0.0)

    def _count(self, upload: Upload, num_bytes: int) -> None:
        self.num_bytes += num_bytes
        self._of_client[upload.client] += num_bytes
        if not self._of_client[upload.client]:
            del self._of_client[upload.client]


class BodyLimit:
    """Counts a body as it comes in, whatever its headers say, and raises in the route that reads it.

    The route gets BodyTooLarge where the body has more bytes than its type may have, BodyTooSlow where the service has
    waited too long for them, and Busy where the bytes of all uploads have no room.
    """

    def __init__(self, app: ASGIApp, *, settings: ServeSettings, uploads: Uploads, proxies: Proxies) -> None:
        self.app = app
        self.settings = settings
        self.uploads = uploads
        self.proxies = proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        most = self._max_bytes(scope)
        with self.uploads.one(self.proxies.client_of(scope)) as upload:

            async def receive_counted() -> Message:
                if upload.is_complete:
                    return await receive()
                if not upload.num_bytes and _declared(scope) > most:
                    raise _too_large(most)
                message = await self._wait(upload, receive)
                num_bytes = len(message.get("body", b""))
                upload.is_complete = not message.get("more_body", False)
                if upload.num_bytes + num_bytes > most:
                    raise _too_large(most)
                self.uploads.add(upload, num_bytes)
                return message

            await self.app(scope, receive_counted, send)

    def _max_bytes(self, scope: Scope) -> int:
        is_form = _header(scope, b"content-type").split(b";")[0].strip().lower() == b"multipart/form-data"
        most = self.settings.max_body_mb
        return (most if is_form else min(most, self.settings.max_json_mb)) * 2**20

    async def _wait(self, upload: Upload, receive: Receive) -> Message:
        limits = self.settings.connections
        allowed = limits.body_seconds + upload.num_bytes / (1024 * limits.min_body_kb_per_second)
        begin = time.monotonic()
        try:
            async with asyncio.timeout(max(0.0, min(limits.body_seconds, allowed - upload.waited))) as upload.timeout:
                message = await receive()
            upload.waited += time.monotonic() - begin
            return message
        except TimeoutError as error:
            upload.waited += time.monotonic() - begin
            if upload.is_given_up:
                raise Busy(
                    "the upload was too slow, and others came", code="too-slow-upload", remedy="Try again in a second",
                ) from error
            raise BodyTooSlow(
                f"{upload.num_bytes} bytes of the body came, and the service has waited {upload.waited:.0f} s for the rest",
                remedy=f"Send at least {limits.min_body_kb_per_second} KB a second",
            ) from error
        finally:
            upload.timeout = None


class ProxiedClients:
    """Bounds the requests at once of each client behind a trusted proxy; others are bounded by their connections."""

    def __init__(
        self, app: ASGIApp, *, proxies: Proxies, most: int, refuse: Callable[[VidseekError, str], ASGIApp]
    ) -> None:
        self.app = app
        self.proxies = proxies
        self.most = most
        self.refuse = refuse
        self._at_once: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or peer_of(scope) not in self.proxies:
            await self.app(scope, receive, send)
            return
        client = self.proxies.client_of(scope)
        if self._at_once[client] >= self.most:
            busy = Busy("too many requests of this client at once", code="too-many-requests", remedy="Try again in a second")
            await self.refuse(busy, scope["state"]["request_id"])(scope, receive, send)
            return
        self._at_once[client] += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self._at_once[client] -= 1
            if not self._at_once[client]:
                del self._at_once[client]


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


def _fault_of_site(scope: Scope) -> CrossSite | None:
    if not is_of_other_site(scope) or (scope["method"] in ("GET", "HEAD") and scope["path"] in FREE_PATHS):
        return None
    return CrossSite(
        "a page of another site caused this request, and the service has no key",
        remedy="Type the address into the browser, or set VIDSEEK_API_KEY where the service runs and send the key",
    )


def _declared(scope: Scope) -> int:
    """What Content-Length says; 0 where it says nothing that can be read."""
    value = _header(scope, b"content-length")
    return int(value) if value.isdigit() and len(value) < 20 else 0


def _too_large(most: int) -> BodyTooLarge:
    return BodyTooLarge(
        f"the body has more than {most} bytes", remedy="Send a smaller file; files as parts of a form, where there is one"
    )


def _header(scope: Scope, name: bytes) -> bytes:
    value: bytes = dict(scope["headers"]).get(name, b"")
    return value
