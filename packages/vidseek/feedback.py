"""What people say of hits: lines appended as they come in, and frozen into a table on command."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from vidseek_media.errors import ArtifactError

TABLE = "feedback.parquet"


@dataclass(frozen=True)
class Feedback:
    """One person's word on one clip for one query."""

    query: str
    """In words."""
    clip_id: str
    relevant: bool
    encoder_version: str
    """Of the index in which the clip was found."""
    said_at: str
    """RFC 3339."""


@dataclass(frozen=True)
class FreezeReport:
    """What a freeze came to."""

    num_said: int
    num_rows: int
    """One for each query and clip."""
    num_broken: int
    """Lines that a killed writer left unfinished."""


def now() -> str:
    """The time in RFC 3339, to the microsecond."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def append(folder: Path, feedback: Feedback) -> None:
    """Add one line to today's file in `folder`; what is there is never changed. Safe from several processes.

    Raises:
        ArtifactError: the disk does not take it.
    """
    line = json.dumps(asdict(feedback), ensure_ascii=True) + "\n"
    path = folder / f"{feedback.said_at[:10]}.jsonl"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # One write of a line to a file opened for appending: lines of two processes do not mix.
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, line.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be written: {error.strerror}", remedy="Make room") from error


def freeze(folder: Path, out: Path) -> FreezeReport:
    """Write what was said in `folder` to the table `out`: whole or absent, byte-identical for the same lines.

    Raises:
        ArtifactError: the files cannot be read.
    """
    from vidseek_media.tables import FEEDBACK, write_table  # pandas: the service appends without it

    said, num_broken = read(folder)
    last = {(each.query, each.clip_id): each for each in sorted(said, key=lambda each: each.said_at)}
    write_table(out, [asdict(last[key]) for key in sorted(last)], FEEDBACK)
    return FreezeReport(num_said=len(said), num_rows=len(last), num_broken=num_broken)


def read_frozen(table: Path) -> list[Feedback]:
    """What `freeze` wrote; nothing where there is no such table.

    Raises:
        ArtifactError: it is broken.
    """
    from vidseek_media.tables import FEEDBACK, read_table

    return [Feedback(**row) for row in read_table(table, FEEDBACK).to_dict("records")] if table.exists() else []


def read(folder: Path) -> tuple[list[Feedback], int]:
    """What was said, in the order of days and lines; and how many lines are broken.

    Raises:
        ArtifactError: the files cannot be read.
    """
    said, num_broken = [], 0
    try:
        for path in sorted(folder.glob("*.jsonl")):
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    said.append(Feedback(**json.loads(line)))
                except (ValueError, TypeError):
                    num_broken += 1
    except OSError as error:
        raise ArtifactError(f"{folder} cannot be read: {error.strerror}") from error
    return said, num_broken
