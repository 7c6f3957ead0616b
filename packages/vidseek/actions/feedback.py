"""Stores people's feedback on hits: appended line by line, and frozen into a table on command."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidseek.archive import Archive, open_text_searcher
from vidseek_media.errors import ArtifactError, InputRejected, foreign
from vidseek_media.files.appending import append_said, read_lines
from vidseek_retrieval.search.browse import ClipUnknown

if TYPE_CHECKING:
    from vidseek_retrieval.index.backend import Point

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

    @classmethod
    def now(cls, query: str, point: Point, *, relevant: bool) -> Feedback:
        """Return feedback of this moment.

        Args:
            query: The text of the query.
            point: The clip in the live collection.
            relevant: Whether the clip is what the query looked for.
        """
        return cls(query, point.clip_id, relevant, str(point.payload.get("encoder_version", "")), now())


@dataclass(frozen=True)
class FreezeReport:
    """The result of a freeze."""

    num_said: int
    num_rows: int
    """One for each query and clip."""
    num_broken: int
    """Lines that are no feedback: a killed writer left them unfinished, or a disk damaged them."""


def now() -> str:
    """Return the present time in RFC 3339, to the microsecond."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def append(folder: Path, feedback: Feedback) -> None:
    """Append one line to today's file, synced to disk; existing lines never change. Safe between processes.

    Files and lines are in the order of the feedback: if the clock was set back, the last file is continued.

    Args:
        folder: Folder of the files.
        feedback: The feedback.

    Raises:
        ArtifactError: the disk cannot hold it; nothing of it is kept.
    """
    append_said(folder / f"{feedback.said_at[:10]}.jsonl", asdict(feedback), again="say it again", pattern="*.jsonl")


def say(archive: Archive, query: str, clip_id: str, *, relevant: bool) -> Feedback:
    """Record whether a clip is relevant to a query, and return the record.

    Args:
        archive: An archive with a live collection.
        query: The text of the query.
        clip_id: A UUID.
        relevant: Whether the clip is what the query looked for.

    Raises:
        InputRejected: the query is blank, or the clip is not in the live collection or was forgotten.
        ArtifactError: nothing was published, or the disk cannot hold the record.
    """
    if not query.strip():
        raise InputRejected("the query is blank", code="empty-query", remedy="Say in a few words what was looked for")
    searcher = open_text_searcher(archive)
    points = searcher.points([clip_id.strip().lower()])
    if not points:
        raise ClipUnknown(f"the index has no clip {clip_id}", remedy="Take the best_clip_id of a hit")
    feedback = Feedback.now(query, points[0], relevant=relevant)
    append(archive.feedback, feedback)
    return feedback


def freeze(folder: Path, out: Path) -> FreezeReport:
    """Write all feedback to a table, whole or not at all; equal lines give equal bytes.

    Args:
        folder: Folder of the files.
        out: The table to write.

    Raises:
        ArtifactError: the files cannot be read.
    """
    from vidseek_media.tables import FEEDBACK, write_table  # pandas: the service appends without it

    said, num_broken = read(folder)
    last = {(each.query, each.clip_id): each for each in said}  # by place: a clock may have been set back
    write_table(out, [asdict(last[key]) for key in sorted(last)], FEEDBACK, sync=True)
    return FreezeReport(num_said=len(said), num_rows=len(last), num_broken=num_broken)


def read_frozen(table: Path) -> list[Feedback]:
    """Read a table of `freeze`; a missing one gives none.

    Raises:
        ArtifactError: it is broken.
    """
    from vidseek_media.tables import FEEDBACK, read_table

    return [Feedback(**row) for row in read_table(table, FEEDBACK).to_dict("records")] if table.exists() else []


def read(folder: Path) -> tuple[list[Feedback], int]:
    """Read all feedback in order of days and lines, and the number of broken lines.

    Raises:
        ArtifactError: the files cannot be read.
    """
    said, num_broken = [], 0
    with foreign(ArtifactError, f"{folder} cannot be read", code="feedback-unreadable", remedy="Mend its rights"):
        for path in sorted(folder.glob("*.jsonl")):
            lines = read_lines(path)
            known = [_feedback_of(value) for value in lines.values]
            said += [each for each in known if each is not None]
            num_broken += lines.num_broken + known.count(None)
    return said, num_broken


def _feedback_of(value: Mapping[str, Any]) -> Feedback | None:
    """None where a field is missing or is of another type."""
    texts = [field.name for field in fields(Feedback) if field.name != "relevant"]
    is_whole = all(isinstance(value.get(name), str) for name in texts) and isinstance(value.get("relevant"), bool)
    return Feedback(**value) if is_whole and len(value) == len(texts) + 1 else None
