"""All open connections of a server: how many there may be, of whom, and which one gives way to a new one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from serving.http.clients import Proxies
from vidseek.settings import ConnectionLimits

SWEEP_SECONDS = 0.25
MAX_TURNED_AWAY = 64
"""Connections over the limit that are told so; more are just cut."""

Report = Callable[[str, int], None]
"""Told of a connection that is answered or cut by these limits: the reason, and the status that was sent, or 0."""


class Connection(Protocol):
    """What `Connections` needs of each. The attributes may be set after it was made, before `Connections.admit`."""

    client_name: str
    """Connections of one client share it."""
    is_proxy: bool
    """Whether it comes from a trusted proxy, which speaks for many clients."""
    loop: asyncio.AbstractEventLoop

    def check_clocks(self, now: float) -> None:
        """End the connection if its client has taken too long. `now` is of `time.monotonic`."""

    def rank(self, now: float) -> tuple[int, float] | None:
        """Return the priority with which it is closed for a new one (lowest first); None while it has work."""

    def refuse(self, code: str, status: int, message: str, remedy: str) -> None:
        """Answer with an error, and close the connection."""

    def cut(self) -> None:
        """End the connection at once."""


class Connections:
    """All open connections of a server, and the number of each client."""

    def __init__(self, limits: ConnectionLimits, report: Report = lambda reason, status: None) -> None:
        self.limits = limits
        self.report = report
        self.proxies = Proxies(limits.trusted_proxies)
        self._of_client: dict[str, dict[Connection, None]] = {}
        self._turned_away: set[Connection] = set()
        self._is_sweeping = False

    def __len__(self) -> int:
        return sum(len(each) for each in self._of_client.values())

    def admit(self, connection: Connection) -> bool:
        """Take a new connection in, if need be in the place of an older one that has nothing under way.

        Where a limit is reached, a connection that waits for its client gives way: first one whose request has not come,
        then an idle one, then the slowest upload, then an answer that is not read. So half-open connections push out each
        other, and a client that asks for something finds a place.
        """
        own = self._of_client.get(connection.client_name, {})
        if not connection.is_proxy and len(own) >= self.limits.max_per_client and not self._make_room(own):
            return self._turn_away(connection)
        if len(self) >= self.limits.max_connections and not self._make_room(max(self._of_client.values(), key=len)):
            return self._turn_away(connection)
        self._of_client.setdefault(connection.client_name, {})[connection] = None
        self._sweep_later(connection.loop)
        return True

    def discard(self, connection: Connection) -> None:
        """Forget a connection that has ended."""
        self._turned_away.discard(connection)
        own = self._of_client.get(connection.client_name)
        if own is not None:
            own.pop(connection, None)
            if not own:
                del self._of_client[connection.client_name]

    def _make_room(self, own: dict[Connection, None]) -> bool:
        now = time.monotonic()
        ranked = [(rank, each) for each in own if (rank := each.rank(now)) is not None]
        if not ranked:
            return False
        _, victim = min(ranked, key=lambda pair: pair[0])
        self.discard(victim)
        self.report("evicted", 0)
        victim.cut()
        return True

    def _turn_away(self, connection: Connection) -> bool:
        if len(self._turned_away) < MAX_TURNED_AWAY:
            self._turned_away.add(connection)
            self._sweep_later(connection.loop)
            connection.refuse("busy", 503, "too many connections are open", "Try again in a second")
        else:
            self.report("turned_away", 0)
            connection.cut()
        return False

    def _sweep_later(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._is_sweeping:
            self._is_sweeping = True
            loop.call_later(SWEEP_SECONDS, self._sweep, loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        self._is_sweeping = False
        now = time.monotonic()
        open_now = [each for own in self._of_client.values() for each in own] + list(self._turned_away)
        for connection in open_now:
            connection.check_clocks(now)
        if open_now:
            self._sweep_later(loop)
