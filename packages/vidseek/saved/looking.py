"""Looks for moments that are new for saved searches: in videos that were published or changed since the last look."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from vidseek.archive import ALIAS, Archive, open_text_searcher
from vidseek.saved.records import SavedMoment, SavedQuery, SavedSearch
from vidseek.saved.saved_table import Looked, SavedTable, Seen
from vidseek.settings import SavedSettings
from vidseek_media.errors import VidseekError
from vidseek_media.files.appending import locked
from vidseek_media.forgotten import read_forgotten
from vidseek_media.records import Span, share_half

if TYPE_CHECKING:
    from vidseek_retrieval.search.query import Hit
    from vidseek_retrieval.search.searcher import Searcher

VIDEOS_AT_ONCE = 500
"""In one filter."""
PAGE = 1000
"""Moments that are asked for at once."""
MAX_MOMENTS = 10_000
"""Moments of one look at so many videos, or at the whole archive when a search is saved: the best ones."""
_TOO_MANY = "not sent: more than saved.max_moments in one publish"


@dataclass(frozen=True)
class LookReport:
    """What a look brought."""

    num_searches: int
    num_videos: int
    """New or changed since the last look."""
    new: tuple[SavedMoment, ...] = ()
    faults: tuple[str, ...] = ()
    """Of searches that could not be asked, each with its name."""


def look(archive: Archive, searcher: Callable[[], Searcher] | None = None) -> LookReport:
    """Ask all saved searches of what was published or changed since the last look, and keep what is new.

    What a look found is written at once, with what it has looked at: one that is killed has not happened. A search that
    cannot be asked says why, and is asked of the same videos next time. After another model was published, only new videos
    count: of the others every score has changed.

    Args:
        archive: The archive.
        searcher: Gives a searcher of the live collection; None opens one.

    Raises:
        ArtifactError: nothing is published, or the table is broken.
    """
    table = SavedTable(archive.saved)
    if not table.searches():
        return LookReport(0, 0)
    with locked(archive.saved):  # of two looks the second has nothing left to do
        before, searches, missed = table.seen(), table.searches(), table.missed()
        now = seen_of(archive)
        hidden = read_forgotten(archive.decisions).video_ids
        table.forget(hidden)
        is_other_model = before.encoder_version != now.encoder_version
        changed = {
            video for video, digest in now.videos.items()
            if video not in before.videos or (before.videos[video] != digest and not is_other_model)
        } - hidden
        owed = {each.id: (changed | missed.get(each.id, set())) & now.videos.keys() - hidden for each in searches}
        asked = [each for each in searches if owed[each.id] or is_other_model]
        if before.collection == now.collection and not asked:
            return LookReport(len(searches), 0)
        settings = archive.section(SavedSettings)
        looked: list[Looked] = []
        if asked:
            finder = Finder(open_text_searcher(archive) if searcher is None else searcher(), table, settings, time.time())
            looked = [finder.look(each, owed[each.id], renews=is_other_model) for each in asked]
        table.keep(looked, now, now=time.time(), most=settings.keep)
    names = {each.id: each.name for each in searches}
    return LookReport(
        len(searches), len(changed), tuple(moment for each in looked for moment in each.moments if moment.hit),
        tuple(f"{names[each.search_id]}: {each.reason}" for each in looked if each.code),
    )


def seen_of(archive: Archive) -> Seen:
    """Return what is published now.

    Raises:
        ArtifactError: nothing is published, or the index is broken.
    """
    from vidseek_retrieval.index.aliases import require_published

    backend = archive.backend()
    name = require_published(backend, ALIAS).collection
    record = backend.record(name)
    if record is not None:
        rows = zip(record.videos["video_id"].tolist(), record.videos["digest"].tolist(), strict=True)
        videos = {video.decode(): f"{high:016x}{low:016x}" for video, (high, low) in rows}
        return Seen(name, record.metadata.encoder_version, videos)
    collection = backend.open(name)  # of an import nobody knows what it was made from
    try:
        digests: dict[str, Any] = {}
        for point in collection.scroll():
            digest = digests.setdefault(str(point.payload["video_id"]), hashlib.sha256())
            digest.update(f"{point.clip_id} {sorted(map(str, point.payload.items()))}\n".encode())
        return Seen(
            name, collection.metadata.encoder_version, {video: each.hexdigest()[:32] for video, each in digests.items()}
        )
    finally:
        collection.close()


@dataclass(frozen=True)
class Finder:
    """Asks saved searches."""

    searcher: Searcher
    table: SavedTable
    settings: SavedSettings
    now: float

    def look(self, search: SavedSearch, video_ids: Collection[str], *, renews: bool) -> Looked:
        """Return what is new for a search.

        Args:
            search: The search.
            video_ids: Where.
            renews: Whether all that it finds elsewhere now is known as old.
        """
        try:
            hits = sorted(self.find(search.query, video_ids), key=lambda each: _rank_of(each[0]))
            known = self.table.spans(search.id, video_ids)
            new: list[SavedMoment] = []
            for hit, content in hits:
                spans = known.setdefault(hit.video_id, [])
                if not any(share_half((hit.start_ms, hit.end_ms), each) for each in spans):
                    spans.append((hit.start_ms, hit.end_ms))
                    found = moment_of(search, hit, content, self.now)
                    is_sent = len(new) < self.settings.max_moments
                    new.append(found if is_sent else replace(found, delivery="", told=_TOO_MANY))
            old = [each for each in self.before(search) if each.video_id not in video_ids] if renews else []
        except VidseekError as error:
            return Looked(search.id, missed=sorted(video_ids), code=error.code, reason=error.message)
        return Looked(search.id, [*new, *old])

    def before(self, search: SavedSearch) -> list[SavedMoment]:
        """Return what a search finds in the whole archive now, as moments that are not new."""
        return [moment_of(search, hit, {}, self.now) for hit, _ in self.find(search.query, None)]

    def find(self, query: SavedQuery, video_ids: Collection[str] | None) -> Iterator[tuple[Hit, dict[str, Any]]]:
        """Yield the hits of a query, each with its JSON.

        Args:
            query: The query; its least confidence is set.
            video_ids: Only in these videos; None for all.

        Raises:
            InputRejected: the query cannot be asked.
            ArtifactError: nothing is published, or by another model.
        """
        from vidseek_retrieval.search.query import QueryInputs, SearchOptions

        encoded = self.searcher.encode(
            QueryInputs(texts=query.texts, clip_ids=query.clip_ids),
            QueryInputs(texts=query.negative_texts, clip_ids=query.negative_clip_ids),
        )
        for filters in _filters(query.filters, video_ids):
            options: SearchOptions | None = SearchOptions(
                PAGE, filters=filters, min_confidence=query.min_confidence or 0.0, fields=query.fields
            )
            while options is not None and options.offset < MAX_MOMENTS:
                answer = self.searcher.search(encoded, options)
                for hit, content in zip(answer.hits, answer.to_json()["hits"], strict=True):
                    if query.min_score is None or hit.score >= query.min_score:
                        yield hit, content
                after = answer.next_offset
                options = None if after is None else replace(options, offset=after, collection=answer.collection)


def moment_of(search: SavedSearch, hit: Hit, content: Mapping[str, Any], now: float) -> SavedMoment:
    """Return the moment of a hit.

    Args:
        search: That found it.
        hit: The hit.
        content: Its JSON; empty for a moment that is not new.
        now: The time of the look.
    """
    span: Span = (hit.start_ms, hit.end_ms)
    return SavedMoment(
        SavedMoment.id_of(search.id, hit.video_id, *span), search.id, hit.video_id, *span, now, content,
        "pending" if search.webhook and content else "",
    )


def _filters(filters: Mapping[str, Any], video_ids: Collection[str] | None) -> Iterator[dict[str, Any]]:
    """Yield the filters of the searches that look at all of these videos."""
    if video_ids is None:
        yield dict(filters)
        return
    own = filters.get("video_id", video_ids)
    wanted = sorted(set(video_ids) & ({own} if isinstance(own, str) else set(own)))
    for begin in range(0, len(wanted), VIDEOS_AT_ONCE):
        yield {**filters, "video_id": wanted[begin : begin + VIDEOS_AT_ONCE]}


def _rank_of(hit: Hit) -> tuple[float, float]:
    return -(hit.confidence if hit.confidence is not None else 0.0), -hit.score
