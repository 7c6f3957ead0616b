"""Security headers of answers: no framing, no content sniffing, no referrer."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

NO_FRAMES = "frame-ancestors 'none'"
SAFE_HEADERS: Mapping[str, str] = {
    "content-security-policy": f"default-src 'none'; {NO_FRAMES}",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}
"""Of the API: an answer is data, and loads nothing."""
PAGE_HEADERS: Mapping[str, str] = {
    **SAFE_HEADERS,
    "content-security-policy": f"{NO_FRAMES}; base-uri 'self'; object-src 'none'; form-action 'self'",
    # With no-referrer a browser sends `Origin: null` for a form of the page itself.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
"""Of the page: Streamlit's own scripts, styles, workers and sockets run, and nobody else shows it in a frame."""


class SafeHeaders:
    """Puts `headers` into every answer; a policy of the route itself stays, and also forbids frames."""

    def __init__(self, app: ASGIApp, *, headers: Mapping[str, str] = SAFE_HEADERS) -> None:
        self.app = app
        self.headers = {name.encode(): value.encode() for name, value in headers.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""

        async def send_safe(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = self._completed(message.get("headers", []))
            await send(message)

        await self.app(scope, receive, send_safe if scope["type"] == "http" else send)

    def _completed(self, given: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        own = dict(self.headers)
        kept = []
        for name, value in given:
            own.pop(name.lower(), None)
            if name.lower() == b"content-security-policy" and NO_FRAMES.encode() not in value:
                value = value + b"; " + NO_FRAMES.encode()
            kept.append((name, value))
        return kept + list(own.items())
