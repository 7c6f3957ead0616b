"""Browsing a collection: the values of its filters, and the neighbours of a clip in its video."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from vidseek_media.errors import InputRejected
from vidseek_media.fields.declared import FieldKind, FieldType
from vidseek_retrieval.index.backend import Collection
from vidseek_retrieval.lexical.hit_evidence import TIMED, TextSegment
from vidseek_retrieval.lexical.spelling import segments_in
from vidseek_retrieval.search.filters import Condition
from vidseek_retrieval.search.moments import RankedClip

WORD_FIELDS = ("channel", "category")
MAX_VALUES = 200
"""Of a field; the most frequent ones."""
MAX_CLIPS_OF_VIDEO = 10_000
"""Clips of one video whose texts are listed."""
MAX_NEIGHBOURS = 10
REACH = 3
"""How many times their number times the length of a clip is looked for neighbours to either side."""


class ClipUnknown(InputRejected):
    """The collection has no such clip."""

    code = "unknown-clip"


@dataclass(frozen=True)
class FieldFacet:
    """The values of a field that the user declared."""

    kind: FieldKind
    many: bool
    """Whether a clip has a list of values."""
    values: dict[str, int] = field(default_factory=dict)
    """Of keywords and booleans, with the number of clips that have each, the most frequent first."""
    bounds: tuple[Any, Any] | None = None
    """Of numbers and times, the least and the greatest; None where no clip has one."""


@dataclass(frozen=True)
class Facets:
    """The values that filters can take."""

    values: dict[str, dict[str, int]]
    """For each of `WORD_FIELDS` its values and the number of clips that have each, the most frequent first."""
    duration_ms: tuple[int, int] | None
    """The shortest and the longest video; None of an empty collection."""
    published_at: tuple[str, str] | None
    """The first and the last time, RFC 3339; None where no video has one."""
    fields: dict[str, FieldFacet] = field(default_factory=dict)
    """The declared fields that a filter may name, in order of their names."""


def facets_of(collection: Collection) -> Facets:
    """Return the values that the filters of a search over `collection` can take."""
    lengths, times = collection.bounds("duration_ms"), collection.bounds("published_at")
    return Facets(
        {field: collection.facet(field, limit=MAX_VALUES) for field in WORD_FIELDS},
        None if lengths is None else (int(lengths[0]), int(lengths[1])),
        None if times is None else (str(times[0]), str(times[1])),
        {
            name: _facet_of(collection, name, kind) for name, kind in sorted(collection.metadata.declared.items())
            if kind.kind != "text"
        },
    )


def _facet_of(collection: Collection, name: str, kind: FieldType) -> FieldFacet:
    if kind.kind in ("keyword", "boolean"):
        return FieldFacet(kind.kind, kind.many, values=collection.facet(name, limit=MAX_VALUES))
    ends = collection.bounds(name)
    if ends is not None and kind.many:  # of a point that has the end among its values
        ends = (min(ends[0]), max(ends[1]))
    return FieldFacet(kind.kind, kind.many, bounds=ends)


def neighbours(collection: Collection, clip_id: str, *, num: int = 3) -> list[RankedClip]:
    """Return the clips before and after a clip in its video, with the clip itself, in order of time.

    They do not overlap: of overlapping windows, those closest to the clip are taken. `score` is the cosine to the clip.

    Args:
        collection: The collection to read.
        clip_id: Id of the clip.
        num: Most clips on either side.

    Raises:
        ClipUnknown: the collection has no such clip.
    """
    points = collection.points([clip_id])
    if not points:
        raise ClipUnknown(f"{collection.metadata.name} has no clip {clip_id}", remedy="Take best_clip_id of a hit")
    payload, vector = points[0].payload, points[0].vector
    start_ms, end_ms = int(payload["start_ms"]), int(payload["end_ms"])
    reach_ms = REACH * num * (end_ms - start_ms)
    conditions = (
        Condition("start_ms", bounds=(("gte", start_ms - reach_ms), ("lte", end_ms + reach_ms))),
        Condition("video_id", any_of=(str(payload["video_id"]),)),
    )
    near = collection.search(vector, limit=1000, exact=True, conditions=conditions)
    itself = next(clip for clip in near if clip.clip_id == clip_id)
    before = _apart((clip for clip in near if clip.end_ms <= start_ms), itself, num=num, later=False)
    after = _apart((clip for clip in near if clip.start_ms >= end_ms), itself, num=num, later=True)
    return [*reversed(before), itself, *after]


def transcript(collection: Collection, clip_id: str) -> list[TextSegment]:
    """Return what is said and what stands on the screen in a clip's video, in order of time.

    Args:
        collection: The collection to read.
        clip_id: Id of a clip of the video.

    Raises:
        ClipUnknown: the collection has no such clip.
    """
    points = collection.points([clip_id])
    if not points:
        raise ClipUnknown(f"{collection.metadata.name} has no clip {clip_id}", remedy="Take best_clip_id of a hit")
    whole = Condition("video_id", any_of=(str(points[0].payload["video_id"]),))
    clips = collection.search(points[0].vector, limit=MAX_CLIPS_OF_VIDEO, exact=True, conditions=(whole,))
    payloads = collection.payloads([clip.clip_id for clip in clips])
    found = {
        TextSegment(field, str(text), int(start_ms), int(end_ms))
        for payload in payloads.values() for field in TIMED for start_ms, end_ms, text in segments_in(payload, field)
    }
    return sorted(found, key=lambda each: (each.start_ms, each.end_ms, each.field, each.text))


def _apart(clips: Iterable[RankedClip], first: RankedClip, *, num: int, later: bool) -> list[RankedClip]:
    """Return clips going away from `first`, none overlapping the one before it: the nearest first."""
    kept: list[RankedClip] = []
    last = first
    for clip in sorted(clips, key=lambda each: each.start_ms if later else -each.end_ms):
        if len(kept) < num and (clip.start_ms >= last.end_ms if later else clip.end_ms <= last.start_ms):
            kept.append(clip)
            last = clip
    return kept
