"""Measures how often a search finds the right moment among the published windows, with the code that answers searches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidseek_media.cutting.cut import read_clips
from vidseek_quality.intervals import share_interval
from vidseek_retrieval.embedding.embed_texts import read_texts, text_matrix
from vidseek_retrieval.embedding.embedding_parts import read_parts
from vidseek_retrieval.index.score_spread import MAX_CLIPS, evenly, score_spread
from vidseek_retrieval.search.moments import Moment, RankedClip, first_moments, rank_exact

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
    """The clips that are published, with their vectors."""

    clips: tuple[RankedClip, ...]
    vectors: NDArray[np.float32]
    """Shape (n, dimension), unit rows."""
    score_spread: float = 0.0
    """As the published collection has it for its vector `video`: see `vidseek_retrieval.index.score_spread`."""

    @staticmethod
    def load(embed_dir: Path, cut_dir: Path, *, cut: str) -> PublishedWindows:
        """Load the embedded clips of one cut mode.

        Args:
            embed_dir: Output of the stage `embed`.
            cut_dir: Output of the stage `cut`.
            cut: The cut mode, for example `windows`.

        Raises:
            ArtifactError: a table is missing or broken.
        """
        embeddings = read_parts(embed_dir / "parts")
        spans = {str(clip.clip_id): clip for clip in read_clips(cut_dir) if cut in clip.cut}
        rows = [row for row, clip_id in enumerate(embeddings.clip_ids) if clip_id in spans]
        clips = []
        for row in rows:
            clip = spans[embeddings.clip_ids[row]]
            clips.append(RankedClip(embeddings.clip_ids[row], clip.video_id, clip.start_ms, clip.end_ms, 0.0))
        texts = text_matrix(read_texts(embed_dir, encoder_version=embeddings.encoder_version))
        by_id = evenly(sorted(rows, key=lambda row: embeddings.clip_ids[row]), MAX_CLIPS)
        return PublishedWindows(
            tuple(clips), embeddings.vectors[rows], score_spread(embeddings.vectors[by_id], texts)
        )

    def search(self, queries: NDArray[np.float32], *, margin: float) -> list[list[Moment]]:
        """Return the moments of each query, best first, by exact search.

        Args:
            queries: float32 of shape (n, dimension), unit rows.
            margin: Largest difference to the best score of a moment, at least 0.
        """
        rankings = rank_exact(queries, self.vectors, self.clips, margin=margin)
        return [first_moments(ranking, margin=margin) for ranking in rankings]


def iou(moment: Moment, truth: Truth) -> float:
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
    firsts = []
    for moments, truth in zip(found, truths, strict=True):
        right = [place for place, moment in enumerate(moments[:10]) if iou(moment, truth) >= MIN_IOU]
        firsts.append(right[0] if right else 10)
    hits = {f"r{k}": np.array([first < k for first in firsts], np.float64) for k in (1, 5, 10)}
    hits["video_r1"] = np.array([
        bool(moments) and moments[0].video_id == truth.video_id for moments, truth in zip(found, truths, strict=True)
    ], np.float64)
    figures: dict[str, Any] = {name: round(float(values.mean()), 4) for name, values in hits.items()}
    intervals = {
        f"{name}_interval": share_interval(values, groups, resamples=resamples, seed=seed).to_json()
        for name, values in hits.items()
    }
    return figures | intervals | {"num_queries": len(truths), "num_groups": len(set(groups))}
