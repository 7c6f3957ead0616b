"""A fair draw of the vectors that are live, for the gate that compares them with new ones."""

from __future__ import annotations

from itertools import islice

import numpy as np

from vidseek_media.errors import ArtifactError
from vidseek_quality.gates import Published
from vidseek_quality.vectors import Sample
from vidseek_retrieval.index.backend import IndexBackend


def published_sample(backend: IndexBackend, alias: str, *, num: int) -> Published | None:
    """The `video` vectors of the first `num` clips by id of the collection that `alias` names; ids are hashes.

    None where nothing was published, or what was cannot be read: a lost index must not keep a new one from being built.

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
