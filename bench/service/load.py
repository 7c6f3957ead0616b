"""Clients in a closed loop over HTTP, light enough to share two cores with the service that they ask."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Load:
    """What the clients saw in one or more windows."""

    seconds: float = 0.0
    """Of all windows together."""
    times: list[float] = field(default_factory=list)
    """Seconds from sending to the last byte, of each answer that came within a window."""
    num_failed: int = 0
    """Those of them that were not 200."""
    own_seconds: float = 0.0
    """CPU time of this process in the windows."""

    def add(self, other: Load) -> None:
        """Put the windows of `other` to these."""
        self.seconds += other.seconds
        self.times += other.times
        self.num_failed += other.num_failed
        self.own_seconds += other.own_seconds


def ask(port: int, route: str, bodies: Sequence[bytes], *, clients: int, seconds: float, warm_seconds: float) -> Load:
    """Ask 127.0.0.1 at `port`: each client sends its next request when its last one is answered, over a connection that
    it keeps. What is answered in the first `warm_seconds` does not count."""
    return asyncio.run(_ask(port, route, bodies, clients=clients, seconds=seconds, warm_seconds=warm_seconds))


async def _ask(
    port: int, route: str, bodies: Sequence[bytes], *, clients: int, seconds: float, warm_seconds: float
) -> Load:
    requests = [_request(route, body) for body in bodies]
    load = Load(seconds=seconds)
    loop = asyncio.get_running_loop()
    for first in range(clients):
        await loop.create_connection(lambda first=first: _Client(load, requests, first), "127.0.0.1", port)  # type: ignore[misc]
    await asyncio.sleep(warm_seconds)
    load.times.clear()
    load.num_failed = 0
    begin, used = time.perf_counter(), time.process_time()
    await asyncio.sleep(seconds)
    # Closing the loop closes the connections; what is still under way belongs to no window.
    return Load(time.perf_counter() - begin, list(load.times), load.num_failed, time.process_time() - used)


def _request(route: str, body: bytes) -> bytes:
    head = (
        f"POST {route} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json", f"Content-Length: {len(body)}",
        "\r\n",
    )
    return "\r\n".join(head).encode() + body


class _Client(asyncio.Protocol):
    """One client. It knows of HTTP what our services answer: a head with a length, and a body of it."""

    def __init__(self, load: Load, requests: Sequence[bytes], first: int) -> None:
        self._load = load
        self._requests = requests
        self._number = first
        self._wanted = 0
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._wanted:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            place = self._buffer.lower().index(b"content-length:", 0, end) + 15
            self._wanted = end + 4 + int(self._buffer[place : self._buffer.index(b"\r\n", place)])
        if len(self._buffer) >= self._wanted:
            self._load.times.append(time.perf_counter() - self._sent)
            self._load.num_failed += not self._buffer.startswith(b"HTTP/1.1 200")
            self._send()

    def connection_lost(self, error: Exception | None) -> None:
        if error is not None:
            self._load.num_failed += 1

    def _send(self) -> None:
        self._buffer.clear()
        self._wanted = 0
        self._number += 17
        self._sent = time.perf_counter()
        self._transport.write(self._requests[self._number % len(self._requests)])
