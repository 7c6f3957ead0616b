"""Detects requests that a page of another site caused in a browser (docs/decisions/2026-11-27-cross-site-requests.md)."""

from __future__ import annotations

import re

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send


def is_of_other_site(scope: Scope) -> bool:
    """Whether a browser says that a page of another site caused the request; programs that are no browser say nothing.

    `same-site` counts as another site: on this machine it is any program that serves a page at another port.
    """
    fetched = set(_values(scope, b"sec-fetch-site"))
    hosts = _values(scope, b"host") or [""]
    return not fetched <= {"same-origin", "none"} or not all(
        is_own_origin(each, hosts[-1]) for each in _values(scope, b"origin")
    )


def is_own_origin(origin: str, host: str) -> bool:
    """Whether an Origin header names the same host and port as a Host header does. `null` never does."""
    found = re.fullmatch(r"(https?)://([^/?#@]+)", origin.lower())
    if not found:
        return False
    default = ":80" if found[1] == "http" else ":443"
    return found[2].removesuffix(default) == host.lower().removesuffix(default)


class OwnPagesOnly:
    """For the page: answers links from other sites, and refuses all else that they cause: frames, forms, sockets, images.

    Only Sec-Fetch-Site is looked at. Streamlit itself compares the Origin of its socket, and knows of proxies.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request or socket."""
        if scope["type"] not in ("http", "websocket") or not self._is_refused(scope):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await PlainTextResponse("A page of another site caused this request.\n", status_code=403)(scope, receive, send)

    def _is_refused(self, scope: Scope) -> bool:
        if set(_values(scope, b"sec-fetch-site")) <= {"same-origin", "none"}:
            return False
        is_link = _values(scope, b"sec-fetch-mode") == ["navigate"] and _values(scope, b"sec-fetch-dest") == ["document"]
        return not (is_link and scope.get("method") == "GET")


def _values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for each, value in scope["headers"] if each == name]
