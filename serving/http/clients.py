"""Which client a connection or a request belongs to, and how many requests a client may have at once."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar

from starlette.types import ASGIApp, Receive, Scope, Send

from vidseek_media.errors import ServiceError, VidseekError

PEER = "vidseek_peer"
"""The key in `scope["state"]` under which a connection leaves the address at its other end."""
UNKNOWN = "unknown"


class Busy(ServiceError):
    """All places for requests or for uploads are taken."""

    category = "busy"


class Proxies:
    """The reverse proxies whose X-Forwarded-For is believed.

    Args:
        networks: Addresses or networks, for example `127.0.0.1` or `10.0.0.0/8`.
    """

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = tuple(ipaddress.ip_network(each) for each in networks)

    def __contains__(self, address: str) -> bool:
        try:
            parsed = _plain(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._networks if network.version == parsed.version)

    def client_of(self, scope: Scope) -> str:
        """Return the client of a request: the nearest address that is no trusted proxy.

        X-Forwarded-For is read from the right, because a client can write whatever it likes to its left.
        """
        peer = peer_of(scope)
        if peer not in self:
            return client_key(peer)
        for address in reversed(_forwarded(scope["headers"])):
            if address not in self:
                return client_key(address)
        return client_key(peer)


_client: ContextVar[str] = ContextVar("client", default="")


def current_client() -> str:
    """Return the client of the request that is being answered; empty outside of one."""
    return _client.get()


class Client:
    """Remembers the client of a request while it is answered, for shares of what computes."""

    def __init__(self, app: ASGIApp, *, proxies: Proxies) -> None:
        self.app = app
        self.proxies = proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http":
            _client.set(self.proxies.client_of(scope))
        await self.app(scope, receive, send)


class ProxiedClients:
    """Limits concurrent requests of each client behind a trusted proxy. Other clients are limited by their connections.

    Args:
        app: The application.
        proxies: The trusted proxies.
        most: Concurrent requests of a client, at least 1.
        refuse: Gives the answer to an error, from the error and the request id.
    """

    def __init__(
        self, app: ASGIApp, *, proxies: Proxies, most: int, refuse: Callable[[VidseekError, str], ASGIApp]
    ) -> None:
        self.app = app
        self.proxies = proxies
        self.most = most
        self.refuse = refuse
        self._at_once: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
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


def peer_of(scope: Scope) -> str:
    """Return the address at the other end of the connection; uvicorn may already have replaced `scope["client"]`."""
    peer = scope.get("state", {}).get(PEER) or (scope.get("client") or (UNKNOWN, 0))[0]
    return str(peer)


def header_of(scope: Scope, name: bytes) -> bytes:
    """Return the last value of a header; empty if it is missing.

    Args:
        scope: Of the request.
        name: In lower case.
    """
    value: bytes = dict(scope["headers"]).get(name, b"")
    return value


def client_key(address: str) -> str:
    """Return the name under which limits count `address`: IPv4 as it is, the /64 network of IPv6, else `unknown`."""
    try:
        parsed = _plain(address)
    except ValueError:
        return UNKNOWN
    if parsed.version == 4 or parsed.is_loopback:
        return str(parsed)
    return str(ipaddress.ip_network((parsed, 64), strict=False))


def _plain(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    parsed = ipaddress.ip_address(address.partition("%")[0])
    return parsed.ipv4_mapped or parsed if isinstance(parsed, ipaddress.IPv6Address) else parsed


def _forwarded(headers: Sequence[tuple[bytes, bytes]]) -> list[str]:
    values = b",".join(value for name, value in headers if name == b"x-forwarded-for")[:4096].decode("latin-1")
    return [each.strip() for each in values.split(",") if each.strip()]
