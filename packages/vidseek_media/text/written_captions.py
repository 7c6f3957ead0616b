"""Captions that people wrote of clips: a file of decisions with who and when, to which lines are only appended.

`ingest` reads it in every run, as it reads files of captions. The span is kept and not the clip: a caption stays where the
archive is cut otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vidseek_media.errors import ArtifactError, InputRejected, foreign
from vidseek_media.files.appending import append_said, read_lines
from vidseek_media.guards import mended_text, text_of
from vidseek_media.records import Span

FILE = "captions.jsonl"
"""In the folder of decisions. `.dvcignore` names it: `ingest` reads it in every run, and no other stage depends on it."""
WRITER = "person"
"""In the column `writer` of tables."""
MAX_CAPTION = 1000
"""Characters of a caption."""
MAX_WHO = 256
"""Characters of the name of a person."""


@dataclass(frozen=True)
class WrittenCaption:
    """What one person wrote of one span of a video."""

    video_id: str
    start_ms: int
    end_ms: int
    text: str
    """Empty where the person takes back what they wrote."""
    who: str
    """As they call themselves, or empty."""
    written_at: str
    """RFC 3339."""

    @classmethod
    def now(cls, video_id: str, span: Span, text: str, *, who: str = "") -> WrittenCaption:
        """Return a caption of this moment.

        Args:
            video_id: Of the video.
            span: Start and end in milliseconds.
            text: What is seen there; empty takes back what the same person wrote before.
            who: The person.

        Raises:
            InputRejected: the text is too long, or no text.
        """
        plain = text_of(text, "the caption")
        if len(plain) > MAX_CAPTION:
            raise InputRejected(
                f"the caption has {len(plain)} characters, wanted at most {MAX_CAPTION}", code="caption-too-long",
                remedy="Say what is seen in a sentence or two",
            )
        at = datetime.now(UTC).isoformat(timespec="microseconds")
        return cls(video_id, *span, plain, mended_text(who)[:MAX_WHO], at)


def append_caption(decisions: Path, caption: WrittenCaption) -> None:
    """Append a caption, synced to the disk. Safe between processes.

    Args:
        decisions: The folder of decisions.
        caption: The caption.

    Raises:
        ArtifactError: the disk cannot hold it; nothing of it is kept.
    """
    append_said(decisions / FILE, asdict(caption), again="write the caption again")


def read_written(decisions: Path) -> list[WrittenCaption]:
    """Return the captions that count, by video and time: the last one of each person for each span.

    Lines that a killed writer left unfinished are passed over.

    Args:
        decisions: The folder of decisions.

    Raises:
        ArtifactError: the file cannot be read.
    """
    path = decisions / FILE
    with foreign(ArtifactError, f"{path} cannot be read", code="written-captions-unreadable", remedy="Mend its rights"):
        lines = read_lines(path)
    return _that_count(each for line in lines.values if (each := _caption_of(line)) is not None)


def _that_count(captions: Iterable[WrittenCaption]) -> list[WrittenCaption]:
    last = {(each.video_id, each.start_ms, each.end_ms, each.who): each for each in captions}
    return [last[key] for key in sorted(last) if last[key].text]


def _caption_of(line: Mapping[str, Any]) -> WrittenCaption | None:
    """Return the caption of a line; None where a field is missing or of another type."""
    texts = (line.get("video_id"), line.get("text"), line.get("who"), line.get("written_at"))
    times = (line.get("start_ms"), line.get("end_ms"))
    if not all(isinstance(each, str) for each in texts) or not all(type(each) is int for each in times):
        return None
    found = WrittenCaption(**{each.name: line[each.name] for each in fields(WrittenCaption)})
    return found if 0 <= found.start_ms < found.end_ms and len(found.text) <= MAX_CAPTION else None
