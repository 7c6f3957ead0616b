"""A file of SQLite that any number of threads and processes read and write, one transaction after the other."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from vidseek_media.errors import ArtifactError

BUSY_SECONDS = 20.0


@dataclass(frozen=True)
class SqliteFile:
    """Each block opens the file for itself. It is made with the first that writes."""

    path: Path
    schema: str
    """SQL that makes its tables, where they are not there."""
    version: int
    what: str
    """What it is, for messages: `a table of jobs`."""
    fault: Callable[[str, str], ArtifactError]
    """Makes the error that it cannot be used, of a message and a remedy."""
    lost: str
    """What is lost where it is moved away."""

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection | None]:
        """Yield a connection; None where nothing was written yet.

        Raises:
            ArtifactError: it cannot be used.
        """
        if not self.path.exists():
            yield None
            return
        with self._guarded(), closing(self._connect()) as db:
            yield db

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection in a transaction that this block ends: all that it wrote, or nothing.

        Raises:
            ArtifactError: it cannot be used, or the disk does not take it.
        """
        with self._guarded():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._connect()) as db:
                db.execute("BEGIN IMMEDIATE")
                try:
                    yield db
                except BaseException:
                    db.execute("ROLLBACK")
                    raise
                db.execute("COMMIT")

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            version = int(db.execute("PRAGMA user_version").fetchone()[0])
            if version == 0:
                _begin_wal(db)
                db.executescript(f"BEGIN IMMEDIATE; {self.schema} PRAGMA user_version = {self.version}; COMMIT;")
            elif version != self.version:
                raise self.fault(
                    f"{self.path} is {self.what} of version {version}, wanted {self.version}",
                    f"Use the vidseek that wrote it, or move the file away: {self.lost}",
                )
        except BaseException:
            db.close()
            raise
        return db

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ArtifactError(
                f"{error.filename or self.path.parent}: {error.strerror}", code="not-writable",
                remedy="Mend the rights there",
            ) from error
        except sqlite3.Error as error:
            message = f"{self.path} cannot be used: {error}"
            if getattr(error, "sqlite_errorname", "") == "SQLITE_FULL":
                raise ArtifactError(message, code="not-writable", remedy="Make room there") from error
            raise self.fault(message, f"Try again; where it stays so, move the file away: {self.lost}") from error


def _begin_wal(db: sqlite3.Connection) -> None:
    """Set the journal mode of a new file. SQLite does not wait for others who do the same, whatever its time-out says."""
    until = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if not error.sqlite_errorname.startswith("SQLITE_BUSY") or time.monotonic() > until:
                raise
            time.sleep(0.01)
