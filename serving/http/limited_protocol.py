"""Limits on connections from the first byte on: uvicorn's HTTP protocol with timeouts, sizes and counts.

uvicorn limits neither the size of a header, nor the time that a request takes to arrive, nor what is sent after an answer.
httptools joins a header that arrives in pieces by copying all of it for each piece, so one endless header blocks the event
loop (docs/decisions/2026-11-27-connection-limits.md).
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httptools
import uvicorn.config
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.http.answers import raw_answer
from serving.http.clients import PEER, UNKNOWN, client_key
from serving.http.connections import Connections, Report
from serving.http.lingering import LingeringTransport
from vidseek.settings import ConnectionLimits

MAX_HEADERS = 100
MAX_PIPELINED = 8
"""Requests that may wait behind the one that is being answered, on one connection. Browsers and HTTP libraries send none."""
PIECE_BYTES = 64 * 1024
FRAMING_BYTES = 32 * 1024
"""Chunk sizes, chunk extensions and trailers of a body may take this much, and an eighth of the body more."""
LINGER_SECONDS = 2.0
"""So long a connection that has had its last answer may go on sending, so that its client can read the answer."""
_YOUNG_SECONDS = 1.0


def limit_connections(app: ASGIApp, limits: ConnectionLimits, report: Report) -> Connections:
    """Make every uvicorn server that this process starts from now on keep limits and serve `app`.

    BentoML starts uvicorn itself, and passes neither a protocol nor limits. The protocol name `auto`, which it uses, is
    therefore mapped to `LimitedProtocol`. WebSockets are off, since no route uses them. `app` is served without BentoML's
    layers: their routes would come first, and their timeout would cut slow uploads and keep a timer for each request.

    Args:
        app: The application.
        limits: The limits.
        report: Called for each connection that a limit ends.
    """
    connections = Connections(limits, report)
    uvicorn.config.HTTP_PROTOCOLS["auto"] = protocol_of(connections, app)  # type: ignore[assignment]
    uvicorn.config.WS_PROTOCOLS["auto"] = None
    return connections


def protocol_of(connections: Connections, app: ASGIApp | None = None) -> type[LimitedProtocol]:
    """Return the protocol class for uvicorn's `http` setting.

    Args:
        connections: Counts the connections.
        app: The application; None takes the one that uvicorn was given.
    """
    return type("LimitedProtocol", (LimitedProtocol,), {"all": connections, "asked": staticmethod(app) if app else None})


class LimitedProtocol(HttpToolsProtocol):
    """One connection. `all` and `asked` are set by `protocol_of`."""

    all: Connections
    asked: ASGIApp | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.asked is not None:
            self.app = self.asked  # type: ignore[assignment]
        self.limits = self.all.limits
        self.timeout_keep_alive = self.limits.idle_seconds  # type: ignore[assignment]
        self.client_name = UNKNOWN
        self.is_proxy = False
        self._fault: tuple[str, int, str, str] | None = None
        self._header_since: float | None = None
        """When the request began whose headers are not complete."""
        self._header_bytes = 0
        self._is_in_body = False
        self._body_since = 0.0
        self._body_bytes = 0
        self._framing_bytes = 0
        self._framing_run = 0
        """Bytes since the last one of the body itself."""
        self._idle_since: float | None = None
        self._drain_since: float | None = None
        """When an answer was complete whose request is not."""
        self._flushed = 0
        self._flushed_at = time.monotonic()

    # asyncio's callbacks

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin the clock of the first request."""
        self.wire = LingeringTransport(transport, is_sending=lambda: self._is_in_body)
        super().connection_made(self.wire)  # type: ignore[arg-type]
        self.peer = self.client[0] if self.client else UNKNOWN
        self.client_name = client_key(self.peer)
        self.is_proxy = self.peer in self.all.proxies
        self._header_since = self._flushed_at = time.monotonic()
        self.all.admit(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the place back."""
        self.all.discard(self)
        super().connection_lost(exc)

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Answer a request that is complete; say so if a part of it is missing."""
        is_partial = self._is_in_body or (self._header_since is not None and self._header_bytes > 0)
        if self._is_answering() and not is_partial and not self.pipeline:
            self.cycle.keep_alive = False
            return True
        if is_partial and not self.wire.is_closing():
            self.refuse("invalid_request", 400, "the request ends before it is complete", "Send all of it")
        return None

    def data_received(self, data: bytes) -> None:
        """Feed the parser piece by piece, so that it never holds more of a header than the limit."""
        if self.wire.is_closing():
            return  # answered: what still comes is thrown away
        self._unset_keepalive_if_required()
        if self._header_since is None and not self._is_in_body:
            self._begin_header()
        place = 0
        while place < len(data) and not self.wire.is_closing():
            room = 1024 * self.limits.max_header_kb + 1 - self._header_bytes
            size = min(PIECE_BYTES, max(1, room)) if self._header_since is not None else PIECE_BYTES
            self._feed(data[place : place + size])
            place += size

    def _feed(self, piece: bytes) -> None:
        body_before, was_header = self._body_bytes, self._header_since
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            return  # no protocol is changed to; the request itself is answered, and the connection closed
        except httptools.HttpParserError as error:
            self._refuse_fault(error)
            return
        if self._header_since is not None and self._header_since == was_header:
            self._header_bytes += len(piece)
            if self._header_bytes > 1024 * self.limits.max_header_kb:
                self.refuse(*_header_too_large(self.limits))
        elif self._is_in_body and was_header is None:
            self._count_framing(len(piece), self._body_bytes - body_before)

    def _count_framing(self, wire: int, body: int) -> None:
        self._framing_bytes += max(0, wire - body)
        self._framing_run = 0 if body else self._framing_run + wire
        if self._framing_run > FRAMING_BYTES or self._framing_bytes > FRAMING_BYTES + self._body_bytes // 8:
            self.refuse(
                "invalid_request", 400, "the chunks of the body are mostly framing", "Send larger chunks, or a length"
            )

    # The parser's callbacks

    def on_message_begin(self) -> None:
        """Handle the beginning of a request."""
        if self._is_answering() and len(self.pipeline) >= MAX_PIPELINED:
            self._fault = ("pipelined", 0, "", "")
            raise ValueError("too many requests wait on one connection")
        if self._header_since is None:
            self._begin_header()
        super().on_message_begin()
        self.scope["state"][PEER] = self.peer

    def on_header(self, name: bytes, value: bytes) -> None:
        """Handle one header; trailers of a body are dropped."""
        if self._is_in_body:
            return
        if len(self.headers) >= MAX_HEADERS:
            self._fault = ("header_too_large", 431, f"there are more than {MAX_HEADERS} headers", "Send fewer")
            raise ValueError("too many headers")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the route."""
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > 1024 * self.limits.max_header_kb:
            self._fault = _header_too_large(self.limits)
            raise ValueError("headers too large")
        if sum(name == b"host" for name, _ in self.headers) > 1:
            raise ValueError("more than one Host")
        self._header_since = self._idle_since = None
        super().on_headers_complete()
        if self.parser.should_upgrade():
            self.cycle.keep_alive = False
        self._is_in_body = True
        self._body_since = time.monotonic()
        self._body_bytes = self._framing_bytes = self._framing_run = 0

    def on_body(self, body: bytes) -> None:
        """Handle some bytes of a body."""
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Handle the end of a request."""
        self._is_in_body = False
        self._drain_since = None
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Handle the end of an answer."""
        super().on_response_complete()
        if self._is_in_body:
            self._drain_since = time.monotonic()
        elif not self._is_answering():
            self._idle_since = time.monotonic()

    def _unsupported_upgrade_warning(self) -> None:
        """No line in the log for each."""

    def _should_upgrade(self) -> bool:
        return False

    # Clocks and ends

    def check_clocks(self, now: float) -> None:
        """End the connection if its client has taken too long."""
        if self.wire.is_closing():
            stalled = self._stalled_seconds(now)
            is_sent = self.wire.get_write_buffer_size() == 0
            if stalled > self.limits.send_seconds or (is_sent and now - self._flushed_at > LINGER_SECONDS):
                self.cut()
        elif self._header_since is not None and now - self._header_since > self.limits.header_seconds:
            self._end_slow_header()
        elif self._drain_since is not None and now - self._drain_since > LINGER_SECONDS:
            self.all.report("unread", 0)
            self.cut()
        elif self._stalled_seconds(now) > self.limits.send_seconds:
            self.all.report("send_stalled", 0)
            self.cut()

    def rank(self, now: float) -> tuple[int, float] | None:
        """Return the priority with which this connection is closed for a new one (lowest first); None while it has work."""
        if self.wire.is_closing():
            return 0, self._flushed_at
        if self._header_since is not None and not self._is_answering():
            return 1, self._header_since
        if self._idle_since is not None and not self._is_answering():
            return 2, self._idle_since
        if self._is_in_body and now - self._body_since > _YOUNG_SECONDS and not self.flow.read_paused:
            return 3, self._body_bytes / (now - self._body_since)
        stalled = self._stalled_seconds(now)
        return (4, -stalled) if stalled > _YOUNG_SECONDS else None

    def refuse(self, code: str, status: int, message: str, remedy: str) -> None:
        """Answer with an error, and close the connection.

        Args:
            code: The API's code.
            status: HTTP status.
            message: What came, and what was wanted.
            remedy: What the user can do.
        """
        self.all.report(code, status)
        if self._is_answering():
            if self.cycle.response_started or self.pipeline:
                self.cut()  # an answer here would be taken for a part of another one
                return
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.wire.write(raw_answer(status, code, message, remedy))
        self._header_since = None
        self.wire.linger()

    def shutdown(self) -> None:
        """End the connection after the answer that is under way."""
        if self._is_answering():
            self.cycle.keep_alive = False
        else:
            self.wire.end()

    def cut(self) -> None:
        """End the connection at once."""
        self.wire.abort()

    def _begin_header(self) -> None:
        self._header_since, self._header_bytes = time.monotonic(), 0

    def _end_slow_header(self) -> None:
        if self._header_bytes:
            seconds = f"{self.limits.header_seconds:g} s"
            self.refuse("too_slow", 408, f"the headers were not complete within {seconds}", "Send them at once")
        else:
            self.all.report("silent", 0)
            self.wire.close()

    def _refuse_fault(self, error: httptools.HttpParserError) -> None:
        # The text of a callback's error names our code, that of a parser's the rule of HTTP that was broken.
        reason = "" if isinstance(error, httptools.HttpParserCallbackError) else f": {error}"
        message = f"this is no request of HTTP/1.1{reason}"
        fault = self._fault or ("invalid_request", 400, message, "Use an HTTP client")
        if fault[1]:
            self.refuse(*fault)
        else:
            self.all.report(fault[0], 0)
            self.cut()

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _stalled_seconds(self, now: float) -> float:
        """Return for how long none of the waiting bytes were sent; 0 if none wait."""
        flushed = self.wire.written - self.wire.get_write_buffer_size()
        if flushed > self._flushed:
            self._flushed, self._flushed_at = flushed, now
        return now - self._flushed_at if flushed < self.wire.written else 0.0


def _header_too_large(limits: ConnectionLimits) -> tuple[str, int, str, str]:
    return "header_too_large", 431, f"the headers have more than {limits.max_header_kb} KB", "Send less"
