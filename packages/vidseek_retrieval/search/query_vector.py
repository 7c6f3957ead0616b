"""Encode a query's inputs and combine them with its example clips into one unit vector."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from vidseek_encoder.encoder import Encoder
from vidseek_media.errors import ArtifactError, InputRejected
from vidseek_retrieval.index.backend import Collection, Point
from vidseek_retrieval.index.collection_metadata import CollectionMetadata
from vidseek_retrieval.lexical.query_text import without_quotes
from vidseek_retrieval.search.query import Query, QueryInputs


def encode_query(encoder: Encoder, positive: QueryInputs, negative: QueryInputs) -> Query:
    """Embed the texts, images and clips of a query.

    Args:
        encoder: Embeds all inputs; its encoder_version becomes the query's.
        positive: What the moments shall look like; at least one input.
        negative: What they shall not look like; may be empty.

    Raises:
        InputRejected: `positive` is empty, or a text is blank or not valid Unicode.
    """
    require_wanted(positive, negative)
    return Query(
        encoder.spec.encoder_version, _embed(encoder, positive), _embed(encoder, negative),
        positive_ids=positive.clip_ids, negative_ids=negative.clip_ids, words=" ".join(positive.texts),
    )


def require_wanted(positive: QueryInputs, negative: QueryInputs) -> None:
    """Check that the query has a positive input and that no text is blank.

    Args:
        positive: What the moments shall look like.
        negative: What they shall not look like.

    Raises:
        InputRejected: `positive` is empty, or a text is blank.
    """
    if not positive:
        raise InputRejected(
            "the query wants nothing", code="empty-query", remedy="Say what to look for, not only what not",
        )
    if not all(text.strip() for text in (*positive.texts, *negative.texts)):
        raise InputRejected("the query is blank", code="empty-query", remedy="Say in a few words what to look for")


def _clip_id(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError as error:
        raise InputRejected(f"{text!r} is no clip id", code="bad-clip-id", remedy="Take best_clip_id of a hit") from error


def find_examples(opened: Collection, clip_ids: Sequence[str]) -> dict[str, Point]:
    """Return the points of the example clips, by the clip id as it was given.

    Args:
        opened: The collection that holds the clips.
        clip_ids: UUIDs in any notation that `uuid.UUID` reads; may be empty.

    Raises:
        InputRejected: a clip id is no UUID, or the collection has no such clip.
    """
    if not clip_ids:
        return {}
    wanted = [_clip_id(each) for each in clip_ids]
    found = {point.clip_id: point for point in opened.points(wanted)}
    lacking = [clip_id for clip_id in wanted if clip_id not in found]
    if lacking:
        raise InputRejected(
            f"{opened.metadata.name} has no clip {lacking[0]}", code="unknown-example", remedy="Take best_clip_id of a hit",
        )
    return dict(zip(clip_ids, (found[clip_id] for clip_id in wanted), strict=True))


def direction_of(
    query: Query, examples: Mapping[str, Point], metadata: CollectionMetadata, *, negative_weight: float
) -> NDArray[np.float32]:
    """Return the unit vector to search for, shape (dimension,): the mean of the positives less a share of the negatives.

    Args:
        query: Its vectors must have the collection's dimension.
        examples: The points of `query.positive_ids` and `query.negative_ids`, by clip id.
        metadata: Of the collection that is searched.
        negative_weight: The share, at least 0, that the unit mean of the negatives is subtracted with.

    Raises:
        InputRejected: a vector has another dimension or is not finite, nothing is wanted, or the positives and the
            negatives cancel out.
    """
    for vectors in (query.positive, query.negative):
        if vectors.shape[1:] != (metadata.dimension,) or not np.isfinite(vectors).all():
            raise InputRejected(
                f"a query vector of shape {vectors.shape[1:]}, wanted ({metadata.dimension},) and every value finite",
                code="bad-vector",
            )
    positive = np.concatenate([query.positive, *[examples[each].vector[np.newaxis] for each in query.positive_ids]])
    negative = np.concatenate([query.negative, *[examples[each].vector[np.newaxis] for each in query.negative_ids]])
    if not len(positive):
        raise InputRejected(
            "the query wants nothing", code="empty-query", remedy="Say what to look for, not only what not",
        )
    if len(positive) == 1 and not len(negative):
        return positive[0]
    direction = _unit(positive.mean(axis=0))
    if len(negative):
        direction = _unit(direction - negative_weight * _unit(negative.mean(axis=0)))
    return direction


def require_same_space(encoder_version: str, collection: Collection) -> None:
    """Check that a query's vectors can be compared with those of `collection`.

    Args:
        encoder_version: Of the query.
        collection: The collection to search.

    Raises:
        ArtifactError: the two encoder_versions differ.
    """
    metadata = collection.metadata
    if encoder_version != metadata.encoder_version:
        raise ArtifactError(
            f"the query is of encoder_version {encoder_version}, the collection {metadata.name} is of "
            f"{metadata.encoder_version}: their vectors cannot be compared", code="other-encoder",
            remedy="Publish with this bundle by `dvc repro --force --single-item publish`, or bring the published one "
            "back by `git checkout dvc.lock params.yaml && dvc checkout`",
        )


def _embed(encoder: Encoder, inputs: QueryInputs) -> NDArray[np.float32]:
    """Embed every text, image and clip. Shape (n, dimension), unit rows; n may be 0."""
    vectors = [np.empty((0, encoder.spec.dimension), np.float32)]
    if inputs.texts:
        vectors.append(encoder.embed_texts([without_quotes(text) for text in inputs.texts]))
    if inputs.images:
        vectors.append(encoder.embed_images(inputs.images))
    if inputs.clips:
        vectors.append(encoder.embed_frames(inputs.clips))
    return np.concatenate(vectors)


def _unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    length = float(np.linalg.norm(vector))
    if length < 1e-6:
        raise InputRejected(
            "what is wanted and what is not cancel each other", code="vectors-cancel", remedy="Leave one of them out",
        )
    return (vector / length).astype(np.float32)
