"""Middleware that checks keys, and refuses requests that other sites cause."""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from serving.http.clients import header_of
from serving.http.sites import is_of_other_site
from vidseek_media.errors import InputRejected, VidseekError

OPEN_PATHS = frozenset({"/healthz", "/livez", "/readyz"})
"""Paths that monitoring may ask for without a key."""

ADMIN_PATHS = re.compile(r"/v1/(?:admin|videos|jobs|clips/[^/]+/(?:tags|captions))(?:/.*)?", re.DOTALL)
"""Routes at and below these have a key of their own. Tags and captions of a clip are among them: they change what everybody
finds."""

ADMIN_WRITES = re.compile(r"/v1/saved(?:/.*)?", re.DOTALL)
"""Routes that want the admin key for all but reading: a saved search makes the archive send to elsewhere."""

FREE_PATHS = frozenset({"/healthz", "/livez", "/openapi.json"})
"""A GET of these is cheap and changes nothing, so a page of another site may cause it."""


class KeyWrong(InputRejected):
    """The request has no key or a wrong one."""

    category = "key_wrong"
    code = "key-wrong"


class KeyNeeded(InputRejected):
    """The request came from another machine, and the service has no key."""

    category = "key_needed"
    code = "key-needed"


class AdminOff(InputRejected):
    """The service has a key, but no admin key."""

    category = "admin_off"
    code = "admin-off"


class CrossSite(InputRejected):
    """A page of another site in a browser caused the request."""

    category = "cross_site"
    code = "cross-site"


class Guard:
    """Checks keys. Without a key, only requests from this machine to its own address or name are answered.

    The Host header is checked because a page in a browser can make its own name resolve to this machine (DNS rebinding).
    Without a key, requests that a page of another site caused are refused
    (docs/decisions/2026-11-27-cross-site-requests.md). The admin routes have a key of their own, which also opens all
    other routes. If only `key` is set, the admin routes are off.

    Args:
        app: The guarded application.
        key: Compared in constant time with `Authorization: Bearer <key>`; None for a service without a key.
        admin_key: The key of the routes that `ADMIN_PATHS` matches; None for none.
        refuse: Gives the answer to an error, from the error and the request id.
    """

    def __init__(
        self, app: ASGIApp, *, key: str | None, refuse: Callable[[VidseekError, str], ASGIApp], admin_key: str | None = None
    ) -> None:
        self.app = app
        self.key = key.encode() if key else None
        self.admin_key = admin_key.encode() if admin_key else None
        self.refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        error = self._fault(scope) if scope["type"] == "http" else None
        if error is None:
            await self.app(scope, receive, send)
        else:
            await self.refuse(error, scope["state"]["request_id"])(scope, receive, send)

    def _fault(self, scope: Scope) -> VidseekError | None:
        if scope["path"] in OPEN_PATHS:
            return _fault_of_site(scope) if self.key is None else None
        is_admin = ADMIN_PATHS.fullmatch(scope["path"]) is not None or (
            scope["method"] not in ("GET", "HEAD") and ADMIN_WRITES.fullmatch(scope["path"]) is not None
        )
        if is_admin and self.admin_key is None and self.key is not None:
            return AdminOff("this service has no admin key", remedy="Set VIDSEEK_ADMIN_KEY where the service runs")
        if is_admin and self.admin_key is not None:
            return self._fault_of_key(scope, (self.admin_key,), "the admin key")
        if self.key is not None:
            keys = (self.key,) if self.admin_key is None else (self.key, self.admin_key)
            return self._fault_of_key(scope, keys, "the key")
        address = (scope.get("server") or ("", None))[0]
        if is_loopback(address) and is_loopback(host_of(header_of(scope, b"host").decode("latin-1"))):
            return _fault_of_site(scope)
        return KeyNeeded(
            "this service has no key, and answers only who asks 127.0.0.1 or localhost",
            remedy="Set VIDSEEK_API_KEY where the service runs, and send it as `Authorization: Bearer <key>`",
        )

    def _fault_of_key(self, scope: Scope, keys: tuple[bytes, ...], what: str) -> VidseekError | None:
        scheme, _, given = header_of(scope, b"authorization").partition(b" ")
        is_right = [hmac.compare_digest(given.strip(), key) for key in keys]  # always all keys: constant time
        if scheme.lower() == b"bearer" and any(is_right):
            return None
        return KeyWrong(f"the request does not have {what}", remedy=f"Send `Authorization: Bearer <{what[4:]}>`")


def is_loopback(host: str) -> bool:
    """Return whether a host is a loopback address or `localhost`.

    Args:
        host: An IP address or a name, without port or brackets.
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def host_of(header: str) -> str:
    """Return the host of a Host header, without port and without the brackets of IPv6.

    Args:
        header: The value of the header.
    """
    inside = re.fullmatch(r"\[([^\]]*)\](?::\d*)?", header)
    return inside.group(1) if inside else header.split(":")[0]


def _fault_of_site(scope: Scope) -> CrossSite | None:
    if not is_of_other_site(scope) or (scope["method"] in ("GET", "HEAD") and scope["path"] in FREE_PATHS):
        return None
    return CrossSite(
        "a page of another site caused this request, and the service has no key",
        remedy="Type the address into the browser, or set VIDSEEK_API_KEY where the service runs and send the key",
    )
