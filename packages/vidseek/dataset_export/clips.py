"""Reads the clips of an archive for a data set: the tables of the stages and the decisions of people, joined."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, get_args

from vidseek.archive import ALIAS, Archive
from vidseek.dataset_export.records import SPLITS, UNASSIGNED, ClipCaption, DatasetClip
from vidseek_media.errors import ConfigError, InputRejected
from vidseek_media.fields.declared import AUTO_TAGS, TAG_LIST, TAGS, DeclaredFields
from vidseek_media.fields.statement import Statement
from vidseek_media.fields.statements import read_fields, values_of_clip
from vidseek_media.fields.tags import read_tags, tag_statements
from vidseek_media.forgotten import read_forgotten
from vidseek_media.settings import CutMode

if TYPE_CHECKING:
    from vidseek_media.records import Clip
    from vidseek_retrieval.dedup.video_matches import Duplicate
    from vidseek_retrieval.search.filters import Condition


@dataclass(frozen=True)
class Selection:
    """Which clips a data set has."""

    filters: Mapping[str, object] = field(default_factory=dict)
    """As a search takes them."""
    cut: str = ""
    """A cut mode; empty for the clips of all."""
    splits: tuple[str, ...] = ()
    """Of `SPLITS`; empty for all."""
    is_captioned: bool = False
    """Whether a clip must have a caption of its own."""

    def __post_init__(self) -> None:
        cuts, splits = ("", *get_args(CutMode)), SPLITS
        if self.cut not in cuts or not set(self.splits) <= set(splits):
            raise ConfigError(
                f"the clips are to be of the cut {self.cut!r} and the splits {', '.join(self.splits)}",
                code="unknown-choice",
                remedy=f"There are the cuts {', '.join(filter(None, cuts))} and the splits {', '.join(splits)}",
            )


class ArchiveClips:
    """The clips of an archive with frames, without those of forgotten videos, in order of video and index.

    Args:
        archive: The archive.

    Raises:
        ArtifactError: a table is missing or broken.
    """

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self.forgotten = read_forgotten(archive.decisions).video_ids
        self._stored = read_fields(archive.fields)
        self._tags = _tags_by_video(archive)
        self._auto_tags = _auto_tags(archive)

    @cached_property
    def declared(self) -> DeclaredFields:
        """The declared fields, and tags where there are any."""
        tags = {TAGS: TAG_LIST} if self._tags or self._auto_tags else {}
        return {**self._stored.declared, **tags, **({AUTO_TAGS: TAG_LIST} if self._auto_tags else {})}

    def select(self, selection: Selection) -> Iterator[DatasetClip]:
        """Yield the clips of a selection that have frames.

        Args:
            selection: Which clips.

        Raises:
            InputRejected: a filter names no field, or a value does not fit it.
            ArtifactError: a table is missing or broken.
        """
        from vidseek_media.cutting.cut import read_clips
        from vidseek_media.sources.ingest import read_videos
        from vidseek_retrieval.search.filters import meets

        conditions = _conditions(selection.filters, self.declared)
        rows = _Rows(self._archive)
        known = {video.video_id for video in read_videos(self._archive.ingest)} - self.forgotten
        for clip in read_clips(self._archive.cut, video_ids=known):
            flags = rows.quality_flags.get(str(clip.clip_id))
            if flags is None or (selection.cut and selection.cut not in clip.cut):
                continue
            values = self._values_of(clip)
            made = _clip_of(clip, rows, flags, _with_truth_values(values, self.declared))
            if selection.splits and made.split not in selection.splits:
                continue
            if selection.is_captioned and not made.captions:
                continue
            if meets(_payload_of(made, rows.payloads[clip.video_id], values), conditions):
                yield made

    def _values_of(self, clip: Clip) -> dict[str, Any]:
        statements: Sequence[Statement] = [*self._stored.of(clip.video_id), *self._tags.get(clip.video_id, ())]
        return values_of_clip(
            statements, self.declared, clip.start_ms, clip.end_ms, clip.index,
            auto_tags=self._auto_tags.get(str(clip.clip_id), ()),
        )


class _Rows:
    """Rows of the tables by clip and by video."""

    def __init__(self, archive: Archive) -> None:
        from vidseek_media.tables import CAPTIONS, CLIPS, FRAMES, PAIRS, read_columns
        from vidseek_retrieval.dedup.video_matches import read_duplicates
        from vidseek_retrieval.index.difference.published_clips import video_payloads

        self.payloads = video_payloads(archive.ingest)
        frames = read_columns(archive.frames / "frames.parquet", FRAMES, columns=["clip_id", "quality_flags"])
        self.quality_flags: dict[str, list[str]] = dict(zip(*(column.to_pylist() for column in frames.columns), strict=True))
        pairs: list[dict[str, Any]] = []
        if archive.pairs_table.exists():
            wanted = ["clip_id", "video_id", "caption", "split"]
            pairs = read_columns(archive.pairs_table, PAIRS, columns=wanted).to_pylist()
        self.splits: dict[str, str] = {row["video_id"]: row["split"] for row in pairs}
        paired = {(row["clip_id"], row["caption"]) for row in pairs}
        clip_ids = set(read_columns(archive.cut / "clips.parquet", CLIPS, columns=["clip_id"])["clip_id"].to_pylist())
        self.captions: dict[str, list[ClipCaption]] = defaultdict(list)
        self.video_captions: dict[str, list[str]] = defaultdict(list)
        table = archive.caption / "captions.parquet"
        for row in read_columns(table, CAPTIONS).to_pylist() if table.exists() else ():
            if row["clip_id"] not in clip_ids:  # a caption of a clip that is not there is one of the whole video
                self.video_captions[row["video_id"]].append(row["text"])
                continue
            texts = {name: row[name] or "" for name in ("text", "writer", "gallery", "contrast", "axis")}
            is_pair = (row["clip_id"], row["text"]) in paired
            self.captions[row["clip_id"]].append(ClipCaption(**texts, is_pair=is_pair))
        self.duplicates: dict[str, list[Duplicate]] = defaultdict(list)
        for each in read_duplicates(archive.duplicates):
            if each.duplicate_of in self.payloads:
                self.duplicates[each.video_id].append(each)


def _clip_of(clip: Clip, rows: _Rows, flags: Sequence[str], values: Mapping[str, Any]) -> DatasetClip:
    from vidseek_retrieval.dedup.video_matches import duplicate_of

    clip_id, video = str(clip.clip_id), rows.payloads[clip.video_id]
    about = {name: str(video.get(name, "")) for name in ("uri", "title", "channel", "category", "published_at")}
    return DatasetClip(
        clip_id=clip_id, video_id=clip.video_id, **about, start_ms=clip.start_ms, end_ms=clip.end_ms, index=clip.index,
        cut=clip.cut, split=rows.splits.get(clip.video_id, UNASSIGNED), captions=tuple(rows.captions.get(clip_id, ())),
        video_captions=tuple(rows.video_captions.get(clip.video_id, ())),
        duplicate_of=duplicate_of(rows.duplicates.get(clip.video_id, ()), clip.start_ms, clip.end_ms),
        quality_flags=tuple(flags), fields=values,
    )


def _payload_of(clip: DatasetClip, video: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a point of the index has of the clip, for filters."""
    own = {"start_ms": clip.start_ms, "duplicate_of": clip.duplicate_of or None}
    return {**video, **own, **values}


def _conditions(filters: Mapping[str, object], declared: DeclaredFields) -> tuple[Condition, ...]:
    from vidseek_retrieval.index.payload import PAYLOAD_INDEXES
    from vidseek_retrieval.search.filters import parse_filters

    conditions = parse_filters(filters, declared)
    known = {*PAYLOAD_INDEXES, *declared}
    if foreign := sorted(set(filters) - known):
        raise InputRejected(
            f"the field {foreign[0]} is in the index alone", code="unknown-filter",
            remedy=f"A data set is filtered by {', '.join(sorted(known))}",
        )
    return conditions


def _tags_by_video(archive: Archive) -> dict[str, list[Statement]]:
    """Return what people said of tags; a data set has it before the next publish."""
    found: dict[str, list[Statement]] = defaultdict(list)
    for each in tag_statements(read_tags(archive.decisions)):
        found[each.video_id].append(each)
    return found


def _auto_tags(archive: Archive) -> dict[str, list[str]]:
    """Return the tags that prompts alone gave clips, as the live collection has them."""
    from vidseek_retrieval.settings import TagSettings

    if not archive.section(TagSettings).prompts:
        return {}
    backend = archive.backend()
    live = backend.live(ALIAS)
    if live is None:
        return {}
    with closing(backend.open(live)) as collection:
        if AUTO_TAGS not in collection.metadata.declared:
            return {}
        return {each.clip_id: list(tags) for each in collection.scroll() if (tags := each.payload.get(AUTO_TAGS))}


def _with_truth_values(values: Mapping[str, Any], declared: DeclaredFields) -> dict[str, Any]:
    """Return values of fields with true and false in place of their texts, which payloads hold."""
    found = dict(values)
    for name in values.keys() & {name for name, each in declared.items() if each.kind == "boolean"}:
        value = values[name]
        found[name] = [each == "true" for each in value] if declared[name].many else value == "true"
    return found
