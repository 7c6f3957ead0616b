"""Suggests published clips to caption: those that are farthest from what training captions speak of, and from each other."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vidseek_media.cutting.cut import ClipColumns, read_clip_columns
from vidseek_media.errors import ArtifactError
from vidseek_media.records import Span, share_half
from vidseek_media.sources.ingest import read_videos
from vidseek_media.splitting.both_sides import joined_hashes
from vidseek_media.splitting.perceptual_hashes import MAX_BITS
from vidseek_media.splitting.video_groups import groups_of, video_groups
from vidseek_media.tables import FRAMES, PAIRS, read_columns, read_table
from vidseek_retrieval.embedding.embedding_parts import PARTS_FOLDER, read_parts
from vidseek_retrieval.suggesting.coverage import Flags, choose_farthest

MAX_CLIPS = 5000
"""Clips that are looked at, in a second or two: of a larger archive a sample, the same in every run."""
SAME_SHARE = 0.5
"""Of a clip's frames that show what another clip's frames show, for the two to count as one."""


@dataclass(frozen=True)
class Suggestion:
    """A clip to caption."""

    clip_id: str
    video_id: str
    start_ms: int
    end_ms: int
    uri: str
    title: str
    num_like: int
    """Clips that it stands for: nothing that is captioned or suggested before is as near to them."""
    distance: float
    """To the nearest clip that is taught or suggested before it, in standard deviations; 0 for the first where nothing is.
    """


@dataclass(frozen=True)
class SuggestReport:
    """What is suggested, and from how many clips. num_clips is the sum of the other counts of clips."""

    suggestions: tuple[Suggestion, ...]
    num_clips: int
    """Published ones that were looked at."""
    num_captioned: int
    """A caption speaks of them already."""
    num_held_out: int
    """Of videos of validation and test: their captions measure, and teach nothing."""
    num_without_content: int
    """Black, flat or frozen, as `pairs.skip_quality_flags` has it."""
    num_open: int
    """Of which the suggestions are chosen."""
    num_taught: int
    """Clips that training captions speak of."""


@dataclass(frozen=True)
class ArchiveTables:
    """The folders of the stages that suggestions are made from."""

    ingest: Path
    cut: Path
    frames: Path
    pairs_table: Path
    embed: Path


def suggest_clips(
    tables: ArchiveTables, *, cut: str, num: int, held_out: Collection[str], also_captioned: Mapping[str, Collection[Span]],
    forgotten: Collection[str] = (), skip_quality_flags: Collection[str] = (), together: Collection[tuple[str, str]] = (),
    max_bits: int | None = MAX_BITS - 1,
) -> SuggestReport:
    """Return published clips to caption, the best first.

    Near-duplicates are never suggested together: clips of one video that overlap, clips of two videos of one group, and
    clips whose frames show the same.

    Args:
        tables: Of the archive.
        cut: The mode whose clips are published.
        num: Suggestions, at most.
        held_out: Videos of validation and test.
        also_captioned: Spans by video_id that have captions which no training has seen yet.
        forgotten: Videos that are not shown any more.
        skip_quality_flags: Flags of clips that make no pairs.
        together: Pairs of videos that people say show the same.
        max_bits: Frames whose hashes differ in at most so many bits show the same; None: do not look.

    Raises:
        ArtifactError: a table is missing or broken.
    """
    columns = read_clip_columns(tables.cut)
    clips = _Clips.load(tables, columns, cut, forgotten)
    captioned, taught_ids = _captioned(tables, columns, clips, also_captioned)
    is_held = np.array([video_id in held_out for video_id in clips.video_ids], bool)
    is_empty = np.array([bool(own.intersection(skip_quality_flags)) for own in clips.flags], bool)
    is_open = ~captioned & ~is_held & ~is_empty
    taught = read_parts(tables.embed / PARTS_FOLDER, among=taught_ids).vectors if taught_ids else clips.vectors[:0]
    groups = _groups_of(tables, clips.video_ids, together)
    picks = choose_farthest(
        clips.vectors, taught, num=num, may_be_chosen=is_open,
        alike=lambda row: clips.alike(row, groups, max_bits=max_bits),
    )
    uris = {video.video_id: (video.uris[0], video.title) for video in read_videos(tables.ingest)}
    return SuggestReport(
        tuple(
            Suggestion(
                clips.clip_ids[row], clips.video_ids[row], *clips.spans[row], *uris.get(clips.video_ids[row], ("", "")),
                num_like=pick.num_nearest, distance=round(pick.distance, 4),
            ) for pick in picks for row in [pick.row]
        ),
        num_clips=len(clips.clip_ids), num_captioned=int(captioned.sum()), num_held_out=int((is_held & ~captioned).sum()),
        num_without_content=int((is_empty & ~is_held & ~captioned).sum()), num_open=int(is_open.sum()),
        num_taught=len(taught_ids),
    )


@dataclass(frozen=True)
class _Clips:
    """The published clips that are looked at, in order of clip_id."""

    clip_ids: list[str]
    video_ids: list[str]
    spans: list[Span]
    vectors: NDArray[np.float32]
    flags: list[set[str]]
    hashes: NDArray[np.uint64]
    """Of the frames of all clips, one after the other."""
    owners: NDArray[np.int64]
    """Of each hash, the row of its clip."""

    @classmethod
    def load(cls, tables: ArchiveTables, columns: ClipColumns, cut: str, forgotten: Collection[str]) -> _Clips:
        spans = {
            clip_id: (video_id, (start_ms, end_ms))
            for clip_id, video_id, _, start_ms, end_ms, modes in zip(*columns, strict=True)
            if cut in modes and video_id not in forgotten
        }
        # Ids are hashes: the first ones are a fair sample.
        found = read_parts(tables.embed / PARTS_FOLDER, among=sorted(spans)[:MAX_CLIPS])
        if not found.clip_ids:
            raise ArtifactError(
                f"{tables.embed} has no clip of the mode {cut}", code="no-embeddings", remedy="Run `dvc repro` to make them",
            )
        frames = read_columns(tables.frames / "frames.parquet", FRAMES, columns=["clip_id", "quality_flags", "hashes"])
        known = pc.index_in(pa.array(found.clip_ids, pa.string()), value_set=frames["clip_id"].combine_chunks())
        frames = frames.take(known)
        hashes, nums = joined_hashes(frames["hashes"].to_pandas(), rows := np.arange(len(found.clip_ids)))
        return cls(
            found.clip_ids, [spans[clip_id][0] for clip_id in found.clip_ids],
            [spans[clip_id][1] for clip_id in found.clip_ids], found.vectors,
            [set(flags or ()) for flags in frames["quality_flags"].to_pylist()], hashes, np.repeat(rows, nums),
        )

    def alike(self, row: int, groups: Mapping[str, str], *, max_bits: int | None) -> Flags:
        """Return the clips that show what the clip of a row shows."""
        video_id, (start_ms, end_ms) = self.video_ids[row], self.spans[row]
        found = np.array([
            groups[other] == groups[video_id] and (other != video_id or (start_ms < span[1] and span[0] < end_ms))
            for other, span in zip(self.video_ids, self.spans, strict=True)
        ], bool)
        if max_bits is not None and len(own := self.hashes[self.owners == row]):
            found |= self._show_the_same(own, max_bits)
        return found

    def _show_the_same(self, hashes: NDArray[np.uint64], max_bits: int) -> Flags:
        is_near = (np.bitwise_count(self.hashes[:, None] ^ hashes) <= max_bits).any(axis=1)
        near, nums = (np.bincount(each, minlength=len(self.clip_ids)) for each in (self.owners[is_near], self.owners))
        shares = near / np.maximum(nums, 1)
        return np.asarray(shares >= SAME_SHARE)


def _captioned(
    tables: ArchiveTables, columns: ClipColumns, clips: _Clips, also: Mapping[str, Collection[Span]]
) -> tuple[Flags, list[str]]:
    """Return which clips a caption speaks of, and the clips of training captions."""
    pairs = read_table(tables.pairs_table, PAIRS, columns=["clip_id", "split"])
    taught = sorted(set(pairs.loc[pairs["split"] == "train", "clip_id"]))
    paired = set(pairs["clip_id"])
    spans: dict[str, list[Span]] = {video_id: list(own) for video_id, own in also.items()}
    for clip_id, video_id, _, start_ms, end_ms, _ in zip(*columns, strict=True):
        if clip_id in paired:
            spans.setdefault(video_id, []).append((start_ms, end_ms))
    found = np.array([
        any(share_half(span, other) for other in spans.get(video_id, ()))
        for video_id, span in zip(clips.video_ids, clips.spans, strict=True)
    ], bool)
    return found, taught


def _groups_of(
    tables: ArchiveTables, video_ids: Collection[str], together: Collection[tuple[str, str]]
) -> dict[str, str]:
    """Return the group of each video: those that `pairs` found, joined by what people decided."""
    names = sorted(set(video_ids))
    known = dict(zip(names, map(str, video_groups(tables.pairs_table, names)), strict=True))
    joined = groups_of({*names, *known.values(), *(each for pair in together for each in pair)}, [*known.items(), *together])
    return {video_id: joined[video_id] for video_id in names}
