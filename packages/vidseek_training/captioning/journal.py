"""The journal of all that was asked of models, in SQLite: one row for each request. It is cache and ledger.

A row is written before its request goes out, with the most that it may cost, and completed when the answer comes: captions
or why there are none, tokens, cost. A request that cost nothing has no row. A row without an answer was under way when the
process died, or was given up in time: the provider may have counted it, so it counts as spent at what was reserved.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import threading
import uuid
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vidseek_media.errors import ArtifactError, ConfigError, foreign
from vidseek_media.files.appending import read_lines
from vidseek_media.files.folders import sync_path
from vidseek_media.guards import mended_text
from vidseek_media.urls import without_secrets

JOURNAL_NAME = "journal.sqlite3"
LOCK_NAME = "journal.lock"
EARLIER_NAME = "journal.jsonl"
"""The journal of an earlier version: JSON lines. It is taken over, and removed."""

_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS requests (
    number TEXT PRIMARY KEY,
    key TEXT NOT NULL,
    basis TEXT NOT NULL,
    video_id TEXT NOT NULL,
    reserved_usd REAL NOT NULL,
    cost_usd REAL,
    captions TEXT,
    reason TEXT NOT NULL DEFAULT '',
    model TEXT NOT NULL DEFAULT '',
    tokens_in INTEGER,
    tokens_out INTEGER,
    guessed_in INTEGER,
    cut_at INTEGER
) STRICT
"""
"""`cost_usd` is null as long as there is no answer. `key` and `video_id` are empty where the answer was forgotten."""

_ANSWER = """
INSERT INTO requests (number, key, basis, video_id, reserved_usd, cost_usd, captions, reason, model, tokens_in, tokens_out,
                      guessed_in, cut_at)
VALUES (:number, '', '', '', 0, :cost_usd, :captions, :reason, :model, :tokens_in, :tokens_out, :guessed_in, :cut_at)
ON CONFLICT (number) DO UPDATE SET cost_usd = :cost_usd, captions = :captions, reason = :reason, model = :model,
    tokens_in = :tokens_in, tokens_out = :tokens_out, guessed_in = :guessed_in, cut_at = :cut_at
"""
_BROKEN = (sqlite3.Error, KeyError, TypeError, ValueError, OverflowError, AttributeError)


@dataclass(frozen=True)
class Entry:
    """What is known of one key."""

    captions: Mapping[str, str] | None
    """By detail; None where the model gave none."""
    reason: str
    """Why there are none, or empty."""
    cost_usd: float
    """Of all requests that were made for it."""
    cut_at: int | None = None
    """Tokens at which the answer was cut off, at the last; it is asked for again where a longer one is allowed."""
    model: str = ""
    """That answered, by the provider's word."""


@dataclass
class Tally:
    """What the answers of one model and prompt cost against what was guessed."""

    num_answers: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    guessed_in: int = 0
    max_ratio_in: float = 0.0
    """The largest tokens_in / guessed_in."""
    max_tokens_out: int = 0

    def note(self, *, tokens_in: int, tokens_out: int, guessed_in: int) -> None:
        """Count one answer more."""
        self.num_answers += 1
        self.tokens_in += tokens_in
        self.tokens_out += tokens_out
        self.guessed_in += guessed_in
        self.max_ratio_in = max(self.max_ratio_in, tokens_in / max(1, guessed_in))
        self.max_tokens_out = max(self.max_tokens_out, tokens_out)


@dataclass
class Journal:
    """All requests so far. Use `open_journal` to write, `read_journal` to look. Safe to be used by several threads."""

    path: Path
    entries: dict[str, Entry] = field(default_factory=dict)
    """By key; the last answer counts, its cost is that of all."""
    tallies: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    """By `basis`: the model, the prompt, and what the guesses rested on."""
    settled_usd: float = 0.0
    """What answers cost."""
    num_broken: int = 0
    """Lines of an earlier version's journal that a death tore. What they said is not known: an answer among them counts at
    what was reserved for it."""
    _asks: dict[str, _Ask] = field(default_factory=dict)
    """Without an answer, by number."""
    _db: sqlite3.Connection | None = None
    _has_log: bool = False
    _lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def unsettled_usd(self) -> float:
        """What requests may have cost whose answer was never seen, and those under way, at the most."""
        with self._lock:
            return sum(ask.reserved_usd for ask in self._asks.values())

    def ask(self, *, key: str, basis: str, video_id: str, reserved_usd: float) -> str:
        """Note that a request goes out, and return its number, for `answer` or `free`."""
        number, ask = uuid.uuid4().hex[:16], _Ask(key, basis, reserved_usd)
        with self._writing(sync=False) as db:
            _insert_ask(db, number, ask, video_id)
            self._asks[number] = ask
        return number

    def free(self, number: str) -> None:
        """Record that a request cost nothing."""
        with self._writing(sync=False) as db:
            db.execute("DELETE FROM requests WHERE number = ?", (number,))
            self._asks.pop(number, None)

    def answer(
        self, number: str, *, captions: Mapping[str, str] | None, reason: str, tokens: tuple[int, int] | None,
        guessed_in: int, cost_usd: float, cut_at: int | None = None, model: str = "",
    ) -> None:
        """Record the answer to a request; it is on the disk when this returns.

        Args:
            number: Of the request, by `ask`.
            captions: By detail, or None with a `reason`; neither where another request for the key follows.
            reason: Why there are no captions.
            tokens: In and out, as the provider counted them; None where it did not say.
            guessed_in: Tokens of the request, before the model counted.
            cost_usd: Of this request.
            cut_at: Tokens at which the answer was cut off.
            model: That answered, by the provider's word.
        """
        entry = Entry(captions, mended_text(without_secrets(reason)), cost_usd, cut_at, mended_text(model))
        with self._writing() as db:
            _insert_answer(db, number, entry, tokens, guessed_in)
            ask = self._asks.pop(number)
            self._note(ask.key, ask.basis, entry, tokens, guessed_in)

    def forget(self, video_ids: Collection[str]) -> int:
        """Remove the captions of videos, and return the number of removed answers; their costs stay."""
        emptied = "UPDATE requests SET key = '', video_id = '', captions = NULL, reason = '' WHERE video_id = ?"
        num_answers = 0
        with self._writing() as db:
            for video_id in video_ids:
                num_answers += db.execute(f"{emptied} AND cost_usd IS NOT NULL", (video_id,)).rowcount
                db.execute(emptied, (video_id,))  # Requests without an answer.
        return num_answers

    def _note(
        self, key: str, basis: str, entry: Entry, tokens: tuple[int, int] | None, guessed_in: int
    ) -> None:
        self.settled_usd += entry.cost_usd
        if tokens is not None:
            self.tallies[basis].note(tokens_in=tokens[0], tokens_out=tokens[1], guessed_in=guessed_in)
        if key:
            before = self.entries.get(key)
            self.entries[key] = replace(entry, cost_usd=entry.cost_usd + (before.cost_usd if before else 0.0))

    def _load(self, db: sqlite3.Connection) -> None:
        """Take all that `db` holds."""
        for number, key, basis, reserved_usd, cost_usd, captions, reason, cut_at, model, *tokens, guessed_in in db.execute(
            "SELECT number, key, basis, reserved_usd, cost_usd, captions, reason, cut_at, model, tokens_in, tokens_out, "
            "guessed_in FROM requests ORDER BY rowid"
        ):
            if cost_usd is None:
                self._asks[number] = _Ask(key, basis, reserved_usd)
                continue
            entry = Entry(None if captions is None else json.loads(captions), reason, cost_usd, cut_at, model)
            self._note(key, basis, entry, None if None in tokens else (tokens[0], tokens[1]), guessed_in or 0)

    @contextmanager
    def _writing(self, *, sync: bool = True) -> Iterator[sqlite3.Connection]:
        """Run this block as one transaction: complete or not begun after a crash, and with `sync` after a power loss."""
        if self._db is None:
            raise ArtifactError(f"{self.path} was not opened for writing", code="journal-not-open")
        with foreign(
            ArtifactError, f"{self.path} cannot be written", code="not-writable",
            remedy="Make room; nothing more is asked until it is kept", errors=sqlite3.Error,
        ), self._lock:
            if not self._has_log:  # With one, an answer costs one sync of the disk, and a request none.
                self._db.execute("PRAGMA journal_mode = WAL")
                self._has_log = True
            self._db.execute(f"PRAGMA synchronous = {'FULL' if sync else 'NORMAL'}")
            with self._db:
                yield self._db


def read_journal(folder: Path) -> Journal:
    """Read the journal in `folder` without changing anything; a missing one is empty.

    Raises:
        ArtifactError: it cannot be read.
    """
    path = folder / JOURNAL_NAME
    with _readable(path), closing(sqlite3.connect(":memory:")) as memory:
        if path.exists():
            with closing(_connect(path)) as db:
                db.backup(memory)
        return _loaded(path, memory)


@contextmanager
def open_journal(folder: Path) -> Iterator[Journal]:
    """Open the journal in `folder` for this process alone. The journal of an earlier version is converted, and removed.

    Raises:
        ArtifactError: it cannot be read or written.
        ConfigError: another process has it open.
    """
    path = folder / JOURNAL_NAME
    with ExitStack() as stack:
        with _readable(path):
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_locked(folder / LOCK_NAME))
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite would let everybody read it.
            db = stack.enter_context(closing(_connect(path)))
            journal = _loaded(path, db)
            stack.callback(_close_log, db)
            sync_path(folder)
            (folder / EARLIER_NAME).unlink(missing_ok=True)
        journal._db = db
        yield journal


def forget_captions(folder: Path, video_ids: Collection[str]) -> int:
    """Remove the captions of videos from the journal in a folder; their costs stay counted.

    Args:
        folder: Folder of the journal.
        video_ids: Ids of the videos.

    Returns:
        The number of removed answers.

    Raises:
        ArtifactError: it cannot be read or written.
        ConfigError: another process has it open.
    """
    if not (folder / JOURNAL_NAME).exists() and not (folder / EARLIER_NAME).exists():
        return 0
    with open_journal(folder) as journal:
        return journal.forget(video_ids)


@dataclass(frozen=True)
class _Ask:
    key: str
    basis: str
    reserved_usd: float


def _connect(path: Path) -> sqlite3.Connection:
    """To be used by one thread at a time. What is taken out is overwritten."""
    db = sqlite3.connect(path, timeout=30.0, check_same_thread=False)
    for pragma in ("secure_delete = ON", "trusted_schema = OFF", "cell_size_check = ON"):
        db.execute(f"PRAGMA {pragma}")
    return db


def _close_log(db: sqlite3.Connection) -> None:
    """Leave one file behind, which can be copied, and read where nothing can be written."""
    with suppress(sqlite3.Error):  # Then the log stays, and is read with the file.
        db.execute("PRAGMA journal_mode = DELETE")


def _loaded(path: Path, db: sqlite3.Connection) -> Journal:
    """Return the journal that `db` holds, with what an earlier version left beside it."""
    [version] = db.execute("PRAGMA user_version").fetchone()
    if version > _VERSION:
        raise ArtifactError(
            f"{path} is of format {version}, this version reads {_VERSION}",
            code="journal-other-format", remedy="Update vidseek, or move the file away"
        )
    if version == 0:
        with db:
            db.execute(_SCHEMA)
            db.execute(f"PRAGMA user_version = {_VERSION}")
    journal = Journal(path, num_broken=_take_over(path.with_name(EARLIER_NAME), db))
    journal._load(db)
    return journal


def _take_over(path: Path, db: sqlite3.Connection) -> int:
    """Write the lines of an earlier version's journal into `db`, all or none; twice is as once.

    Returns:
        How many lines hold no event.
    """
    lines = read_lines(path)
    events = [value for value in lines.values if "event" in value]
    with db:
        for number, event in enumerate(events):
            try:
                _take_event(db, number, event)
            except _BROKEN as error:
                raise ArtifactError(
                    f"{path} holds a line that is none of its kind: {error!r} in {str(event)[:120]}", code="journal-broken",
                    remedy="Mend that line, or move the file away: what it holds is then paid for again",
                ) from error
    return lines.num_broken + len(lines.values) - len(events)


def _take_event(db: sqlite3.Connection, number: int, event: Mapping[str, Any]) -> None:
    match event["event"]:
        case "ask":
            _insert_ask(db, event["ask"], _Ask(event["key"], event["basis"], event["reserved_usd"]), event["video_id"])
        case "free":
            db.execute("DELETE FROM requests WHERE number = ?", (event["ask"],))
        case "spent":
            _insert_answer(db, f"spent {number}", Entry(None, "", float(event["cost_usd"])), None, 0)
        case "answer":
            # Which answers were cut off, the reason alone said.
            was_cut = event["reason"].startswith("the answer was cut off")
            entry = Entry(
                event["captions"], mended_text(event["reason"]), float(event["cost_usd"]), model=event.get("model", ""),
                cut_at=event.get("cut_at", event["max_output_tokens"] if was_cut else None),
            )
            _insert_ask(db, event["ask"], _Ask(event["key"], event["basis"], 0.0), event["video_id"])
            _insert_answer(db, event["ask"], entry, event["tokens"], event["guessed_in"])


def _insert_ask(db: sqlite3.Connection, number: str, ask: _Ask, video_id: str) -> None:
    db.execute(
        "INSERT OR IGNORE INTO requests (number, key, basis, video_id, reserved_usd) VALUES (?, ?, ?, ?, ?)",
        (number, ask.key, ask.basis, video_id, ask.reserved_usd),
    )


def _insert_answer(
    db: sqlite3.Connection, number: str, entry: Entry, tokens: Sequence[int] | None, guessed_in: int
) -> None:
    tokens_in, tokens_out = tokens or (None, None)
    captions = None if entry.captions is None else json.dumps(dict(entry.captions))
    db.execute(_ANSWER, {
        "number": number, "cost_usd": entry.cost_usd, "captions": captions, "reason": entry.reason, "model": entry.model,
        "tokens_in": tokens_in, "tokens_out": tokens_out, "guessed_in": guessed_in, "cut_at": entry.cut_at,
    })


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ArtifactError(
            f"{error.filename or path} cannot be used: {error.strerror or error}",
            code="journal-broken", remedy="Mend its rights"
        ) from error
    except _BROKEN as error:
        raise ArtifactError(
            f"{path} is no journal, or broken: {error}", code="journal-broken",
            remedy="Copy it back from where it is kept, or move it away: what it holds is then paid for again",
        ) from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"{path.with_name(JOURNAL_NAME)} is open in another process", code="locked-elsewhere",
                remedy="Wait for the other `vidseek caption` or `dvc repro`",
            ) from error
        yield
    finally:
        os.close(descriptor)
