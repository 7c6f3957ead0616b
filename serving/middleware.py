"""Around every request: an id that the answer and the log share, and no more body than is taken."""

from __future__ import annotations

import re
import uuid

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vidseek_media.errors import InputRejected

REQUEST_ID_HEADER = b"x-request-id"
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class BodyTooLarge(InputRejected):
    """The body has more bytes than the service takes."""

    code = "too_large"


class RequestId:
    """Puts a request id into `scope["state"]` and the answer's headers: the caller's own where it gave a plain one."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(REQUEST_ID_HEADER, b"")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex.encode()
        scope.setdefault("state", {})["request_id"] = request_id.decode()

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), (REQUEST_ID_HEADER, request_id)]
            await send(message)

        await self.app(scope, receive, send_with_id)


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
