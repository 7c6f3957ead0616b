"""Makes the prior of `vidseek dedup`: how made copies and different videos come out, as numbers in a module.

    python -m bench.searching.near_prior     (writes judging/prior.py and comparing/sift_weights.py; two CPU minutes)

Copies of the kinds `FITTED` are made of half of the originals; different videos are all pairs of originals that have a video
of that half, and two halves of one video (what a fixed camera makes of two recordings). The weights of the evidence are
those of a logistic regression with as much weight for copies as for the others. So are those by which pairs are sifted
before they are aligned: of copies that are found, by these weights, and of different videos that are proposed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from bench.searching.near_copies import FITTED, Sampled, draws_of, is_chosen_on, make_copy, read_originals, sampled, splice
from vidseek_retrieval.dedup.comparing.alignment import Evidence, align
from vidseek_retrieval.dedup.comparing.candidates import propose
from vidseek_retrieval.dedup.comparing.fingerprints import VideoFingerprint
from vidseek_retrieval.dedup.comparing.probes import probes_of
from vidseek_retrieval.dedup.comparing.sifting import terms_of as first_terms
from vidseek_retrieval.dedup.judging.scoring import terms_of, weighed

DEDUP = Path(__file__).parents[2] / "packages/vidseek_retrieval/dedup"
KINDS_EACH = 6
"""Of an original, by chance."""
MOVES = 0.5
"""Two halves of a video in which less moves are the same, not different."""
HALVES, CHANCE = "halves", "chance"
NUM_QUANTILES, NUM_HIGHEST = 11, 60
FOUND_ODDS = 1.0
"""The logarithm of odds from which a copy counts as found, where pairs are sifted: the least limit of all."""
SIFTED_OUT = 0.01
"""The share of the copies that are found, which archives of very many similar videos may lose."""
COPY = "~"
"""The id of a copy, after all names."""
_PENALTY = 1.0


@dataclass(frozen=True)
class Measured:
    """A pair and its evidence; None where it could not be aligned."""

    kind: str
    evidence: Evidence | None
    first: tuple[float, ...] = ()
    """What it is sifted by; nothing where the pair is not proposed."""


def main() -> None:
    """Measure, fit, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=DEDUP, help="the folder of the two modules")
    asked = parser.parse_args()
    originals = read_originals()
    seen = {name: sampled(each.frames).fingerprint() for name, each in originals.items()}
    copies = measure_copies(originals, seen)
    different, num_pairs = measure_different(seen)
    weights, bias = fit(copies, different)
    num_sources = sum(map(is_chosen_on, originals))
    prior = asked.out / "judging" / "prior.py"
    prior.write_text(written(copies, different, num_pairs, num_sources, weights, bias), encoding="utf-8")
    found = [each for each in copies if each.first and each.evidence and weighed(each.evidence, weights, bias) >= FOUND_ODDS]
    sift = asked.out / "comparing" / "sift_weights.py"
    sift.write_text(written_sift(found, [each for each in different if each.first]), encoding="utf-8")


def measure_copies(originals: dict[str, Sampled], seen: dict[str, VideoFingerprint]) -> list[Measured]:
    """Copies of the originals to choose on, some kinds of each."""
    found = []
    chosen = sorted(name for name in originals if is_chosen_on(name))
    for name in tqdm(chosen, desc="copies", disable=None):
        draws = draws_of(name, "prior")
        kinds = [str(kind) for kind in draws.permutation([*FITTED, "spliced"])[:KINDS_EACH]]
        for kind in kinds:
            if kind == "spliced":
                made = splice(originals[name], originals[chosen[int(draws.integers(len(chosen)))]])
            else:
                made = make_copy(originals[name], FITTED[kind], draws)
            copy = made.fingerprint()
            score = propose({**seen, COPY: copy}, known=seen).get((name, COPY), 0.0)
            found.append(Measured(kind, _evidence(copy, seen[name]), _first(score, copy, seen[name])))
    return found


def measure_different(seen: dict[str, VideoFingerprint]) -> tuple[list[Measured], int]:
    """Different videos whose frames propose them, and how many pairs there are; and halves of videos."""
    ids = sorted(seen)
    chosen = {name for name in ids if is_chosen_on(name)}
    pairs = {pair: score for pair, score in propose(seen).items() if not chosen.isdisjoint(pair)}
    found = [
        Measured(CHANCE, _evidence(seen[one], seen[other]), _first(score, seen[one], seen[other]))
        for (one, other), score in tqdm(pairs.items(), desc="chance", disable=None)
    ]
    for name in tqdm(sorted(chosen), desc="halves", disable=None):
        half = len(seen[name].times_ms) // 2
        if half >= 8:
            one, other = seen[name].rows(slice(0, half)), seen[name].rows(slice(half, None))
            later = VideoFingerprint(other.times_ms - other.times_ms[0], other.pictures, other.inside)
            measured = Measured(HALVES, _evidence(one, later))
            if measured.evidence is not None and measured.evidence.energy > MOVES:
                found.append(measured)
    others = len(ids) - len(chosen)
    return found, len(ids) * (len(ids) - 1) // 2 - others * (others - 1) // 2


def fit(copies: Sequence[Measured], different: Sequence[Measured]) -> tuple[NDArray[np.float64], float]:
    """The weights of the evidence, and the number that is added."""
    pairs = [(each.evidence, is_copy) for of, is_copy in ((copies, 1), (different, 0)) for each in of if each.evidence]
    return _regression(np.array([terms_of(evidence) for evidence, _ in pairs]), np.array([each for _, each in pairs]))


def _regression(terms: NDArray[np.float64], is_copy: NDArray[np.int64]) -> tuple[NDArray[np.float64], float]:
    from sklearn.linear_model import LogisticRegression

    mean, deviation = terms.mean(axis=0), terms.std(axis=0) + 1e-9
    share = is_copy.mean()
    model = LogisticRegression(C=1 / _PENALTY, max_iter=5000)
    model.fit((terms - mean) / deviation, is_copy, sample_weight=np.where(is_copy, 0.5 / share, 0.5 / (1 - share)))
    weights = model.coef_[0] / deviation
    return weights, float(model.intercept_[0] - weights @ mean)


def written(
    copies: Sequence[Measured], different: Sequence[Measured], num_pairs: int, num_sources: int,
    weights: NDArray[np.float64], bias: float,
) -> str:
    """The module that holds the numbers."""
    def odds(each: Measured) -> float:
        return -20.0 if each.evidence is None else weighed(each.evidence, weights, bias)

    by_kind = {kind: [odds(each) for each in copies if each.kind == kind] for kind in (*FITTED, "spliced")}
    highest = sorted((odds(each) for each in different if each.kind == CHANCE), reverse=True)[:NUM_HIGHEST]
    lines = [
        '"""What made copies and different videos came to: written by `python -m bench.searching.near_prior`."""', "",
        "from __future__ import annotations", "", "from collections.abc import Mapping, Sequence", "",
        f"WEIGHTS: Sequence[float] = {_numbers(weights)}", '"""Of `terms_of` the evidence."""', f"BIAS = {bias:.3f}",
        f"NUM_PAIRS = {num_pairs}", '"""Pairs of different videos."""',
        f"NUM_SOURCES = {num_sources}",
        '"""Videos that copies were made of."""', f"DIFFERENT: Sequence[float] = {_numbers(highest)}",
        '"""Log odds of the pairs of different videos that are most alike, the highest first."""',
        "COPIES: Mapping[str, tuple[int, Sequence[float]]] = {",
        *(f'    "{kind}": ({len(of)}, {_numbers(np.quantile(of, np.linspace(0, 1, NUM_QUANTILES)))}),'
          for kind, of in by_kind.items() if of),
        "}", '"""How many copies of a kind, and their log odds at equal shares, from the least to the highest."""', "",
    ]
    return "\n".join(lines)


def written_sift(found: Sequence[Measured], different: Sequence[Measured]) -> str:
    """The module of the weights that pairs are sifted by."""
    first = [np.array([each.first for each in of]) for of in (found, different)]
    weights, _ = _regression(np.concatenate(first), np.repeat([1, 0], [len(each) for each in first]))
    limit = float(np.quantile(first[0] @ weights, SIFTED_OUT))
    return "\n".join([
        '"""What makes two videos likely copies, at a first look: written by `python -m bench.searching.near_prior`."""', "",
        "from __future__ import annotations", "", "from collections.abc import Sequence", "",
        f"WEIGHTS: Sequence[float] = {_numbers(weights)}",
        '"""Of the score that proposes a pair, and of `sifting.terms_of` it."""',
        f"LIMIT = {limit:.3f}", f'"""{1 - SIFTED_OUT:.0%} of the copies that were found reach it."""', "",
    ])


def _first(score: float, one: VideoFingerprint, other: VideoFingerprint) -> tuple[float, ...]:
    return (score, *first_terms(probes_of(one), probes_of(other))) if score else ()


def _evidence(one: VideoFingerprint, other: VideoFingerprint) -> Evidence | None:
    found = align(one, other)
    return None if found is None else found.evidence


def _numbers(values: Sequence[float] | NDArray[np.float64]) -> str:
    texts = [f"{value:.3f}" for value in values]
    rows = [", ".join(texts[start : start + 12]) for start in range(0, len(texts), 12)]
    return f"({rows[0]})" if len(rows) == 1 else "(\n    " + ",\n    ".join(rows) + ",\n)"


if __name__ == "__main__":
    main()
