"""Writes clips of an archive as a data set: a folder that is there whole or not at all."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import repeat
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vidseek.archive import Archive
from vidseek.dataset_export import CUT_WORKERS, SHARD_MIB, FormatName
from vidseek.dataset_export.clip_media import Cut, cut_clips
from vidseek.dataset_export.clips import ArchiveClips, Selection
from vidseek.dataset_export.csv_folder import CsvWriter
from vidseek.dataset_export.fiftyone_folder import FiftyOneWriter
from vidseek.dataset_export.parquet_files import ParquetWriter
from vidseek.dataset_export.records import SPLITS, ClipContent, DatasetClip, Layout
from vidseek.dataset_export.webdataset_tars import WebDatasetWriter
from vidseek_media.errors import ArtifactError, ConfigError, InputRejected, VidseekError, foreign
from vidseek_media.files.folders import require_replaceable, whole_folder
from vidseek_media.files.json_files import write_json
from vidseek_media.forgotten import read_forgotten
from vidseek_media.terminal.progress import counted

SUMMARY = "dataset.json"


class DatasetWriter(Protocol):
    """Writes the clips of a data set into a folder."""

    def add(self, clip: DatasetClip, content: ClipContent) -> None:
        """Write a clip.

        Args:
            clip: What is known of it.
            content: Its frames, vector and media.
        """

    def close(self) -> None:
        """Finish the files."""


WRITERS: Mapping[FormatName, Callable[[Path, Layout], DatasetWriter]] = {
    "webdataset": WebDatasetWriter, "hf": ParquetWriter, "fiftyone": FiftyOneWriter, "csv": CsvWriter,
}


@dataclass(frozen=True)
class Contents:
    """What a data set holds of each clip, and how its files are written."""

    has_frames: bool = True
    has_embeddings: bool = True
    has_media: bool = False
    """Whether each clip is cut out of its video."""
    shard_mib: int = SHARD_MIB
    """Size from which a file of `webdataset` and `hf` takes no more clips."""
    workers: int = CUT_WORKERS
    """Processes that cut."""


@dataclass(frozen=True)
class LeftOutClip:
    """A clip whose media could not be cut."""

    key: str
    uri: str
    reason: str
    code: str


@dataclass(frozen=True)
class DatasetReport:
    """What a data set has, as its `dataset.json` says."""

    format: FormatName
    vidseek_version: str
    num_clips: int
    num_videos: int
    num_captions: int
    """Captions of clips."""
    splits: dict[str, int]
    """Clips of each split that has some."""
    encoder_version: str
    """Of the embeddings; empty without them."""
    dimension: int
    fields: dict[str, str | list[str]]
    """The declared fields with their types."""
    selection: dict[str, Any]
    contents: dict[str, Any]
    left_out: tuple[LeftOutClip, ...] = ()


def export_dataset(
    archive: Archive, out: Path, format_name: FormatName, selection: Selection, contents: Contents, *, force: bool = False
) -> DatasetReport:
    """Write a data set. Clips of videos that are forgotten, before or meanwhile, are in none.

    Args:
        archive: The archive.
        out: The folder to write.
        format_name: A key of `WRITERS`.
        selection: Which clips.
        contents: What of each.
        force: Whether a data set that is there is replaced.

    Raises:
        InputRejected: no clip is left, a filter is wrong, or a video was forgotten meanwhile.
        ConfigError: the folder is there, or cannot be written.
        ArtifactError: a table, a shard or an embedding is missing or broken.
    """
    if format_name == "fiftyone" and not (contents.has_frames or contents.has_media):
        raise ConfigError(
            "a data set for fiftyone has neither frames nor media", code="dataset-without-media",
            remedy="Leave --no-frames out, or add --media",
        )
    _require_free(out, force=force)
    clips = ArchiveClips(archive)
    if not (chosen := list(clips.select(selection))):
        raise _nothing_left("no clip of the archive is of them")
    vectors = _Vectors(archive, chosen) if contents.has_embeddings else None
    layout = Layout(
        clips.declared, contents.has_frames, vectors.dimension if vectors else 0, contents.has_media,
        contents.shard_mib * 2**20,
    )
    with foreign(
        ConfigError, f"{out} cannot be written", code="export-not-written", remedy="Name a folder that you may write to",
    ), whole_folder(out) as folder:
        written, left_out = _write(archive, chosen, vectors, folder, WRITERS[format_name], layout, contents.workers)
        if not written:
            raise _nothing_left(left_out[0].reason)
        splits = Counter(each.split for each in written)
        report = DatasetReport(
            format_name, version("vidseek"), len(written), len({each.video_id for each in written}),
            sum(len(each.captions) for each in written),
            {name: splits[name] for name in SPLITS if splits[name]},
            vectors.encoder_version if vectors else "", layout.dimension,
            {name: kind.declaration for name, kind in clips.declared.items()}, asdict(selection), asdict(contents),
            tuple(left_out),
        )
        write_json(folder / SUMMARY, asdict(report))
        _refuse_forgotten(archive, written)
    return report


def _require_free(out: Path, *, force: bool) -> None:
    if force:
        require_replaceable(out, marks=[SUMMARY])
    elif out.is_symlink() or (out.exists() and not (out.is_dir() and not any(out.iterdir()))):
        raise ConfigError(
            f"{out} is there already", code="file-there", remedy="Name another folder, or add --force to replace a data set",
        )


def _nothing_left(why: str) -> InputRejected:
    return InputRejected(
        f"there is no clip to export: {why}", code="nothing-to-export",
        remedy="Choose other filters or splits; for --media, see that ingest.source is reachable",
    )


def _refuse_forgotten(archive: Archive, written: Sequence[DatasetClip]) -> None:
    forgotten = read_forgotten(archive.decisions).video_ids & {each.video_id for each in written}
    if forgotten:
        raise InputRejected(
            f"the video {min(forgotten)} was forgotten while the data set was written", code="forgotten-meanwhile",
            remedy="Run it again",
        )


def _write(
    archive: Archive, chosen: Sequence[DatasetClip], vectors: _Vectors | None, folder: Path,
    open_writer: Callable[[Path, Layout], DatasetWriter], layout: Layout, workers: int,
) -> tuple[list[DatasetClip], list[LeftOutClip]]:
    written: list[DatasetClip] = []
    left_out: list[LeftOutClip] = []
    with ExitStack() as stack:
        writer = stack.enter_context(closing(open_writer(folder, layout)))
        frames = _frames_of(archive, chosen) if layout.has_frames else repeat(((), ()))
        cuts: Iterator[Cut] | None = None
        if layout.has_media:
            spool = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folder, prefix=".spool-")))
            cuts = cut_clips(archive, chosen, spool, workers=workers)
        for clip, (times_ms, jpegs) in zip(counted(chosen, "export", unit="clip", total=len(chosen)), frames, strict=False):
            media = next(cuts)[1] if cuts else None
            if isinstance(media, VidseekError):
                left_out.append(LeftOutClip(clip.key, clip.uri, media.message, media.code))
                continue
            writer.add(clip, ClipContent(jpegs, times_ms, vectors.of(clip) if vectors else None, media))
            written.append(clip)
    return written, left_out


def _frames_of(archive: Archive, clips: Sequence[DatasetClip]) -> Iterator[tuple[tuple[int, ...], tuple[bytes, ...]]]:
    """Yield times and JPEGs of clips, in their order."""
    from vidseek_media.frame_store.stored_clips import read_stored, stored_clips

    stored = {each.clip_id: each for each in stored_clips(archive.frames, clip_ids=[each.clip_id for each in clips])}
    for about, jpegs in read_stored(archive.frames, [stored[each.clip_id] for each in clips]):
        yield tuple(about["times_ms"]), tuple(jpegs)


class _Vectors:
    """The embeddings of clips, of the frames that they have now."""

    def __init__(self, archive: Archive, clips: Sequence[DatasetClip]) -> None:
        from vidseek_media.frame_store.stored_clips import stored_clips
        from vidseek_retrieval.embedding.embedding_parts import PARTS_FOLDER, read_parts

        wanted = {each.clip_id for each in clips}
        found = read_parts(archive.embed / PARTS_FOLDER, among=wanted)
        self.encoder_version = found.encoder_version
        self.dimension = int(found.vectors.shape[1])
        self._vectors = found.vectors
        self._places = {clip_id: place for place, clip_id in enumerate(found.clip_ids)}
        digests = {each.clip_id: each.frames_digest for each in stored_clips(archive.frames, clip_ids=wanted)}
        of_frames = dict(zip(found.clip_ids, found.digests, strict=False))
        stale = [each for each in wanted if each not in self._places or of_frames.get(each, "") not in ("", digests[each])]
        if stale:
            raise ArtifactError(
                f"{len(stale)} of {len(wanted)} clips have no embedding of their frames, {min(stale)} among them",
                code="clips-without-embedding", remedy="Run `dvc repro embed`, or add --no-embeddings",
            )

    def of(self, clip: DatasetClip) -> NDArray[np.float32]:
        """Return the vector of a clip."""
        vector: NDArray[np.float32] = self._vectors[self._places[clip.clip_id]]
        return vector
