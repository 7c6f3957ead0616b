"""How well near-duplicates are found, kind by kind: by `vidseek dedup`, vPDQ, perceptual hashes and cosines of vectors.

    make bench-dedup         (writes bench/near.json; after make demo, for the rendered videos and an encoder)

Copies are made of the half of the originals that the prior was not made from (`near_copies`), some kinds of each. Ours is as
the command is: a copy that is not proposed is not found, the limit is that of an archive of these originals and the copies
of the kind. vPDQ has its published rule. Hashes and cosines have the limit that reaches a precision of 0.95 on the other
half.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bench.searching import near_copies as made
from bench.searching.near_copies import Sampled, draws_of, is_chosen_on, make_copy, sampled
from bench.searching.near_ways import VPDQ_SHARE, WAYS, Embeds, Seen, choose_limit, scores_of, see
from vidseek_media.records import Video
from vidseek_retrieval.dedup.comparing.alignment import Alignment, align
from vidseek_retrieval.dedup.comparing.candidates import propose
from vidseek_retrieval.dedup.comparing.compared import compare
from vidseek_retrieval.dedup.comparing.fingerprints import VideoFingerprint
from vidseek_retrieval.dedup.judging.limits import choose_threshold
from vidseek_retrieval.dedup.judging.scoring import log_odds
from vidseek_retrieval.dedup.video_matches import Match, Pair, find_matches

OUT = Path(__file__).parents[1] / "near.json"
BUNDLE, FLICKR = Path("models/encoder"), Path(".vidseek/flickr")
TARGET = 0.95
OURS = "vidseek"
KINDS_EACH = 9
"""Of an original, by chance."""
NUM_JOINED = 10
SPLICED, HOST, INSET = "spliced", "with a small picture in it", "as a small picture in another"


@dataclass(frozen=True)
class Copy:
    """A copy as each way sees it."""

    kind: str
    of: str
    video: Sampled
    fingerprint: VideoFingerprint
    offset_ms: float | None
    """Where the copy begins in the original, where it is as fast."""


def main() -> None:
    """Measure, print the table, write all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds-each", type=int, default=KINDS_EACH, help="kinds of copies of each original")
    parser.add_argument("--without-others", action="store_true", help="ours alone: neither hashes nor an encoder")
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    originals = made.read_originals()
    report = measure(originals, kinds_each=asked.kinds_each, encoder=None if asked.without_others else _encoder(),
                     has_others=not asked.without_others)
    print(table(report))  # noqa: T201 - what a benchmark is for
    asked.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def measure(
    originals: Mapping[str, Sampled], *, kinds_each: int = KINDS_EACH, encoder: Embeds | None = None, has_others: bool = True
) -> dict[str, Any]:
    """Recall of each kind and false pairs, by each way."""
    seen = {name: sampled(each.frames) for name, each in originals.items()}
    prints = {name: each.fingerprint() for name, each in tqdm(seen.items(), desc="look", disable=None)}
    measured_on = sorted(name for name in originals if not is_chosen_on(name))
    copies = make_copies(originals, measured_on, kinds_each)
    different = compare(prints, {}).alignments
    report: dict[str, Any] = {
        "num_originals": {world: sum(each.world == world for each in originals.values())
                          for world in dict.fromkeys(each.world for each in originals.values())},
        "measured_on": len(measured_on), "num_copies": len(copies),
        OURS: by_the_command(prints, measured_on, copies, different),
        "real_copies": real_copies(prints, different),
    }
    if has_others:
        report.update(by_others(seen, measured_on, copies, encoder))
    return report


def make_copies(originals: Mapping[str, Sampled], names: Sequence[str], kinds_each: int) -> list[Copy]:
    """Some kinds of each original; and joins of two."""
    kinds = {**made.FITTED, **made.OTHERS}
    copies = []
    for name in tqdm(names, desc="copies", disable=None):
        draws = draws_of(name, "measured")
        for kind in draws.permutation(sorted(kinds))[:kinds_each]:
            how = kinds[str(kind)]
            video = make_copy(originals[name], how, draws)
            lost_ms = originals[name].duration_ms * (1 - how.lost[1]) - video.duration_ms * how.speed
            copies.append(Copy(str(kind), name, video, video.fingerprint(), lost_ms if how.speed == 1 else None))
    draws = draws_of("joins")
    for _ in range(NUM_JOINED):
        one, other = (str(name) for name in draws.permutation(names)[:2])
        copies.append(_copy(SPLICED, one, made.splice(originals[one], originals[other])))
        little = made.inset(originals[one], originals[other])
        copies += [_copy(HOST, one, little), _copy(INSET, other, little)]
    return copies


def by_the_command(
    prints: Mapping[str, VideoFingerprint], names: Sequence[str], copies: Sequence[Copy], different: Mapping[Pair, Alignment]
) -> dict[str, Any]:
    """What `vidseek dedup` finds in an archive of the originals and the copies of one kind, kind by kind."""
    own = {name: prints[name] for name in names}
    among = {pair: of for pair, of in different.items() if own.keys() >= set(pair)}
    kinds: dict[str, Any] = {}
    for kind in tqdm(list(dict.fromkeys(each.kind for each in copies)), desc="find", disable=None):
        of_kind = {f"~{number}": each for number, each in enumerate(copies) if each.kind == kind}
        kinds[kind] = _found_of_kind(own, of_kind, among)
    return {"kinds": kinds, "different": _false_pairs(prints, different)}


def _found_of_kind(
    own: Mapping[str, VideoFingerprint], of_kind: Mapping[str, Copy], among: Mapping[Pair, Alignment]
) -> dict[str, Any]:
    everything = {**own, **{name: each.fingerprint for name, each in of_kind.items()}}
    proposed = set(propose(everything, known=own.keys()))
    found = {}
    for name, copy in of_kind.items():
        pair = (copy.of, name) if copy.of < name else (name, copy.of)
        alignment = align(everything[pair[0]], everything[pair[1]]) if pair in proposed else None
        if alignment is not None:
            found[pair] = alignment
    limit, (wrong, matches) = _called_one(everything, among, found)
    offsets = [_offset_error(each, name, found.get((each.of, name)), found.get((name, each.of)))
               for name, each in of_kind.items() if each.offset_ms is not None]
    near = [error for error in offsets if error is not None]
    return {
        "num": len(of_kind), "found": len(matches), "proposed": sum(
            (each.of, name) in proposed or (name, each.of) in proposed for name, each in of_kind.items()
        ),
        "whole": sum(match.is_whole for match in matches.values()), "false": len(wrong), "limit": limit,
        "offset_within_100_ms": sum(error <= 100 for error in near), "offsets": len(near),
    }


def _offset_error(copy: Copy, name: str, plain: Alignment | None, turned: Alignment | None) -> float | None:
    """How far the offset is from the true one; None where the pair was not aligned, or nothing moves."""
    alignment = turned if turned is not None else plain.turned() if plain is not None else None
    if alignment is None or copy.offset_ms is None or alignment.evidence.energy < 1:
        return None
    return abs(alignment.by.offset_ms - copy.offset_ms)


def _false_pairs(prints: Mapping[str, VideoFingerprint], different: Mapping[Pair, Alignment]) -> dict[str, Any]:
    """Pairs called one in an archive of all originals, all of them different."""
    found = {}
    for target in (0.9, TARGET, 0.99):
        limit, (matches,) = _called_one(prints, different, target=target)
        found[f"{target:g}"] = {"limit": limit, "false": [list(pair) for pair in matches]}
    num = len(prints)
    return {"videos": num, "pairs": num * (num - 1) // 2, "by_precision": found}


def real_copies(prints: Mapping[str, VideoFingerprint], different: Mapping[Pair, Alignment]) -> dict[str, Any]:
    """Which pairs of each group of real copies are found, all groups in one archive with all originals."""
    groups = made.read_copies()
    added = {name: sampled(video.frames).fingerprint() for of in groups.values() for name, video in of.items()}
    everything = {**prints, **added}
    true = {pair: group for group, of in groups.items() for pair in combinations(sorted(of), 2)}
    proposed = propose(everything, known=[name for name in prints if name not in added])
    found = dict(different)
    for pair in tqdm(proposed, desc="real copies", disable=None):
        alignment = align(everything[pair[0]], everything[pair[1]])
        if alignment is not None:
            found[pair] = alignment
    limit, (by_pair,) = _called_one(everything, found)
    return {
        "limit": limit,
        "groups": {group: _counts([by_pair.get(pair) for pair, of in true.items() if of == group]) for group in groups},
        "false": [list(pair) for pair in by_pair if pair not in true],
    }


def _counts(found: Sequence[Match | None]) -> dict[str, int]:
    joined = [each.is_whole for each in found if each is not None]
    return {"pairs": len(found), "whole": sum(joined), "part": len(joined) - sum(joined)}


def by_others(
    seen: Mapping[str, Sampled], names: Sequence[str], copies: Sequence[Copy], encoder: Embeds | None
) -> dict[str, Any]:
    """The same by the other ways."""
    looked = {name: see(each, encoder) for name, each in tqdm(seen.items(), desc="others", disable=None)}
    chosen = sorted(seen.keys() - set(names))
    limits = {"vPDQ": VPDQ_SHARE, **_limits(seen, looked, chosen, encoder)}
    scored = [(each.kind, scores_of(looked[each.of], see(each.video, encoder))) for each in tqdm(copies, disable=None)]
    different = [scores_of(looked[one], looked[other]) for one, other in combinations(names, 2)]
    found: dict[str, Any] = {}
    for way in WAYS:
        kinds = {kind: {"num": 0, "found": 0} for kind in dict.fromkeys(kind for kind, _ in scored)}
        for kind, scores in scored:
            kinds[kind]["num"] += 1
            kinds[kind]["found"] += int(scores[way] >= limits[way])
        false = sum(scores[way] >= limits[way] for scores in different)
        found[way] = {"limit": round(limits[way], 4), "kinds": kinds, "pairs": len(different), "false": int(false)}
    return found


def _limits(
    seen: Mapping[str, Sampled], looked: Mapping[str, Seen], names: Sequence[str], encoder: Embeds | None
) -> dict[str, float]:
    """The limits of pHash and cosine, by copies of the half to choose on: one kind of each original."""
    copies = []
    for name in tqdm(names, desc="limits", disable=None):
        draws = draws_of(name, "others")
        of_pictures = [kind for kind, how in made.FITTED.items() if how.speed == 1 and not any(how.lost)]
        kind = made.FITTED[str(draws.choice(of_pictures))]
        changed = replace(seen[name], frames=kind.change(seen[name].frames, draws))
        copies.append(scores_of(looked[name], see(changed, encoder)))
    different = [scores_of(looked[one], looked[other]) for one, other in combinations(names, 2)]
    return {
        way: choose_limit([each[way] for each in copies], [each[way] for each in different], precision=TARGET)
        for way in WAYS if way != "vPDQ"
    }


def table(report: Mapping[str, Any]) -> str:
    """The table of kinds, for docs/dedup.md."""
    ways = [way for way in (OURS, *WAYS) if way in report]
    lines = ["| kind | copies | " + " | ".join(ways) + " |", "|---|---|" + "---|" * len(ways)]
    for kind, of in report[OURS]["kinds"].items():
        name = kind if kind in made.OTHERS or kind in (HOST, INSET) else f"{kind} *"
        shares = [report[way]["kinds"][kind]["found"] / of["num"] for way in ways]
        lines.append(f"| {name} | {of['num']} | " + " | ".join(f"{share:.2f}" for share in shares) + " |")
    return "\n".join(lines)


def _copy(kind: str, of: str, video: Sampled) -> Copy:
    return Copy(kind, of, video, video.fingerprint(), None)


def _video(name: str, length_ms: int) -> Video:
    # Half a step before the first frame and after the last.
    video_id = hashlib.sha256(name.encode()).hexdigest()[:32]
    return Video(video_id, (name,), length_ms + 125, 25.0, 170, 128, "h264")


def _called_one(
    prints: Mapping[str, VideoFingerprint], *aligned: Mapping[Pair, Alignment], target: float = TARGET
) -> tuple[float, list[dict[Pair, Match]]]:
    """The limit of an archive of these videos and pairs, and of each of the parts of these what is called one."""
    odds = [log_odds(each.evidence) for part in aligned for each in part.values()]
    threshold = choose_threshold(odds, num_videos=len(prints), own={}, target=target)
    videos = {name: _video(name, of.length_ms) for name, of in prints.items()}
    names = {video.video_id: name for name, video in videos.items()}
    return threshold.limit, [
        {(names[match.one], names[match.other]): match
         for match in find_matches(part, videos, least_odds=threshold.odds)} for part in aligned
    ]


def _encoder() -> Embeds | None:
    if not FLICKR.is_dir() and not (BUNDLE / "encoder.json").exists():
        return None
    from vidseek_encoder.encoder import Encoder

    return Encoder.load(BUNDLE, towers=("video",))


if __name__ == "__main__":
    main()
