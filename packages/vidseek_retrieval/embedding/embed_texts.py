"""The text of each clip: collected for the text tower and for BM25, and embedded."""

from __future__ import annotations

import hashlib
import heapq
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vidseek_encoder.encoder import Encoder
from vidseek_media.cutting.cut import read_clip_table, rows_of_cut
from vidseek_media.errors import ArtifactError, foreign
from vidseek_media.files.folders import sole_writer
from vidseek_media.records import share_half_of_each
from vidseek_media.tables import CAPTIONS, VIDEOS, read_columns
from vidseek_retrieval.embedding.embedding_parts import parts_of, read_ids, read_vectors, require_each_once
from vidseek_retrieval.embedding.part_store import PIECE_ROWS, PartStore, Space
from vidseek_retrieval.lexical.word_parts import LINE_END

TEXTS_FOLDER = "texts"
TEXT_ID_DIGITS = 32
_PAIRS_AT_ONCE = 2**20
"""Of a clip and a caption that may overlap it, held in memory at once."""


class ClipText(NamedTuple):
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
    clips = read_clip_table(cut_dir, video_ids=video_ids)
    wanted = rows_of_cut(clips, cut)
    names = pc.unique(wanted["video_id"]).to_pylist()
    videos = np.asarray(pc.index_in(wanted["video_id"], value_set=pa.array(names, pa.string())), np.int64)
    captions = _read_captions(caption_dir, clips, names)
    known = _titles(ingest_dir, video_ids)
    titles = [known.get(name, ("", "")) for name in names]
    heads = [(_join([title]), _join([name])) for title, name in titles]
    starts, ends = (np.asarray(wanted[name], np.int64) for name in ("start_ms", "end_ms"))
    texts = {}
    said = zip(wanted["clip_id"].to_pylist(), videos.tolist(), captions.of_spans(videos, starts, ends), strict=True)
    for clip_id, video, lines in said:
        (title, _), (title_line, name_line), told = titles[video], heads[video], _join(lines)
        spoken = _under(title_line, told)
        texts[clip_id] = ClipText(spoken, spoken if title else _under(name_line, told))
    return texts


def _titles(ingest_dir: Path, video_ids: Collection[str] | None) -> dict[str, tuple[str, str]]:
    """Return the title of each of these videos (None: of all), and its file's name as words."""
    rows = read_columns(ingest_dir / "videos.parquet", VIDEOS, columns=["video_id", "uris", "title"])
    if video_ids is not None:
        rows = rows.filter(pc.is_in(rows["video_id"], value_set=pa.array(video_ids, pa.string())))
    columns = (rows["video_id"], rows["title"], pc.list_element(rows["uris"], 0))
    return {
        video_id: (title or "", PurePosixPath(uri).stem.replace("_", " "))
        for video_id, title, uri in zip(*(column.to_pylist() for column in columns), strict=True)
    }


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


class StoredTexts(Mapping[str, NDArray[np.float32]]):
    """The vectors of texts by text id; a part is read once one of its vectors is wanted."""

    def __init__(self, parts: Mapping[Path, Sequence[str]]) -> None:
        """Take the text ids of each part, row for row."""
        self._parts = parts
        self._read: dict[Path, NDArray[np.float32]] = {}

    @classmethod
    def open(cls, embed_dir: Path, *, encoder_version: str) -> StoredTexts:
        """Open the texts of an archive; none if no clip has a text.

        Args:
            embed_dir: Output of the stage `embed`.
            encoder_version: 16 hex digits that the parts must have.

        Raises:
            ArtifactError: a part is broken, or of another encoder_version, or a text is there twice.
        """
        folder = embed_dir / TEXTS_FOLDER
        parts = {}
        for path in parts_of(folder):
            ids, versions = read_ids(path)
            if other := [version for version in versions if version != encoder_version]:
                raise ArtifactError(
                    f"{folder} is of encoder_version {other[0]}, the clips are of {encoder_version}", code="other-encoder",
                    remedy="Run `dvc repro embed` to make it again",
                )
            parts[path] = ids
        require_each_once(folder, list(chain.from_iterable(parts.values())))
        return cls(parts)

    def __getitem__(self, text_id: str) -> NDArray[np.float32]:
        """Return the vector of a text: float32 of shape (dimension,), unit length.

        Raises:
            KeyError: it was not embedded.
            ArtifactError: its part is broken.
            GateFailed: a vector of its part is not of length 1.
        """
        path, row = self._places[text_id]
        vector: NDArray[np.float32] = self._vectors(path)[row]
        return vector

    def __contains__(self, text_id: object) -> bool:
        return text_id in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return sum(map(len, self._parts.values()))

    def first(self, most: int) -> NDArray[np.float32]:
        """Return the vectors of the first texts in order of their ids, float32 of shape (n, dimension): a random draw, since
        ids are hashes, and one that lies in few parts.

        Args:
            most: Texts at most.

        Raises:
            ArtifactError: a part is broken.
            GateFailed: a vector is not of length 1.
        """
        ids = heapq.nsmallest(most, self)
        return np.stack([self[text_id] for text_id in ids]) if ids else np.empty((0, 0), np.float32)

    @cached_property
    def _places(self) -> dict[str, tuple[Path, int]]:
        return {text_id: (path, row) for path, ids in self._parts.items() for row, text_id in enumerate(ids)}

    def _vectors(self, path: Path) -> NDArray[np.float32]:
        if path not in self._read:
            vectors = read_vectors(path, self._parts[path])
            if any(other.shape[1] != vectors.shape[1] for other in self._read.values()):
                raise ArtifactError(
                    f"{path.parent} mixes vectors of different length", code="versions-mixed",
                    remedy="Run `dvc repro embed` to make it again",
                )
            self._read[path] = vectors
        return self._read[path]


def read_variants(embed_dir: Path) -> list[str]:
    """Return the precisions (`fp32`, `fp16`, `int8`) that the stored texts were embedded with, sorted.

    Args:
        embed_dir: Output of the stage `embed`.

    Raises:
        ArtifactError: a part is broken.
    """
    found: set[str] = set()
    folder = embed_dir / TEXTS_FOLDER
    for part in parts_of(folder):
        with foreign(
            ArtifactError, f"{part} cannot be read", code="not-parquet", remedy="Run `dvc repro embed` to make it again",
            errors=(pa.ArrowException, OSError, KeyError),
        ):
            found |= set(pq.read_table(part, columns=["variant"])["variant"].unique().to_pylist())
    return sorted(found)


class _Captions(NamedTuple):
    """Captions of videos, which are numbered in the order of `video_ids`."""

    video_ids: list[str]
    whole: Mapping[int, list[str]]
    """Captions of whole videos by the video's number, sorted."""
    videos: NDArray[np.int64]
    """The video of each timed caption. They are sorted by it, by start, end and text."""
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    texts: list[str]

    def of_spans(
        self, videos: NDArray[np.int64], starts: NDArray[np.int64], ends: NDArray[np.int64]
    ) -> Iterator[list[str]]:
        """Yield the captions of each clip, each once. Only captions that may overlap a clip are looked at.

        Args:
            videos: n numbers of videos.
            starts: n starts of clips in milliseconds.
            ends: n ends.
        """
        if not len(videos):
            return
        reach = 1 + max(int(each.max()) for each in (self.ends, ends) if len(each))
        longest = np.zeros(len(self.video_ids), np.int64)
        np.maximum.at(longest, self.videos, self.ends - self.starts)
        keys = self.videos * reach + self.starts
        firsts = np.searchsorted(keys, videos * reach + np.maximum(starts - longest[videos], 0))
        counts = np.maximum(np.searchsorted(keys, videos * reach + ends) - firsts, 0)
        for begin, end in _blocks(counts):
            clips = np.arange(begin, end).repeat(counts[begin:end])
            within = np.arange(len(clips)) - (np.cumsum(counts[begin:end]) - counts[begin:end]).repeat(counts[begin:end])
            rows = firsts[clips] + within
            kept = share_half_of_each(starts[clips], ends[clips], self.starts[rows], self.ends[rows])
            bounds = np.searchsorted(clips[kept], np.arange(begin, end + 1)).tolist()
            said = [self.texts[row] for row in rows[kept].tolist()]
            for place, video in enumerate(videos[begin:end].tolist()):
                of_clip = said[bounds[place] : bounds[place + 1]]
                if whole := self.whole.get(video):
                    of_clip = [*whole, *of_clip]
                yield of_clip if len(of_clip) < 2 else list(dict.fromkeys(of_clip))


def _blocks(counts: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield the first and last row of blocks whose counts are about `_PAIRS_AT_ONCE` together."""
    done = np.cumsum(counts)
    begin = 0
    while begin < len(counts):
        before = int(done[begin - 1]) if begin else 0
        end = max(begin + 1, int(np.searchsorted(done, before + _PAIRS_AT_ONCE, side="right")))
        yield begin, end
        begin = end


def _read_captions(caption_dir: Path, clips: pa.Table, video_ids: list[str]) -> _Captions:
    """Return the captions of these videos, with the spans of their clips."""
    rows = read_columns(caption_dir / "captions.parquet", CAPTIONS, columns=["video_id", "clip_id", "text"])
    videos = pc.index_in(rows["video_id"], value_set=pa.array(video_ids, pa.string()))
    places = pc.index_in(rows["clip_id"], value_set=clips["clip_id"].combine_chunks(), skip_nulls=True)
    rows = pa.table({"video": videos, "place": places, "text": rows["text"]}).filter(pc.is_valid(videos))
    is_timed = pc.is_valid(rows["place"])
    whole: dict[int, list[str]] = defaultdict(list)
    of_whole = rows.filter(pc.invert(is_timed)).sort_by([("video", "ascending"), ("text", "ascending")])
    for video, text in zip(of_whole["video"].to_pylist(), of_whole["text"].to_pylist(), strict=True):
        whole[video].append(text)
    timed = rows.filter(is_timed)
    spans = {name: clips[name].take(timed["place"]) for name in ("start_ms", "end_ms")}
    timed = pa.table({"video": timed["video"], **spans, "text": timed["text"]})
    timed = timed.sort_by([(name, "ascending") for name in timed.column_names])
    of_videos, starts, ends = (np.asarray(timed[name], np.int64) for name in ("video", "start_ms", "end_ms"))
    return _Captions(video_ids, whole, of_videos, starts, ends, timed["text"].to_pylist())


def _under(head: str, told: str) -> str:
    return f"{head}{LINE_END}{told}" if head and told else head or told


def _join(lines: Iterable[str]) -> str:
    return LINE_END.join([stripped for line in lines if (stripped := line.strip())])
