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
from vidseek_quality.intervals import GroupSums
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
MIN_RIGHT = 10
"""Right hits that a fit needs, at least: fewer say nothing."""
KEEP = 0.95
"""Of right hits, the share that `min_confidence` keeps, elsewhere as on the queries of the fit."""
ASSURANCE = 0.95
"""How surely: few right hits in the fit say little of others, and then less is cut."""
PRESENT = "present"
"""The kind of queries that the archive has an answer to."""
WORDED = "worded"
"""The kind of queries whose words stand in the archive, with its answer."""
FEEDBACK = "feedback"
"""The kind of what people said of hits: fitted on, and not what is measured."""
_RIDGE = 1e-3
_STEPS = 100
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
    """Hits of at least this confidence keep nearly all right ones (`KEEP`), on the queries that it was fitted on."""
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

    def confidences(self, moments: Sequence[Moment], context: Context) -> list[float]:
        """Return the probability that each moment is right, from 0 to 1.

        Args:
            moments: Hits of the query, not necessarily the first ones.
            context: Of its ranking over the whole archive.
        """
        if not moments:
            return []
        law = self.worded if self.worded and context.is_worded else Law(self.slope, self.weights, self.bias)
        none = law.bias + float(np.dot(law.weights, _query_features(context)))
        logits = law.logits(np.array([moment.score for moment in moments]) - context.first)
        total = np.append(law.logits(np.array(context.scores) - context.first), none)
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


@dataclass(frozen=True)
class Judged:
    """The first hits of one query, and whether each is right."""

    moments: tuple[Moment, ...]
    context: Context
    right: tuple[bool, ...]
    kind: str
    """`PRESENT`, or why the archive has not what was asked for."""
    group: str = ""
    """The video that the query is about, with its near-duplicates: queries of one group are not independent."""


def prior_weights(judged: Sequence[Judged], prior: float) -> NDArray[np.float64]:
    """Shape (n,): what each query counts, so that those with an answer make up `prior` of all.

    The kinds with an answer share that equally, and those without share the rest. Feedback counts 1 each. Where one side is
    missing, the other has all of it.
    """
    kinds = np.array([each.kind for each in judged], dtype=object)
    asked = kinds != FEEDBACK
    answered = sorted(set(kinds[asked]) & {PRESENT, WORDED})
    absent = sorted(set(kinds[asked]) - {PRESENT, WORDED})
    weights = np.ones(len(judged))
    for kind in (*answered, *absent):
        rows = kinds == kind
        side, whole = (answered, prior) if kind in answered else (absent, 1 - prior)
        share = (whole if answered and absent else 1.0) / len(side)
        weights[rows] = share * asked.sum() / rows.sum()
    return weights


def fit(
    judged: Sequence[Judged], *, encoder_version: str, familiarity: Familiarity | None = None, keep: float = KEEP,
    prior: float = PRIOR,
) -> Calibration | None:
    """Return the calibration that these hits support; None where too few of them are right, or none is wrong.

    It maximises the likelihood of each hit being right or wrong, so that confidences are right hit by hit, first or not.

    Args:
        judged: The first hits of held-out queries; those that the archive has no answer to belong to them.
        encoder_version: Of the vectors.
        familiarity: By which the contexts of `judged` were made.
        keep: The share of right hits that `min_confidence` keeps.
        prior: The share of queries that have an answer in the archive, above 0 and at most 1.
    """
    if not _can_be_fitted(judged):
        return None
    worth = prior_weights(judged, prior)
    parts = {}
    for is_worded in (False, True):
        rows = [row for row, each in enumerate(judged) if each.context.is_worded == is_worded]
        part = [judged[row] for row in rows]
        parts[is_worded] = _solve(part, worth[rows], is_lifted=is_worded) if _can_be_fitted(part) else None
    law = parts[False] or _solve(judged, worth)
    found = Calibration(
        encoder_version, law.slope, law.weights, law.bias, 0.0, len(judged), prior, familiarity, worded=parts[True],
    )
    return replace(found, min_confidence=_min_confidence(found, judged, keep=keep))


def _can_be_fitted(judged: Sequence[Judged]) -> bool:
    right = [flag for each in judged for flag in each.right]
    return sum(right) >= MIN_RIGHT and not all(right)


def _min_confidence(calibration: Calibration, judged: Sequence[Judged], *, keep: float) -> float:
    """Return the confidence that `keep` of right hits reach elsewhere too, with `ASSURANCE`.

    The lesser of two limits: one that needs no distribution and takes hits for independent (`num_spared`), and one that
    takes videos for independent (`_grouped_limit`).
    """
    asked = [each for each in judged if each.kind != FEEDBACK and any(each.right)] or judged
    values, groups = [], []
    for each in asked:
        sure = calibration.confidences(each.moments, each.context)
        of_right = [value for value, flag in zip(sure, each.right, strict=True) if flag]
        values += of_right
        groups += [each.group] * len(of_right)
    free = sorted(values)[num_spared(len(values), 1 - keep)]
    return min(free, _grouped_limit(np.array(values), np.array(groups, dtype=np.str_), keep=keep))


def _grouped_limit(values: NDArray[np.float64], groups: NDArray[np.str_], *, keep: float) -> float:
    """Return the lower end, at `ASSURANCE`, of the value that `keep` of all reach, for values that depend on each other in
    groups.

    The share of values up to the observed quantile has an error over groups; the value at the lower end of that share is
    the limit (Woodruff 1952, "Confidence intervals for medians and other position measures"). A percentile of resampled
    groups fails two to three times as often. Where not even the least value is assured, that one: nothing is cut. A single
    group says nothing of others: then it is the observed quantile.
    """
    ordered = np.sort(values)
    quantile = float(np.quantile(ordered, 1 - keep, method="lower"))
    share = GroupSums.of((values <= quantile).astype(np.float64), groups)
    if share.count < 2:
        return quantile
    least = share.mean - share.t_quantile(ASSURANCE) * share.error
    return float(ordered[max(0, math.floor(least * len(ordered)) - 1)])


def num_spared(num: int, share: float, assurance: float = ASSURANCE) -> int:
    """Return how many of `num` draws may lie below a limit that at most `share` of all draws lie below, with this assurance.

    It needs no distribution (Wilks, 1941, "Determination of sample sizes for setting tolerance limits"): with the limit at
    the draw after the `k` least, more than `share` lie below only if no more than `k` of `num` draws fell into the lowest
    `share`, which is binomial. 0 where `num` is too small for any assurance.
    """
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, num + 1)))])  # logarithms: else they overflow
    k = np.arange(num)
    chances = np.exp(
        factorials[num] - factorials[k] - factorials[num - k] + k * math.log(share) + (num - k) * math.log1p(-share)
    )
    return max(0, int(np.searchsorted(np.cumsum(chances), 1 - assurance, side="right")) - 1)


def _query_features(context: Context) -> NDArray[np.float64]:
    """Shape (3,), in the order of `FEATURES`."""
    return np.array([context.first, context.ood_distance, context.oov_rate])


def _solve(judged: Sequence[Judged], weights: NDArray[np.float64], *, is_lifted: bool = False) -> Law:
    """Fit a law by Fisher scoring with a halved step, and a ridge that keeps separable hits finite.

    Args:
        judged: The first hits of queries.
        weights: What each query counts.
        is_lifted: Whether the first moment may get something on top. Where words decide it is the one with the words,
            and it leads by more than the scores of pictures say.
    """
    hits = _Hits.of(judged, weights, is_lifted=is_lifted)
    theta = np.zeros(3 + len(FEATURES))
    theta[0] = 1.0
    likelihood = hits.likelihood(theta)
    for _ in range(_STEPS):
        step, reached = hits.step(theta), False
        for _ in range(20):
            moved = theta + step
            moved[[0, 1]] = np.maximum(moved[[0, 1]], 0.0)
            gained = hits.likelihood(moved) - likelihood
            if gained >= 0:
                theta, likelihood, reached = moved, likelihood + gained, gained < 1e-10
                break
            step = step / 2
        else:
            break
        if reached:
            break
    scaled = theta[3:] / hits.deviation
    bias = float(theta[2] - scaled @ hits.mean)
    return Law(float(theta[0] / hits.unit), tuple(scaled.tolist()), bias, float(theta[1]))


@dataclass(frozen=True)
class _Hits:
    """Judged hits as arrays, scaled, for the fit. Parameters are slope, lift, bias, weights of the query's features."""

    below: NDArray[np.float64]
    """Shape (n, `LEVEL`): how far each moment of each ranking is below the first; -inf where there is none."""
    queries: NDArray[np.float64]
    """Shape (n, 1 + features): 1 and the features."""
    owner: NDArray[np.int64]
    """Shape (hits,): the query of each hit."""
    hit_below: NDArray[np.float64]
    right: NDArray[np.float64]
    weights: NDArray[np.float64]
    """Shape (hits,)."""
    unit: float
    """In which scores below the first are measured."""
    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    is_lifted: bool

    @staticmethod
    def of(judged: Sequence[Judged], weights: NDArray[np.float64], *, is_lifted: bool) -> _Hits:
        below = np.full((len(judged), LEVEL), -np.inf)
        for row, each in enumerate(judged):
            below[row, : len(each.context.scores)] = np.array(each.context.scores) - each.context.first
        features: NDArray[np.float64] = np.stack([_query_features(each.context) for each in judged])
        mean, deviation = features.mean(axis=0), features.std(axis=0) + 1e-9
        owner = np.repeat(np.arange(len(judged)), [len(each.right) for each in judged])
        hit_below = np.array([moment.score - each.context.first for each in judged for moment in each.moments])
        unit = float(-below[np.isfinite(below)].mean()) or 1.0
        queries = np.concatenate([np.ones((len(judged), 1)), (features - mean) / deviation], axis=1)
        right = np.array([flag for each in judged for flag in each.right], dtype=np.float64)
        return _Hits(below / unit, queries, owner, hit_below / unit, right, weights[owner], unit, mean, deviation, is_lifted)

    def likelihood(self, theta: NDArray[np.float64]) -> float:
        """Return the penalised logarithm of the likelihood of right and wrong, hit by hit."""
        chances, *_ = self._chances(theta)
        each = self.right * np.log(chances) + (1 - self.right) * np.log1p(-chances)
        return float(self.weights @ each - 0.5 * self._ridge() @ theta**2)

    def step(self, theta: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the step of Fisher scoring from `theta`."""
        chances, mean_below, first, none = self._chances(theta)
        lifted = self._is_first - first[self.owner] if self.is_lifted else np.zeros(len(self.owner))
        slopes = np.column_stack([
            self.hit_below - mean_below[self.owner], lifted, -(none[:, None] * self.queries)[self.owner]
        ]) * chances[:, None]
        worth = self.weights / (chances * (1 - chances))
        gradient = slopes.T @ (worth * (self.right - chances)) - self._ridge() * theta
        curve = (slopes * worth[:, None]).T @ slopes + np.diag(self._ridge() + 1e-9)
        found: NDArray[np.float64] = np.linalg.solve(curve, gradient).astype(np.float64)
        return found

    def _chances(self, theta: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        """Return the confidence of each hit, and of each query the mean rank below the first, the share of the first moment,
        and the chance of "none of them".
        """
        present = np.isfinite(self.below)
        logits = np.where(present, theta[0] * np.where(present, self.below, 0.0), -np.inf)
        logits += theta[1] * (self.below >= 0)
        none = self.queries @ theta[2:]
        total = np.logaddexp(np.logaddexp.reduce(logits, axis=1), none)
        shares = np.exp(logits - total[:, None])
        mean_below = (shares * np.where(present, self.below, 0.0)).sum(axis=1)
        chances = np.exp(theta[0] * self.hit_below + theta[1] * self._is_first - total[self.owner])
        return np.clip(chances, 1e-9, 1 - 1e-9), mean_below, (shares * (self.below >= 0)).sum(axis=1), np.exp(none - total)

    @property
    def _is_first(self) -> NDArray[np.float64]:
        """Shape (hits,): 1 for a hit whose score is that of the first moment."""
        return (self.hit_below >= 0).astype(np.float64)

    def _ridge(self) -> NDArray[np.float64]:
        # Slope and bias are the law itself: they are held only so far that separable hits leave them finite.
        strength = np.array([_RIDGE / 10, _RIDGE, _RIDGE / 100, *[_RIDGE] * (self.queries.shape[1] - 1)])
        return strength * float(self.weights.sum())
