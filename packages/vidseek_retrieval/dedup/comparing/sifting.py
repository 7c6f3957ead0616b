"""Says which of many proposed pairs are worth to be aligned, by a few frames of each video and where in time they are alike.

To align a pair takes a hundred times longer than this. Few pairs are aligned all; of many those that are likely copies, then
the likeliest of the others up to a number, and a sample of the rest, in which each pair stands for several: so it is known
how alike the videos of an archive are, and how many copies were left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidseek_media.terminal.progress import counted
from vidseek_retrieval.dedup.comparing.candidates import Pair
from vidseek_retrieval.dedup.comparing.fingerprints import IS_TURNED, Values, VideoFingerprint, unit
from vidseek_retrieval.dedup.comparing.probes import Probes, compare_views, probes_of
from vidseek_retrieval.dedup.comparing.processes import map_in_processes
from vidseek_retrieval.dedup.comparing.sift_weights import LIMIT, WEIGHTS
from vidseek_retrieval.dedup.comparing.time_alignment import MOTION_LEVELS

NUM_ALIGNED = 1000
"""Pairs that are aligned in any case, the sample included."""
LEAST_SHARE = 0.01
"""Of very many pairs, the likeliest that are aligned in any case."""
NUM_SAMPLED = 300
"""Of the other pairs."""
_CHUNK = 500
"""Pairs that a process compares at once."""
_SLOPES = np.exp(np.linspace(-np.log(3), np.log(3), 17))
"""Of the lines along which frames may follow each other, where both videos have one length."""
_LEAST_LINE = 0.25
"""Of the longer side: shorter lines are none."""
_ALIKE = 0.5


def sift(scores: Mapping[Pair, float], fingerprints: Mapping[str, VideoFingerprint]) -> dict[Pair, float]:
    """Return the pairs that are to be aligned, in order, and how many pairs each of them stands for.

    Args:
        scores: Proposed pairs, in order, with the score that proposes them.
        fingerprints: Of each video.
    """
    pairs = list(scores)
    if len(pairs) <= NUM_ALIGNED:
        return dict.fromkeys(pairs, 1.0)
    likely = np.fromiter(_likeliness(scores, fingerprints), np.float64, len(pairs))
    order = np.argsort(-likely, kind="stable")
    num = max(int((likely >= LIMIT).sum()), NUM_ALIGNED - NUM_SAMPLED, round(LEAST_SHARE * len(pairs)))
    rest = order[num:]
    sampled = np.random.default_rng(len(pairs)).permutation(rest)[:NUM_SAMPLED]
    weights = {pairs[place]: 1.0 for place in order[:num]}
    weights.update({pairs[place]: len(rest) / len(sampled) for place in sampled})
    return dict(sorted(weights.items()))


def likeliness(score: float, one: Probes, other: Probes) -> float:
    """Return how likely two videos are copies, from `LIMIT` on enough to be aligned in any archive.

    Args:
        score: What proposes the pair.
        one: Of the first video.
        other: Of the second.
    """
    return float(np.asarray(WEIGHTS) @ np.array([score, *terms_of(one, other)]))


def terms_of(one: Probes, other: Probes) -> tuple[float, float, float]:
    """Return what says that two videos are copies: how alike their frames are in the best view, how well and in how much of
    the videos they follow each other, and how alike what moves is then.
    """
    views = compare_views(one, other)
    if not views:
        return 0.0, 0.0, 0.0
    best = views[0]
    mine, theirs = one.rows[best.outer[0]][best.part[0]], other.rows[best.outer[1]][best.part[1]]
    if best.view.is_mirrored:
        theirs = np.where(IS_TURNED, -theirs, theirs)
    moved = unit(mine - mine.mean(axis=0), least=MOTION_LEVELS), unit(theirs - theirs.mean(axis=0), least=MOTION_LEVELS)
    lines, lengths = _lines(*best.alike.shape)
    alike, common = (lines @ np.stack([best.alike.ravel(), (moved[0] @ moved[1].T).ravel()], axis=1)).T
    followed = (np.clip(alike - _ALIKE, 0, None) / _ALIKE + common) * np.sqrt(lengths)
    place = int(followed.argmax())
    return best.score, float(followed[place]), float(common[place])


@lru_cache(maxsize=600)
def _lines(num: int, width: int) -> tuple[Values, NDArray[np.float64]]:
    """The lines through a table of `num` x `width` frames, as rows of weights that sum to 1, and their lengths."""
    longer = max(num, width)
    along = (np.arange(longer) + 0.5) / longer
    lines = set()
    for slope in _SLOPES:
        for shift in np.linspace(-1, 1, 2 * longer + 1):
            across = slope * (along - 0.5) + 0.5 + shift
            inside = (across >= 0) & (across < 1)
            places = (along[inside] * num).astype(int) * width + (across[inside] * width).astype(int)
            line = tuple(dict.fromkeys(places.tolist()))
            if len(line) >= max(2, int(_LEAST_LINE * longer)):
                lines.add(line)
    weights = np.zeros((len(lines), num * width), np.float32)
    for row, line in zip(weights, sorted(lines), strict=True):
        row[list(line)] = 1
    counts = weights.sum(axis=1)
    return weights / counts[:, np.newaxis], np.asarray(counts, np.float64) / longer


def _likeliness(scores: Mapping[Pair, float], fingerprints: Mapping[str, VideoFingerprint]) -> Iterator[float]:
    probes = {each: _packed(probes_of(fingerprints[each])) for each in {each for pair in scores for each in pair}}
    pairs = [(*pair, score) for pair, score in scores.items()]
    chunks = [pairs[start : start + _CHUNK] for start in range(0, len(pairs), _CHUNK)]
    given = ((chunk, {each: probes[each] for *pair, _ in chunk for each in pair}) for chunk in chunks)
    for values in counted(map_in_processes(_of_chunk, given), "sift", unit="chunk", total=len(chunks)):
        yield from values


def _of_chunk(given: tuple[Sequence[tuple[str, str, float]], Mapping[str, Probes]]) -> list[float]:
    pairs, packed = given
    probes = {each: _with_rows(of, np.float32) for each, of in packed.items()}
    return [likeliness(score, probes[one], probes[other]) for one, other, score in pairs]


def _packed(probes: Probes) -> Probes:
    """The same for another process: half as large, and without the pictures themselves."""
    return replace(_with_rows(probes, np.float16), pictures=probes.pictures[:, :0, :0])


def _with_rows(probes: Probes, kind: type[np.floating[Any]]) -> Probes:
    return replace(probes, rows=tuple(each.astype(kind) for each in probes.rows))
