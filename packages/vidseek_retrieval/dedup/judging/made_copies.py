"""Makes copies of videos from their fingerprints, to see how many of them are found in an archive of such videos."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vidseek_retrieval.dedup.comparing.alignment import align
from vidseek_retrieval.dedup.comparing.fingerprints import SIDE, VideoFingerprint, fingerprint_of
from vidseek_retrieval.dedup.judging.scoring import log_odds

Pictures = NDArray[np.uint8]
NUM_VIDEOS = 6
"""Of an archive, that copies are made of."""
NOTHING = -20.0
"""The logarithm of odds of what cannot be aligned."""


def _resized(pictures: Pictures, height: int = SIDE) -> Pictures:
    return np.stack([
        np.asarray(Image.fromarray(each).resize((SIDE, height), Image.Resampling.BILINEAR)) for each in pictures
    ])


def _cropped(pictures: Pictures) -> Pictures:
    cut = SIDE // 12
    return _resized(pictures[:, cut:-cut, cut:-cut])


def _letterboxed(pictures: Pictures) -> Pictures:
    bar = SIDE // 7
    return np.pad(_resized(pictures, height=SIDE - 2 * bar), ((0, 0), (bar, bar), (0, 0)))


def _logo(pictures: Pictures) -> Pictures:
    marked = pictures.copy()
    marked[:, SIDE // 16 : SIDE // 4, -SIDE // 3 : -SIDE // 16] = 250
    return marked


def _darker(pictures: Pictures) -> Pictures:
    return (pictures * 0.6 + 10).astype(np.uint8)


CHANGES: Mapping[str, Callable[[Pictures], Pictures]] = {
    "cropped": _cropped, "letterboxed": _letterboxed, "logo": _logo, "brightness": _darker,
    "mirrored": lambda pictures: pictures[:, :, ::-1],
}
"""Of each picture."""
TIMES: Mapping[str, tuple[float, float]] = {"trimmed": (0.2, 1.0), "sped up": (0.0, 1.25)}
"""The share that is lost at the beginning, and the speed."""


def score_copies(videos: Mapping[str, VideoFingerprint], draws: np.random.Generator) -> dict[str, list[float]]:
    """Return the log odds of copies made of some videos, by kind; every second frame of an original against the others.

    Args:
        videos: Fingerprints of an archive.
        draws: Which videos are taken.
    """
    ids = sorted(video_id for video_id, of in videos.items() if len(of.times_ms) >= 8)
    chosen = [ids[place] for place in sorted(draws.permutation(len(ids))[:NUM_VIDEOS])]
    scores: dict[str, list[float]] = {name: [] for name in (*CHANGES, *TIMES)}
    for video_id in chosen:
        of = videos[video_id]
        original, rest = of.rows(slice(0, None, 2)), of.rows(slice(1, None, 2))
        for name, change in CHANGES.items():
            copy = fingerprint_of(rest.times_ms.tolist(), list(change(rest.pictures)))
            scores[name].append(score_pair(original, copy))
        for name, (share, speed) in TIMES.items():
            kept = rest.rows(slice(int(share * len(rest.times_ms)), None))
            times = ((kept.times_ms - kept.times_ms[0]) / speed).round().astype(np.int64)
            scores[name].append(score_pair(original, VideoFingerprint(times, kept.pictures, kept.inside)))
    return scores


def score_pair(one: VideoFingerprint, other: VideoFingerprint) -> float:
    """Return the log odds of two videos at their best alignment."""
    found = align(one, other)
    return NOTHING if found is None else log_odds(found.evidence)
