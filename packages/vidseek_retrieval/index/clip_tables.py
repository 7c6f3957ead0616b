"""Output of the stages for the published clips, each table read once, for the vectors that need it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vidseek_media.cutting.cut import read_clips
from vidseek_media.tables import CAPTIONS, CLIPS, VIDEOS, read_columns
from vidseek_media.text.segments import Segment, read_segments, segments_of_span
from vidseek_retrieval.embedding.embed_texts import ClipText, StoredTexts, clip_texts, read_variants
from vidseek_retrieval.embedding.embedding_parts import Embeddings


@dataclass(frozen=True)
class ClipTables:
    """The tables of a run. The arguments are those of `publish`."""

    embeddings: Embeddings
    embed_dir: Path
    cut_dir: Path
    ingest_dir: Path
    caption_dir: Path | None
    cut: str
    """The cut mode whose clips are published."""
    language: str
    """Of the words of the index."""
    segment_dirs: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    """By field of evidence (`speech`, `ocr`), the folders of the stages that wrote its segments."""
    whole: ClipTables | None = None
    """The tables that these are a part of."""
    video_ids: frozenset[str] | None = None
    """The videos that `texts` has; None for all."""

    def of_videos(self, video_ids: frozenset[str]) -> ClipTables:
        """Return the same tables with the texts of some videos alone.

        Args:
            video_ids: The videos.
        """
        return ClipTables(
            self.embeddings, self.embed_dir, self.cut_dir, self.ingest_dir, self.caption_dir, self.cut, self.language,
            self.segment_dirs, whole=self.whole or self, video_ids=video_ids,
        )

    @cached_property
    def places(self) -> dict[str, int]:
        """The row of each clip in `embeddings`, by clip_id."""
        if self.whole is not None:
            return self.whole.places
        return {clip_id: place for place, clip_id in enumerate(self.embeddings.clip_ids)}

    @cached_property
    def texts(self) -> Mapping[str, ClipText]:
        """The texts of the clips by clip_id; empty without `caption_dir`.

        Raises:
            ArtifactError: a table is missing or broken.
        """
        if self.caption_dir is None:
            return {}
        return clip_texts(self.ingest_dir, self.cut_dir, self.caption_dir, cut=self.cut, video_ids=self.video_ids)

    @cached_property
    def spans(self) -> Mapping[str, tuple[int, int]]:
        """Start and end of the clips in milliseconds, by clip_id, as `texts` has them.

        Raises:
            ArtifactError: the table of clips is missing or broken.
        """
        clips = (clip for clip in read_clips(self.cut_dir, video_ids=self.video_ids) if self.cut in clip.cut)
        return {str(clip.clip_id): (clip.start_ms, clip.end_ms) for clip in clips}

    def segments(self, field: str) -> Mapping[str, list[Segment]]:
        """Return the segments of a field of evidence by video_id, in order of time; empty where no stage writes it.

        Args:
            field: `speech` or `ocr`.

        Raises:
            ArtifactError: a table is missing or broken.
        """
        if self.whole is not None:
            return self.whole.segments(field)
        if field not in self._segments:
            found: dict[str, list[Segment]] = {}
            for folder in self.segment_dirs.get(field, ()):
                for video_id, segments in read_segments(folder).items():
                    found.setdefault(video_id, []).extend(segments)
            for of_video in found.values():
                of_video.sort(key=lambda each: (each.start_ms, each.end_ms, each.text))
            self._segments[field] = found
        return self._segments[field]

    def clip_segments(self, field: str) -> Mapping[str, list[Segment]]:
        """Return the segments of each clip by clip_id: those that it overlaps by at least half of the shorter of the two.

        Args:
            field: `speech` or `ocr`.

        Raises:
            ArtifactError: a table is missing or broken.
        """
        of_videos, found = self.segments(field), {}
        if not of_videos:
            return {}
        for clip in read_clips(self.cut_dir, video_ids=self.video_ids):
            if self.cut in clip.cut and (segments := of_videos.get(clip.video_id)):
                found[str(clip.clip_id)] = segments_of_span(segments, clip.start_ms, clip.end_ms)
        return found

    @cached_property
    def _segments(self) -> dict[str, Mapping[str, list[Segment]]]:
        return {}

    @cached_property
    def text_vectors(self) -> StoredTexts:
        """The vectors of all texts by text_id.

        Raises:
            ArtifactError: a part is broken, or of another encoder_version.
        """
        if self.whole is not None:
            return self.whole.text_vectors
        return StoredTexts.open(self.embed_dir, encoder_version=self.embeddings.encoder_version)

    @cached_property
    def text_variants(self) -> list[str]:
        """The precisions that the texts were embedded with, sorted."""
        return read_variants(self.embed_dir)

    def text_source(self, video_id: str) -> bytes:
        """Return bytes that differ if a text of one of the video's clips does: its file name and its captions.

        Args:
            video_id: Of the video. Its clips are not in the bytes, nor is its title.

        Raises:
            ArtifactError: a table is missing or broken.
        """
        return b"" if self.caption_dir is None else self._text_source(video_id)

    @cached_property
    def _text_source(self) -> Callable[[str], bytes]:
        """Several vectors ask for the bytes of one video after the other."""
        stems, captions = self._stems, self._captions
        return lru_cache(1)(lambda video_id: stems.get(video_id, b"") + captions.of(video_id))

    @cached_property
    def _stems(self) -> dict[str, bytes]:
        videos = read_columns(self.ingest_dir / "videos.parquet", VIDEOS, columns=["video_id", "uris"])
        first = pc.list_element(videos["uris"], 0)
        named = zip(videos["video_id"].to_pylist(), first.to_pylist(), strict=True)
        return {video_id: f"{uri}\n".encode() for video_id, uri in named}

    @cached_property
    def _captions(self) -> _TextsByVideo:
        assert self.caption_dir is not None
        rows = read_columns(self.caption_dir / "captions.parquet", CAPTIONS, columns=["video_id", "clip_id", "text"])
        clips = read_columns(self.cut_dir / "clips.parquet", CLIPS, columns=["clip_id"])["clip_id"]
        # A caption of a clip that is not there is one of the whole video.
        known = pc.if_else(pc.is_in(rows["clip_id"], value_set=clips.combine_chunks()), rows["clip_id"], "")
        lines = pc.binary_join_element_wise(known, rows["text"], "\n", null_handling="replace")
        return _TextsByVideo(rows["video_id"], lines)


class _TextsByVideo:
    """The bytes of texts, those of a video one after the other."""

    def __init__(self, video_ids: pa.ChunkedArray, texts: pa.ChunkedArray) -> None:
        table = pa.table({"video_id": video_ids, "text": texts.cast(pa.large_string())})
        table = table.sort_by([("video_id", "ascending"), ("text", "ascending")])
        self._rows: dict[str, tuple[int, int]] = {}
        self._offsets, self._data = np.zeros(1, np.int64), memoryview(b"")
        if table.num_rows:
            videos = table["video_id"].combine_chunks().dictionary_encode()
            codes = np.asarray(videos.indices)
            begins = np.append(np.flatnonzero(np.append(True, codes[1:] != codes[:-1])), len(codes)).tolist()
            names = videos.dictionary.to_pylist()
            self._rows = {name: (begins[at], begins[at + 1]) for at, name in enumerate(names)}
            _, offsets, data = table["text"].combine_chunks().buffers()
            self._offsets, self._data = np.frombuffer(offsets, np.int64), memoryview(data)

    def of(self, video_id: str) -> bytes:
        """Return the texts of a video, with their lengths."""
        begin, end = self._rows.get(video_id, (0, 0))
        bounds = self._offsets[begin : end + 1]
        return (bounds - bounds[0]).tobytes() + bytes(self._data[bounds[0] : bounds[-1]])
