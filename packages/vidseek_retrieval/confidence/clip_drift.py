"""Measures how far newly embedded clips are from the published ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vidseek_quality.gates import Published
from vidseek_quality.vectors import Sample, drift
from vidseek_retrieval.confidence.drift import Level, level_of, num_needed, psi
from vidseek_retrieval.index.backend import IndexBackend
from vidseek_retrieval.index.live_sample import published_sample
from vidseek_retrieval.search.moment_recall import PublishedWindows

NUM_SAMPLED = 3000
"""Of either set: the first by id, which are hashes."""
NUM_AXES = 3
MIN_SAMPLED = 32
"""Of either set, for the classifier test."""


@dataclass(frozen=True)
class ClipDrift:
    """Clips now against clips at publish."""

    num_reference: int
    """Published clips that were compared; and below, clips of now."""
    num_observed: int
    psi: float | None
    """The greatest of the likeness to the centroid and the place along the first axes."""
    told_apart: float | None
    """`vidseek_quality.vectors.drift`, as the gate of embeddings has it: about the share of another kind, 0 to 1."""
    reason: str
    """Why there is no `psi`; empty where there is one."""

    @property
    def level(self) -> Level | None:
        """What `psi` says."""
        if self.psi is None:
            return None
        return level_of(self.psi, num_reference=self.num_reference, num_observed=self.num_observed)


def clip_drift(
    backend: IndexBackend, alias: str, embed_dir: Path, cut_dir: Path, *, cut: str, encoder_version: str
) -> ClipDrift:
    """Measure how far the embedded clips of an archive are from a published collection.

    Args:
        backend: The index.
        alias: Alias of the collection.
        embed_dir: Output of the stage `embed`.
        cut_dir: Output of the stage `cut`.
        cut: The cut mode of the clips, for example `windows`.
        encoder_version: 16 hex digits of the embeddings' space.

    Raises:
        ArtifactError: a table is missing or broken.
        ServiceError: the server does not answer.
    """
    if not (embed_dir / "parts").is_dir():
        return _unknown(f"nothing is embedded in {embed_dir}")
    published = published_sample(backend, alias, num=NUM_SAMPLED)
    if published is None:
        return _unknown("nothing is published")
    if published.encoder_version != encoder_version:
        return _unknown(f"{embed_dir} is of encoder_version {encoder_version}, published is {published.encoder_version}")
    return compare_clips(published, _present(embed_dir, cut_dir, cut))


def compare_clips(published: Published, present: Sample) -> ClipDrift:
    """Measure how far present clips are from published ones of the same encoder_version.

    One third of the published clips defines the axes, another third is the reference. It is compared with the last third of
    the
    present clips, so that a clip in both sets is used once.

    Args:
        published: Sample of the live embeddings.
        present: Sample of the new embeddings.
    """
    axes_of, reference, observed = (
        _third(sample, which) for which, sample in enumerate((published.sample, published.sample, present))
    )
    needed = num_needed(len(reference))
    told_apart = drift(published.sample, present, min_sampled=MIN_SAMPLED)
    if needed is None or len(observed) < needed or len(axes_of) < 2:
        reason = f"too few clips: {len(reference)} of those published and {len(observed)} of those embedded to compare"
        return ClipDrift(len(reference), len(observed), None, told_apart, reason)
    mean = axes_of.mean(axis=0)
    axes = np.linalg.svd(axes_of - mean, full_matrices=False)[2][:NUM_AXES]
    lines = np.concatenate([mean[np.newaxis], axes])
    found = max(psi(reference @ line, observed @ line) for line in lines)
    return ClipDrift(len(reference), len(observed), found, told_apart, "")


def _present(embed_dir: Path, cut_dir: Path, cut: str) -> Sample:
    windows = PublishedWindows.load(embed_dir, cut_dir, cut=cut)
    order = sorted(range(len(windows.clips)), key=lambda place: windows.clips[place].clip_id)[:NUM_SAMPLED]
    return Sample(tuple(windows.clips[place].clip_id for place in order), windows.vectors[order])


def _third(sample: Sample, which: int) -> NDArray[np.float32]:
    rows: Sequence[int] = [place for place, clip_id in enumerate(sample.clip_ids) if int(clip_id[-2:], 16) % 3 == which]
    return sample.vectors[rows]


def _unknown(reason: str) -> ClipDrift:
    return ClipDrift(0, 0, None, None, reason)
