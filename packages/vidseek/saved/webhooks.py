"""Sends new moments to webhooks, signed, and each at most once.

A moment is written down as being sent before it is sent. It is tried again only where the receiver surely did not take it:
no connection came about, or it answered 408, 425, 429 or 5xx. Where it was sent and nobody answered, or the process died
meanwhile, it is `unknown` and stays so.

The request is that of Standard Webhooks (https://www.standardwebhooks.com): `webhook-id` is the moment's and the same in
every attempt, `webhook-timestamp` is the time of the attempt, `webhook-signature` is `v1,` and the base64 of the HMAC-SHA256
of `id.timestamp.body`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from vidseek.archive import Archive
from vidseek.jobs.job_table import this_worker
from vidseek.saved.records import SavedMoment, SavedSearch, rfc3339
from vidseek.saved.saved_table import SavedTable
from vidseek.settings import SavedSettings
from vidseek_media.errors import ConfigError, InputRejected
from vidseek_media.files.fetching import AnswerLost, Fetcher, UrlRefused
from vidseek_media.forgotten import read_forgotten
from vidseek_media.secret import secret

SECRET_VARIABLE = "VIDSEEK_WEBHOOK_SECRET"
SHORTEST_SECRET = 16
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 10.0, 3600.0
AT_ONCE_SECONDS = 60.0
"""For all that is due: a publish does not wait longer for who receives."""
_LATER = frozenset({408, 425, 429})
_REMEDY = "Look at saved.webhook_hosts in params.yaml, and at the address"


@dataclass(frozen=True)
class DeliveryReport:
    """What came of what was due."""

    num_sent: int = 0
    num_failed: int = 0
    """Refused for good, or too often."""
    num_unknown: int = 0
    """Sent, and nobody answered."""
    num_waiting: int = 0
    """Tried again later."""


class Sender:
    """Signs and sends.

    Args:
        fetcher: Reaches the allowed hosts.
        key: Signs.
    """

    def __init__(self, fetcher: Fetcher, key: bytes) -> None:
        self._fetcher = fetcher
        self._key = key

    @classmethod
    def of(cls, archive: Archive) -> Sender:
        """Return a sender with the settings of an archive, and the secret of the environment.

        Raises:
            UrlRefused: no host is allowed.
            ConfigError: there is no secret.
        """
        settings = archive.section(SavedSettings)
        if not settings.webhook_hosts:
            raise UrlRefused(
                "no host may be sent to", code="webhooks-off", remedy="Name it in saved.webhook_hosts of params.yaml",
            )
        fetcher = Fetcher(settings.webhook_hosts, max_bytes=0, timeout_seconds=settings.webhook_seconds, what="webhook")
        return cls(fetcher, key_of(secret(SECRET_VARIABLE)))

    def check(self, url: str) -> None:
        """Check that a webhook may be sent to; nothing is sent.

        Raises:
            UrlRefused: its host is not allowed, not known or not public.
        """
        try:
            self._fetcher.check(url)
        except UrlRefused as error:
            raise UrlRefused(error.message, code=error.code, remedy=_REMEDY) from error

    def send(self, search: SavedSearch, moment: SavedMoment) -> int:
        """Send a moment once, and return the status of the answer. Raises UrlRefused and AnswerLost as `Fetcher.post`."""
        sent_at = int(time.time())
        body = body_of(search, moment, sent_at)
        return self._fetcher.post(search.webhook, body, {
            "Content-Type": "application/json", "webhook-id": moment.id, "webhook-timestamp": str(sent_at),
            "webhook-signature": signature_of(self._key, moment.id, sent_at, body),
        })


def body_of(search: SavedSearch, moment: SavedMoment, sent_at: int) -> bytes:
    """Return the JSON that is sent.

    Args:
        search: That found it.
        moment: The moment.
        sent_at: Time of the attempt in seconds since 1970.
    """
    about = {"id": search.id, "name": search.name}
    content = {**moment.hit, "id": moment.id, "found_at": rfc3339(moment.found_at)}
    return json.dumps({
        "type": "vidseek.moment", "timestamp": rfc3339(sent_at), "data": {"saved_search": about, "moment": content},
    }, ensure_ascii=False).encode()


def signature_of(key: bytes, message_id: str, sent_at: int, body: bytes) -> str:
    """Return the value of `webhook-signature`.

    Args:
        key: As `key_of` gives it.
        message_id: `webhook-id`.
        sent_at: `webhook-timestamp`.
        body: Of the request.

    Examples:
        >>> signature_of(b"0123456789abcdef", "msg_1", 1700000000, b"{}")
        'v1,3uojc/2kvL+KpJkw4ZNrA/5YjEs9cdfKdc3lXIvRjkk='
    """
    signed = f"{message_id}.{sent_at}.".encode() + body
    return f"v1,{base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()}"


def key_of(text: str | None) -> bytes:
    """Return the key of a secret: what follows `whsec_` as base64, or else the text itself.

    Args:
        text: The secret; None where none is set.

    Raises:
        ConfigError: it is not set, too short, or no base64.
    """
    remedy = f"Set {SECRET_VARIABLE}, where searches are saved and where publishes run: `openssl rand -hex 32` makes one"
    if text is None:
        raise ConfigError("webhooks are signed, and there is no secret", code="webhook-secret", remedy=remedy)
    try:
        is_packed = text.startswith("whsec_")
        key = base64.b64decode(text.removeprefix("whsec_"), validate=True) if is_packed else text.encode()
    except ValueError as error:
        raise ConfigError(f"{SECRET_VARIABLE} is no base64 after whsec_", code="webhook-secret", remedy=remedy) from error
    if len(key) < SHORTEST_SECRET:
        raise ConfigError(
            f"{SECRET_VARIABLE} has {len(key)} bytes, wanted at least {SHORTEST_SECRET}", code="webhook-secret",
            remedy=remedy,
        )
    return key


def deliver(archive: Archive, open_sender: Callable[[Archive], Sender] = Sender.of) -> DeliveryReport:
    """Send what is due, each moment at most once. Of a host that does not take one, the others wait too.

    Args:
        archive: The archive.
        open_sender: Opens what sends.

    Raises:
        UrlRefused: something is due, and no host is allowed.
        ConfigError: the same, and there is no secret.
        ArtifactError: the table is broken.
    """
    table = SavedTable(archive.saved)
    if not table.has_work(time.time()):
        return DeliveryReport()
    settings = archive.section(SavedSettings)
    counts = {"sent": 0, "failed": 0, "unknown": table.bury(lease_seconds=2 * settings.webhook_seconds + 60)}
    table.forget(read_forgotten(archive.decisions).video_ids)
    until = time.monotonic() + AT_ONCE_SECONDS
    if due := table.due(time.time()):
        sender, searches = open_sender(archive), {each.id: each for each in table.searches()}
        down: set[str] = set()
        for moment in due:
            search = searches.get(moment.search_id)
            host = urlsplit(search.webhook).netloc if search else ""
            if search is None or host in down or time.monotonic() >= until:
                continue
            if not table.claim(moment.id, worker=this_worker(), now=time.time()):
                continue  # another process has it
            outcome = _sent(sender, search, moment)
            if outcome.delivery != "sent":
                down.add(host)
            _settle(table, moment, outcome, settings, counts)
    return DeliveryReport(counts["sent"], counts["failed"], counts["unknown"], table.num_waiting())


@dataclass(frozen=True)
class _Outcome:
    delivery: Literal["sent", "later", "failed", "unknown"]
    told: str


def _sent(sender: Sender, search: SavedSearch, moment: SavedMoment) -> _Outcome:
    try:
        status = sender.send(search, moment)
    except AnswerLost as error:
        return _Outcome("unknown", error.message)
    except InputRejected as error:
        return _Outcome("later", error.message)
    if 200 <= status < 300:
        return _Outcome("sent", f"answered {status}")
    is_later = status in _LATER or status >= 500
    why = "redirects are not followed" if 300 <= status < 400 else "refused"
    return _Outcome("later" if is_later else "failed", f"answered {status}" + ("" if is_later else f": {why}"))


def _settle(
    table: SavedTable, moment: SavedMoment, outcome: _Outcome, settings: SavedSettings, counts: dict[str, int]
) -> None:
    attempts = moment.attempts + 1
    if outcome.delivery == "later" and attempts < settings.webhook_attempts:
        wait = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2 ** (attempts - 1))
        table.settle(moment.id, "pending", outcome.told, next_at=time.time() + wait)
        return
    delivery = "failed" if outcome.delivery == "later" else outcome.delivery
    counts[delivery] += 1
    table.settle(moment.id, delivery, outcome.told)
