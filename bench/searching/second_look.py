"""What a second look gains where its model sees more than the first ranking's, and what one that knows nothing costs.

    make bench-second-look        (after make demo; writes bench/second_look.json; goes on where it was stopped)

No language model that sees is needed. An encoder of the demo stands in for it behind an endpoint of OpenAI's protocol, and
gets of each hit what a language model would get: the prompt and the pictures. The first ranking is of the base, of the
taught encoder, or of the taught encoder by one frame of each clip. It is asked the held-out captions, by pictures alone,
through the function that the command and the service call. How a cosine becomes a score is fixed by the validation captions,
in the same way.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bench.machine import machine
from bench.searching.seeing_endpoint import Endpoint, Judge, RandomJudge, SeeingJudge, serve
from bench.teaching.seeds import teach
from vidseek.actions.base import make_base
from vidseek.actions.second_look import SecondLook
from vidseek.archive import Archive, load_encoder, open_searcher
from vidseek.params import load_params
from vidseek_encoder.choices import usable_cores
from vidseek_encoder.encoder import Encoder
from vidseek_media.files.folders import whole_folder
from vidseek_media.files.json_files import write_json
from vidseek_media.frame_store.members import decode_jpeg
from vidseek_media.frame_store.stored_clips import read_jpegs, stored_clips
from vidseek_media.splitting.video_groups import video_groups
from vidseek_media.tables import CLIPS, PAIRS, read_table
from vidseek_quality.intervals import interval_text, share_interval
from vidseek_retrieval.embedding.embedding_parts import write_part
from vidseek_retrieval.index.publish import publish
from vidseek_retrieval.search.moment_recall import MIN_IOU, Truth, iou
from vidseek_retrieval.search.query import Answer, Hit, QueryInputs, SearchOptions
from vidseek_retrieval.search.searcher import Searcher
from vidseek_retrieval.settings import PublishSettings, RerankSettings
from vidseek_training import backbones
from vidseek_training.captioning.provider import URL_VARIABLE
from vidseek_training.evaluation.metrics import paired_gain
from vidseek_training.export.onnx_export import write_unproven
from vidseek_training.fitting import lora

OUT = Path(__file__).parents[1] / "second_look.json"
NUM_HITS = (10, 30)
NUM_FRAMES = 8
"""That the demo keeps of a clip, and its encoder sees. The default of `search.rerank` shows four of them."""
NUM_VALIDATION = 40
"""Captions that fix the scale of a judge: 1,200 cosines of first hits are enough for a hundred steps."""
OTHER_SEED = 1
RESAMPLES = 2000
USD_PER_MILLION_TOKENS = 1.0
_MEASURES: Mapping[str, Callable[[Sequence[Hit], Truth], bool]] = {
    "moment_r1": lambda hits, truth: _is_found(hits, truth, 1),
    "moment_r5": lambda hits, truth: _is_found(hits, truth, 5),
    "video_r1": lambda hits, truth: bool(hits) and hits[0].video_id == truth.video_id,
}


First = Literal["base", "taught", "stills"]
"""Whose ranking is the first: the base's, that of the taught encoder, or of the same by one frame of each clip."""


@dataclass(frozen=True)
class Question:
    """A held-out caption, and where its answer is."""

    text: str
    truth: Truth
    group: str
    gallery: str


@dataclass(frozen=True)
class Trial:
    """A first ranking, and who looks again."""

    name: str
    first: First
    judge: str
    num_frames: int = NUM_FRAMES
    num_hits: tuple[int, ...] = NUM_HITS
    num_clips: int = 1
    """Of a hit, that are looked at."""


TRIALS = (
    Trial("base, then taught", "base", "taught"),
    Trial("base, then taught, 4 frames", "base", "taught", 4, (10,)),
    Trial("taught, then other seed", "taught", "other seed"),
    Trial("taught, then other seed, 4 frames", "taught", "other seed", 4, (10,)),
    Trial("taught, then random", "taught", "random"),
    Trial("taught by one frame, then by eight", "stills", "taught"),
    Trial("taught by one frame, then by eight, 3 clips", "stills", "taught", num_clips=3),
    Trial("taught, then other seed, 3 clips", "taught", "other seed", num_hits=(10,), num_clips=3),
)


def questions_of(archive: Archive, split: str, *, most: int | None = None, seed: int = 0) -> list[Question]:
    """Return captions of a split in a drawn order, as many of each gallery where not all are wanted.

    Args:
        archive: With pairs and clips.
        split: validation or test.
        most: Of all galleries together; None: all captions.
        seed: Of the order.
    """
    rows = read_table(archive.pairs_table, PAIRS)
    rows = rows[rows["split"] == split].sort_values(["clip_id", "caption"])
    rows = rows.sample(frac=1, random_state=seed)
    if most is not None:
        rows = rows[rows.groupby("gallery").cumcount() < most // rows["gallery"].nunique()]
    spans = read_table(archive.cut / "clips.parquet", CLIPS).set_index("clip_id").loc[rows["clip_id"]]
    return [
        Question(str(row.caption), Truth(str(row.video_id), int(start), int(end)), str(group), str(row.gallery))
        for row, start, end, group in zip(
            rows.itertuples(), spans["start_ms"], spans["end_ms"],
            video_groups(archive.pairs_table, rows["video_id"].tolist()), strict=True,
        )
    ]


class Looks:
    """Asks questions of one first ranking, with and without a second look by an endpoint."""

    def __init__(self, archive: Archive, searcher: Searcher, work: Path) -> None:
        """Take the ranking.

        Args:
            archive: Has the frames.
            searcher: Ranks.
            work: Takes the journals of second looks.
        """
        self._archive, self._searcher, self._work = archive, searcher, work

    def ask(
        self, questions: Sequence[Question], settings: RerankSettings, *, journal: str, wanted: bool = True, limit: int
    ) -> list[Answer]:
        """Return the answers by pictures alone.

        Args:
            questions: In the order in which they are asked.
            settings: Of the second look.
            journal: Name of the journal that knows what was asked before.
            wanted: Whether there is a second look.
            limit: Hits of an answer.
        """
        root = self._work / journal
        root.mkdir(parents=True, exist_ok=True)
        if not (root / self._archive.data.name).exists():
            (root / self._archive.data.name).symlink_to(self._archive.data.resolve())
        options, answers = SearchOptions(limit=limit, fields=("visual",)), []
        with SecondLook(Archive(root), settings) as look:
            for question in questions:
                query = self._searcher.encode(QueryInputs(texts=(question.text,)))
                find = partial(self._searcher.search, query)
                answers.append(look.search(find, options, texts=(question.text,), wanted=wanted))
        return answers


def measure(
    looks: Looks, judge: Judge, trial: Trial, *, validation: Sequence[Question], test: Sequence[Question],
    with_half_budget: bool = False,
) -> list[dict[str, Any]]:
    """Return the rows of a trial: one for each number of hits, and one for half of the money.

    Args:
        looks: The first ranking.
        judge: Who looks again.
        trial: What is measured.
        validation: Captions that fix the judge's scale.
        test: Captions that are judged.
        with_half_budget: Whether the first row is followed by one with half of its cost as the budget.
    """
    most, rows = max(trial.num_hits), list[dict[str, Any]]()
    settings = RerankSettings(
        model=trial.judge, usd_per_million_tokens_in=USD_PER_MILLION_TOKENS, budget_usd=1e6,
        usd_per_million_tokens_out=USD_PER_MILLION_TOKENS, num_frames=trial.num_frames, timeout_seconds=60.0, num_hits=most,
        num_clips=trial.num_clips,
    )
    with _asked(judge) as endpoint:
        if isinstance(judge, SeeingJudge):
            looks.ask(validation, settings, journal=f"{trial.name}, scale", limit=most)
            judge.fix_scale()
        ask = partial(_row, looks, test, endpoint, limit=most)
        before = looks.ask(test, settings, journal=trial.name, wanted=False, limit=most)
        for num in trial.num_hits:
            rows.append(ask(before, settings.model_copy(update={"num_hits": num}), trial.name))
            if with_half_budget and len(rows) == 1:
                half = settings.model_copy(update={"num_hits": num, "budget_usd": rows[0]["usd"] / 2})
                rows.append({"budget": "half"} | ask(before, half, f"{trial.name}, half"))
        again = ask(before, settings, trial.name)
        rows[-1]["again"] = {name: again[name] for name in ("num_requests", "num_known", "seconds_a_query", "cpu_seconds")}
    return [{"trial": trial.name, "num_frames": trial.num_frames, "num_clips": trial.num_clips} | row for row in rows]


@contextmanager
def _asked(judge: Judge) -> Iterator[Endpoint]:
    """Name an endpoint as the one that is asked."""
    known = os.environ.get(URL_VARIABLE)
    with serve(judge) as endpoint:
        os.environ[URL_VARIABLE] = endpoint.url
        try:
            yield endpoint
        finally:
            os.environ.pop(URL_VARIABLE)
            if known is not None:
                os.environ[URL_VARIABLE] = known


def _row(
    looks: Looks, test: Sequence[Question], endpoint: Endpoint, before: Sequence[Answer], settings: RerankSettings,
    journal: str, *, limit: int,
) -> dict[str, Any]:
    num_requests, num_pictures, began = endpoint.num_requests, endpoint.num_pictures, time.process_time()
    after = looks.ask(test, settings, journal=journal, limit=limit)
    reports = [answer.rerank for answer in after if answer.rerank is not None]
    return {
        "num_hits": settings.num_hits, "num_queries": len(test),
        "num_requests": endpoint.num_requests - num_requests, "num_pictures": endpoint.num_pictures - num_pictures,
        "num_known": sum(each.num_cached for each in reports),
        "num_looked_at": sum(each.num_hits for each in reports),
        "queries": {
            "whole": sum(each.is_done and not each.reason for each in reports),
            "in_part": sum(each.is_done and bool(each.reason) for each in reports),
            "none": sum(not each.is_done for each in reports),
        },
        "reasons": sorted({each.reason for each in reports if each.reason})[:3],
        "usd": round(sum(each.cost_usd for each in reports), 6),
        "seconds_a_query": round(float(np.mean([each.seconds for each in reports])), 4),
        "cpu_seconds": round(time.process_time() - began, 1),
        "galleries": figures(test, before, after, num_hits=settings.num_hits),
    }


def figures(
    questions: Sequence[Question], before: Sequence[Answer], after: Sequence[Answer], *, num_hits: int
) -> dict[str, Any]:
    """Return recalls before and after, and the gain of each query with its interval over groups of videos, by gallery.

    Args:
        questions: That were asked.
        before: Their first rankings.
        after: Their answers after a second look.
        num_hits: Hits that were looked at: `within` says for how many questions a right moment was among them.

    Returns:
        By gallery `within` and, for each figure, `before`, `after` and `gain`; `gain_by_both` is that of `by_both`.
    """
    found, both = dict[str, Any](), [by_both(answer) for answer in after]
    for gallery in (*sorted({each.gallery for each in questions}), "all"):
        rows = [row for row, each in enumerate(questions) if gallery in (each.gallery, "all")]
        groups = np.array([questions[row].group for row in rows])

        def values(
            answers: Sequence[Answer], measured: Callable[[Sequence[Hit], Truth], bool], own: Sequence[int] = rows
        ) -> NDArray[np.float64]:
            return np.array([measured(answers[row].hits, questions[row].truth) for row in own], np.float64)

        found[gallery] = {"within": round(float(values(before, partial(_is_found, first=num_hits)).mean()), 4)}
        for name, measured in _MEASURES.items():
            first, second, mean = (values(answers, measured) for answers in (before, after, both))
            found[gallery][name] = {
                "before": share_interval(first, groups, resamples=RESAMPLES, seed=0).to_json(),
                "after": share_interval(second, groups, resamples=RESAMPLES, seed=0).to_json(),
                "gain": paired_gain(first, second, groups, resamples=RESAMPLES, seed=0).to_json(),
                "gain_by_both": paired_gain(first, mean, groups, resamples=RESAMPLES, seed=0).to_json(),
            }
    return found


def by_both(answer: Answer) -> Answer:
    """Return an answer in another order: by the mean of both scores, each in standard deviations over the hits that were
    looked at. The product does not do that; it is measured to know whether it should.
    """
    places = [place for place, hit in enumerate(answer.hits) if hit.reranked is not None]
    if len(places) < 2:
        return answer
    scores = np.array([[hit.score, hit.reranked.score] for hit in answer.hits if hit.reranked is not None])
    means = ((scores - scores.mean(axis=0)) / np.maximum(scores.std(axis=0), 1e-9)).sum(axis=1)
    hits = list(answer.hits)
    for place, row in zip(places, np.argsort(-means, kind="stable"), strict=True):
        hits[place] = answer.hits[places[row]]
    return replace(answer, hits=tuple(hits))


def _is_found(hits: Sequence[Hit], truth: Truth, first: int) -> bool:
    return any(iou(hit, truth) >= MIN_IOU for hit in hits[:first])


def open_first(archive: Archive, first: First) -> Searcher:
    """Open a first ranking as command and service do.

    Args:
        archive: As `archive_with_base` gives it, with what `publish_stills` adds.
        first: Which.
    """
    settings = archive.settings().search
    seen = archive.seen_by("base" if first == "base" else "vidseek")
    encoder = load_encoder(seen, settings, text_only=True)
    if first == "stills":
        return Searcher.open(seen.backend(), encoder, alias=first, settings=settings)
    return open_searcher(seen, settings, encoder)


def publish_stills(archive: Archive) -> None:
    """Publish clips as the archive's encoder sees the middle frame of each, under the alias `stills`; what it embedded
    before is kept.

    Args:
        archive: With bundle, frames and tables.
    """
    encoder = Encoder.load(archive.bundle, threads=1, lanes=usable_cores(), towers=("video",), spin=False)
    version = encoder.spec.encoder_version
    embed = archive.state / f"stills-{version}"
    if not embed.exists():
        clip_ids, vectors = list[str](), list[NDArray[np.float32]]()
        for clip_id, jpegs in read_jpegs(archive.frames, stored_clips(archive.frames)):
            clip_ids.append(clip_id)
            vectors.append(encoder.embed_images([decode_jpeg(jpegs[len(jpegs) // 2])]))
        with whole_folder(embed) as folder:
            write_part(
                folder / "parts" / "0-0.parquet", clip_ids=clip_ids, vectors=np.concatenate(vectors),
                encoder_version=version, variant="fp32",
            )
            write_json(folder / "embeddings.json", {"encoder_version": version, "num_clips": len(clip_ids)})
    settings = PublishSettings(min_recall=0.0)
    publish(embed, archive.cut, archive.ingest, index=archive.index, alias="stills", settings=settings)


def archive_with_base(archive: Archive, work: Path) -> Archive:
    """Return the same archive with the base published beside the taught encoder; `archive` stays as it is.

    Args:
        archive: A finished one.
        work: Takes index and base.
    """
    own = Archive(work / "archive")
    shutil.rmtree(own.index, ignore_errors=True)
    shutil.copytree(archive.index, own.index)
    for path in (archive.data, archive.models, archive.params):
        (own.root / path.name).unlink(missing_ok=True)
        (own.root / path.name).symlink_to(path.resolve())
    make_base(own)
    return own


def other_bundle(seed: int, work: Path) -> Path:
    """Return the bundle of the demo's training with another seed; an adapter or a bundle in `work` is taken.

    Args:
        seed: Of the training, which runs in the working directory.
        work: Keeps adapter and bundle.
    """
    folder, params = work / f"seed-{seed}", load_params()
    bundle = folder / "encoder"
    if not bundle.exists():
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "adapter").exists():
            teach(seed, params, folder)
        model = lora.merged(backbones.load(params.backbone.name), folder / "adapter" / "adapter")
        with whole_folder(bundle) as made:
            write_unproven(model, made)
    return bundle


def run(work: Path, *, queries: int | None, out: Path) -> dict[str, Any]:
    """Measure what `out` lacks in the working directory, and write the report after each trial."""
    archive = Archive(Path.cwd())
    bundles = {"taught": archive.bundle, "other seed": other_bundle(OTHER_SEED, work)}
    own = archive_with_base(archive, work)
    validation, test = questions_of(own, "validation", most=NUM_VALIDATION), questions_of(own, "test", most=queries)
    report: dict[str, Any] = {
        "machine": machine(torch.get_num_threads(), ("onnxruntime", "openai", "qdrant-edge-py")),
        "settings": {"num_validation": len(validation), "num_queries": len(test), "resamples": RESAMPLES}, "rows": [],
    }
    known = json.loads(out.read_text(encoding="utf-8")) if out.is_file() else {}
    if known.get("settings") == report["settings"]:
        report["rows"] = known["rows"]
    for trial in TRIALS:
        if trial.name in {row["trial"] for row in report["rows"]}:
            continue
        shutil.rmtree(work / "journals", ignore_errors=True)
        judge = RandomJudge(0) if trial.judge == "random" else SeeingJudge(
            Encoder.load(bundles[trial.judge], threads=1, lanes=usable_cores(), spin=False)
        )
        if trial.first == "stills":
            publish_stills(own)
        looks = Looks(own, open_first(own, trial.first), work / "journals")
        report["rows"] += measure(
            looks, judge, trial, validation=validation, test=test, with_half_budget=trial is TRIALS[0],
        )
        out.write_text(json.dumps(report) + "\n", encoding="utf-8")
    return report


def print_table(report: Mapping[str, Any]) -> None:
    """Print a report for people."""
    names = (name for each in ("moment R@1", "moment R@5", "video R@1") for name in (each, "gain", "by both"))
    table = Table("trial", "hits", "gallery", *names, "within")
    for row in report["rows"]:
        for place, (gallery, of_gallery) in enumerate(row["galleries"].items()):
            cells = []
            for name in _MEASURES:
                measured = of_gallery[name]
                cells += [f"{measured['before']['value']:.3f} to {measured['after']['value']:.3f}",
                          interval_text(measured["gain"], signed=True), f"{measured['gain_by_both']['value']:+.3f}"]
            told = f"{row['trial']}{', half the budget' if 'budget' in row else ''}"
            table.add_row("" if place else told, "" if place else str(row["num_hits"]), gallery, *cells,
                          f"{of_gallery['within']:.3f}")
    Console(width=240).print(table)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--work", type=Path, default=Path(".vidseek/second-look"), help="keeps index, base and bundle")
    parser.add_argument("--queries", type=int, help="of all galleries together, drawn; all of them by default")
    options = parser.parse_args()
    print_table(run(options.work.resolve(), queries=options.queries, out=options.out))


if __name__ == "__main__":
    main()
