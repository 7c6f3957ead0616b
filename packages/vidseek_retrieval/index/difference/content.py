"""What goes live: the points of the tables, or those of an imported file, with the metadata that they have."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from vidseek_retrieval.confidence.calibration import Calibration
from vidseek_retrieval.index.collection_metadata import CollectionMetadata, collection_name
from vidseek_retrieval.index.collection_points import Points, build_of, count_vectors, facts_of, identity_of
from vidseek_retrieval.index.difference.changes import can_grow, difference_since, has_room_for
from vidseek_retrieval.index.difference.record import Difference, Record
from vidseek_retrieval.index.difference.video_digests import video_digests
from vidseek_retrieval.index.values import Point
from vidseek_retrieval.index.verification import Nearest


class Whole(NamedTuple):
    """A collection that is built at once."""

    metadata: CollectionMetadata
    points: Iterable[Point]
    videos: NDArray[np.void] | None
    """Rows of `VIDEO_ROW`; None of points from elsewhere."""


class Grown(NamedTuple):
    """A collection that is made from a stored one."""

    metadata: CollectionMetadata
    difference: Difference


class Content(Protocol):
    """The content of a collection that is to go live."""

    @property
    def name(self) -> str:
        """The name of the collection if it is built at once."""

    @property
    def identity(self) -> str:
        """A hash of content and settings that any collection of this content has; "" if that is not known."""

    @property
    def nearest(self) -> Nearest | None:
        """Answers queries exactly; None if only the collection can."""

    def whole(self) -> Whole:
        """Return all points with their metadata."""

    def can_grow_from(self, base: CollectionMetadata) -> bool:
        """Return whether a stored collection is of the same encoder and build settings.

        Args:
            base: Its metadata.
        """

    def since(self, record: Record, *, most: float) -> Grown | None:
        """Return the difference to a stored collection; None if all points should be built at once.

        Args:
            record: Of the stored collection.
            most: The largest share of points that may have changed since all were built at once.
        """


@dataclass(frozen=True)
class TableContent:
    """The points of the stages' tables."""

    points: Points
    calibration: Calibration | None

    @cached_property
    def videos(self) -> NDArray[np.void]:
        """Rows of `VIDEO_ROW`, sorted by video."""
        return video_digests(self.points)

    @cached_property
    def identity(self) -> str:
        """A hash of content and settings."""
        return identity_of(self.points, self.videos, self.calibration)

    @property
    def name(self) -> str:
        """The name of the collection if it is built at once."""
        return collection_name(self.points.encoder_version, build_of(self.identity))

    @property
    def nearest(self) -> Nearest:
        """Answers queries exactly from the tables."""
        return self.points.nearest

    def whole(self) -> Whole:
        """Return all points with their metadata."""
        return Whole(self._all_at_once, self.points, self.videos)

    @cached_property
    def _all_at_once(self) -> CollectionMetadata:
        return facts_of(self.points, self.videos, self.calibration, counts=count_vectors(self.points))

    def can_grow_from(self, base: CollectionMetadata) -> bool:
        """Return whether a stored collection is of the same encoder and build settings."""
        return can_grow(base, self.points)

    def since(self, record: Record, *, most: float) -> Grown | None:
        """Return the difference to a stored collection, unless more than the share `most` of all points changed."""
        difference = difference_since(record, self.points, self.videos)
        num_changed = record.metadata.num_changed + difference.num_changed
        if num_changed > most * len(self.points) or not has_room_for(record.metadata, difference):
            return None
        metadata = facts_of(
            self.points, self.videos, self.calibration, counts=difference.counts, num_changed=num_changed
        )
        return Grown(metadata, difference)


@dataclass(frozen=True)
class ImportedContent:
    """The points of a file, whose metadata may be wrong about them."""

    metadata: CollectionMetadata
    points: Iterable[Point]

    @property
    def name(self) -> str:
        """The name that the file says."""
        return self.metadata.name

    @property
    def identity(self) -> str:
        """Not known."""
        return ""

    @property
    def nearest(self) -> None:
        """None."""
        return None

    def whole(self) -> Whole:
        """Return all points with their metadata."""
        return Whole(self.metadata, self.points, None)

    def can_grow_from(self, base: CollectionMetadata) -> bool:
        """Never: nothing tells which points changed."""
        return False

    def since(self, record: Record, *, most: float) -> Grown | None:
        """None."""
        return None
