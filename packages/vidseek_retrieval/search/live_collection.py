"""Open the collection that an alias points to, and keep what is read of it once: its calibration and score spread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from vidseek_media.errors import ArtifactError, InputRejected
from vidseek_retrieval.confidence.calibration import Calibration, OldCalibration
from vidseek_retrieval.index.backend import PUBLISH_REMEDY, USE_REMEDY, Collection, IndexBackend
from vidseek_retrieval.index.collection_metadata import CollectionMetadata
from vidseek_retrieval.index.score_spread import score_spread
from vidseek_retrieval.index.values import VIDEO_VECTOR, Dense
from vidseek_retrieval.search.denylist import Denylist, FilteredCollection

log = logging.getLogger("vidseek.search")

MIN_CAPTIONS = 20
"""Captions of the sample that tell how well texts find their clips."""
MIN_NATS, DEFAULT_NATS, MAX_NATS = 0.3, 2.0, 6.0
"""What a standard deviation of scores says of a clip, in nats: at least, where nothing is known, and at most."""
SPREAD_SAMPLE = 512
"""Points that the score spread is estimated from if the collection does not record it."""


class LiveCollection:
    """The live collection of an alias, followed when the alias moves. Safe to share between threads."""

    def __init__(self, backend: IndexBackend, *, alias: str, hidden: Denylist) -> None:
        """Open nothing yet.

        Args:
            backend: The index.
            alias: Names the live collection.
            hidden: Gives the video ids that no answer shows.
        """
        self._backend = backend
        self._alias = alias
        self._hidden = hidden
        self._open: dict[str, Collection] = {}
        self._calibrations: dict[str, Calibration | None] = {}
        self._spreads: dict[tuple[str, Dense], float] = {}
        self._own_scores: dict[str, float | None] = {}
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The name of the live collection.

        Raises:
            ArtifactError: nothing was published.
        """
        live = self._backend.live(self._alias)
        if live is None:
            is_lost = bool(self._backend.stored())  # collections exist, but no alias says which one is live
            raise ArtifactError(
                f"nothing was published as {self._alias!r}",
                code="not-published", remedy=USE_REMEDY if is_lost else PUBLISH_REMEDY
            )
        return live

    def require_stored(self) -> str:
        """Return the name of the live collection and check that the index still has it.

        An open collection stays readable after it was removed, so opening it proves nothing.

        Raises:
            ArtifactError: nothing was published, or the collection was removed.
        """
        live = self.name
        if live not in self._backend.stored():
            raise ArtifactError(
                f"the alias {self._alias!r} names {live}, which is not there", code="collection-absent", remedy=USE_REMEDY,
            )
        return live

    def open(self, name: str | None = None) -> Collection:
        """Return a collection, open and without hidden videos.

        Args:
            name: The collection that a former page came from; None for the live one.

        Raises:
            InputRejected: the named collection was removed.
            ArtifactError: nothing was published, or the live collection is broken.
        """
        live = self.name
        wanted = name or live
        with self._lock:
            if wanted in self._open:
                return self._open[wanted]
        try:
            opened: Collection = FilteredCollection(self._backend.open(wanted), self._hidden)
        except ArtifactError as error:
            if wanted != live:
                raise InputRejected(
                    f"there is no collection {wanted} any more",
                    code="no-such-collection", remedy="Search again from the first page"
                ) from error
            if self.name == live:
                raise
            return self.open(name)  # the alias moved while the collection was opened, and the old one was removed
        with self._lock:
            # Other collections are dropped here; a search that still runs keeps a reference to its own.
            self._open = {each: kept for each, kept in self._open.items() if each == live} | {wanted: opened}
        return opened

    def forget_open(self) -> None:
        """Drop all open collections, so that the next `open` reads the index again."""
        with self._lock:
            self._open = {}

    def calibration_of(self, metadata: CollectionMetadata) -> Calibration | None:
        """Return a collection's calibration, read once.

        Args:
            metadata: Of the collection.

        Returns:
            None if the collection was not calibrated, or by an earlier version of the format.
        """
        if metadata.calibration is None:
            return None
        with self._lock:
            if metadata.name not in self._calibrations:
                self._calibrations = {metadata.name: _read_calibration(metadata.name, metadata.calibration)}
            return self._calibrations[metadata.name]

    def spread_of(self, opened: Collection, using: Dense) -> float:
        """Return the standard deviation of a collection's scores, estimated once if its metadata lacks it.

        Args:
            opened: The collection.
            using: The dense vector that the scores are of.
        """
        key = (opened.metadata.name, using)
        with self._lock:
            spread = self._spreads.get(key, opened.metadata.score_spread.get(using))
        if spread is None:  # built by an earlier version
            spread = _sampled_spread(opened, using)
            with self._lock:
                self._spreads = {key: spread, **{each: kept for each, kept in self._spreads.items() if each[0] == key[0]}}
        return spread


    def mix_slope_of(self, opened: Collection) -> float:
        """Return how much the logarithm of a clip's likelihood grows with its cosine, to weigh pictures against words.

        A calibration knows it. Otherwise the archive's captions tell how far above the others a text finds its own clip,
        in standard deviations; for normal scores that distance is the slope. A collection without captions has a default.

        Args:
            opened: The collection.
        """
        calibration = self.calibration_of(opened.metadata)
        if calibration is not None:
            return calibration.picture_slope or MIN_NATS
        name = opened.metadata.name
        with self._lock:
            is_known = name in self._own_scores
        if not is_known:
            found = _own_score(opened)
            with self._lock:
                self._own_scores = {name: found}
        own = self._own_scores.get(name)
        nats = DEFAULT_NATS if own is None else min(MAX_NATS, max(MIN_NATS, own))
        return nats / max(self.spread_of(opened, VIDEO_VECTOR), 1e-3)


def _own_score(opened: Collection) -> float | None:
    """Return how many standard deviations above other clips a caption scores its own; None for a few captions."""
    points = opened.points(sorted(opened.sample(SPREAD_SAMPLE, seed=0)))
    pairs = [(point.vector, point.caption) for point in points if point.caption is not None]
    if len(pairs) < MIN_CAPTIONS:
        return None
    clips, captions = (np.stack(each) for each in zip(*pairs, strict=True))
    scores = captions @ clips.T
    spread = scores.std(axis=1).mean()
    return float((scores.diagonal() - scores.mean(axis=1)).mean() / max(spread, 1e-6))


def _read_calibration(name: str, content: Mapping[str, Any]) -> Calibration | None:
    """Read a calibration. If it is of an earlier version, log a warning and return None: hits then have no confidence."""
    try:
        return Calibration.from_json(content)
    except OldCalibration as error:
        log.warning("%s has no confidences: %s. %s", name, error.message, error.remedy)
        return None


def _sampled_spread(opened: Collection, using: Dense) -> float:
    """Estimate the score spread from a sample of points, with their captions (if any) as the queries."""
    points = opened.points(sorted(opened.sample(SPREAD_SAMPLE, seed=0)))
    captions = [point.caption for point in points if point.caption is not None]
    clips = [np.asarray(point.vectors[using]) for point in points if using in point.vectors]
    empty = np.empty((0, opened.metadata.dimension), np.float32)
    return score_spread(np.stack(clips) if clips else empty, np.stack(captions) if captions else empty)
