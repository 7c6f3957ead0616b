"""Saves a search: what is wrong with it is told then, and what it finds already is never new."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from vidseek.archive import Archive
from vidseek.jobs.job_table import new_id
from vidseek.saved.looking import Finder, seen_of
from vidseek.saved.records import SavedQuery, SavedSearch
from vidseek.saved.saved_table import SavedTable
from vidseek.saved.webhooks import Sender
from vidseek.settings import SavedSettings
from vidseek_media.errors import InputRejected
from vidseek_media.files.appending import locked
from vidseek_media.guards import mended_text

if TYPE_CHECKING:
    from vidseek_retrieval.search.searcher import Searcher

MAX_NAME = 200


class TooManySaved(InputRejected):
    """As many searches are saved as may be."""

    code = "too-many-saved"


def save_search(
    archive: Archive, query: SavedQuery, searcher: Searcher, *, name: str = "", webhook: str = "",
    open_sender: Callable[[Archive], Sender] = Sender.of,
) -> SavedSearch:
    """Save a search of an archive. Moments that it finds now are not new.

    Args:
        archive: The archive.
        query: What is looked for.
        searcher: Of the live collection.
        name: For people; the words by default.
        webhook: Where new moments are sent; empty for nowhere.
        open_sender: Opens what sends.

    Raises:
        InputRejected: the query or a filter cannot be used, has no threshold, or the webhook may not be sent to.
        ConfigError: there is no secret to sign with.
        ArtifactError: nothing is published, or the disk does not take it.
    """
    settings = archive.section(SavedSettings)
    if webhook:
        open_sender(archive).check(webhook)
    table = SavedTable(archive.saved)
    finder = Finder(searcher, table, settings, time.time())
    query = _with_threshold(query, finder)
    shown = mended_text(name).strip() or ", ".join(query.texts) or "by example"
    search = SavedSearch(new_id(), shown[:MAX_NAME], query, webhook, time.time())
    with locked(archive.saved):
        if (num := len(table.searches())) >= settings.max_searches:
            raise TooManySaved(
                f"{num} searches are saved, wanted at most {settings.max_searches}",
                remedy="Remove one, or raise saved.max_searches in params.yaml",
            )
        seen = seen_of(archive)
        before = finder.before(search)
        search = replace(search, num_before=len(before))
        table.add(search, before, seen)
    return search


def _with_threshold(query: SavedQuery, finder: Finder) -> SavedQuery:
    """Return the query with its least confidence: a search by look without one would find something in every video."""
    if query.min_confidence is not None:
        next(finder.find(query, None), None)
        return query
    if query.min_score is not None or _is_of_words(query):
        query = replace(query, min_confidence=0.0)
        next(finder.find(query, None), None)
        return query
    sure = replace(query, min_confidence=finder.settings.min_confidence)
    try:  # without filters: where nothing is found, nobody can tell whether it has a confidence
        next(finder.find(replace(sure, filters={}), None), None)
        next(finder.find(sure, None), None)
        return sure
    except InputRejected as error:
        if error.code != "no-confidence":
            raise
        raise InputRejected(
            f"{error.message}: every video would have a moment", code="saved-without-threshold",
            remedy="Give min_score, the least score of a moment (a search shows scores), or look in captions, speech "
                   "and on-screen text alone",
        ) from error


def _is_of_words(query: SavedQuery) -> bool:
    """Whether only clips are found whose texts have the words."""
    from vidseek_retrieval.lexical.query_text import QueryText
    from vidseek_retrieval.settings import VISUAL

    looks = VISUAL in query.fields or not query.fields
    return bool(query.texts) and (not looks or any(QueryText.of(text).phrases for text in query.texts))
