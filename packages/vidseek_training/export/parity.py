"""Measures how close the vectors of an exported variant are to torch's, and whether searches find the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vidseek_encoder.choices import BATCH, usable_cores
from vidseek_encoder.encoder import Encoder
from vidseek_encoder.tokenize import Tokenizer
from vidseek_media.errors import ArtifactError
from vidseek_media.tables import PAIRS, read_table
from vidseek_training.backbones import Backbone
from vidseek_training.dataset.pair_set import load_pairs, sample_clips
from vidseek_training.evaluation.bounds import num_needed, share_high
from vidseek_training.evaluation.embedding import embed_frames, embed_ids
from vidseek_training.evaluation.retrieval_metrics import Vectors, judge
from vidseek_training.settings import ParityLimits

JUDGED_ON = ("test", "validation", "train")
"""The splits whose captions judge a variant: the first that has enough of them."""
CHOSEN_ON = ("validation", "train")
"""The splits whose captions choose the recipe of a variant: never those that judge it, where there are others."""
PROBES = (
    "a person talks to the camera", "a red car on a street at night", "two dogs play on the grass", "a bird in a tree",
    "hands cut vegetables in a kitchen", "waves at the beach", "a football match", "snow on a mountain",
    "a map with text", "a close-up of a machine", "children in a classroom", "an empty road",
)
"""Texts for the gate where the archive has no captions."""
_MIN_CAPTIONS = 10
"""Of a split, for any use."""
_TIE = 1e-6
_NUM_ALONE = 32
"""Clips and texts that also go through one by one."""


@dataclass(frozen=True)
class Parity:
    """How near a variant is to torch in fp32; parity.json has one for each variant."""

    split: str
    """Whose captions were asked, or `probes`."""
    num_clips: int
    """All different."""
    num_texts: int
    num_groups: int
    """Groups of videos that the clips are of: near-duplicates are one; 0 without pairs."""
    min_cosine_video: float | None
    """Over clips that went through in batches and clips that went alone: int8 is not quite the same in both."""
    min_cosine_text: float | None
    top_10_overlap: float | None
    """Mean share of a text's ten best clips that both agree on; scores within 1e-6 are ties."""
    r1_torch: float | None
    """R@1 of captions among the clips of their gallery, as `evaluate` counts it; None without pairs."""
    r1: float | None
    """The same by the variant."""
    num_lost: int
    """Captions that find their clip first in torch, and not in the variant."""
    num_won: int
    """The reverse."""
    r1_difference_low: float | None
    """The exact lower bound, at 97.5 %, of the difference of R@1: minus the bound of the share of queries lost. It takes
    clips for independent, so it speaks of these videos."""
    r1_difference_low_by_video: float | None
    """The same over groups of videos, each counting once, so it speaks of other videos too."""
    size_mb: float | None
    failed: tuple[str, ...]
    """What it did not reach, or why it could not be made or run, with None for what was not measured then; such a variant
    is not in the bundle."""
    not_judged: tuple[str, ...] = ()
    """What could not be judged: such a variant was kept for its cosine, its overlap, and what was observed."""
    recipe: str = "all"
    """How it was made: see `vidseek_encoder.variants.RECIPES`."""
    tried: tuple[str, ...] = ()
    """The recipes before that one, and what each did not reach on the captions that choose."""

    @property
    def min_cosine(self) -> float | None:
        """Over clips and texts."""
        measured = [each for each in (self.min_cosine_video, self.min_cosine_text) if each is not None]
        return min(measured) if measured else None

    @classmethod
    def not_made(cls, reference: Reference, why: str) -> Parity:
        """Return the report of a variant that cannot be made or run.

        Args:
            reference: Torch's vectors.
            why: The reason.
        """
        none: dict[str, Any] = dict.fromkeys((
            "min_cosine_video", "min_cosine_text", "top_10_overlap", "r1_torch", "r1", "r1_difference_low",
            "r1_difference_low_by_video", "size_mb",
        ))
        return cls(
            split=reference.split, num_clips=0, num_texts=0, num_groups=0, num_lost=0, num_won=0, failed=(why,), **none
        )

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Parity:
        """Restore the report of one variant in parity.json.

        Raises:
            KeyError, TypeError: it is none, or of an earlier version.
        """
        lists = {name: tuple(content[name]) for name in ("failed", "not_judged", "tried")}
        return cls(**{**content, **lists})


@dataclass(frozen=True)
class Reference:
    """Torch's vectors of clips and captions."""

    split: str
    clips: NDArray[np.uint8]
    """Each clip once."""
    captions: list[str]
    videos: NDArray[np.float32]
    """Shape (clips, dimension)."""
    texts: NDArray[np.float32]
    """Shape (captions, dimension)."""
    owner: NDArray[np.int64]
    """Shape (captions,): the clip of each; empty without pairs."""
    table: pd.DataFrame
    """The pairs, row by row as the captions; without pairs empty."""
    groups: NDArray[np.object_]
    """Shape (captions,): the group of videos of each; empty without pairs."""

    @property
    def are_pairs(self) -> bool:
        """Whether each caption has a clip of its own."""
        return len(self.owner) > 0

    def found_first(self, texts: NDArray[np.float32], videos: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return which captions find their own clip first in their gallery, ranked as in `evaluate`: shape (captions,).

        Args:
            texts: Shape (captions, dimension), unit rows.
            videos: Shape (clips, dimension), unit rows.
        """
        first: NDArray[np.bool_] = judge(Vectors(videos[self.owner], texts, texts), self.table).text_ranks <= 1
        return first


def reference_of(
    model: Backbone, *, pairs: Path, frames: Path, max_clips: int, splits: Sequence[str] = JUDGED_ON
) -> Reference:
    """Return the captions of the first of `splits` that has enough, with up to `max_clips` clips, each once; the probes and
    any clips where none has.

    Raises:
        ArtifactError: there are no clips, or a table is missing.
    """
    counts = read_table(pairs, PAIRS).split.value_counts()
    split = next((each for each in splits if counts.get(each, 0) >= _MIN_CAPTIONS), None)
    tokenizer = Tokenizer.load(model.spec.tokenizer, context=model.spec.context_length, pad_id=model.spec.pad_id)
    if split is None:
        clips, captions = sample_clips(frames, model.spec, count=max_clips), list(PROBES)
        if not len(clips):
            raise ArtifactError(
                f"{frames} holds no frame shards with clips", code="no-shards", remedy="Run `dvc repro frames`",
            )
        none = np.empty(0)
        return Reference(
            "probes", clips, captions, embed_frames(model, clips), embed_ids(model, tokenizer.encode(captions)),
            none.astype(np.int64), pd.DataFrame(), none.astype(object),
        )
    found = load_pairs(pairs, frames, model.spec, split=split)
    first, owner = found.clips()
    rows = owner < max_clips  # clips are numbered as they come
    table, first = found.table[rows].reset_index(drop=True), first[:max_clips]
    captions, clips = list(table.caption), np.asarray(found.frames[first])
    return Reference(
        split, clips, captions, embed_frames(model, clips), embed_ids(model, tokenizer.encode(captions)), owner[rows],
        table, found.groups[rows].astype(object),
    )


def measure(folder: Path, variant: str, reference: Reference, limits: ParityLimits) -> Parity:
    """Compare a variant of a bundle with torch's vectors, in batches and one by one.

    Args:
        folder: The bundle's folder.
        variant: Precision: `fp32`, `fp16` or `int8`.
        reference: Torch's vectors.
        limits: Limits of the variant.
    """
    encoder, alone = (
        Encoder.load(folder, variant=variant, threads=1, lanes=usable_cores(), batch=batch) for batch in (BATCH, 1)
    )
    videos, texts = encoder.embed_frames(reference.clips), encoder.embed_texts(reference.captions)
    lone_videos = alone.embed_frames(reference.clips[:_NUM_ALONE])
    lone_texts = alone.embed_texts(reference.captions[:_NUM_ALONE])
    parity = Parity(
        split=reference.split,
        num_clips=len(videos),
        num_texts=len(texts),
        num_groups=len(set(reference.groups)),
        min_cosine_video=min(_least(videos, reference.videos), _least(lone_videos, reference.videos)),
        min_cosine_text=min(_least(texts, reference.texts), _least(lone_texts, reference.texts)),
        top_10_overlap=round(overlap(texts @ videos.T, reference.texts @ reference.videos.T), 5),
        **_first_places(reference, texts, videos),
        size_mb=round(sum(path.stat().st_size for path in (folder / variant).iterdir()) / 2**20, 2),
        failed=(),
    )
    return replace(parity, failed=failures(parity, limits), not_judged=not_judged(parity, limits))


def _first_places(
    reference: Reference, texts: NDArray[np.float32], videos: NDArray[np.float32]
) -> dict[str, Any]:
    """Return how many first places are lost and won, and bounds for other queries."""
    if not reference.are_pairs:
        none: dict[str, Any] = dict.fromkeys(("r1_torch", "r1", "r1_difference_low", "r1_difference_low_by_video"))
        return {**none, "num_lost": 0, "num_won": 0}
    wanted, found = reference.found_first(reference.texts, reference.videos), reference.found_first(texts, videos)
    lost = (wanted & ~found).astype(np.float64)
    return {
        "r1_torch": round(float(wanted.mean()), 4), "r1": round(float(found.mean()), 4),
        "num_lost": int(lost.sum()), "num_won": int((found & ~wanted).sum()),
        "r1_difference_low": _difference_low(lost, reference.owner.astype(object)),
        "r1_difference_low_by_video": _difference_low(lost, reference.groups),
    }


def _difference_low(lost: NDArray[np.float64], units: NDArray[np.object_]) -> float:
    """Minus the bound of the share of queries lost, where what counts once is a unit: a clip, or a group of videos."""
    shares = pd.Series(lost).groupby(pd.Series(units).astype(str)).mean()
    return -round(share_high(shares.to_list()), 5)


def failures(parity: Parity, limits: ParityLimits) -> tuple[str, ...]:
    """Return the limits that the variant misses, in words.

    Args:
        parity: Measurements of the variant.
        limits: Its limits.
    """
    if parity.min_cosine is None or parity.top_10_overlap is None:
        return parity.failed
    failed = []
    for name in ("min_cosine_video", "min_cosine_text"):
        if getattr(parity, name) < limits.min_cosine:
            failed.append(f"{name} {getattr(parity, name)}, wanted {limits.min_cosine}")
    if parity.top_10_overlap < limits.min_overlap:
        failed.append(f"top_10_overlap {parity.top_10_overlap}, wanted {limits.min_overlap}")
    if parity.r1 is None or parity.r1_torch is None:
        return tuple(failed)
    observed, wanted = round(parity.r1 - parity.r1_torch, 4), limits.min_r1_difference
    if observed < wanted:
        failed.append(f"R@1 {parity.r1}, in torch {parity.r1_torch}: {observed}, wanted at least {wanted}")
    for name, num in (("r1_difference_low", parity.num_clips), ("r1_difference_low_by_video", parity.num_groups)):
        if _suffices(num, limits) and getattr(parity, name) < wanted:
            failed.append(f"{name} {getattr(parity, name)}, wanted at least {wanted}")
    return tuple(failed)


def not_judged(parity: Parity, limits: ParityLimits) -> tuple[str, ...]:
    """Return the limits that too few queries test: even without a loss they could not prove them.

    Args:
        parity: Measurements of the variant.
        limits: Its limits.
    """
    if parity.r1 is None:
        return ("R@1: there are no captions",)
    least = num_needed(-limits.min_r1_difference)
    wanted = f"wanted {least}" if least else "and no number proves that nothing is lost"
    found = []
    if parity.split != "test":
        found.append(f"R@1 on test: there are not {_MIN_CAPTIONS} test captions; these are of {parity.split}")
    if not _suffices(parity.num_clips, limits):
        found.append(f"R@1: not enough {parity.split} clips to judge: {parity.num_clips}, {wanted}")
    if not _suffices(parity.num_groups, limits):
        found.append(f"R@1 on other videos: not enough {parity.split} videos to judge: {parity.num_groups}, {wanted}")
    return tuple(found)


def _suffices(num: int, limits: ParityLimits) -> bool:
    least = num_needed(-limits.min_r1_difference)
    return least is not None and num >= least


def _least(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> float:
    """Return the least cosine of rows that belong together, as many as there are of `ours`."""
    return round(float((ours * theirs[: len(ours)]).sum(1).min()), 7) if len(ours) else 1.0


def overlap(scores: NDArray[np.float32], wanted: NDArray[np.float32], *, top: int = 10) -> float:
    """Return the mean share of each row's best candidates that are among the best in the reference; near-ties count as both.

    Args:
        scores: Shape (n, m).
        wanted: Scores of the reference, shape (n, m).
        top: Number of best candidates.
    """
    top = min(top, scores.shape[1])
    least = -np.sort(-wanted, axis=1)[:, top - 1] - _TIE
    best = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    return float((np.take_along_axis(wanted, best, 1) >= least[:, None]).mean())
