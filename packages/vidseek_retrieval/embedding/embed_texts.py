"""The text of each clip: collected for the text tower and for BM25, and embedded."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vidseek_encoder.encoder import Encoder
from vidseek_media.cutting.cut import ClipColumns, read_clip_columns
from vidseek_media.errors import ArtifactError
from vidseek_media.files.folders import sole_writer
from vidseek_media.records import share_half
from vidseek_media.tables import CAPTIONS, VIDEOS, read_columns, read_table
from vidseek_retrieval.embedding.embedding_parts import listed_parts, read_parts
from vidseek_retrieval.embedding.part_store import PIECE_ROWS, PartStore, Space
from vidseek_retrieval.lexical.word_parts import LINE_END

TEXTS_FOLDER = "texts"
TEXT_ID_DIGITS = 32


@dataclass(frozen=True)
class ClipText:
    """The texts of one clip; either may be empty."""

    spoken: str
    """Title and captions, as the text tower reads them: empty where the source gave neither."""
    words: str
    """The same, with the file's name in the place of a missing title: a name is no sentence, but may be searched for."""


@dataclass(frozen=True)
class TextReport:
    """What a run did."""

    num_texts: int
    """Different ones."""
    num_embedded: int
    """Of them, those that this run embedded."""
    num_parts: int


def clip_texts(
    ingest_dir: Path, cut_dir: Path, caption_dir: Path, *, cut: str, video_ids: Collection[str] | None = None
) -> dict[str, ClipText]:
    """Return the texts of the clips of one cut mode, by clip_id.

    A caption belongs to each clip of its video that it overlaps by at least half of the shorter of the two. A caption
    without a span belongs to every clip of its video. Captions of the whole video come first, the others in order of time;
    equal ones count once.

    Args:
        ingest_dir: Output of the stage `ingest`.
        cut_dir: Output of the stage `cut`.
        caption_dir: Output of the stage `caption`.
        cut: The cut mode, for example `windows`.
        video_ids: Return the texts of these videos' clips; None for all.

    Raises:
        ArtifactError: a table is missing or broken.
    """
    titles = {
        str(row.video_id): (str(row.title), PurePosixPath(row.uris[0]).stem)
        for row in read_table(ingest_dir / "videos.parquet", VIDEOS).itertuples(index=False)
    }
    clips = read_clip_columns(cut_dir, video_ids=video_ids)
    captions = _captions_by_video(caption_dir, clips, video_ids)
    texts = {}
    for clip_id, video_id, _, start_ms, end_ms, modes in zip(*clips, strict=True):
        if cut in modes:
            title, stem = titles.get(video_id, ("", ""))
            lines = captions[video_id].of_span(start_ms, end_ms) if video_id in captions else []
            spoken = _join([title, *lines])
            texts[clip_id] = ClipText(spoken, spoken if title else _join([stem.replace("_", " "), *lines]))
    return texts


def text_id_of(text: str) -> str:
    """Return the id of a text: the first 32 hex digits of its sha256."""
    return hashlib.sha256(text.encode()).hexdigest()[:TEXT_ID_DIGITS]


def embed_texts(texts: Iterable[str], encoder: Encoder, *, out: Path) -> TextReport:
    """Embed distinct texts into `out/texts/*.parquet`, keyed by `text_id_of`; only those without a vector yet.

    A vector is the same to the bit, whatever is embedded with it. A killed run resumes where it was.

    Args:
        texts: The texts; repeated ones are embedded once.
        encoder: Its text tower is used.
        out: Output folder of the stage `embed`.

    Raises:
        ArtifactError: another process writes into `out`.
        OSError: the disk cannot hold it.
    """
    by_id = {text_id_of(text): text for text in texts if text}
    wanted = [(text_id, text_id) for text_id in sorted(by_id)]
    space = Space(encoder.spec.encoder_version, encoder.variant, encoder.spec.dimension)
    with sole_writer(out):
        store = PartStore(out / TEXTS_FOLDER, space)
        missing = store.missing(wanted)
        for start in range(0, len(missing), PIECE_ROWS):
            piece = missing[start : start + PIECE_ROWS]
            store.write(piece, encoder.embed_texts([by_id[text_id] for text_id, _ in piece], steady=True))
        parts = store.commit(wanted)
    return TextReport(num_texts=len(by_id), num_embedded=len(missing), num_parts=len(parts))


def read_texts(embed_dir: Path, *, encoder_version: str) -> dict[str, NDArray[np.float32]]:
    """Read the vectors of texts by text id; empty if no clip has a text.

    Args:
        embed_dir: Output of the stage `embed`.
        encoder_version: 16 hex digits that the parts must have.

    Raises:
        ArtifactError: a part is broken, or of another encoder_version.
        GateFailed: a vector is not of length 1.
    """
    folder = embed_dir / TEXTS_FOLDER
    if not (any(folder.glob("*.parquet")) if (listed := listed_parts(folder)) is None else listed):
        return {}
    table = read_parts(folder)
    if table.encoder_version != encoder_version:
        raise ArtifactError(
            f"{folder} is of encoder_version {table.encoder_version}, the clips are of {encoder_version}",
            code="other-encoder",
            remedy="Run `dvc repro embed` to make it again",
        )
    return dict(zip(table.clip_ids, table.vectors, strict=True))


def read_variants(embed_dir: Path) -> list[str]:
    """Return the precisions (`fp32`, `fp16`, `int8`) that the stored texts were embedded with, sorted.

    Args:
        embed_dir: Output of the stage `embed`.

    Raises:
        ArtifactError: a part is broken.
    """
    found: set[str] = set()
    folder = embed_dir / TEXTS_FOLDER
    listed = listed_parts(folder)
    for part in sorted(folder.glob("*.parquet")) if listed is None else [folder / name for name in listed]:
        try:
            found |= set(pq.read_table(part, columns=["variant"])["variant"].unique().to_pylist())
        except (pa.ArrowException, OSError, KeyError) as error:
            raise ArtifactError(
                f"{part} cannot be read: {error}", code="not-parquet", remedy="Run `dvc repro embed` to make it again",
            ) from error
    return sorted(found)


def text_matrix(texts: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return the vectors of texts as one matrix, in order of text id: float32 of shape (n, dimension)."""
    return np.stack([texts[each] for each in sorted(texts)]) if texts else np.empty((0, 0), np.float32)


class _Captions:
    """The captions of one video."""

    def __init__(self) -> None:
        self._whole: list[str] = []
        self._timed: list[tuple[int, int, str]] = []
        self._longest_ms = 0

    def add(self, text: str, span: tuple[int, int] | None) -> None:
        """Add a caption of a span, or of the whole video (None)."""
        if span is None:
            self._whole.append(text)
        else:
            self._timed.append((*span, text))
            self._longest_ms = max(self._longest_ms, span[1] - span[0])

    def sort(self) -> None:
        """Put them in order, once all are added."""
        self._whole.sort()
        self._timed.sort()

    def of_span(self, start_ms: int, end_ms: int) -> list[str]:
        """Return the texts of a clip, each once. Only captions that may overlap it are looked at."""
        first = bisect_left(self._timed, (start_ms - self._longest_ms,))
        last = bisect_left(self._timed, (end_ms,))
        said = [
            text for begin, end, text in self._timed[first:last]
            if share_half((start_ms, end_ms), (begin, end))
        ]
        return list(dict.fromkeys([*self._whole, *said]))


def _captions_by_video(
    caption_dir: Path, clips: ClipColumns, video_ids: Collection[str] | None
) -> dict[str, _Captions]:
    """Return the captions of each video that has any."""
    rows = read_columns(caption_dir / "captions.parquet", CAPTIONS, columns=["video_id", "clip_id", "text"])
    if video_ids is not None:
        rows = rows.filter(pc.is_in(rows["video_id"], value_set=pa.array(video_ids, pa.string())))
    spans = dict(zip(clips.clip_ids, zip(clips.starts_ms, clips.ends_ms, strict=True), strict=True))
    captions: dict[str, _Captions] = defaultdict(_Captions)
    for video_id, clip_id, text in zip(*(rows[name].to_pylist() for name in ("video_id", "clip_id", "text")), strict=True):
        captions[video_id].add(text, spans.get(clip_id))
    for of_video in captions.values():
        of_video.sort()
    return captions


def _join(lines: Iterable[str]) -> str:
    return LINE_END.join(line.strip() for line in lines if line.strip())
