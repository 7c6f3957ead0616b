"""Compares the videos of an archive, and keeps what came of each pair: only pairs with a new video are compared again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from vidseek_media.files.json_files import read_memory, write_json
from vidseek_media.terminal.progress import counted
from vidseek_retrieval.dedup.comparing.alignment import Alignment, Evidence, align
from vidseek_retrieval.dedup.comparing.candidates import Pair, propose
from vidseek_retrieval.dedup.comparing.fingerprints import Rectangle, VideoFingerprint
from vidseek_retrieval.dedup.comparing.processes import map_in_processes
from vidseek_retrieval.dedup.comparing.registration import View
from vidseek_retrieval.dedup.comparing.sifting import sift
from vidseek_retrieval.dedup.comparing.time_alignment import TimeMapping

VERSION = 3
"""Of how videos are compared: what another version found is not used."""
_FILE = "compared.json"
_MANY = 300
"""Pairs from which it is worth to begin a process for each core."""


@dataclass(frozen=True)
class Compared:
    """What came of comparing all videos with each other."""

    alignments: Mapping[Pair, Alignment]
    num_new: int
    """Videos that were not compared before."""
    num_pairs: int
    """Pairs that were aligned this time."""
    num_left_out: int
    """Pairs with similar frames that were not, this time: no likely copies, where there are very many."""


def compare(
    fingerprints: Mapping[str, VideoFingerprint], digests: Mapping[str, str], *, cache: Path | None = None
) -> Compared:
    """Compare videos with each other; pairs that were compared before, and have not changed, are taken from the cache.

    Args:
        fingerprints: Of each video.
        digests: What a video is known by: another digest is another video.
        cache: Folder that keeps what came of it.

    Raises:
        OSError: the folder of the cache cannot be written.
    """
    before, found = _read(cache / _FILE) if cache is not None else ({}, {})
    known = {each for each in fingerprints if before.get(each) == digests.get(each, "")}
    kept = {pair: of for pair, of in found.items() if known.issuperset(pair)}
    proposed = propose(fingerprints, known=known)
    weights = sift(proposed, fingerprints)
    pairs = list(weights)
    aligned = {pair: replace(of, weight=weights[pair]) for pair, of in _align_all(pairs, fingerprints)}
    alignments = dict(sorted({**kept, **aligned}.items()))
    if cache is not None and (pairs or known != fingerprints.keys() or len(kept) < len(found)):
        rows = [[*pair, asdict(of)] for pair, of in alignments.items()]
        of_videos = {each: digests.get(each, "") for each in fingerprints}
        write_json(cache / _FILE, {"version": VERSION, "videos": of_videos, "pairs": rows}, indent=None)
    return Compared(alignments, len(fingerprints) - len(known), len(pairs), len(proposed) - len(pairs))


def _align_all(
    pairs: Sequence[Pair], fingerprints: Mapping[str, VideoFingerprint]
) -> Iterator[tuple[Pair, Alignment]]:
    given = ((fingerprints[one], fingerprints[other]) for one, other in pairs)
    many = len(pairs) >= _MANY
    yield from _with_progress(pairs, map_in_processes(_aligned, given, chunksize=16) if many else map(_aligned, given))


def _with_progress(pairs: Sequence[Pair], found: Iterator[Alignment | None]) -> Iterator[tuple[Pair, Alignment]]:
    for pair, of in zip(counted(pairs, "align", unit="pair"), found, strict=True):
        if of is not None:
            yield pair, of


def _aligned(pair: tuple[VideoFingerprint, VideoFingerprint]) -> Alignment | None:
    return align(*pair)


def _read(path: Path) -> tuple[dict[str, str], dict[Pair, Alignment]]:
    """What is kept; nothing where nothing is, it is of another version, or it cannot be read."""
    content = read_memory(path, version=VERSION)
    try:
        videos = {str(video): str(digest) for video, digest in content["videos"].items()}
        return videos, {(one, other): _alignment(of) for one, other, of in content["pairs"]}
    except (ValueError, LookupError, TypeError, AttributeError):
        return {}, {}


def _alignment(of: Mapping[str, Any]) -> Alignment:
    view = of["view"]
    return Alignment(
        by=TimeMapping(**of["by"]),
        view=View(Rectangle(**view["mine"]), Rectangle(**view["theirs"]), bool(view["is_mirrored"])),
        one_ms=(of["one_ms"][0], of["one_ms"][1]), other_ms=(of["other_ms"][0], of["other_ms"][1]),
        evidence=Evidence(**of["evidence"]), near_ms=(of["near_ms"][0], of["near_ms"][1]),
        weight=float(of["weight"]),
    )
