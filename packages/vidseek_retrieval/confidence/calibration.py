"""How likely a hit is right: fitted on held-out captions, for one encoder and one archive.

A cosine means nothing by itself: it differs from model to model. Every moment of a ranking, and "none of them", gets a
weight that grows with its score; a moment's confidence is its share of all the weights. This is the conditional logit
(McFadden, 1974, "Conditional logit analysis of qualitative choice behavior"). So the confidences of one answer sum to at
most 1, fall with the score, and a first hit far ahead of the others is surer than one in a crowd.

How many queries have an answer in the archive cannot be learned from captions, and every confidence depends on it. It is
the setting `calibrate.prior`: queries with and without an answer weigh by it in the fit and in every figure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidseek_media.errors import ArtifactError
from vidseek_media.names import hex_digits, shown
from vidseek_retrieval.confidence.familiarity import Familiarity
from vidseek_retrieval.confidence.query_stats import QuerySample, QueryStats
from vidseek_retrieval.search.moments import Moment
from vidseek_retrieval.settings import PRIOR

FORMAT = 2
"""Counted up when the form of confidences changes, so that an earlier calibration is not misread."""
FEATURES = ("first", "ood_distance", "oov_rate")
"""What the weight of "none of them" depends on: the best score, and how unfamiliar the query is."""
_FORMER_FEATURES = {"ood_distance": "strange", "oov_rate": "novel"}
"""What calibrations of earlier versions call them; they are read under these names too."""
EVIDENT_ODDS = 0.5
"""Odds from which words decide: rankings with such a clip have a law of their own."""
LEVEL = 30
"""Moments of a ranking that share the probability with "none of them"."""
REBUILD_REMEDY = "Run `dvc repro calibrate publish`"


def is_current(content: Mapping[str, Any]) -> bool:
    """Whether a stored calibration is of the form that this version reads."""
    return content.get("format", 1) == FORMAT


class OldCalibration(ArtifactError):
    """A calibration of an earlier version, whose confidences meant something else."""

    code = "calibration-old-format"


@dataclass(frozen=True)
class Context:
    """What the whole ranking of a query says about each of its hits."""

    scores: tuple[float, ...]
    """Of the first `LEVEL` moments, best first; at least one."""
    ood_distance: float = 0.0
    """As `Familiarity.ood_distance` has it; 0 where nothing is known of that."""
    oov_rate: float = 0.0
    """As `Familiarity.oov_rate` has it."""
    place: tuple[float, ...] = ()
    """As `Familiarity.place` has it."""
    is_worded: bool = False
    """Whether the words of the query decide: some clip has at least `EVIDENT_ODDS`."""

    @property
    def first(self) -> float:
        """The best score."""
        return self.scores[0]

    @property
    def features(self) -> NDArray[np.float64]:
        """Shape (3,), in the order of `FEATURES`."""
        return np.array([self.first, self.ood_distance, self.oov_rate])

    @staticmethod
    def of(
        moments: Sequence[Moment], *, familiarity: Familiarity | None = None, text: str = "",
        vector: NDArray[np.float32] | None = None, odds: float = 0.0,
    ) -> Context:
        """Compute the features of a query from its non-empty ranking, best first; `odds` are the best of its words."""
        scores = tuple(moment.score for moment in moments[:LEVEL])
        context = Context(scores, is_worded=odds >= EVIDENT_ODDS)
        if familiarity is None or vector is None:
            return context
        return replace(
            context, ood_distance=familiarity.ood_distance(vector), oov_rate=familiarity.oov_rate(text),
            place=familiarity.place(vector),
        )


@dataclass(frozen=True)
class Law:
    """The parameters of a conditional logit."""

    slope: float
    """By which the logarithm of a moment's weight grows with its score; at least 0."""
    weights: tuple[float, ...]
    """Of `FEATURES`: what the logarithm of the weight of "none of them" is made of."""
    bias: float
    lift: float = 0.0
    """What the first moment, and those of the same score, get on top; at least 0."""

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (*self.weights, self.bias, self.slope, self.lift))) or min(self.slope, self.lift) < 0:
            raise ValueError("slope, lift, weights and bias are no finite numbers, or slope or lift is below 0")

    def logits(self, below: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the logarithms of the weights of moments that score so far below the first: 0 or less."""
        return self.slope * below + self.lift * (below >= 0)

    def none_logit(self, context: Context) -> float:
        """Return the logarithm of the weight of "none of them"."""
        return self.bias + float(np.dot(self.weights, context.features))

    def to_json(self) -> dict[str, Any]:
        """Return the parameters as JSON values."""
        weights = dict(zip(FEATURES, self.weights, strict=True))
        return {"slope": self.slope, "bias": self.bias, "weights": weights, "lift": self.lift}

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> Law:
        """Restore the parameters. Raises KeyError, TypeError or ValueError where they are none."""
        weights = tuple(float(_weight_of(content["weights"], name)) for name in FEATURES)
        return Law(float(content["slope"]), weights, float(content["bias"]), float(content.get("lift", 0.0)))


@dataclass(frozen=True)
class Calibration:
    """A fitted conditional logit, for searches by one text over the vector `video`."""

    encoder_version: str
    slope: float
    """By which the logarithm of a moment's weight grows with its score; at least 0."""
    weights: tuple[float, ...]
    """Of `FEATURES`: what the logarithm of the weight of "none of them" is made of."""
    bias: float
    min_confidence: float
    """Hits of at least this confidence keep nearly all right ones (`calibration_fit.KEEP`) of the queries of the fit."""
    num_queries: int
    """That it was fitted on."""
    prior: float = PRIOR
    """The share of queries with an answer in the archive that the fit assumed."""
    familiarity: Familiarity | None = None
    """What the last two features are measured by; None where there were too few captions to learn from."""
    mix_slope: float | None = None
    """By which the logarithm of a clip's likelihood grows with its cosine alone, before words add to the scores; None in
    calibrations of earlier versions, of which `slope` is that."""
    word_weight: float = 1.0
    """What the odds of words are multiplied by, so that words of other clips cost pictures no right hit; above 0."""
    worded: Law | None = None
    """The law of rankings in which words decide; None where there were too few: there the other one holds."""
    reference: QuerySample | None = field(default=None, compare=False)
    """The held-out queries as they were seen, which drift is measured against."""

    @property
    def picture_slope(self) -> float:
        """By which the logarithm of a clip's likelihood grows with its cosine alone."""
        return self.slope if self.mix_slope is None else self.mix_slope

    @property
    def law(self) -> Law:
        """The law of rankings in which pictures decide."""
        return Law(self.slope, self.weights, self.bias)

    def confidences(self, moments: Sequence[Moment], context: Context) -> list[float]:
        """Return the probability that each moment is right, from 0 to 1.

        Args:
            moments: Hits of the query, not necessarily the first ones.
            context: Of its ranking over the whole archive.
        """
        if not moments:
            return []
        law = self.worded if self.worded and context.is_worded else self.law
        logits = law.logits(np.array([moment.score for moment in moments]) - context.first)
        total = np.append(law.logits(np.array(context.scores) - context.first), law.none_logit(context))
        rounded: list[float] = np.round(np.exp(logits - np.logaddexp.reduce(total)), 4).tolist()
        return rounded

    def query_stats(self, moments: Sequence[Moment], context: Context) -> QueryStats:
        """Return the statistics to keep of a query with this complete, non-empty ranking."""
        (confidence,) = self.confidences(moments[:1], context)
        axes = self.familiarity.key if self.familiarity else ""
        place = (context.ood_distance, *context.place) if axes else ()
        return QueryStats(self.encoder_version, axes, (context.first, confidence, *place))

    def to_json(self) -> dict[str, Any]:
        """Return the calibration as JSON values, for calibration.json and collection.json."""
        known = self.familiarity.to_json() if self.familiarity else None
        reference = self.reference.to_json() if self.reference else None
        names = ("encoder_version", "slope", "bias", "min_confidence", "num_queries", "prior", "mix_slope", "word_weight")
        return {"format": FORMAT, **{name: getattr(self, name) for name in names},
                "weights": dict(zip(FEATURES, self.weights, strict=True)), "familiarity": known,
                "worded": self.worded.to_json() if self.worded else None, "reference": reference}

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> Calibration:
        """Restore a calibration from the output of `to_json`.

        Raises:
            OldCalibration: it is of an earlier version.
            ArtifactError: it is no calibration.
        """
        try:
            if "weights" in content and not is_current(content):
                raise OldCalibration(
                    f"the calibration is of format {content.get('format', 1)}, this version reads format {FORMAT}",
                    remedy=REBUILD_REMEDY,
                )
            law, worded = Law.from_json(content), content.get("worded")
            known, reference, slope = (content.get(name) for name in ("familiarity", "reference", "mix_slope"))
            found = Calibration(
                hex_digits(content["encoder_version"], 16, what="encoder_version"), law.slope, law.weights, law.bias,
                float(content["min_confidence"]), int(content["num_queries"]), float(content["prior"]),
                Familiarity.from_json(known) if known else None, None if slope is None else float(slope),
                float(content.get("word_weight", 1.0)), Law.from_json(worded) if worded else None,
                QuerySample.from_json(reference) if reference else None,
            )
            if not math.isfinite(found.picture_slope) or found.picture_slope < 0 or not 0 < found.word_weight <= 1:
                raise ValueError("mix_slope is no finite number of at least 0, or word_weight is not above 0 and at most 1")
            if not 0 <= found.min_confidence <= 1 or not 0 < found.prior < 1:
                raise ValueError("min_confidence and prior are not within 0 and 1")
            return found
        except OldCalibration:
            raise
        except (ArtifactError, AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise ArtifactError(
                f"no calibration is {shown(content)}: {error!r}", code="calibration-broken", remedy=REBUILD_REMEDY,
            ) from error


def _weight_of(weights: Mapping[str, Any], name: str) -> Any:
    """The weight of a feature, by its name or its earlier one."""
    return weights[name] if name in weights else weights[_FORMER_FEATURES[name]]
