"""The numbers that decide whether a gate opens: the section `gates` of params.yaml."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from vidseek_media.settings import Positive, Section, Share


class ArchiveThresholds(Section):
    """What the pairs gate lets through of the tables that pairs are made from."""

    place = "gates.archive"
    unstated = ("num_sampled", "min_sampled")

    max_rejected_share: Share = 0.2
    """Of files, clips, clips with frames, and captions: each by itself. Judged where `min_sampled` or more came in, or none
    was kept."""
    languages: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """ISO 639 codes that captions may be in, e.g. [en, de]; null: any."""
    max_other_language_share: Share = 0.1
    """Of captions that are clearly in another language. A few words in a row may be told wrongly."""
    max_one_length_share: Share = 0.5
    """Of captions with the same number of characters: more is a sign that something cuts them off."""
    num_sampled: Positive = 2000
    """Captions whose language is told, drawn with a fixed seed. With 2,000 a share of 0.1 is told to within 0.013."""
    min_sampled: Positive = 32
    """With fewer rows, shares, languages and lengths are not judged: they say nothing of the archive."""


class PairThresholds(Section):
    """What the pairs gate lets through."""

    place = "gates.pairs"
    unstated = ("min_caption_repeats", "one_caption_per_clip")

    min_caption_length: Positive = 3
    """In characters."""
    max_caption_length: Positive = 1000
    """In characters."""
    max_caption_share: Share = 0.2
    """Of one text over and over, among all pairs."""
    min_caption_repeats: Positive = 3
    """A text that occurs at most so often is never too common."""
    max_rejected_share: Share = 0.2
    """Of all captions but those of whole videos and of skipped clips, which make no pair by design. Judged as the shares of
    `gates.archive` are."""
    one_caption_per_clip: bool = False
    """Refuse a second caption of a clip."""

    @model_validator(mode="after")
    def _is_a_range(self) -> PairThresholds:
        if self.min_caption_length > self.max_caption_length:
            raise ValueError("min_caption_length must be at most max_caption_length")
        return self


class EmbeddingThresholds(Section):
    """What the embeddings gate lets through."""

    place = "gates.embeddings"
    unstated = ("num_sampled", "min_sampled")

    max_mean_cosine: Annotated[float, Field(ge=-1, le=1)] = 0.95
    """Mean cosine between different clips; 1 is a model that says the same of everything."""
    min_effective_rank: Annotated[float, Field(ge=1)] = 4.0
    """How many directions are in use. It is exp of the entropy of the normalised singular values (Roy and Vetterli 2007)."""
    num_sampled: Positive = 2000
    """Embeddings on which collapse is judged, drawn with a fixed seed."""
    min_sampled: Annotated[int, Field(ge=2)] = 32
    """With fewer embeddings collapse is not judged, nor is drift with half as many: a small archive looks the same."""
    max_drift: Share = 0.5
    """From what is live: about the share of the clips that are of another kind. Judged only where the encoder_version is the
    same (`vectors.drift`)."""
    on_drift: Literal["warn", "fail"] = "warn"
    """warn or fail. An archive may change for good reasons."""

    @model_validator(mode="after")
    def _samples_enough(self) -> EmbeddingThresholds:
        if self.min_sampled > self.num_sampled:
            raise ValueError(f"min_sampled {self.min_sampled} is above num_sampled {self.num_sampled}")
        return self


class DriftThresholds(Section):
    """What `vidseek drift` lets through."""

    place = "gates.drift"

    max_psi: Annotated[float, Field(gt=0)] = 0.25
    """`vidseek drift`: how far queries and clips may have gone from those at publish. It is the PSI of scores, confidences,
    queries and clips; by the field's convention 0.25 is another kind."""


class GateSettings(Section):
    """What the gates let through."""

    place = "gates"

    archive: ArchiveThresholds = ArchiveThresholds()
    """Of the tables that pairs are made from."""
    pairs: PairThresholds = PairThresholds()
    """Before training."""
    embeddings: EmbeddingThresholds = EmbeddingThresholds()
    """Before publishing."""
    drift: DriftThresholds = DriftThresholds()
    """After publishing."""
