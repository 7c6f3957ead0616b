"""A transport that lets a client read its last answer before the connection is closed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any


class LingeringTransport:
    """A transport that can close in two steps: it ends its own side, and reads on until the other side ends too.

    Closing a socket with unread bytes resets the connection, and the client may lose the answer that was sent before.

    Args:
        transport: Of the connection.
        is_sending: Tells whether the client has not sent all of its request.
    """

    def __init__(self, transport: asyncio.Transport, *, is_sending: Callable[[], bool]) -> None:
        self._transport = transport
        self._is_sending = is_sending
        self._is_lingering = False
        self.written = 0
        """Bytes that were given to the transport."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send, unless this side has ended."""
        if not self.is_closing():
            self.written += len(data)
            self._transport.write(data)

    def is_closing(self) -> bool:
        """Whether this side has ended."""
        return self._is_lingering or self._transport.is_closing()

    def close(self) -> None:
        """Close; in two steps while the client still sends."""
        if self._is_sending():
            self.linger()
        else:
            self._transport.close()

    def linger(self) -> None:
        """End this side, and read on until the other side ends."""
        if self.is_closing():
            return
        if not self._transport.can_write_eof():  # TLS
            self._transport.close()
            return
        try:
            self._transport.write_eof()
            self._transport.resume_reading()
        except (OSError, RuntimeError):  # the other side has gone
            self._transport.abort()
        self._is_lingering = True

    def end(self) -> None:
        """Close in one step."""
        self._transport.close()
