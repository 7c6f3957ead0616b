"""Measures how often a search finds the right moment among the published windows, with the code that answers searches."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vidseek_media.cutting.cut import rows_of_cut
from vidseek_media.tables import CLIPS, read_columns
from vidseek_quality.intervals import share_interval
from vidseek_retrieval.embedding.embed_texts import StoredTexts
from vidseek_retrieval.embedding.embedding_parts import read_parts
from vidseek_retrieval.index.score_spread import MAX_CLIPS, MAX_QUERIES, evenly, score_spread
from vidseek_retrieval.search.moments import Moment, RankedClip, first_moments, rankings

MIN_IOU = 0.5
"""A moment is right if it is of the right video and its intersection over union with the truth is at least this."""


@dataclass(frozen=True)
class Truth:
    """Where the answer to a query is."""

    video_id: str
    start_ms: int
    end_ms: int


@dataclass(frozen=True)
class PublishedWindows:
    """The clips that are published, with their vectors; or a sample of their videos."""

    clips: tuple[RankedClip, ...]
    vectors: NDArray[np.float32]
    """Shape (n, dimension), unit rows."""
    score_spread: float = 0.0
    """As the published collection has it for its vector `video`: see `vidseek_retrieval.index.score_spread`. Of a sample: as
    these clips have it."""
    num_published: int = 0
    """Number of clips that the sample was drawn from."""
    half: frozenset[str] = frozenset()
    """Videos of a sample within the sample, of about half of its clips; empty if `clips` are all that are published."""

    @staticmethod
    def load(
        embed_dir: Path, cut_dir: Path, *, cut: str, most: int | None = None, always: Collection[str] = ()
    ) -> PublishedWindows:
        """Load the embedded clips of one cut mode.

        Args:
            embed_dir: Output of the stage `embed`.
            cut_dir: Output of the stage `cut`.
            cut: The cut mode, for example `windows`.
            most: Number of clips of a sample, taken if there are more: whole videos, drawn by their ids, so that an archive
                that grows keeps most of its sample. None loads all clips.
            always: Videos that every sample contains.

        Raises:
            ArtifactError: a table is missing or broken.
        """
        columns = ["clip_id", "video_id", "start_ms", "end_ms"]
        rows = rows_of_cut(read_columns(cut_dir / "clips.parquet", CLIPS, columns=[*columns, "cut"]), cut)
        drawn, half = _drawn(rows["video_id"], most, always)
        kept = rows if drawn is None else rows.filter(pc.is_in(rows["video_id"], value_set=pa.array(drawn, pa.string())))
        embeddings = read_parts(embed_dir / "parts", among=kept["clip_id"].to_pylist())
        places = pc.index_in(pa.array(embeddings.clip_ids, pa.string()), value_set=kept["clip_id"].combine_chunks())
        spans = (column.to_pylist() for column in kept.select(columns).take(places).columns)
        clips = tuple(RankedClip(clip, video, start, end, 0.0) for clip, video, start, end in zip(*spans, strict=True))
        texts = StoredTexts.open(embed_dir, encoder_version=embeddings.encoder_version).first(MAX_QUERIES)
        spread = score_spread(embeddings.vectors[evenly(range(len(clips)), MAX_CLIPS)], texts)
        num_published = len(clips) if drawn is None else rows.num_rows
        return PublishedWindows(clips, embeddings.vectors, spread, num_published, half)

    def search(self, queries: NDArray[np.float32], *, margin: float, num: int | None = None) -> list[list[Moment]]:
        """Return the first moments of each query, best first, by exact search.

        Args:
            queries: float32 of shape (n, dimension), unit rows.
            margin: Largest difference to the best score of a moment, at least 0.
            num: The number of moments wanted; None for all.
        """
        found = rankings(queries, self.vectors, self.clips)
        return [first_moments(ranking, margin=margin, num=num) for ranking in found]


def _drawn(
    videos: pa.ChunkedArray, most: int | None, always: Collection[str]
) -> tuple[frozenset[str] | None, frozenset[str]]:
    """Draw videos that have about `most` clips together, and of these such as have half as many.

    Args:
        videos: The video of each clip.
        most: Number of clips; None for all.
        always: Videos that are drawn first.

    Returns:
        The drawn videos (None: all), and those of about half of their clips.
    """
    if most is None or len(videos) <= most:
        return None, frozenset()
    counted = pc.value_counts(videos)
    counts = dict(zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True))
    by_hash = sorted(counts, key=lambda video_id: sha256(video_id.encode()).digest())
    firsts = {video_id: counts[video_id] for video_id in sorted(by_hash, key=lambda video_id: video_id not in always)}
    drawn = _first_videos(firsts, most) | frozenset(always)
    sampled = {video_id: counts[video_id] for video_id in by_hash if video_id in drawn}
    return drawn, _first_videos(sampled, sum(sampled.values()) // 2)


def _first_videos(counts: Mapping[str, int], most: int) -> frozenset[str]:
    """Return the first videos that have at most `most` clips together, at least one."""
    together = zip(counts, accumulate(counts.values()), strict=True)
    return frozenset(name for place, (name, num) in enumerate(together) if num <= most or not place)


class Span(Protocol):
    """A part of a video: a moment, a hit, or where an answer is."""

    @property
    def video_id(self) -> str:
        """Of the video."""

    @property
    def start_ms(self) -> int:
        """Where it begins."""

    @property
    def end_ms(self) -> int:
        """Where it ends."""


def iou(moment: Span, truth: Span) -> float:
    """Intersection over union of two spans; 0 if they are of different videos."""
    if moment.video_id != truth.video_id:
        return 0.0
    shared = min(moment.end_ms, truth.end_ms) - max(moment.start_ms, truth.start_ms)
    joined = max(moment.end_ms, truth.end_ms) - min(moment.start_ms, truth.start_ms)
    return max(0.0, shared / joined)


def moment_recalls(
    found: Sequence[Sequence[Moment]], truths: Sequence[Truth], groups: Sequence[str], *, resamples: int, seed: int
) -> dict[str, Any]:
    """Recall of right moments at 1, 5 and 10, and of the right video at 1, each with its interval.

    Args:
        found: The moments of each query, best first.
        truths: One for each query.
        groups: The group of videos of each query.
        resamples: Of groups of videos, in the bootstrap.
        seed: Of the bootstrap.
    """
    if not truths:
        return {}
    hits = _hits(found, truths)
    hits["video_r1"] = np.array([
        bool(moments) and moments[0].video_id == truth.video_id for moments, truth in zip(found, truths, strict=True)
    ], np.float64)
    figures: dict[str, Any] = {name: round(float(values.mean()), 4) for name, values in hits.items()}
    intervals = {
        f"{name}_interval": share_interval(values, groups, resamples=resamples, seed=seed).to_json()
        for name, values in hits.items()
    }
    return figures | intervals | {"num_queries": len(truths), "num_groups": len(set(groups))}


def recalls_of_all(
    found: Sequence[Sequence[Moment]], truths: Sequence[Truth], windows: PublishedWindows
) -> dict[str, float]:
    """Return the recalls to expect among all published clips, where `windows` is a sample of them.

    A recall falls by about as much each time that the clips to choose from are doubled. The fall is measured in the sample:
    among half of its videos the recall is higher. The line through both is followed to the number of all clips.

    Args:
        found: The moments of each query in the sample, best first: more than 10, since half of them are left out.
        truths: One for each query.
        windows: The sample.

    Returns:
        `r1`, `r5` and `r10`; empty if `windows` has all clips or there is no query.
    """
    num, num_half = len(windows.clips), sum(clip.video_id in windows.half for clip in windows.clips)
    if not windows.half or not truths or num_half == num:
        return {}
    in_half = [
        [moment for moment in moments if moment.video_id in windows.half or moment.video_id == truth.video_id]
        for moments, truth in zip(found, truths, strict=True)
    ]
    doublings = math.log2(windows.num_published / num) / math.log2(num / num_half)
    expected = {}
    for name, values in _hits(found, truths).items():
        fall = float(_hits(in_half, truths)[name].mean() - values.mean())
        expected[name] = round(min(1.0, max(0.0, float(values.mean() - fall * doublings))), 4)
    return expected


def _hits(found: Sequence[Sequence[Moment]], truths: Sequence[Truth]) -> dict[str, NDArray[np.float64]]:
    """For each query whether a right moment is among its first 1, 5 and 10."""
    firsts = []
    for moments, truth in zip(found, truths, strict=True):
        right = [place for place, moment in enumerate(moments[:10]) if iou(moment, truth) >= MIN_IOU]
        firsts.append(right[0] if right else 10)
    return {f"r{k}": np.array([first < k for first in firsts], np.float64) for k in (1, 5, 10)}
