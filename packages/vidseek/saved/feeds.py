"""The feed of a saved search: Atom (RFC 4287) and JSON Feed 1.1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

from vidseek.printing import clock
from vidseek.saved.records import SavedMoment, SavedSearch, rfc3339
from vidseek_media.output import printable

ATOM = "http://www.w3.org/2005/Atom"
MEDIA_TYPES = {"atom": "application/atom+xml", "json": "application/feed+json"}


def json_feed(search: SavedSearch, moments: Sequence[SavedMoment]) -> dict[str, Any]:
    """Return the JSON Feed of a saved search.

    Args:
        search: The search.
        moments: What was new, the newest first.
    """
    return {
        "version": "https://jsonfeed.org/version/1.1", "title": _text(search.name),
        "description": "New moments of a saved search of vidseek",
        "items": [
            {"id": f"urn:uuid:{each.id}", "title": title_of(each), "content_text": summary_of(each),
             "date_published": rfc3339(each.found_at), "_vidseek": {**each.hit}}
            for each in moments
        ],
    }


def atom_feed(search: SavedSearch, moments: Sequence[SavedMoment]) -> bytes:
    """Return the Atom feed of a saved search, in UTF-8.

    Args:
        search: The search.
        moments: What was new, the newest first.
    """
    ElementTree.register_namespace("", ATOM)
    feed = _element(None, "feed")
    _element(feed, "id", f"urn:vidseek:saved:{search.id}")
    _element(feed, "title", search.name)
    _element(feed, "updated", rfc3339(max((each.found_at for each in moments), default=search.created_at)))
    _element(_element(feed, "author"), "name", "vidseek")
    for each in moments:
        entry = _element(feed, "entry")
        _element(entry, "id", f"urn:uuid:{each.id}")
        _element(entry, "title", title_of(each))
        _element(entry, "updated", rfc3339(each.found_at))
        _element(entry, "content", summary_of(each)).set("type", "text")
    found: bytes = ElementTree.tostring(feed, encoding="utf-8", xml_declaration=True)
    return found


def title_of(moment: SavedMoment) -> str:
    """Return the title of a moment: of its video, with the span."""
    name = str(moment.hit.get("title") or moment.hit.get("uri") or moment.video_id)
    return _text(f"{name}, {clock(moment.start_ms)} – {clock(moment.end_ms)}")


def summary_of(moment: SavedMoment) -> str:
    """Return what is to be known of a moment, in lines."""
    hit = moment.hit
    sure = "" if hit.get("confidence") is None else f"confidence {hit['confidence']:.2f}"
    texts = [f"{each['field']}: {each['text']}" for each in hit.get("evidence") or []]
    own = [
        f"{name}: {', '.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in (hit.get("fields") or {}).items()
    ]
    name = f"{moment.video_id}:{moment.start_ms}-{moment.end_ms}"
    return "\n".join(map(_text, filter(None, [str(hit.get("uri", "")), sure, *texts, *own, f"vidseek clip {name}"])))


def _element(parent: ElementTree.Element | None, name: str, text: str | None = None) -> ElementTree.Element:
    tag = f"{{{ATOM}}}{name}"
    found = ElementTree.Element(tag) if parent is None else ElementTree.SubElement(parent, tag)
    if text is not None:
        found.text = _text(text)
    return found


def _text(text: str) -> str:
    """Return a text without what no XML may hold, or turns the text of others around."""
    return printable(text, keep="\n")
