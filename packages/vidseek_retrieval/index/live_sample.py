"""Samples the live vectors, for the gate that compares them with new ones."""

from __future__ import annotations

from itertools import islice

import numpy as np

from vidseek_media.errors import ArtifactError
from vidseek_quality.gates import Published
from vidseek_quality.vectors import Sample
from vidseek_retrieval.index.backend import IndexBackend


def published_sample(backend: IndexBackend, alias: str, *, num: int) -> Published | None:
    """Return the `video` vectors of the first clips by id (a random draw, since ids are hashes) of a live collection.

    Args:
        backend: The index.
        alias: Alias of the collection.
        num: Most clips.

    Returns:
        None if nothing was published, or it cannot be read: a broken index must not block the publish of a new one.

    Raises:
        ServiceError: the server does not answer.
    """
    try:
        live = backend.aliases().get(alias)
        if live is None:
            return None
        collection = backend.open(live.collection)
        try:
            points = list(islice(collection.scroll(batch=num), num))
        finally:
            collection.close()
    except ArtifactError:
        return None
    if not points:
        return None
    sample = Sample(tuple(point.clip_id for point in points), np.stack([point.vector for point in points]))
    return Published(live.collection, collection.metadata.encoder_version, sample)
