"""Requests to a Qdrant server: repeated if it does not answer, delayed if it asks for it, with vidseek's errors."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from qdrant_client import QdrantClient
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from vidseek_media.errors import ConfigError, ServiceError

TRIES = 4
"""Of a request that is cut off or answered by 5xx."""
FIRST_WAIT_SECONDS = 0.25
"""After the first try; doubled after each other."""
READER_PATIENCE_SECONDS = 10.0
"""A request waits no longer than this, all in all, where the server answers 429 (too many requests)."""
BUILDER_PATIENCE_SECONDS = 300.0
"""The same for a publish. Less than the builder's lock holds without a renewal."""
WAIT_WITHOUT_WORD_SECONDS = 1.0
"""After a 429 that names no time."""
MINIMUM_VERSION = (1, 17)
"""The first server with inserts that only insert, of which the builder's lock is made."""

UNREACHABLE_REMEDY = "See that the server of QDRANT_URL is up and has room, then try again"
_REMEDIES = {
    400: "The server refuses the request itself: look at the limits of its strict mode, and at its version",
    401: "Set QDRANT_API_KEY to a key that may read and write collections",
    403: "Set QDRANT_API_KEY to a key that may read and write collections",
    413: "Raise the server's limit on the size of a request (max_request_size_mb)",
}
_RETRIED_STATUS = 408
"""A time-out, which Qdrant answers where a cluster does not agree in time; so is all from 500 on."""

Result = TypeVar("Result")

_patience: ContextVar[float] = ContextVar("patience", default=READER_PATIENCE_SECONDS)


class ServerRefused(ServiceError):
    """The server answered with an error; `status` is that of HTTP."""

    code = "server-refused"

    def __init__(self, message: str, *, remedy: str = "", status: int = 0) -> None:
        super().__init__(message, remedy=remedy)
        self.status = status


class ServerBusy(ServiceError):
    """The server takes no more requests for now; `retry_after_s` is what it asks to wait."""

    code = "server-busy"

    def __init__(self, message: str, *, remedy: str = "", retry_after_s: float = 0.0) -> None:
        super().__init__(message, remedy=remedy)
        self.retry_after_s = retry_after_s


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Wait up to `seconds` for a server that limits the rate of requests, in this thread and as long as this lasts."""
    token = _patience.set(seconds)
    try:
        yield
    finally:
        _patience.reset(token)


def request(ask: Callable[..., Result], *args: Any, **named: Any) -> Result:
    """Send a request, and repeat it if the server does not answer. All of vidseek's requests can be repeated safely.

    Args:
        ask: The request.

    Raises:
        ServerRefused: the server answers with an error; its own faults (5xx) are retried four times.
        ServerBusy: it answers 429 and asks for a longer wait than is allowed.
        ServiceError: it does not answer.
    """
    num_failed, waited = 0, 0.0
    while True:
        try:
            return ask(*args, **named)
        except ResourceExhaustedResponse as error:
            wait = _wait_told(float(error.retry_after_s), waited, str(error), error)
            waited += wait
        except UnexpectedResponse as error:
            status = error.status_code or 0
            if status == 429:
                wait = _wait_told(WAIT_WITHOUT_WORD_SECONDS, waited, _said(error), error)
                waited += wait
            else:
                num_failed += 1
                if num_failed == TRIES or (status < 500 and status != _RETRIED_STATUS):
                    raise ServerRefused(
                        f"the Qdrant server says {status}: {_said(error)}",
                        remedy=_REMEDIES.get(status, UNREACHABLE_REMEDY), status=status,
                    ) from error
                wait = _wait_after(num_failed)
        except (ResponseHandlingException, QdrantException, OSError) as error:
            num_failed += 1
            if num_failed == TRIES:
                raise ServiceError(
                    f"the Qdrant server does not answer: {error}", code="server-no-answer", remedy=UNREACHABLE_REMEDY
                ) from error
            wait = _wait_after(num_failed)
        time.sleep(wait)


def require_version(client: QdrantClient) -> tuple[int, ...] | None:
    """Check that the server has at least `MINIMUM_VERSION`. A server that states no version is accepted.

    Returns:
        Major and minor version; None if it states none.

    Raises:
        ConfigError: it is older.
        ServiceError: it does not answer.
    """
    try:
        told = str(request(client.info).version)
    except ServerRefused as error:
        if error.status in (401, 403):
            raise
        return None  # a proxy that passes on collections alone
    version = _version_of(told)
    if version is not None and version < MINIMUM_VERSION:
        wanted = ".".join(map(str, MINIMUM_VERSION))
        raise ConfigError(
            f"the Qdrant server is of version {told}, wanted {wanted} or later", code="server-too-old",
            remedy="Upgrade the server one minor version after the other, as Qdrant's documentation says",
        )
    return version


def _version_of(told: str) -> tuple[int, ...] | None:
    """Major and minor version; None where `told` does not begin with two numbers."""
    match = re.match(r"v?(\d+)\.(\d+)", told.strip())
    return None if match is None else (int(match[1]), int(match[2]))


def _wait_after(num_failed: int) -> float:
    return float(FIRST_WAIT_SECONDS * 2 ** (num_failed - 1))


def _wait_told(told: float, waited: float, said: str, error: Exception) -> float:
    """Return how long to wait now; raise an error if that exceeds the allowed total."""
    if waited + told > _patience.get():
        raise ServerBusy(
            f"the Qdrant server says 429, after {waited:.0f} s of waiting: {said or 'too many requests'}",
            remedy=f"Try again in {told:.0f} s or later, or raise read_rate_limit and write_rate_limit of its strict mode",
            retry_after_s=told,
        ) from error
    return told


def _said(error: UnexpectedResponse) -> str:
    return error.content.decode(errors="replace")[:300] if error.content else str(error.reason_phrase)
