"""Check requests and encode them: from the fields of a request to a query and its options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from serving.api.request_schemas import SearchRequest
from serving.inputs.decoding import Decoding
from serving.model import Frames, Model, QueryVector
from vidseek.settings import ServeSettings
from vidseek_media.errors import ArtifactError, ConfigError, InputRejected
from vidseek_retrieval.lexical.query_text import without_quotes
from vidseek_retrieval.search.moment_ranking import require_fields
from vidseek_retrieval.search.query import Query, SearchOptions
from vidseek_retrieval.settings import Weights

if TYPE_CHECKING:
    from vidseek_encoder.bundle import EncoderSpec


class QueryEncoding:
    """Checks requests and encodes them with a model.

    Args:
        decoding: Decodes images and clips.
        settings: Limits of requests.
    """

    def __init__(self, decoding: Decoding, settings: ServeSettings) -> None:
        self._decoding = decoding
        self._settings = settings

    def check(self, request: SearchRequest) -> None:
        """Check that a request has a positive input and that its texts are not blank or too long.

        Args:
            request: Of a search.

        Raises:
            InputRejected: it cannot be used.
        """
        if not (request.text or request.image or request.url or request.clip or request.clip_id):
            raise InputRejected(
                "the query wants nothing",
                code="empty-query", remedy="Give text, image, url, clip or clip_id; not only what you do not want"
            )
        for text in (*request.text, *request.all_negative_texts):
            self.check_text(text)

    def check_text(self, text: str) -> None:
        """Check that a text is not blank or longer than `serve.max_text_length`.

        Args:
            text: Of a request.

        Raises:
            InputRejected: it cannot be used.
        """
        if not text.strip():
            raise InputRejected("the query is blank", code="empty-query", remedy="Say in a few words what to look for")
        longest = self._settings.max_text_length
        if len(text) > longest:
            raise InputRejected(f"the text has {len(text)} characters, at most {longest} are taken", code="text-too-long")

    def check_number(self, items: Sequence[object]) -> None:
        """Check that a list is not longer than `serve.max_embed`.

        Args:
            items: Of a request.

        Raises:
            InputRejected: there are too many.
        """
        if len(items) > self._settings.max_embed:
            raise InputRejected(
                f"{len(items)} items in one request, at most {self._settings.max_embed} are taken", code="too-many-items",
                remedy="Send them in several requests",
            )

    async def encode(self, request: SearchRequest, model: Model, spec: EncoderSpec) -> Query:
        """Decode and embed the inputs of a request.

        Args:
            request: As `check` accepts it.
            model: Embeds the inputs.
            spec: Of the model's encoder.

        Raises:
            InputRejected: an input cannot be decoded.
            ArtifactError: the bundle changed meanwhile; the caller tries again.
        """
        pictures = [*request.image, *await self._decoding.fetch(request.url)]
        clips = await self._decoding.clips(request.clip, spec)
        texts, unwanted = (list(map(without_quotes, each)) for each in (request.text, request.all_negative_texts))
        positive = await self._vectors_of(model, texts, pictures, clips)
        negative = await self._vectors_of(model, unwanted, request.all_negative_images)
        versions = {each.encoder_version for each in (*positive, *negative)} or {spec.encoder_version}
        if len(versions) > 1:
            raise ArtifactError("the bundle changed while the query was encoded", code="bundle-changed")
        return Query(
            versions.pop(), _rows(positive, spec.dimension), _rows(negative, spec.dimension),
            positive_ids=request.clip_id, negative_ids=request.all_negative_ids, words=" ".join(request.text),
        )

    async def _vectors_of(
        self, model: Model, texts: Sequence[str], images: Sequence[bytes], clips: Sequence[Frames] = ()
    ) -> list[QueryVector]:
        vectors: list[QueryVector] = await model.texts.submit_all(texts)
        return vectors + await model.clips.submit_all([*await self._decoding.images(images), *clips])


def options_of(request: SearchRequest) -> SearchOptions:
    """Return the options of a search.

    Args:
        request: Of the search.

    Raises:
        InputRejected: no vector has a weight, or there is no such field.
    """
    return SearchOptions(
        request.limit, request.offset, request.collection, request.filters, _weights_of(request),
        request.diversity, request.min_confidence, require_fields(request.fields) if request.fields else (),
    )


def _weights_of(request: SearchRequest) -> Weights | None:
    if request.weights is None:
        return None
    try:
        return Weights(**request.weights.model_dump())
    except ConfigError as error:
        raise InputRejected(
            error.message, code="bad-query-weights", remedy="Give one of video, caption and words a weight",
        ) from error


def _rows(vectors: Sequence[QueryVector], dimension: int) -> NDArray[np.float32]:
    """Stack the vectors. Shape (n, dimension)."""
    return np.array([each.values for each in vectors], dtype=np.float32).reshape(len(vectors), dimension)
