"""Saved searches and their moments, in SQLite: what was seen of the archive, what was new, what was sent."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vidseek.jobs.job_table import is_alive
from vidseek.saved.records import Delivery, SavedMoment, SavedQuery, SavedSearch
from vidseek.sqlite_file import SqliteFile
from vidseek_media.errors import ArtifactError, InputRejected
from vidseek_media.records import Span

TABLE_NAME = "saved.sqlite3"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS searches (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, query TEXT NOT NULL, webhook TEXT NOT NULL, created_at REAL NOT NULL,
    looked_at REAL, code TEXT NOT NULL DEFAULT '', reason TEXT NOT NULL DEFAULT '', num_before INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS moments (
    id TEXT PRIMARY KEY, search_id TEXT NOT NULL, video_id TEXT NOT NULL, start_ms INTEGER NOT NULL,
    end_ms INTEGER NOT NULL, found_at REAL NOT NULL, hit TEXT NOT NULL, delivery TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0, next_at REAL NOT NULL DEFAULT 0, worker TEXT NOT NULL DEFAULT '',
    claimed_at REAL, told TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX IF NOT EXISTS of_search ON moments (search_id, video_id);
CREATE INDEX IF NOT EXISTS by_delivery ON moments (delivery, next_at);
CREATE TABLE IF NOT EXISTS seen (video_id TEXT PRIMARY KEY, digest TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS missed (
    search_id TEXT NOT NULL, video_id TEXT NOT NULL, PRIMARY KEY (search_id, video_id)
) STRICT;
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
"""
_WITHOUT_HIT = """
UPDATE moments SET hit = '' WHERE search_id = :search_id AND delivery NOT IN ('pending', 'sending') AND id NOT IN (
    SELECT id FROM moments WHERE search_id = :search_id AND hit != '' ORDER BY found_at DESC, rowid LIMIT :most
)
"""
_MOMENT = "id, search_id, video_id, start_ms, end_ms, found_at, hit, delivery, attempts, told"


class SavedGone(InputRejected):
    """There is no such saved search."""

    category = "saved_not_found"
    code = "saved-not-found"


@dataclass(frozen=True)
class Seen:
    """What was looked at last."""

    collection: str = ""
    encoder_version: str = ""
    videos: Mapping[str, str] = field(default_factory=dict)
    """A digest of each video's content."""


@dataclass(frozen=True)
class Looked:
    """What a look brought for one search."""

    search_id: str
    moments: Sequence[SavedMoment] = ()
    missed: Collection[str] = ()
    """Videos that could not be looked at, and are looked at next time."""
    code: str = ""
    reason: str = ""


@dataclass(frozen=True)
class SavedTable:
    """The saved searches of an archive. Any number of threads and processes may use it.

    Args:
        folder: `.vidseek/saved` of the archive; it is made with the first search.
    """

    folder: Path

    @property
    def path(self) -> Path:
        """The file of SQLite."""
        return self.folder / TABLE_NAME

    @property
    def _file(self) -> SqliteFile:
        return SqliteFile(
            self.path, _SCHEMA, 1, "a table of saved searches", _broken,
            "the saved searches and their moments are lost",
        )

    def searches(self) -> list[SavedSearch]:
        """Return all searches, the oldest first.

        Raises:
            ArtifactError: the table is broken.
        """
        with self._file.reading() as db:
            columns = "id, name, query, webhook, created_at, looked_at, code, reason, num_before"
            rows = db.execute(f"SELECT {columns} FROM searches ORDER BY created_at, rowid").fetchall() if db else []
        try:
            return [SavedSearch(row[0], row[1], SavedQuery.from_json(json.loads(row[2])), *row[3:]) for row in rows]
        except (ValueError, TypeError, AttributeError) as error:
            raise _broken(
                f"{self.path} holds a search that is none: {error}",
                "Use the vidseek that wrote it, or remove it with `vidseek saved remove`",
            ) from error

    def get(self, search_id: str) -> SavedSearch:
        """Return a search.

        Raises:
            SavedGone: there is none.
        """
        found = next((each for each in self.searches() if each.id == search_id), None)
        if found is None:
            raise _gone(search_id)
        return found

    def add(self, search: SavedSearch, before: Iterable[SavedMoment], seen: Seen) -> None:
        """Add a search.

        Args:
            search: The search.
            before: What it finds already, which is never new.
            seen: What is published; kept where no other search has looked at anything yet.
        """
        with self._file.writing() as db:
            if not db.execute("SELECT 1 FROM searches LIMIT 1").fetchone():
                _write_seen(db, seen)
            query = json.dumps(search.query.to_json())
            db.execute(
                "INSERT INTO searches (id, name, query, webhook, created_at, num_before) VALUES (?, ?, ?, ?, ?, ?)",
                (search.id, search.name, query, search.webhook, search.created_at, search.num_before),
            )
            _insert(db, before)

    def remove(self, search_id: str) -> None:
        """Remove a search with its moments; what is not sent yet is not sent any more.

        Raises:
            SavedGone: there is none.
        """
        with self._file.writing() as db:
            found = db.execute("DELETE FROM searches WHERE id = ?", (search_id,)).rowcount
            for table in ("moments", "missed"):
                db.execute(f"DELETE FROM {table} WHERE search_id = ?", (search_id,))
        if not found:
            raise _gone(search_id)

    def seen(self) -> Seen:
        """Return what was looked at last."""
        with self._file.reading() as db:
            if db is None:
                return Seen()
            facts = dict(db.execute("SELECT name, value FROM facts").fetchall())
            videos = dict(db.execute("SELECT video_id, digest FROM seen").fetchall())
        return Seen(facts.get("collection", ""), facts.get("encoder_version", ""), videos)

    def missed(self) -> dict[str, set[str]]:
        """Return the videos that each search could not look at, by its id."""
        with self._file.reading() as db:
            rows = db.execute("SELECT search_id, video_id FROM missed").fetchall() if db else []
        found: dict[str, set[str]] = {}
        for search_id, video_id in rows:
            found.setdefault(search_id, set()).add(video_id)
        return found

    def spans(self, search_id: str, video_ids: Collection[str]) -> dict[str, list[Span]]:
        """Return the spans of all moments of a search that are known, by video, those from before it was saved too."""
        with self._file.reading() as db:
            rows = db.execute(
                "SELECT video_id, start_ms, end_ms FROM moments WHERE search_id = ? AND video_id IN "
                "(SELECT value FROM json_each(?))", (search_id, json.dumps([*video_ids])),
            ).fetchall() if db else []
        found: dict[str, list[Span]] = {}
        for video_id, start_ms, end_ms in rows:
            found.setdefault(video_id, []).append((start_ms, end_ms))
        return found

    def keep(self, looked: Sequence[Looked], seen: Seen, *, now: float, most: int) -> None:
        """Write what a look brought, all of it or nothing. Searches that were removed meanwhile are passed over.

        Args:
            looked: For each search.
            seen: What was looked at.
            now: The time.
            most: Moments of a search whose hits are kept, the newest ones.
        """
        with self._file.writing() as db:
            there = {row[0] for row in db.execute("SELECT id FROM searches")}
            for each in looked:
                if each.search_id not in there:
                    continue
                _insert(db, each.moments)
                db.execute(
                    "UPDATE searches SET looked_at = ?, code = ?, reason = ? WHERE id = ?",
                    (now, each.code, each.reason, each.search_id),
                )
                db.execute("DELETE FROM missed WHERE search_id = ?", (each.search_id,))
                db.executemany("INSERT INTO missed VALUES (?, ?)", [(each.search_id, video) for video in each.missed])
                db.execute(_WITHOUT_HIT, {"search_id": each.search_id, "most": most})
            _write_seen(db, seen)

    def moments(self, search_id: str, *, limit: int, hidden: Collection[str] = ()) -> list[SavedMoment]:
        """Return the moments that were new for a search, the newest first.

        Args:
            search_id: Of the search.
            limit: How many, at most.
            hidden: Ids of videos that are not shown.
        """
        return self._select(
            "WHERE search_id = ? AND hit != '' AND video_id NOT IN (SELECT value FROM json_each(?)) "
            "ORDER BY found_at DESC, rowid LIMIT ?", (search_id, json.dumps([*hidden]), limit),
        )

    def has_work(self, now: float) -> bool:
        """Whether a moment is to be sent now, or was being sent."""
        with self._file.reading() as db:
            asked = "SELECT 1 FROM moments WHERE delivery = 'sending' OR (delivery = 'pending' AND next_at <= ?) LIMIT 1"
            return db is not None and db.execute(asked, (now,)).fetchone() is not None

    def due(self, now: float) -> list[SavedMoment]:
        """Return the moments that wait to be sent now, the oldest first."""
        return self._select("WHERE delivery = 'pending' AND next_at <= ? ORDER BY found_at, rowid", (now,))

    def num_waiting(self) -> int:
        """Return the number of moments that are to be sent."""
        with self._file.reading() as db:
            if db is None:
                return 0
            return int(db.execute("SELECT COUNT(*) FROM moments WHERE delivery = 'pending'").fetchone()[0])

    def claim(self, moment_id: str, *, worker: str, now: float) -> bool:
        """Take a moment for sending: at most one caller gets it. This is on the disk before it is sent.

        Args:
            moment_id: Of the moment.
            worker: Who sends it.
            now: The time.
        """
        with self._file.writing() as db:
            return db.execute(
                "UPDATE moments SET delivery = 'sending', worker = ?, claimed_at = ?, attempts = attempts + 1 "
                "WHERE id = ? AND delivery = 'pending'", (worker, now, moment_id),
            ).rowcount == 1

    def settle(self, moment_id: str, delivery: Delivery, told: str, *, next_at: float = 0.0) -> None:
        """Write down what came of sending a moment.

        Args:
            moment_id: Of the moment.
            delivery: `pending` where it is tried again.
            told: Why, for people.
            next_at: When it is tried again.
        """
        with self._file.writing() as db:
            db.execute(
                "UPDATE moments SET delivery = ?, told = ?, next_at = ? WHERE id = ? AND delivery = 'sending'",
                (delivery, told, next_at, moment_id),
            )

    def bury(self, *, lease_seconds: float) -> int:
        """Write down as `unknown` what was being sent when its process died, and return how many these are."""
        with self._file.reading() as db:
            asked = "SELECT id, worker, claimed_at FROM moments WHERE delivery = 'sending'"
            rows = db.execute(asked).fetchall() if db else []
        died = [row[0] for row in rows if not is_alive(row[1], row[2], lease_seconds=lease_seconds)]
        for moment_id in died:
            self.settle(moment_id, "unknown", "the process that sent it died")
        return len(died)

    def forget(self, video_ids: Collection[str]) -> None:
        """Remove the moments of videos."""
        if not self.path.exists() or not video_ids:
            return
        with self._file.writing() as db:
            for table in ("moments", "missed"):
                db.executemany(f"DELETE FROM {table} WHERE video_id = ?", [(each,) for each in video_ids])

    def _select(self, clause: str, values: Sequence[Any]) -> list[SavedMoment]:
        with self._file.reading() as db:
            rows = db.execute(f"SELECT {_MOMENT} FROM moments {clause}", values).fetchall() if db else []
        names = _MOMENT.split(", ")
        return [SavedMoment(**{**dict(zip(names, row, strict=True)), "hit": json.loads(row[6] or "{}")}) for row in rows]


def _broken(message: str, remedy: str) -> ArtifactError:
    return ArtifactError(message, code="broken-saved", remedy=remedy)


def _gone(search_id: str) -> SavedGone:
    return SavedGone(f"there is no saved search {search_id[:64]!r}", remedy="`vidseek saved list` has their ids")


def _write_seen(db: sqlite3.Connection, seen: Seen) -> None:
    before = dict(db.execute("SELECT video_id, digest FROM seen").fetchall())
    db.executemany("DELETE FROM seen WHERE video_id = ?", [(each,) for each in before.keys() - seen.videos.keys()])
    changed = [(video, digest) for video, digest in seen.videos.items() if before.get(video) != digest]
    db.executemany("INSERT OR REPLACE INTO seen VALUES (?, ?)", changed)
    facts = {"collection": seen.collection, "encoder_version": seen.encoder_version}
    db.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", list(facts.items()))


def _insert(db: sqlite3.Connection, moments: Iterable[SavedMoment]) -> None:
    db.executemany(
        f"INSERT OR IGNORE INTO moments ({_MOMENT}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [(each.id, each.search_id, each.video_id, each.start_ms, each.end_ms, each.found_at,
          json.dumps(each.hit) if each.hit else "", each.delivery, each.attempts, each.told) for each in moments],
    )
