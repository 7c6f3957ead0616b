"""The vector `caption`: title and captions of a clip, embedded by the text tower; clips without text lack it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from vidseek_media.errors import ArtifactError
from vidseek_retrieval.vectors.registry import IndexVector, register

if TYPE_CHECKING:
    from vidseek_retrieval.index.values import Tables, Value


@register
class CaptionVector(IndexVector):
    """The embedding of a clip's text. Equal texts lie at one place, so that recall by this vector would say little."""

    name = "caption"
    kind = "dense"
    measured = False
    of_text = True

    def values(self, tables: Tables) -> Callable[[str], Value | None]:
        """Return a function from a clip id to the vector of the clip's text.

        Raises:
            ArtifactError: a text was not embedded.
        """
        from vidseek_retrieval.embedding.embed_texts import text_id_of

        texts, embedded = tables.texts, tables.text_vectors
        wanted = {text_id_of(each.spoken) for each in texts.values() if each.spoken}
        lacking = {text_id for text_id in wanted if text_id not in embedded}
        if lacking:
            raise ArtifactError(
                f"{len(lacking)} texts of the clips have no vector in {tables.embed_dir}", code="texts-without-vectors",
                remedy="Run `dvc repro embed`",
            )

        def value(clip_id: str) -> Value | None:
            text = texts.get(clip_id)
            return embedded.get(text_id_of(text.spoken)) if text else None

        return value

    def source(self, tables: Tables) -> Callable[[str], bytes]:
        """Return a function to the video's texts, and what they were embedded with."""
        variants = ",".join(tables.text_variants).encode()
        return lambda video_id: variants + tables.text_source(video_id)
