"""What a visitor has put into the basket, in the order of the timeline. It is kept for the visit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import streamlit as st

_KEY, MADE = "basket", "basket_made"
"""In the visitor's session: the moments, and the timeline that was made of them."""


@dataclass(frozen=True)
class KeptMoment:
    """A moment in the basket."""

    clip_id: str
    start_ms: int
    end_ms: int
    title: str
    uri: str

    @classmethod
    def of_hit(cls, hit: Mapping[str, Any]) -> KeptMoment:
        """Return the moment of a hit, as the API gives it."""
        return cls(
            str(hit["best_clip_id"]), int(hit["start_ms"]), int(hit["end_ms"]), str(hit["title"]), str(hit["uri"])
        )

    def body(self) -> dict[str, Any]:
        """Return it as `POST /v1/export` takes it."""
        return {"clip_id": self.clip_id, "start_ms": self.start_ms, "end_ms": self.end_ms}


def kept() -> list[KeptMoment]:
    """Return the moments, in their order."""
    moments: list[KeptMoment] = st.session_state.setdefault(_KEY, [])
    return moments


def toggle(moment: KeptMoment) -> None:
    """Put a moment in, or take it out."""
    moments = kept()
    _set([each for each in moments if each != moment] if moment in moments else [*moments, moment])


def move(place: int, by: int) -> None:
    """Move a moment.

    Args:
        place: Where it is, from 0.
        by: -1 to the front, 1 to the end.
    """
    moments = list(kept())
    if 0 <= place + by < len(moments):
        moments[place], moments[place + by] = moments[place + by], moments[place]
        _set(moments)


def clear() -> None:
    """Take all moments out."""
    _set([])


def _set(moments: list[KeptMoment]) -> None:
    st.session_state[_KEY] = moments
    st.session_state.pop(MADE, None)
