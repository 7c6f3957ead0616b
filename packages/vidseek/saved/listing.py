"""Lists saved searches and their newest moments, without those of forgotten videos."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from vidseek.archive import Archive
from vidseek.saved.records import SavedMoment, SavedSearch
from vidseek.saved.saved_table import SavedTable
from vidseek.settings import SavedSettings
from vidseek_media.forgotten import read_forgotten


def newest_moments(archive: Archive, search_id: str) -> tuple[SavedSearch, list[SavedMoment]]:
    """Return a saved search, and what was new for it, the newest first.

    Args:
        archive: The archive.
        search_id: Of the search.

    Raises:
        SavedGone: there is none.
    """
    [found] = _with_moments(archive, [SavedTable(archive.saved).get(search_id)])
    return found


def newest(archive: Archive, search_id: str) -> dict[str, Any]:
    """Return the same as values of JSON. Raises SavedGone."""
    return _to_json(*newest_moments(archive, search_id))


def list_saved(archive: Archive, *, most: int = 0) -> list[dict[str, Any]]:
    """Return all saved searches as values of JSON, the oldest first.

    Args:
        archive: The archive.
        most: How many of its newest moments each has.
    """
    searches = SavedTable(archive.saved).searches()
    return [_to_json(search, moments, most=most) for search, moments in _with_moments(archive, searches)]


def _with_moments(archive: Archive, searches: Iterable[SavedSearch]) -> Iterator[tuple[SavedSearch, list[SavedMoment]]]:
    table, keep = SavedTable(archive.saved), archive.section(SavedSettings).keep
    hidden = read_forgotten(archive.decisions).video_ids
    for each in searches:
        yield each, table.moments(each.id, limit=keep, hidden=hidden)


def _to_json(search: SavedSearch, moments: list[SavedMoment], *, most: int | None = None) -> dict[str, Any]:
    return {**search.to_json(), "num_new": len(moments), "moments": [each.to_json() for each in moments[:most]]}
