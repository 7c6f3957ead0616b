"""What is looked for, as the address has it: so that every state of the search page is a link.

The widgets bind themselves to the address. What buttons change is here: examples, what plays, how many are shown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import streamlit as st

from serving.page.texts import TEXTS

PAGE = 12
MAX_SHOWN = 96
MAX_QUERIES = 4
MAX_EXAMPLES = 8
FIELDS = ("visual", "captions", "speech", "ocr")
"""What a search can look at, as the API names it."""
_QUERY = re.compile(r'(?:"[^"\n]*"|“[^”\n]*”|„[^“”\n]*[“”]|«[^»\n]*»|(?<=\d)[,，](?=\d)|[^,，、\n])+')
"""A query in a line: up to a comma that stands in no quotes and in no number."""
_CLIP_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True)
class QueryOptions:
    """Everything but the files."""

    texts: tuple[str, ...]
    """Each is a query of its own."""
    negative_text: str
    clip_ids: tuple[str, ...]
    negative_ids: tuple[str, ...]
    filters: Mapping[str, Any]
    sure: float
    num: int
    fields: tuple[str, ...] = ()
    """Some of `FIELDS`; empty for all."""

    def body(self, words: str) -> dict[str, Any]:
        """Return the JSON of POST /v1/search for one of the queries, or for "" where there are only examples or files."""
        wanted = {
            "text": words, "negative_text": self.negative_text, "clip_id": list(self.clip_ids),
            "negative_clip_id": list(self.negative_ids), "filters": dict(self.filters), "min_confidence": self.sure,
            "in": list(self.fields),
        }
        return {"limit": self.num, **{name: value for name, value in wanted.items() if value}}


def split_queries(written: str) -> tuple[str, ...]:
    """Return the queries in a line, by commas or line breaks; each once, blank ones left out."""
    parts = (match[0].strip() for match in _QUERY.finditer(written))
    return tuple(dict.fromkeys(part for part in parts if part))


def filters_of(
    *, channels: list[str], categories: list[str], after: date | None, before: date | None, shortest: int | None,
    longest: int | None,
) -> dict[str, Any]:
    """Return the filters of a search, as the API takes them; those that are not set are left out."""
    filters: dict[str, Any] = {name: values for name, values in (("channel", channels), ("category", categories)) if values}
    times = {name: day.isoformat() for name, day in (("gte", after), ("lt", before)) if day}
    lengths = {name: seconds * 1000 for name, seconds in (("gte", shortest), ("lte", longest)) if seconds is not None}
    return {**filters, **({"published_at": times} if times else {}), **({"duration_ms": lengths} if lengths else {})}


def own_filter(facet: Mapping[str, Any], chosen: list[str], least: Any, greatest: Any) -> Any:
    """Return the filter on a declared field, as the API takes it; None where nothing is chosen.

    Args:
        facet: Of the field, from GET /v1/facets.
        chosen: Keywords, or true or false.
        least: A number or day from which on, or None.
        greatest: A number or day up to which, or None. A whole day is included.
    """
    if facet["kind"] in ("keyword", "boolean"):
        return list(chosen) or None
    bounds: dict[str, Any] = {}
    if least is not None:
        bounds["gte"] = least.isoformat() if isinstance(least, date) else least
    if greatest is not None:
        is_day = isinstance(greatest, date)
        bounds["lt" if is_day else "lte"] = (greatest + timedelta(days=1)).isoformat() if is_day else greatest
    return bounds or None


def play_at(clip_id: str, start_ms: int) -> None:
    """Play a clip's video from a time."""
    st.query_params["play"] = clip_id
    st.query_params["at"] = str(start_ms)


def playing_at() -> int | None:
    """Return the time in milliseconds that the address plays from; None for the start of the clip."""
    given = st.query_params.get("at", "")
    return int(given) if given.isdecimal() and len(given) < 12 else None


def examples(name: str) -> tuple[str, ...]:
    """Return the clip ids in the address under `like` or `unlike`; what is no id is passed over."""
    given = st.query_params.get_all(name)
    return tuple(dict.fromkeys(each for each in given if _CLIP_ID.fullmatch(each)))[:MAX_EXAMPLES]


def fields() -> list[str]:
    """Return what the address says to look in: names of `FIELDS`, or what the page calls them in any language."""
    names = {label.casefold(): name for name in FIELDS for label in (name, *TEXTS[name])}
    given = (names.get(each.casefold()) for each in st.query_params.get_all("in"))
    return list(dict.fromkeys(name for name in given if name))


def keep_fields() -> None:
    """Write what is looked in into the address, by names that mean the same in every language."""
    st.query_params["in"] = list(st.session_state["in"])


def num_shown() -> int:
    """Return the number of moments to request for each query."""
    given = st.query_params.get("n", "")
    return min(MAX_SHOWN, max(PAGE, int(given))) if given.isdecimal() and len(given) < 5 else PAGE


def show_more() -> None:
    """Request one page more."""
    st.query_params["n"] = str(min(MAX_SHOWN, num_shown() + PAGE))


def playing() -> str | None:
    """Return the clip that the address plays."""
    given = st.query_params.get("play", "")
    return given if _CLIP_ID.fullmatch(given) else None


def play(clip_id: str) -> None:
    """Play a clip."""
    st.query_params["play"] = clip_id
    st.query_params.pop("at", None)


def close() -> None:
    """Play nothing."""
    st.query_params.pop("play", None)
    st.query_params.pop("at", None)


def only_like(clip_id: str) -> None:
    """Look for moments like this clip, and for nothing else."""
    st.session_state["q"] = ""
    st.session_state["files"] = st.session_state.get("files", 0) + 1  # a new, empty uploader
    st.query_params["like"] = [clip_id]
    st.query_params.pop("unlike", None)
    st.query_params.pop("n", None)


def add_like(clip_id: str) -> None:
    """Moments shall look like this clip too."""
    st.query_params["like"] = [*(each for each in examples("like") if each != clip_id), clip_id]
    st.query_params["unlike"] = [each for each in examples("unlike") if each != clip_id]


def add_unlike(clip_id: str) -> None:
    """Moments shall not look like this clip."""
    st.query_params["unlike"] = [*(each for each in examples("unlike") if each != clip_id), clip_id]
    st.query_params["like"] = [each for each in examples("like") if each != clip_id]


def forget_example(clip_id: str) -> None:
    """Remove an example clip."""
    for name in ("like", "unlike"):
        st.query_params[name] = [each for each in examples(name) if each != clip_id]
