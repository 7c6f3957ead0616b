"""Middleware that limits the size and the slowness of bodies, one by one and all together."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.http.clients import Busy, Proxies, header_of
from vidseek.settings import ServeSettings
from vidseek_media.errors import InputRejected


class BodyTooLarge(InputRejected):
    """The body has more bytes than the service accepts."""

    category = "too_large"
    code = "body-too-large"


class BodyTooSlow(InputRejected):
    """The bytes of the body came too slowly."""

    category = "too_slow"
    code = "body-too-slow"


@dataclass(eq=False)
class Upload:
    """A body that is being received, or whose request is being answered."""

    client: str
    """The name that limits count by."""
    begin: float
    """By `time.monotonic`, in seconds."""
    num_bytes: int = 0
    """Received so far."""
    waited: float = 0.0
    """Seconds that the service has waited for the client."""
    is_complete: bool = False
    is_streamed: bool = False
    """Whether its bytes go to the disk as they come; they are not counted."""
    is_given_up: bool = False
    """Whether it was dropped in favour of others; it is no longer counted."""
    timeout: asyncio.Timeout | None = None
    """Set while the service waits for the client."""

    def rate(self) -> float:
        """Return bytes a second since it began."""
        return self.num_bytes / max(time.monotonic() - self.begin, 1e-3)

    def gives_way(self) -> bool:
        """Return whether it may be dropped: it waits for its client and is older than a second."""
        if self.is_streamed:
            return False  # it holds no memory
        return self.timeout is not None and not self.is_given_up and time.monotonic() - self.begin > 1.0


class Uploads:
    """Counts the bytes of all bodies in the process and keeps them under a limit; one client may use half of it.

    At the limit the slowest upload that waits for its client is dropped, so that abandoned uploads do not block others.

    Args:
        max_bytes: The limit, at least 1.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        """Of all bodies that are counted."""
        self._of_client: Counter[str] = Counter()
        self._open: set[Upload] = set()

    @contextmanager
    def one(self, client: str) -> Iterator[Upload]:
        """Count a body until its request ends.

        Args:
            client: The name that limits count by.
        """
        upload = Upload(client, time.monotonic())
        self._open.add(upload)
        try:
            yield upload
        finally:
            self._open.discard(upload)
            if not upload.is_given_up and not upload.is_streamed:
                self._count(upload, -upload.num_bytes)

    def add(self, upload: Upload, num_bytes: int) -> None:
        """Count received bytes.

        Args:
            upload: The body that they are of.
            num_bytes: At least 0.

        Raises:
            Busy: the limit is reached and no other upload can be dropped.
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
    """Counts the bytes of a body as they arrive and raises in the route that reads it.

    The route gets BodyTooLarge if the body has more bytes than its content type may have, BodyTooSlow if the service has
    waited too long, and Busy if all uploads together have too many bytes.

    Args:
        app: The application whose bodies are limited.
        settings: Limits of size and rate.
        uploads: All bodies of the process.
        proxies: The trusted proxies, to know a request's client.
        streamed: Largest bodies of forms that a route writes to the disk as they come, in bytes by its path. They are not
            counted among those that are held in memory.
    """

    def __init__(
        self, app: ASGIApp, *, settings: ServeSettings, uploads: Uploads, proxies: Proxies,
        streamed: Mapping[str, int] | None = None,
    ) -> None:
        self.app = app
        self.settings = settings
        self.uploads = uploads
        self.proxies = proxies
        self.streamed = streamed or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        most = self._max_bytes(scope)
        with self.uploads.one(self.proxies.client_of(scope)) as upload:
            upload.is_streamed = self._is_streamed(scope)

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
                if upload.is_streamed:
                    upload.num_bytes += num_bytes
                else:
                    self.uploads.add(upload, num_bytes)
                return message

            await self.app(scope, receive_counted, send)

    def _max_bytes(self, scope: Scope) -> int:
        if self._is_streamed(scope):
            return self.streamed[scope["path"]]
        most = self.settings.max_body_mb
        return (most if _is_form(scope) else min(most, self.settings.max_json_mb)) * 2**20

    def _is_streamed(self, scope: Scope) -> bool:
        return scope["path"] in self.streamed and _is_form(scope)

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


def _is_form(scope: Scope) -> bool:
    return header_of(scope, b"content-type").split(b";")[0].strip().lower() == b"multipart/form-data"


def _declared(scope: Scope) -> int:
    """Return the Content-Length; 0 if it is missing or no number."""
    value = header_of(scope, b"content-length")
    return int(value) if value.isdigit() and len(value) < 20 else 0


def _too_large(most: int) -> BodyTooLarge:
    return BodyTooLarge(
        f"the body has more than {most} bytes", remedy="Send a smaller file; files as parts of a form, where there is one"
    )
