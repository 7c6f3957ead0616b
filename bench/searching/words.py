"""How well words are found: 200 queries over an archive whose on-screen text and speech are known, against pictures alone.

    python -m bench.searching.words [--encoder models/encoder] [--out bench/words.json] [--work FOLDER] [--heard]

The stages run as `dvc repro` runs them, each in its process: ingest, cut, frames, caption, subtitles, ocr, embed, publish.
`--work` keeps the archive: another run reads no video again, and a change of the search costs seconds. `--heard` also lets
espeak-ng speak the programmes and PocketSphinx listen, and searches what it heard in place of the subtitles.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.growing.archive import measured, write_params
from bench.machine import machine
from bench.searching.word_archive import Line, Programme, programmes, write_programmes
from bench.searching.word_queries import PER_KIND, WordQuery, letters_of, queries
from vidseek.paths import ArchivePaths
from vidseek_encoder.encoder import Encoder
from vidseek_media.files.json_files import read_json, write_json
from vidseek_media.sources.ingest import read_videos
from vidseek_media.text.segments import Segment, read_segments
from vidseek_retrieval.index.publish import publish
from vidseek_retrieval.search.query import Hit, QueryInputs, SearchOptions
from vidseek_retrieval.search.searcher import Searcher
from vidseek_retrieval.settings import PublishSettings

FIRST = 10
"""Hits that are looked at."""
STAGES = ("ingest", "cut", "side", "frames", "caption", "subtitles", "ocr", "speech", "embed")
WAYS: Mapping[str, tuple[str, ...]] = {"pictures": ("visual",), "speech and ocr": ("speech", "ocr"), "default": ()}
"""What is searched, by the name of the row."""
_SETTINGS: dict[str, Any] = {
    "general.source": None, "ingest.source": "source", "ocr.enabled": True, "ocr.workers": 1,
    "speech.engine": "pocketsphinx", "speech.language": "en",
    # Drifting spots are alike, and short.
    "cut.window_length_seconds": 3.0, "cut.window_stride_seconds": 1.5,
}


def build(root: Path, made: Sequence[Programme], *, encoder: Path, heard: bool) -> None:
    """Make the archive where it is missing, and run the stages."""
    paths = ArchivePaths(root)
    write_programmes(root / "source", made, spoken=heard)
    write_params(root / "params.yaml", {**_SETTINGS, "speech.enabled": heard})
    if not paths.encoder.exists():
        shutil.copytree(encoder, paths.encoder)
    for stage in STAGES:
        measured([sys.executable, "-m", f"pipelines.{stage}"], root)


def open_archive(root: Path, encoder: Encoder, *, heard: bool = False) -> Searcher:
    """Publish the tables of the stages and open them; where `heard` is, with what the engine heard and no subtitles."""
    paths = ArchivePaths(root)
    speech = paths.speech if heard else paths.subtitles
    publish(
        paths.embed, paths.cut, paths.ingest, None if heard else paths.caption, {"speech": [speech], "ocr": [paths.ocr]},
        index=root / "index", alias="heard" if heard else "clips", settings=PublishSettings(min_recall=0.0),
    )
    return Searcher.open(root / "index", encoder, alias="heard" if heard else "clips")


def gains(hits: Sequence[Hit], query: WordQuery) -> list[int]:
    """Return for each hit 1 if it is of a programme that answers, at a time at which the words stand; each answer once."""
    found, left = [], dict(query.answers)
    for hit in hits:
        name = Path(hit.uri).stem
        is_right = any(hit.start_ms < end and start < hit.end_ms for start, end in left.get(name, ()))
        if is_right:
            del left[name]
        found.append(int(is_right))
    return found


def figures(ranked: Sequence[tuple[WordQuery, list[int]]]) -> dict[str, float]:
    """Return R@1, R@10 and nDCG@10 of queries with the gains of their hits."""
    ndcg = []
    for query, found in ranked:
        best = math.fsum(1 / math.log2(place + 2) for place in range(min(len(query.answers), FIRST)))
        ndcg.append(math.fsum(gain / math.log2(place + 2) for place, gain in enumerate(found)) / best)
    count = len(ranked)
    return {
        "queries": count, "R@1": round(sum(found[:1] == [1] for _, found in ranked) / count, 3),
        "R@10": round(sum(any(found) for _, found in ranked) / count, 3), "nDCG@10": round(math.fsum(ndcg) / count, 3),
    }


def measure(searcher: Searcher, asked: Sequence[WordQuery], *, show: bool) -> dict[str, dict[str, Any]]:
    """Return the figures of each way by kind of query, and of all."""
    report: dict[str, dict[str, Any]] = {}
    for way, fields in WAYS.items():
        began, ranked = time.process_time(), []
        for query in asked:
            inputs = searcher.encode(QueryInputs(texts=(query.text,)))
            hits = searcher.search(inputs, SearchOptions(limit=FIRST, fields=fields)).hits
            ranked.append((query, gains(hits, query)))
            if show and fields == () and ranked[-1][1][:1] != [1]:
                _show(query, hits)
        used = time.process_time() - began
        report[way] = {
            kind: figures([each for each in ranked if each[0].kind == kind]) for kind in PER_KIND
        } | {"all": figures(ranked), "cpu_ms_a_query": round(1000 * used / len(asked), 1)}
    return report


def _show(query: WordQuery, hits: Sequence[Hit]) -> None:
    print(f"{query.kind}: {query.text!r}, wanted {dict(list(query.answers.items())[:3])}")  # noqa: T201 - asked for
    for hit in hits[:2]:
        said = [(each.field, each.text, each.matches) for each in hit.evidence[:3]]
        print(f"    {hit.uri} {hit.start_ms}-{hit.end_ms} {hit.score:.3f} {said}")  # noqa: T201


def read_words(root: Path, made: Sequence[Programme]) -> dict[str, dict[str, float]]:
    """Return which share of the words on the screen was read at its time, by height of the letters, and of all."""
    paths = ArchivePaths(root)
    names = {video.video_id: Path(video.uris[0]).stem for video in read_videos(paths.ingest)}
    read = {names[video_id]: segments for video_id, segments in read_segments(paths.ocr).items()}
    counts: dict[str, list[int]] = {}
    for each in made:
        for line in each.of("ocr"):
            words = letters_of(line.text).split()
            num_found = sum(_is_read(word, line, read.get(each.name, [])) for word in words)
            for row in (f"{each.height_px} px" if each.language == "en" else each.language, "all"):
                of_row = counts.setdefault(row, [0, 0])
                of_row[0], of_row[1] = of_row[0] + num_found, of_row[1] + len(words)
    return {row: {"words": total, "recall": round(num / total, 3)} for row, (num, total) in sorted(counts.items())}


def _is_read(word: str, line: Line, segments: Sequence[Segment]) -> bool:
    near = [each for each in segments if each.start_ms < line.end_ms and line.start_ms < each.end_ms]
    return any(word in letters_of(each.text).replace(" ", "") for each in near)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("bench/words.json"))
    parser.add_argument("--encoder", type=Path, default=Path("models/encoder"), help="a bundle, for pictures")
    parser.add_argument("--work", type=Path, help="folder that keeps the archive; by default it is removed")
    parser.add_argument("--programmes", type=int, default=96, help="in English, at most 144")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--heard", action="store_true", help="search what PocketSphinx hears, too; needs espeak-ng")
    parser.add_argument("--show", action="store_true", help="print queries whose first hit is wrong")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        root = args.work or Path(name)
        report = run(root.resolve(), args)
    known = read_json(args.out) if args.out.exists() else {}
    write_json(args.out, {**known, **report}, ensure_ascii=False)
    print(json.dumps(report, indent=2, ensure_ascii=False))  # noqa: T201 - this is the answer


def run(root: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Build the archive in `root` and return the report."""
    made = programmes(args.programmes, seed=args.seed)
    asked = queries(made, seed=args.seed)
    build(root, made, encoder=args.encoder, heard=args.heard)
    encoder = Encoder.load(ArchivePaths(root).encoder, towers=["text"], threads=1)
    report = {
        "machine": machine(1, ["rapidocr", "onnxruntime", "qdrant-edge-py"]), "programmes": len(made),
        "read": read_words(root, made),
        "subtitles": measure(open_archive(root, encoder), asked, show=args.show),
    }
    if args.heard:
        report["heard"] = measure(open_archive(root, encoder, heard=True), asked, show=False)
    return report


if __name__ == "__main__":
    main()
