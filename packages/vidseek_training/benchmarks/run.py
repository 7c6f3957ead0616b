"""Runs a published benchmark on its videos with one model: text-to-video and video-to-text retrieval.

Frames are taken at the centres of equal bins of the whole video, as for clips of the archive. Embeddings are kept, so that
a stopped run continues.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from zipfile import BadZipFile

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vidseek_encoder.choices import VARIANT, usable_cores
from vidseek_encoder.encoder import Encoder
from vidseek_encoder.preprocess import resize_frames
from vidseek_encoder.tokenize import Tokenizer
from vidseek_media.decoding.frames import decode_uniform
from vidseek_media.decoding.worker_batch import run_videos
from vidseek_media.errors import ConfigError, InputRejected
from vidseek_media.files.folders import whole_file
from vidseek_media.sources.source import VIDEO_SUFFIXES
from vidseek_training import backbones
from vidseek_training.backbones import Backbone
from vidseek_training.benchmarks.caption_files import Query, find_videos, read_benchmark
from vidseek_training.benchmarks.published_figures import PUBLISHED
from vidseek_training.evaluation.embedding import embed_frames, embed_ids
from vidseek_training.evaluation.metrics import summarise
from vidseek_training.evaluation.retrieval_metrics import Vectors, judge, one_a_clip

ANNOTATIONS: Mapping[str, str] = {"msrvtt-1ka": "MSRVTT_JSFUSION_test.csv", "msvd": "msvd_caption_test.json"}
"""The file of captions of each benchmark, as it is published."""
_BATCH = 32
"""Videos that are embedded, and written down, at once."""
_FIGURES = ("r1", "r5", "r10", "mdr", "mnr")

Frames = NDArray[np.uint8]


class Embedder(Protocol):
    """A backbone or a bundle."""

    name: str
    key: str
    """16 hex digits of all that decides its vectors."""
    num_frames: int

    def videos(self, clips: Sequence[Frames]) -> NDArray[np.float32]:
        """Return unit rows (n, dimension) of clips, each uint8 (T, height, width, 3)."""

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return unit rows (n, dimension) of texts."""


class BundleEmbedder:
    """An exported bundle."""

    def __init__(self, path: Path, *, variant: str = VARIANT) -> None:
        """Raises as `Encoder.load`."""
        self._encoder = Encoder.load(path, variant=variant, threads=1, lanes=usable_cores())
        spec = self._encoder.spec
        self.name, self.num_frames = f"{path} ({variant})", spec.num_frames
        self.key = hashlib.sha256(f"{spec.encoder_version} {variant}".encode()).hexdigest()[:16]

    def videos(self, clips: Sequence[Frames]) -> NDArray[np.float32]:
        """Implement `Embedder.videos`."""
        return self._encoder.embed_frames(clips)

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Implement `Embedder.texts`."""
        return self._encoder.embed_texts(texts)


class BackboneEmbedder:
    """A backbone as it is, without an export."""

    def __init__(self, name: str) -> None:
        """Raises as `backbones.load`."""
        self._model: Backbone = backbones.load(name).eval()
        spec = self._model.spec
        self.name, self.num_frames = name, spec.num_frames
        self._tokenizer = Tokenizer.load(spec.tokenizer, context=spec.context_length, pad_id=spec.pad_id)
        about = {**asdict(spec), "tokenizer": hashlib.sha256(spec.tokenizer.read_bytes()).hexdigest(), "name": ""}
        self.key = hashlib.sha256(f"{backbones.weights_sha256(name)} {sorted(about.items())}".encode()).hexdigest()[:16]

    def videos(self, clips: Sequence[Frames]) -> NDArray[np.float32]:
        """Implement `Embedder.videos`."""
        spec = self._model.spec
        resized = [resize_frames(clip[None], spec.resizing)[0] for clip in clips]
        return embed_frames(self._model, np.stack(resized))

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Implement `Embedder.texts`."""
        return embed_ids(self._model, self._tokenizer.encode(list(texts)))


@dataclass(frozen=True)
class BenchmarkResult:
    """The figures of a run. R@k is in percent, as in papers."""

    benchmark: str
    model: str
    num_videos: int
    """That were searched."""
    num_queries: int
    num_videos_published: int
    num_queries_published: int
    missing: tuple[str, ...]
    """Videos of the benchmark that are not in the folder."""
    rejected: dict[str, str]
    """Videos that cannot be decoded, with the reason."""
    text_to_video: dict[str, float]
    video_to_text: dict[str, float]
    published: tuple[dict[str, Any], ...]

    @property
    def is_whole(self) -> bool:
        """Whether the figures are over what the published ones are over."""
        return self.num_videos == self.num_videos_published

    def to_json(self) -> dict[str, Any]:
        """For a program."""
        return {**asdict(self), "missing": list(self.missing), "published": list(self.published), "is_whole": self.is_whole}


def run_benchmark(
    name: str, videos: Path, embedder: Embedder, *, work: Path, annotations: Path | None = None, workers: int = 1
) -> BenchmarkResult:
    """Embed the videos and captions of a benchmark, and rank them in both directions.

    Several captions of a video are counted as in CLIP4Clip. Videos that are missing or cannot be decoded are left out with
    their
    captions; the gallery is then smaller than the published one.

    Args:
        name: `msrvtt-1ka` or `msvd`.
        videos: Folder of the videos, at any depth, with the benchmark's names.
        embedder: The model.
        work: Folder that keeps the embeddings.
        annotations: File of captions; None takes the published one in `videos`.
        workers: Number of processes that decode.

    Raises:
        ConfigError: there is no such benchmark or folder, or no file of captions.
        ArtifactError: the file of captions is broken.
        InputRejected: no video is there, or none can be decoded.
    """
    queries = read_benchmark(_annotations_of(name, videos, annotations))
    found = find_videos(queries, videos, suffixes=VIDEO_SUFFIXES)
    missing = tuple(sorted(video for video, path in found.items() if path is None))
    paths = {video: path for video, path in found.items() if path is not None}
    if not paths:
        raise InputRejected(
            f"not one of the {len(found)} videos of {name} is in {videos}, the first would be {next(iter(found))}",
            code="benchmark-videos-missing",
            remedy="Name the folder that holds the videos themselves",
        )
    folder = work / name / embedder.key
    vectors, rejected = _video_vectors(paths, embedder, folder / "videos.npz", workers=workers)
    kept = [query for query in queries if query.video in vectors]
    if not kept:
        raise InputRejected(
            f"not one of the {len(paths)} videos in {videos} can be decoded, the first: {next(iter(rejected.values()))}",
            code="no-usable-video",
        )
    texts = _text_vectors([query.caption for query in kept], embedder, folder / "texts.npz")
    text_to_video, video_to_text = _figures(kept, vectors, texts)
    return BenchmarkResult(
        name, embedder.name, num_videos=len({query.video for query in kept}), num_queries=len(kept),
        num_videos_published=len(found), num_queries_published=len(queries), missing=missing, rejected=rejected,
        text_to_video=text_to_video, video_to_text=video_to_text, published=tuple(asdict(each) for each in PUBLISHED[name]),
    )


def _annotations_of(name: str, videos: Path, annotations: Path | None) -> Path:
    if name not in ANNOTATIONS:
        raise ConfigError(f"there is no benchmark {name!r}, wanted {' or '.join(ANNOTATIONS)}", code="unknown-choice")
    if not videos.is_dir():
        raise ConfigError(
            f"{videos} is no folder", code="folder-missing", remedy="Name the folder of the benchmark's videos",
        )
    if annotations is not None:
        return annotations
    found = sorted([*videos.rglob(ANNOTATIONS[name]), *videos.parent.glob(ANNOTATIONS[name])])
    if not found:
        raise ConfigError(
            f"{ANNOTATIONS[name]} is neither in {videos} nor beside it", code="annotations-missing",
            remedy="Put it there, or name it with --annotations: its captions are what is searched with",
        )
    return found[0]


def _figures(
    queries: Sequence[Query], videos: Mapping[str, NDArray[np.float32]], texts: NDArray[np.float32]
) -> tuple[dict[str, float], dict[str, float]]:
    table = pd.DataFrame({
        "clip_id": [query.video for query in queries], "gallery": "default", "contrast": "", "axis": "",
    })
    rows = np.stack([videos[query.video] for query in queries])
    seen = judge(Vectors(rows, texts, texts), table)
    return _in_percent(summarise(seen.text_ranks)), _in_percent(summarise(seen.video_ranks[one_a_clip(table)]))


def _in_percent(figures: Mapping[str, float]) -> dict[str, float]:
    return {
        name: round(100 * figures[name], 1) if name.startswith("r") else round(figures[name], 1) for name in _FIGURES
    }


def _video_vectors(
    paths: Mapping[str, Path], embedder: Embedder, cache: Path, *, workers: int
) -> tuple[dict[str, NDArray[np.float32]], dict[str, str]]:
    """Return the vector of each video that can be decoded, and the reasons of those that cannot."""
    marks = {video: _mark(path) for video, path in paths.items()}
    known = _read(cache)
    vectors = {video: known[mark] for video, mark in marks.items() if mark in known}
    rejected: dict[str, str] = {}
    todo = {path: video for video, path in paths.items() if video not in vectors}
    with run_videos(
        partial(decode_uniform, num_frames=embedder.num_frames), list(todo), label="videos", workers=workers,
        timeout_seconds=120,
    ) as outcomes:
        waiting: list[tuple[str, Frames]] = []
        for outcome in outcomes:
            video = todo[outcome.item]
            if outcome.error is not None or outcome.value is None:
                rejected[video] = outcome.error.message if outcome.error else "it has no frames"
                continue
            waiting.append((video, outcome.value))
            if len(waiting) == _BATCH:
                _embed_waiting(waiting, vectors, known, marks, embedder, cache)
        _embed_waiting(waiting, vectors, known, marks, embedder, cache)
    return vectors, dict(sorted(rejected.items()))


def _embed_waiting(
    waiting: list[tuple[str, Frames]], vectors: dict[str, NDArray[np.float32]], known: dict[str, NDArray[np.float32]],
    marks: Mapping[str, str], embedder: Embedder, cache: Path,
) -> None:
    """Embed what waits, and write all that is known down."""
    if not waiting:
        return
    rows = embedder.videos([clip for _, clip in waiting])
    for (video, _), row in zip(waiting, rows, strict=True):
        vectors[video] = known[marks[video]] = row
    waiting.clear()
    _write(cache, known)


def _text_vectors(texts: Sequence[str], embedder: Embedder, cache: Path) -> NDArray[np.float32]:
    marks = [hashlib.sha256(text.encode()).hexdigest()[:32] for text in texts]
    known = _read(cache)
    todo = {mark: text for mark, text in zip(marks, texts, strict=True) if mark not in known}
    for part in _parts(list(todo.items()), 32 * _BATCH):
        rows = embedder.texts([text for _, text in part])
        known |= {mark: row for (mark, _), row in zip(part, rows, strict=True)}
        _write(cache, known)
    return np.stack([known[mark] for mark in marks])


def _parts(items: list[tuple[str, str]], size: int) -> Iterator[list[tuple[str, str]]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _mark(path: Path) -> str:
    """Return a file's name, size and time of change."""
    about = path.stat()
    return hashlib.sha256(f"{path.name} {about.st_size} {about.st_mtime_ns}".encode()).hexdigest()[:32]


def _read(cache: Path) -> dict[str, NDArray[np.float32]]:
    """Read kept embeddings; none if the file is missing or broken."""
    try:
        with np.load(cache) as content:
            return dict(zip(content["marks"].tolist(), content["vectors"], strict=True))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return {}


def _write(cache: Path, known: Mapping[str, NDArray[np.float32]]) -> None:
    with whole_file(cache) as beside, beside.open("wb") as file:
        np.savez(file, marks=np.array(list(known)), vectors=np.stack(list(known.values())))
