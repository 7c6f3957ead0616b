"""Lists saved searches and their newest moments, without those of forgotten videos."""

from __future__ import annotations

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
    table = SavedTable(archive.saved)
    search = table.get(search_id)
    hidden = read_forgotten(archive.decisions).video_ids
    return search, table.moments(search_id, limit=archive.section(SavedSettings).keep, hidden=hidden)


def newest(archive: Archive, search_id: str) -> dict[str, Any]:
    """Return the same as values of JSON. Raises SavedGone."""
    search, moments = newest_moments(archive, search_id)
    return {**search.to_json(), "num_new": len(moments), "moments": [each.to_json() for each in moments]}


def list_saved(archive: Archive, *, most: int = 0) -> list[dict[str, Any]]:
    """Return all saved searches as values of JSON, the oldest first.

    Args:
        archive: The archive.
        most: How many of its newest moments each has.
    """
    found = [newest(archive, each.id) for each in SavedTable(archive.saved).searches()]
    return [{**each, "moments": each["moments"][:most]} for each in found]
