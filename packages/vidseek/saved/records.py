"""Records of saved searches: the query, the search, and a moment that was new for it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import urlsplit

NAMESPACE = uuid.UUID("a3c1f2b4-5d0e-5a67-8b91-2f6c7d8e9a10")
"""Of the ids of moments."""
Delivery = Literal["", "pending", "sending", "sent", "failed", "unknown"]
"""Of a moment to a webhook; empty where there is none. `unknown`: it was sent, and nobody answered."""


@dataclass(frozen=True)
class SavedQuery:
    """What is looked for; the values are those of a search."""

    texts: tuple[str, ...] = ()
    negative_texts: tuple[str, ...] = ()
    clip_ids: tuple[str, ...] = ()
    negative_clip_ids: tuple[str, ...] = ()
    filters: Mapping[str, Any] = field(default_factory=dict)
    fields: tuple[str, ...] = ()
    """What is looked at; empty for all."""
    min_confidence: float | None = None
    """None: as the settings say, where the query has a confidence."""
    min_score: float | None = None
    """The least score of a moment."""

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> SavedQuery:
        """Return the query that `to_json` wrote."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in content.items()
        }
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """Return it as values of JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class SavedSearch:
    """A query that is asked of what each publish brings."""

    id: str
    name: str
    query: SavedQuery
    webhook: str
    """Where new moments are sent; empty for nowhere."""
    created_at: float
    """Seconds since 1970, as all times here."""
    looked_at: float | None = None
    code: str = ""
    """Why the last look failed: a code of docs/errors.md; empty where it did not."""
    reason: str = ""
    num_before: int = 0
    """Moments that it found when it was saved, up to ten thousand: none says that its threshold may be too high."""

    def to_json(self) -> dict[str, Any]:
        """Return it as the command and the API show it: of the webhook only the host, since its path may be a secret."""
        return {
            "id": self.id, "name": self.name, "query": self.query.to_json(),
            "webhook_host": urlsplit(self.webhook).netloc or None, "created_at": rfc3339(self.created_at),
            "looked_at": None if self.looked_at is None else rfc3339(self.looked_at),
            "error": {"code": self.code, "message": self.reason} if self.code else None, "num_before": self.num_before,
        }


@dataclass(frozen=True)
class SavedMoment:
    """A moment that was new for a saved search."""

    id: str
    search_id: str
    video_id: str
    start_ms: int
    end_ms: int
    found_at: float
    hit: Mapping[str, Any]
    """As a search gives it; empty for one that was there before the search was saved."""
    delivery: Delivery = ""
    attempts: int = 0
    told: str = ""
    """What came of the last attempt to send it."""

    @staticmethod
    def id_of(search_id: str, video_id: str, start_ms: int, end_ms: int) -> str:
        """Return the id of a moment of a search: the same for the same span."""
        return str(uuid.uuid5(NAMESPACE, f"{search_id}:{video_id}:{start_ms}:{end_ms}"))

    def to_json(self) -> dict[str, Any]:
        """Return it as the command and the API show it."""
        return {
            **self.hit, "id": self.id, "found_at": rfc3339(self.found_at), "delivery": self.delivery or None,
            "attempts": self.attempts, "told": self.told,
        }


def rfc3339(moment: float) -> str:
    """Format a time in seconds since 1970: `2026-03-01T12:00:00Z`."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
