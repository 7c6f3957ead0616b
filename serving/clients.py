"""Who a request is of, for shares and limits: the network address that it came from."""

from __future__ import annotations

import ipaddress
from contextvars import ContextVar

from starlette.types import ASGIApp, Receive, Scope, Send

_client: ContextVar[str] = ContextVar("client", default="")


def current_client() -> str:
    """The client of the request that this is done for; empty outside of one."""
    return _client.get()


def client_of(scope: Scope) -> str:
    """The address of the connection. IPv6 hands out whole networks: of it only the first 64 bits count."""
    host = str((scope.get("client") or ("",))[0])
    try:
        ip = ipaddress.ip_address(host.split("%")[0])
    except ValueError:
        return host
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ip.ipv4_mapped or ipaddress.ip_network((ip, 64), strict=False))
    return str(ip)


class Client:
    """Remembers the client of a request while it is answered."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        _client.set(client_of(scope))
        await self.app(scope, receive, send)
