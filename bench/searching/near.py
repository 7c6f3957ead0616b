"""How well near-duplicates are found: by `vidseek dedup`, by plain cosine of clip vectors, and by perceptual hashes.

    python -m bench.searching.near     (part of make bench-dedup; writes bench/near.json; --num-videos 6 for a short form)

After `make demo`; and after `make bench-flickr` the clip vectors of real videos are of an encoder that has seen pictures.

Copies are made of the videos of the demo world and of real ones, ten of each, and compared with their originals; so are
pairs of different videos, and two times of one video. Each way has one limit, the least that reaches the precision on one
half of the videos; figures are of the other half. Of cosine and hashes several forms are tried, and the one that is best
on the half that is chosen on is taken. Ours gets no help: the offset and the speed of a copy are for it to find, and a copy
that the index does not propose as a candidate is one that was not found.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bench.searching.near_score import (
    WAYS,
    Judged,
    area_under_curve,
    average_precision,
    by_the_command,
    choose_form,
    choose_limit,
    figures,
    forms_of,
    from_on,
    judge,
    split,
)
from bench.searching.near_seen import Cut, Embeds, Seen, made_copies, sample, see
from vidseek.params import load_params
from vidseek_encoder.encoder import Encoder
from vidseek_media.decoding.frames import frames_at
from vidseek_media.decoding.packets import read_plan
from vidseek_media.errors import GateFailed, InputRejected
from vidseek_media.frame_store.stored_side import with_stored_side
from vidseek_media.ids import clip_id_of
from vidseek_retrieval.dedup.made_copies import CHANCE, MOMENTS
from vidseek_retrieval.dedup.video_matches import candidates
from vidseek_retrieval.index.backend import Point
from vidseek_retrieval.index.collection_metadata import CollectionMetadata, collection_name
from vidseek_retrieval.index.edge.backend import EdgeBackend
from vidseek_retrieval.settings import IndexSettings

WORLDS = ["demo", "demo, short", "real"]
OUT = Path(__file__).parents[1] / "near.json"
DEMO, BUNDLE = Path(".vidseek/demo/domain"), Path("models/encoder")
FLICKR = Path(".vidseek/flickr")
"""A small CLIP that `make bench-flickr` trained on real pictures."""
LENGTH_MS = 30_000
"""Of a video that is looked at: what follows is its other time, as long."""
SHORT_MS = 4000
"""The same where copies are short: two windows of the demo world."""
LEAST_MS = 900
"""A shorter video is left out: it has no run of frames."""
LEAST_HALF_MS = 2000
"""A video whose half is shorter has no other time."""
SEEDS = (0, 1, 2)
SUFFIXES = frozenset([".mp4", ".mkv", ".webm", ".mov", ".avi", ".flv", ".ts", ".gif", ".3gp"])
SAME = {
    "man": ("sample.mp4", "sample_av1.mp4", "sample.flv", "sample_fragmented.mp4", "sample_with_srt.mkv",
            "sample_mdat_too_long.mp4"),
    "test picture": ("h264_10bits.mp4", "h265_10bits.mp4"),
    "pattern": ("pattern-hd-no-bar.mp4", "pattern-sd-grey-bar.mp4", "pattern-sd-with-large-logo-bar.mp4",
                "pattern-sd-with-small-logo-bar.mp4"),
}
"""Real files that show the same, by E_near_duplicates/video_groups.csv and by their names. Of each group the first is one of
the videos that copies are made of."""
UNCLEAR = ("bt709_full_range.mp4", "var_fps_video.mp4")
"""Test pictures like those of h264_10bits.mp4 and av1_video.mkv: neither the same nor different."""


@dataclass(frozen=True)
class World:
    """Videos as each way sees them, by name."""

    originals: dict[str, Seen]
    copies: dict[str, dict[str, Seen]]
    """By change."""
    times: dict[str, tuple[Seen, Seen]]
    """Two times of one video, where it is long enough."""


def main() -> None:
    """Measure each world, print it, write all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-videos", type=int, help="of each world, at most")
    parser.add_argument("--world", choices=WORLDS, nargs="+", default=WORLDS)
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    report = {}
    short = partial(measure_demo, length_ms=SHORT_MS)
    measures: tuple[Callable[[int | None], dict[str, Any]], ...] = (measure_demo, short, measure_real)
    for name, measure in zip(WORLDS, measures, strict=True):
        if name in asked.world:
            report[name] = measure(asked.num_videos)
            print(json.dumps({name: report[name]}, indent=2), flush=True)  # noqa: T201 - what a benchmark is for
    asked.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def measure_demo(num_videos: int | None, *, length_ms: int = LENGTH_MS) -> dict[str, Any]:
    """The videos of the demo world, so much of each, with the encoder that it was taught; or why not."""
    paths = sorted(DEMO.glob("*.mp4"))[:num_videos]
    if not paths or not (BUNDLE / "encoder.json").exists():
        return {"not_measured": f"no {DEMO} or no {BUNDLE} here: run make demo"}
    videos = {path.name: path for path in paths}
    world = see_all(videos, Encoder.load(BUNDLE, towers=("video",)), cut_of_params(), length_ms=length_ms)
    judged = list(judge_all(world))
    return {"encoder": "the demo's", **report_of(judged, list(videos))}


def measure_real(num_videos: int | None) -> dict[str, Any]:
    """Real files, with an encoder that was trained on real pictures where there is one; or why not."""
    default = Path(__file__).resolve().parents[2].parent / "shared" / "realdata"
    root = Path(os.environ.get("VIDSEEK_REALDATA", default))
    folders = [root / name for name in ("A_video_formats", "A_video_captioned", "E_near_duplicates/tmk")]
    files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.suffix in SUFFIXES]
    paths = {path.name: path for path in files if _can_be_seen(path)}
    if not paths:
        return {"not_measured": f"no real files at {root}; set VIDSEEK_REALDATA"}
    doubles = {name for group in SAME.values() for name in group[1:]}
    singles = [name for name in paths if name not in (*doubles, *UNCLEAR)][:num_videos]
    cut = cut_of_params()
    with tempfile.TemporaryDirectory(prefix="vidseek-") as folder:
        encoder = Encoder.load(_real_bundle(Path(folder)), towers=("video",))
        judged = list(judge_all(see_all({name: paths[name] for name in singles}, encoder, cut)))
        same = {
            group: [judge(group, pair, *(_see_whole(paths[name], encoder, cut) for name in pair))
                    for pair in combinations([name for name in names if name in paths], 2)]
            for group, names in SAME.items()
        }
    real_copies = {group: found_of(pairs, judged, singles) for group, pairs in same.items()}
    knows = "a CLIP that was trained on Flickr8k" if FLICKR.is_dir() else "the demo's, which has seen no real picture"
    return {"encoder": knows, **report_of(judged, singles), "real_copies": real_copies}


def report_of(judged: Sequence[Judged], videos: Sequence[str]) -> dict[str, Any]:
    """What each way is worth on these pairs."""
    kinds = dict.fromkeys(each.kind for each in judged)
    return {
        "num_videos": len(videos), "num_pairs": {kind: sum(each.kind == kind for each in judged) for kind in kinds},
        "not_proposed": sum(not each.is_proposed for each in judged),
        "ways": {way: measure_way(way, judged, videos) for way in WAYS},
        "by_the_command": [command_figures(*split(judged, videos, seed)) for seed in SEEDS],
    }


def found_of(pairs: Sequence[Judged], judged: Sequence[Judged], videos: Sequence[str]) -> dict[str, Any]:
    """How many of these pairs each way calls one, with the form and the limit of each seed."""
    found: dict[str, Any] = {"num_pairs": len(pairs)}
    for way in WAYS:
        calls = [from_on(*choose(way, split(judged, videos, seed)[0])) for seed in SEEDS]
        found[way] = [sum(map(call, pairs)) for call in calls]
    return found


def measure_way(way: str, judged: Sequence[Judged], videos: Sequence[str]) -> dict[str, Any]:
    """Figures of the half that nothing was chosen on, for each division into halves, and of all forms over all pairs."""
    seeds = []
    for seed in SEEDS:
        chosen_on, measured_on = split(judged, videos, seed)
        form, limit = choose(way, chosen_on)
        seeds.append({
            "seed": seed, "form": form, "limit": round(limit, 4), **figures(measured_on, from_on(form, limit)),
            "average_precision": round(average_precision(measured_on, form), 4),
            "area_under_curve": round(area_under_curve(measured_on, form), 4),
        })
    forms = {form: round(average_precision(judged, form), 4) for form in forms_of(way, judged)}
    return {"seeds": seeds, "average_precision_of_forms": forms}


def choose(way: str, chosen_on: Sequence[Judged]) -> tuple[str, float]:
    """The form and the limit of a way."""
    form = choose_form(way, chosen_on)
    return form, choose_limit(chosen_on, form)


def command_figures(chosen_on: Sequence[Judged], measured_on: Sequence[Judged]) -> dict[str, Any]:
    """As `vidseek dedup` chooses: two limits, and more careful where different pairs are many."""
    try:
        return figures(measured_on, by_the_command(chosen_on, measured_on))
    except GateFailed as error:
        return {"not_measured": str(error)}


def see_all(paths: Mapping[str, Path], encoder: Embeds, cut: Cut, *, length_ms: int = LENGTH_MS) -> World:
    """Videos, the copies that are made of them, and their two times, as each way sees them."""
    world = World({}, {}, {})
    for name, path in tqdm(paths.items(), desc="see", unit="video", disable=None):
        duration_ms = read_plan(path).duration_ms
        end_ms = min(duration_ms, length_ms)
        original = sample(path, cut, start_ms=0, end_ms=end_ms)
        world.originals[name] = see(original, encoder)
        for change, made in made_copies(path, cut, original, start_ms=0, end_ms=end_ms):
            world.copies.setdefault(change, {})[name] = see(made, encoder)
        half_ms = min(duration_ms // 2, length_ms)
        if half_ms >= LEAST_HALF_MS:
            one, other = (sample(path, cut, start_ms=start, end_ms=start + half_ms) for start in (0, half_ms))
            world.times[name] = see(one, encoder), see(other, encoder)
    return world


def judge_all(world: World) -> Iterator[Judged]:
    """Each video against its copies, one of its times against the other, and each video against each other."""
    for change, made_of in world.copies.items():
        proposed = find_proposed(world.originals, made_of)
        for name, copy in made_of.items():
            yield judge(change, (name,), world.originals[name], copy, is_proposed=name in proposed)
    for name, (one, other) in world.times.items():
        yield judge(MOMENTS, (name,), one, other)
    for one_name, other_name in tqdm(list(combinations(world.originals, 2)), desc="judge", unit="pair", disable=None):
        pair = world.originals[one_name], world.originals[other_name]
        yield judge(CHANCE, (one_name, other_name), *pair)


def find_proposed(originals: Mapping[str, Seen], copies: Mapping[str, Seen]) -> set[str]:
    """The videos whose copy the index proposes, in an archive of all originals and these copies."""
    ids = {name: (f"{2 * number:032x}", f"{2 * number + 1:032x}") for number, name in enumerate(originals)}
    videos = [(ids[name][side], seen) for side, of in enumerate((originals, copies)) for name, seen in of.items()]
    num, dimension = sum(len(seen.vectors) for _, seen in videos), next(iter(originals.values())).vectors.shape[1]
    name = collection_name("0" * 16, "0" * 12)
    metadata = CollectionMetadata(
        name, "0" * 16, "0" * 12, dimension, num, IndexSettings(vectors=("video",)), "2026-01-01T00:00:00"
    )
    with tempfile.TemporaryDirectory(prefix="vidseek-") as folder:
        backend = EdgeBackend(Path(folder))
        with backend.building():
            backend.build(metadata, _points(videos))
        near = candidates(backend.open(name))
    return {name for name in copies if ids[name] in near}


def _see_whole(path: Path, encoder: Embeds, cut: Cut) -> Seen:
    return see(sample(path, cut, start_ms=0, end_ms=min(read_plan(path).duration_ms, LENGTH_MS)), encoder)


def cut_of_params() -> Cut:
    """How params.yaml cuts and samples."""
    params = load_params()
    return Cut(
        round(params.cut.window_length_seconds * 1000), round(params.cut.window_stride_seconds * 1000),
        params.frames.num_frames, with_stored_side(params.frames, Path("data/side.json")).stored_px,
    )


def _points(videos: Sequence[tuple[str, Seen]]) -> Iterator[Point]:
    for video_id, seen in videos:
        for vector, (start_ms, end_ms) in zip(seen.vectors, seen.spans, strict=True):
            payload = {"video_id": video_id, "start_ms": start_ms, "end_ms": end_ms}
            yield Point(str(clip_id_of(video_id, start_ms, end_ms)), vector, payload)


def _can_be_seen(path: Path) -> bool:
    try:
        plan = read_plan(path)
        return plan.duration_ms >= LEAST_MS and any(frames_at(path, [0], plan=plan))
    except InputRejected:
        return False


def _real_bundle(folder: Path) -> Path:
    if not FLICKR.is_dir():
        return BUNDLE
    from vidseek_training import backbones  # torch
    from vidseek_training.export.onnx_export import write_unproven

    write_unproven(backbones.load(str(FLICKR)), folder)
    return folder


if __name__ == "__main__":
    main()
