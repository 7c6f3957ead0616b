"""Tags that texts give to clips: whichever clip fits one of a tag's prompts well enough has the tag.

What is well enough is a probability, by the calibration of searches: the weight of the clip against that of "none of them".
A cosine would be no measure: the best one differs from prompt to prompt and from model to model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vidseek_encoder.encoder import Encoder
from vidseek_media.errors import ConfigError
from vidseek_media.files.folders import whole_folder
from vidseek_retrieval.confidence.calibration import Calibration, Context
from vidseek_retrieval.confidence.text_vectors import TextVectors
from vidseek_retrieval.settings import TagSettings

ROWS_AT_ONCE = 65_536
"""Clips whose cosines with all prompts are in memory at once."""


@dataclass(frozen=True)
class TagCount:
    """How many clips a tag's prompts gave it to, before what people say of it."""

    tag: str
    num_clips: int
    min_scores: tuple[float, ...]
    """The least cosine of each of its prompts."""


@dataclass(frozen=True)
class AutoTags:
    """The tags that prompts gave to clips."""

    names: tuple[str, ...]
    has: NDArray[np.bool_]
    """Shape (clips, tags)."""
    counts: tuple[TagCount, ...]

    def of_row(self, row: int) -> list[str]:
        """Return the tags of a clip.

        Args:
            row: Its row.
        """
        return [self.names[place] for place in np.flatnonzero(self.has[row]).tolist()]

    def source(self, begin: int, end: int) -> bytes:
        """Return bytes that differ if the tags of one of these clips do.

        Args:
            begin: First row.
            end: The row after the last.
        """
        return repr([self.of_row(row) for row in range(begin, end)]).encode()


@dataclass(frozen=True)
class Prompts:
    """Prompts with their vectors, and the rule that says which clips fit them."""

    texts: Mapping[str, Sequence[str]]
    """By tag."""
    vectors: NDArray[np.float32]
    """Shape (prompts, dimension), unit rows, in the order of the tags."""
    encoder_version: str
    settings: TagSettings
    calibration: Calibration | None

    def tag(self, clips: NDArray[np.float32], places: NDArray[np.int64]) -> AutoTags:
        """Return the tags of clips, by exact scores.

        Args:
            clips: Shape (n, dimension), unit rows.
            places: The rows of the clips that are published, in their order.
        """
        blocks = [places[begin : begin + ROWS_AT_ONCE] for begin in range(0, len(places), ROWS_AT_ONCE)]
        least = self._min_scores(clips, blocks)
        owners = [place for place, prompts in enumerate(self.texts.values()) for _ in prompts]
        has = np.zeros((len(places), len(self.texts)), np.bool_)
        for number, block in enumerate(blocks):
            fits = clips[block] @ self.vectors.T >= least
            rows = has[number * ROWS_AT_ONCE : number * ROWS_AT_ONCE + len(block)]
            for prompt, owner in enumerate(owners):
                rows[:, owner] |= fits[:, prompt]
        counts = tuple(
            TagCount(name, int(has[:, place].sum()), tuple(
                round(float(score), 4) for score, owner in zip(least, owners, strict=True) if owner == place
            ))
            for place, name in enumerate(self.texts)
        )
        return AutoTags(tuple(self.texts), has, counts)

    def _min_scores(self, clips: NDArray[np.float32], blocks: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
        """Return the least cosine of each prompt: the one of the settings, or by the best one of each."""
        if self.settings.min_score is not None or self.calibration is None:
            return np.full(len(self.vectors), self.settings.min_score)
        firsts = np.max([(clips[block] @ self.vectors.T).max(axis=0) for block in blocks], axis=0)
        texts = [text for prompts in self.texts.values() for text in prompts]
        return np.array([
            min_score(self.calibration, text, vector, float(first), self.settings.min_confidence)
            for text, vector, first in zip(texts, self.vectors, firsts, strict=True)
        ])


def min_score(
    calibration: Calibration, text: str, vector: NDArray[np.float32], first: float, confidence: float
) -> float:
    """Return the cosine at which the share of a clip's weight, of that and the weight of "none of them", is `confidence`.

    Args:
        calibration: Of searches; its slope is above 0.
        text: The prompt.
        vector: Of the text.
        first: The best cosine of the text in the archive.
        confidence: Above 0, below 1.
    """
    known = calibration.familiarity
    unfamiliar = (known.ood_distance(vector), known.oov_rate(text)) if known else (0.0, 0.0)
    none = calibration.law.none_logit(Context((first,), *unfamiliar))
    return first + (none + math.log(confidence / (1 - confidence))) / calibration.slope


def why_unapplied(settings: TagSettings, calibration: Calibration | None) -> str:
    """Return why prompts give no tags, as a clause; "" if they do, or if there are none.

    Args:
        settings: The section `tags`.
        calibration: Of searches.
    """
    if not settings.prompts or settings.min_score is not None or (calibration is not None and calibration.slope > 0):
        return ""
    what = "no calibration was fitted" if calibration is None else "the calibration found that scores say nothing"
    return (
        f"{what}, so the prompts of {len(settings.prompts)} tags are not applied: caption some clips of the validation "
        "split, or set tags.min_score to a least cosine"
    )


def open_prompts(
    settings: TagSettings, encoder: Encoder, calibration: Calibration | None, *, kept: Path
) -> Prompts:
    """Embed the prompts of the settings, or read back the vectors of those that were embedded before.

    Args:
        settings: The section `tags`, with at least one prompt; `why_unapplied` is "".
        encoder: Its text tower is used.
        calibration: Of searches.
        kept: A folder for the vectors, by encoder_version and text. Those of other prompts are removed from it.

    Raises:
        ConfigError: a prompt is longer than the encoder reads.
    """
    texts = [(tag, text) for tag, prompts in settings.prompts.items() for text in prompts]
    for (tag, text), is_cut in zip(texts, encoder.are_cut([text for _, text in texts]), strict=True):
        if is_cut:
            raise ConfigError(
                f"a prompt of the tag {tag!r} has more than the {encoder.spec.context_length} tokens that the encoder "
                f"reads: {text[:60]!r}...",
                code="prompt-too-long", remedy="Shorten it in tags.prompts of params.yaml, or make several of it",
            )
    vectors = TextVectors(encoder, kept)
    rows = np.concatenate([vectors.embed([text]) for _, text in texts])  # one by one: another prompt changes no vector
    if vectors.num_embedded:
        with whole_folder(kept) as folder:
            vectors.write(folder)
    return Prompts(settings.prompts, rows, encoder.spec.encoder_version, settings, calibration)
