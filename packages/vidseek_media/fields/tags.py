"""Tags that people set and removed: a file of decisions with who and when, to which lines are only appended.

Two people who tag at once lose nothing: each appends a line of their own. What was decided last counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vidseek_media.errors import ArtifactError, foreign
from vidseek_media.fields.declared import MAX_KEYWORD, TAGS, FieldType
from vidseek_media.fields.statement import Statement
from vidseek_media.files.appending import append_said, read_lines
from vidseek_media.guards import mended_text

FILE = "tags.jsonl"
"""In the folder of decisions. `.dvcignore` names it: `ingest` reads it in every run, and no other stage depends on it."""
TAG = FieldType("keyword")


@dataclass(frozen=True)
class TagDecision:
    """One person's word on one tag of a video or a span of it."""

    video_id: str
    start_ms: int | None
    """Null with `end_ms` for the whole video."""
    end_ms: int | None
    tag: str
    has_tag: bool
    """False where the tag was removed."""
    who: str
    """As they call themselves, or empty."""
    decided_at: str
    """RFC 3339."""

    @classmethod
    def now(
        cls, video_id: str, span: tuple[int, int] | None, tag: str, *, has_tag: bool, who: str = ""
    ) -> TagDecision:
        """Return a decision of this moment.

        Args:
            video_id: Of the video.
            span: Start and end in milliseconds; None for the whole video.
            tag: The tag.
            has_tag: Whether it is set, not removed.
            who: The person.

        Raises:
            InputRejected: the tag is empty, too long, or no text.
        """
        start_ms, end_ms = span or (None, None)
        at = datetime.now(UTC).isoformat(timespec="microseconds")
        return cls(video_id, start_ms, end_ms, str(TAG.parse(tag)), has_tag, mended_text(who)[:MAX_KEYWORD], at)

    @property
    def statement(self) -> Statement:
        """What it says of the field `tags`."""
        return Statement(self.video_id, TAGS, (self.tag,), self.start_ms, self.end_ms, removed=not self.has_tag)


def append_tag(decisions: Path, decision: TagDecision) -> None:
    """Append a decision, synced to the disk. Safe between processes.

    Args:
        decisions: The folder of decisions.
        decision: The decision.

    Raises:
        ArtifactError: the disk cannot hold it; nothing of it is kept.
    """
    append_said(decisions / FILE, asdict(decision), again="tag it again")


def read_tags(decisions: Path) -> list[TagDecision]:
    """Read all decisions, in their order. Lines that a killed writer left unfinished are passed over.

    Args:
        decisions: The folder of decisions.

    Raises:
        ArtifactError: the file cannot be read.
    """
    path = decisions / FILE
    with foreign(ArtifactError, f"{path} cannot be read", code="tags-unreadable", remedy="Mend its rights"):
        lines = read_lines(path)
    found = [_decision_of(line) for line in lines.values]
    return [each for each in found if each is not None]


def tag_statements(decided: Iterable[TagDecision]) -> list[Statement]:
    """Return what decisions say of the field `tags`, in their order, without those that a later one makes void.

    Args:
        decided: In their order.
    """
    last: dict[tuple[str, str], dict[tuple[int | None, int | None], TagDecision]] = {}
    for each in decided:
        of_tag = last.setdefault((each.video_id, each.tag), {})
        if each.start_ms is None:
            of_tag.clear()
        of_tag.pop((each.start_ms, each.end_ms), None)
        of_tag[each.start_ms, each.end_ms] = each
    return [each.statement for of_tag in last.values() for each in of_tag.values()]


def tags_after(tags: Iterable[str], decided: Sequence[TagDecision], video_id: str, start_ms: int, end_ms: int) -> list[str]:
    """Return the tags of a clip after decisions that are not published yet, sorted.

    Args:
        tags: As they are published.
        decided: All decisions, in their order.
        video_id: Of the clip's video.
        start_ms: Start of the clip.
        end_ms: End of the clip.
    """
    found = set(tags)
    for each in tag_statements(decision for decision in decided if decision.video_id == video_id):
        if each.shared_ms(start_ms, end_ms, -1):
            (found.difference_update if each.removed else found.update)(map(str, each.values))
    return sorted(found)


def _decision_of(line: Mapping[str, Any]) -> TagDecision | None:
    """Return the decision of a line; None where a field is missing or of another type."""
    texts = [line.get(name) for name in ("video_id", "tag", "who", "decided_at")]
    times = (line.get("start_ms"), line.get("end_ms"))
    has_span = all(isinstance(each, int) and not isinstance(each, bool) for each in times)
    is_whole = all(isinstance(each, str) for each in texts) and isinstance(line.get("has_tag"), bool)
    if not is_whole or not (has_span or times == (None, None)) or not TAG.fits(line["tag"]):
        return None
    return TagDecision(**{name: line[name] for name in TagDecision.__dataclass_fields__})
