"""The numbers that decide whether a gate opens; params.yaml sets them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from vidseek_media.errors import ConfigError


@dataclass(frozen=True)
class ArchiveThresholds:
    """What the pairs gate lets through of the tables that pairs are made from."""

    max_rejected_share: float = 0.2
    """Of files, of clips, of clips with frames, and of captions: each by itself, where `min_sampled` or more came in, or
    none was kept."""
    languages: tuple[str, ...] | None = None
    """ISO 639 codes that captions may be in; None: any, they are only counted."""
    max_other_language_share: float = 0.1
    """Of captions that are clearly in another language; a few words in a row may be told wrongly."""
    max_one_length_share: float = 0.5
    """Of captions with one and the same number of characters: more is a sign that something cuts them off."""
    num_sampled: int = 10_000
    """Languages are told of so many captions, drawn with a fixed seed."""
    min_sampled: int = 32
    """With fewer rows than this, shares, languages and lengths say nothing of the archive, and are not judged."""

    def __post_init__(self) -> None:
        _check_shares(self)
        if self.languages is not None and not self.languages:
            raise ConfigError(
                "gates.archive.languages is empty", code="setting-missing",
                remedy="Name languages, [en, de] say, or set it to null",
            )


@dataclass(frozen=True)
class PairThresholds:
    """What the pairs gate lets through."""

    min_caption_length: int = 3
    """In characters."""
    max_caption_length: int = 1000
    max_caption_share: float = 0.2
    """Of all pairs; a text that occurs at most `min_caption_repeats` times is never too common."""
    min_caption_repeats: int = 3
    max_rejected_share: float = 0.2
    """Of all captions that came in, but those of whole videos, which make no pair by design."""
    one_caption_per_clip: bool = False

    def __post_init__(self) -> None:
        _check_shares(self)
        if not 1 <= self.min_caption_length <= self.max_caption_length:
            raise ConfigError(
                f"gates: captions of {self.min_caption_length} to {self.max_caption_length} characters is no range",
                code="setting-out-of-range",
                remedy="Set 1 <= min_caption_length <= max_caption_length in params.yaml",
            )


@dataclass(frozen=True)
class EmbeddingThresholds:
    """What the embeddings gate lets through."""

    max_mean_cosine: float = 0.95
    """Mean cosine between different clips; 1 is a model that says the same of everything."""
    min_effective_rank: float = 4.0
    """exp of the entropy of the normalised singular values (Roy and Vetterli 2007): how many directions are in use."""
    num_sampled: int = 2000
    """Collapse is judged on so many embeddings, drawn with a fixed seed."""
    min_sampled: int = 32
    """With fewer embeddings than this, collapse cannot be told from a small archive, and is not judged; nor is drift with
    half as many."""
    max_drift: float = 0.5
    """From the set that is live, 0 to 1 (`vectors.drift`); judged only where its encoder_version is the same."""
    on_drift: Literal["warn", "fail"] = "warn"
    """An archive may change for good reasons: `warn` says so and goes on."""

    def __post_init__(self) -> None:
        if not -1 <= self.max_mean_cosine <= 1 or self.min_effective_rank < 1:
            raise ConfigError(
                f"gates: max_mean_cosine {self.max_mean_cosine} must be in [-1, 1], "
                f"min_effective_rank {self.min_effective_rank} at least 1", code="setting-out-of-range"
            )
        if not 0 <= self.max_drift <= 1 or self.on_drift not in ("warn", "fail"):
            raise ConfigError(
                f"gates: max_drift {self.max_drift} must be in [0, 1], on_drift {self.on_drift!r} warn or fail",
                code="setting-out-of-range",
            )
        if not 2 <= self.min_sampled <= self.num_sampled:
            raise ConfigError(
                f"gates: min_sampled {self.min_sampled} must be in [2, {self.num_sampled}]", code="setting-out-of-range",
            )


def _check_shares(thresholds: object) -> None:
    for field in fields(thresholds):  # type: ignore[arg-type]
        value = getattr(thresholds, field.name)
        if field.name.endswith("_share") and not 0 <= value <= 1:
            raise ConfigError(
                f"gates.{field.name} is {value}, wanted a share in [0, 1]", code="setting-out-of-range",
                remedy="Mend params.yaml",
            )
