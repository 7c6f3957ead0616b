"""Held-out captions to a calibration and its proof: fitted on validation queries, measured on test queries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vidseek_media.errors import ArtifactError, foreign
from vidseek_media.files.csv_files import write_csv
from vidseek_media.files.folders import whole_folder
from vidseek_media.files.json_files import read_json, write_json
from vidseek_media.splitting.both_sides import folded
from vidseek_media.splitting.video_groups import video_groups
from vidseek_media.tables import CLIPS, PAIRS, is_among, read_table
from vidseek_quality.intervals import MIN_GROUPS
from vidseek_retrieval.confidence.calibration import LEVEL, Calibration, Context
from vidseek_retrieval.confidence.calibration_fit import FEEDBACK, PRESENT, WORDED, Judged, fit, prior_weights
from vidseek_retrieval.confidence.familiarity import Familiarity
from vidseek_retrieval.confidence.query_stats import MAX_QUERIES, QuerySample
from vidseek_retrieval.confidence.reliability import calibration_error, error_figures, kept_and_turned_away, reliability
from vidseek_retrieval.confidence.text_vectors import TextVectors
from vidseek_retrieval.confidence.worded_rankings import WordedRankings
from vidseek_retrieval.search.moment_recall import (
    MIN_IOU,
    PublishedWindows,
    Truth,
    iou,
    moment_recalls,
    recalls_of_all,
)
from vidseek_retrieval.search.moments import (
    NUM_CLIPS,
    Moment,
    RankedClip,
    Ranking,
    cut_off,
    first_moments,
    rankings,
)
from vidseek_retrieval.settings import MULTILINGUAL, PRIOR

CALIBRATION_FILE = "calibration.json"
VECTORS_FOLDER = "queries"
"""Vectors of the queries of the last run, which the next one reads back."""
NUM_HITS = 5
"""First hits of each query that are judged."""
NOT_MEASURED = "not measured"
LEFT_OUT = "left_out"
"""The kind of captions whose video was taken out of the archive."""
UNLIKE = "unlike"
"""The kind of captions of another world."""


class Said(NamedTuple):
    """What a person said of one clip as an answer to a query in words."""

    query: str
    clip_id: str
    relevant: bool


def unlearned(feedback: Iterable[Said], pairs: Path) -> list[Said]:
    """Return the feedback that no training pair came of: what taught the model does not measure it.

    Args:
        feedback: What people said of hits.
        pairs: pairs.parquet.

    Raises:
        ArtifactError: the table is broken.
    """
    if not (said := list(feedback)):
        return []
    rows = read_table(pairs, PAIRS, columns=["clip_id", "caption", "contrast", "split"])
    rows = rows[(rows["split"] == "train") & is_among(rows["clip_id"], {each.clip_id for each in said})]
    learned = {
        (clip_id, folded(text)) for name in ("caption", "contrast")
        for clip_id, text in zip(rows["clip_id"].tolist(), rows[name].tolist(), strict=True)
    }
    return [each for each in said if (each.clip_id, folded(each.query)) not in learned]


@dataclass(frozen=True)
class CalibrateReport:
    """What was fitted, and how well it holds."""

    calibration: Calibration | None
    figures: dict[str, Any]
    bins: list[dict[str, float]]
    vectors: TextVectors
    """Of the queries, to be kept for the next run."""


@dataclass(frozen=True)
class Bootstrap:
    """How the intervals of moment recall are computed."""

    resamples: int
    seed: int


def calibrate(
    windows: PublishedWindows,
    cut_dir: Path,
    pairs: Path,
    vectors: TextVectors,
    *,
    margin: float,
    general_pairs: Path | None,
    max_queries: int,
    bootstrap: Bootstrap,
    feedback: Sequence[Said] = (),
    prior: float = PRIOR,
    texts: Callable[[], Mapping[str, str]] = dict,
    language: str = MULTILINGUAL,
) -> CalibrateReport:
    """Fit on the captions of the validation split and on feedback, measure on the captions of the test split.

    Each caption is asked three times over: as it is (`present`); with its video and the near-duplicates of that taken out
    of the archive (`left_out`: what is asked for is not there, its like may be); and, as often, a caption of another world
    is asked (`unlike`), where there is one. A hit is right if it is of the right video and its IoU is at least 0.5.
    Captions of the other world are those that no model was taught with: see `_unlike`.

    Where clips have texts, searches rank by pictures and words together, and so does this: first with the texts of the
    caption's video and its near-duplicates taken out (so that `present` is a query that describes a picture), then as they
    are (`worded`: the words of the query stand in the archive).

    The answers to the test captions by pictures alone also give the recall of moments.

    Args:
        windows: The published clips, or a sample that contains the videos of `asked_videos`.
        cut_dir: With clips.parquet.
        pairs: pairs.parquet; groups.parquet beside it says which videos show the same.
        vectors: Embeds the queries.
        margin: How far below its best clip a neighbour may score and still join a moment, as a cosine.
        general_pairs: pairs.parquet of another world.
        max_queries: Captions of each split, at most.
        bootstrap: Of the intervals of moment recall.
        feedback: What people said of hits; what is not in the ranking of its query, or no clip any more, counts nothing.
        prior: The share of queries that have an answer in the archive.
        texts: Returns the published text of each clip by clip_id; it is called only where a calibration was fitted. Where it
            returns none, clips are ranked by pictures alone.
        language: Of the words of the texts.

    Raises:
        ArtifactError: a table is missing or broken.
    """
    table = read_table(pairs, PAIRS)
    spans = read_table(cut_dir / "clips.parquet", CLIPS, columns=["clip_id", "start_ms", "end_ms"]).set_index("clip_id")
    learned = [str(caption) for caption in table[table["split"] == "train"].sort_values("clip_id")["caption"].tolist()]
    asker = _Asker(windows, vectors, Familiarity.learned(learned, vectors.embed), margin, _groups_of(pairs, windows))
    unlike = _unlike(general_pairs) if general_pairs is not None else {}
    questions = {
        split: _questions(_with_groups(_asked(table, split, max_queries), pairs), spans) for split in ("validation", "test")
    }
    calibration, judged, said, found = _fit(questions, unlike, feedback, asker, prior=prior)
    if calibration is not None and calibration.slope > 0 and (written := texts()):
        words = WordedRankings.of(
            windows.clips, written, asker.groups, language=language, slope=calibration.slope,
        )
        words = replace(words, weight=words.harmless_weight(_right_by_pictures(questions["validation"], asker)))
        mixed, judged, said, _ = _fit(questions, unlike, feedback, replace(asker, words=words), prior=prior)
        calibration = replace(mixed or calibration, mix_slope=words.slope, word_weight=words.weight)
    fitted, test = judged["validation"], judged["test"]
    if calibration is not None:
        calibration = replace(calibration, reference=_reference(calibration, [*test, *fitted]))
    figures, bins = {"calibration": NOT_MEASURED}, []
    if calibration is not None and test:
        bins = reliability(calibration, test, weights=prior_weights(test, prior))
        figures = _figures(calibration, fitted, test, bins, num_feedback=len(said))
    measured = figures | _moments(questions["test"], found, windows, bootstrap)
    return CalibrateReport(calibration, measured, bins, vectors)


def _fit(
    questions: Mapping[str, Sequence[_Question]], unlike: Mapping[str, Sequence[_Question]], feedback: Sequence[Said],
    asker: _Asker, *, prior: float,
) -> tuple[Calibration | None, dict[str, list[Judged]], list[Judged], list[list[Moment]]]:
    """Return the calibration, what was judged by split and by people, and the moments of the test captions by pictures."""
    of_split = {split: _judge(questions[split], unlike.get(split, _NO_QUERIES), asker) for split in questions}
    judged = {split: hits for split, (hits, _) in of_split.items()}
    said = list(_judge_said(feedback, asker))
    version = asker.vectors.encoder.spec.encoder_version
    found = fit(judged["validation"] + said, encoder_version=version, familiarity=asker.familiarity, prior=prior)
    return found, judged, said, of_split["test"][1]


def asked_videos(pairs: Path, *, max_queries: int) -> frozenset[str]:
    """Return the videos of the captions that `calibrate` asks.

    Raises:
        ArtifactError: a table is missing or broken.
    """
    table = read_table(pairs, PAIRS, columns=["clip_id", "video_id", "split"])
    return frozenset(
        str(video_id) for split in ("validation", "test")
        for video_id in _asked(table, split, max_queries)["video_id"].tolist()
    )


def _asked(table: pd.DataFrame, split: str, max_queries: int) -> pd.DataFrame:
    return table[table["split"] == split].sort_values("clip_id").head(max_queries)


def _moments(
    questions: Sequence[_Question], found: Sequence[Sequence[Moment]], windows: PublishedWindows, bootstrap: Bootstrap
) -> dict[str, Any]:
    """Return `moments`, the recall of moments by gallery of the test captions, and what was searched; empty for no caption.
    """
    if not questions:
        return {}
    result: dict[str, Any] = {}
    for gallery in sorted({each.gallery for each in questions}):
        rows = [row for row, each in enumerate(questions) if each.gallery == gallery]
        answers, truths = [found[row] for row in rows], [questions[row].truth for row in rows]
        groups = [questions[row].group for row in rows]
        result[gallery] = moment_recalls(answers, truths, groups, resamples=bootstrap.resamples, seed=bootstrap.seed)
        if expected := recalls_of_all(answers, truths, windows):
            result[gallery]["expected_of_all"] = expected
    return {"moments": result, "num_clips": len(windows.clips), "num_clips_published": windows.num_published}


def _figures(
    calibration: Calibration, fitted: Sequence[Judged], test: Sequence[Judged], bins: list[dict[str, float]], *,
    num_feedback: int,
) -> dict[str, Any]:
    """Return the content of metrics.json: a summary, and `of_hits` with the figures by kind of query."""
    of_hits = error_figures(calibration, test)
    num_groups = len({each.group for each in fitted if any(each.right)})
    return {
        "num_queries": len(test),
        "num_feedback": num_feedback,
        "prior": calibration.prior,
        "word_weight": round(calibration.word_weight, 4),
        "min_confidence": calibration.min_confidence,
        "min_confidence_groups": num_groups,
        "min_confidence_assured": num_groups >= MIN_GROUPS,
        "calibration_error": round(calibration_error(bins), 4),
        "calibration_error_of_first": of_hits["at_prior"]["first"]["error"],
        **kept_and_turned_away(calibration, test),
        "of_hits": of_hits,
    }


def write_report(report: CalibrateReport, *, out: Path, reports: Path) -> None:
    """Write `out/calibration.json` (null where nothing was fitted) and the vectors of the queries, and
    `reports/{metrics.json,reliability.csv}`.
    """
    content = report.calibration.to_json() if report.calibration else None
    with whole_folder(out) as folder:
        write_json(folder / CALIBRATION_FILE, content)
        report.vectors.write(folder / VECTORS_FOLDER)
    with whole_folder(reports) as folder:
        write_json(folder / "metrics.json", report.figures)
        header = ["confidence", "right", "num", "share"]
        rows = [[row[name] for name in header] for row in report.bins]
        write_csv(folder / "reliability.csv", header, rows or [[0, 0, 0, 0]])  # DVC cannot draw a plot of no points


def read_calibration(folder: Path) -> Calibration | None:
    """Read the calibration that `write_report` wrote; None if nothing was fitted.

    Raises:
        ArtifactError: it is missing or broken.
    """
    path = folder / CALIBRATION_FILE
    fault, remedy = f"{path} is missing or broken", "Run `dvc repro calibrate`"
    with foreign(ArtifactError, fault, code="calibration-broken", remedy=remedy, errors=(OSError, ValueError)):
        content = read_json(path)
    return None if content is None else Calibration.from_json(content)


def _reference(calibration: Calibration, judged: Sequence[Judged]) -> QuerySample | None:
    """Return the captions as they were asked of the whole archive."""
    asked = [each for each in judged if each.kind == PRESENT][:MAX_QUERIES]
    return QuerySample.of([calibration.query_stats(each.moments, each.context) for each in asked])


class _Question(NamedTuple):
    text: str
    group: str
    truth: Truth
    gallery: str = ""


_NO_QUERIES: list[_Question] = []
_NOWHERE = Truth("", 0, 1)


def _groups_of(pairs: Path, windows: PublishedWindows) -> dict[str, str]:
    """Return the group of each video that is published."""
    video_ids = sorted({clip.video_id for clip in windows.clips})
    return dict(zip(video_ids, map(str, video_groups(pairs, video_ids)), strict=True))


def _with_groups(rows: pd.DataFrame, pairs: Path) -> pd.DataFrame:
    """Return rows of the pairs, with the column `group`: of their video, or the video itself."""
    return rows.assign(group=video_groups(pairs, rows["video_id"].tolist()))


def _unlike(pairs: Path) -> dict[str, list[_Question]]:
    """Return captions of another world that no model was taught with, for the fit (`validation`) and for the measure
    (`test`).

    Training replays the training split, so its captions are no strange queries. Where there is no validation split, the
    groups of the test split are dealt out, one to the fit and one to the measure in turn.
    """
    table = _with_groups(read_table(pairs, PAIRS), pairs).sort_values("clip_id")
    splits = {name: table[table["split"] == name] for name in ("validation", "test")}
    if not len(splits["validation"]):
        names = sorted(set(splits["test"]["group"]))
        for_fit = splits["test"]["group"].isin(names[::2])
        splits = {"validation": splits["test"][for_fit], "test": splits["test"][~for_fit]}
    return {
        name: [_Question(str(row.caption), str(row.group), _NOWHERE) for row in rows.itertuples()]
        for name, rows in splits.items()
    }


def _questions(rows: pd.DataFrame, spans: pd.DataFrame) -> list[_Question]:
    """Return the captions with where their answers are."""
    found = spans.loc[rows["clip_id"]]
    return [
        _Question(str(row.caption), str(row.group), Truth(str(row.video_id), int(start), int(end)), str(row.gallery))
        for row, start, end in zip(rows.itertuples(), found["start_ms"], found["end_ms"], strict=True)
    ]


class _Asked(NamedTuple):
    text: str
    vector: NDArray[np.float32]
    ranking: Ranking


@dataclass(frozen=True)
class _Asker:
    windows: PublishedWindows
    vectors: TextVectors
    familiarity: Familiarity | None
    margin: float
    groups: Mapping[str, str]
    """Of videos; one that is not named is a group of its own."""
    words: WordedRankings | None = None
    """Adds what words say to rankings; None for rankings by pictures alone."""

    def ask(self, texts: Sequence[str]) -> Iterator[_Asked]:
        """Yield each text with its ranking."""
        if texts:
            vectors = self.vectors.embed(texts)
            yield from map(_Asked, texts, vectors, rankings(vectors, self.windows.vectors, self.windows.clips))

    def moments(self, ranking: Iterable[RankedClip], *, without: str | None = None) -> list[Moment]:
        """Return the moments that a confidence depends on, where the videos of one group may be left out."""
        clips = ranking if without is None else (
            clip for clip in ranking if self.groups.get(clip.video_id, clip.video_id) != without
        )
        return first_moments(clips, margin=self.margin, num=LEVEL)

    def judge(
        self, asked: _Asked, question: _Question, kind: str, *, odds: Mapping[str, float], without: str | None = None,
        by_pictures: list[Moment] | None = None,
    ) -> list[Judged]:
        """Return the first hits of one query; nothing where there is none. `without` names a group that is left out;
        `by_pictures` are the moments by pictures alone, where they are known."""
        ranking = self.mixed(asked.ranking, odds, without=without)
        moments = by_pictures if by_pictures and ranking is asked.ranking else self.moments(ranking, without=without)
        if not moments:
            return []
        firsts = tuple(moments[:NUM_HITS])
        right = tuple(iou(moment, question.truth) >= MIN_IOU for moment in firsts)
        return [Judged(firsts, self.context(asked, moments, odds), right, kind, question.group)]

    def odds(self, text: str, *, without: str | None = None) -> dict[str, float]:
        """Return the odds of the clips that the words of a query may mean; none where words do not count."""
        return self.words.odds(text, without=without) if self.words else {}

    def mixed(self, ranking: Ranking, odds: Mapping[str, float], *, without: str | None = None) -> Ranking:
        """Return a ranking with what words add to it."""
        return self.words.mixed(ranking, odds, without=without) if self.words and odds else ranking

    def context(self, asked: _Asked, moments: Sequence[Moment], odds: Mapping[str, float]) -> Context:
        best = max(odds.values(), default=0.0)
        return Context.of(moments, familiarity=self.familiarity, text=asked.text, vector=asked.vector, odds=best)


def _judge(
    questions: Sequence[_Question], unlike: Sequence[_Question], asker: _Asker
) -> tuple[list[Judged], list[list[Moment]]]:
    """Return the judged hits of all kinds of queries, and the moments of each question as it is."""
    judged, found = [], []
    for question, asked in zip(questions, asker.ask([each.text for each in questions]), strict=True):
        found.append(asker.moments(asked.ranking))
        odds = asker.odds(question.text, without=question.group)
        judged += asker.judge(asked, question, PRESENT, odds=odds, by_pictures=found[-1])
        judged += asker.judge(asked, question, LEFT_OUT, odds=odds, without=question.group)
        if asker.words is not None and asker.words.has_text(question.group):
            judged += asker.judge(asked, question, WORDED, odds=asker.odds(question.text))
    strange = unlike[: len(questions)]
    for question, asked in zip(strange, asker.ask([each.text for each in strange]), strict=True):
        judged += asker.judge(asked, question, UNLIKE, odds=asker.odds(question.text))
    return judged, found


def _right_by_pictures(questions: Sequence[_Question], asker: _Asker) -> Iterator[tuple[str, str, Ranking]]:
    """Yield the captions whose first hit by pictures is right: text, group and ranking."""
    for question, asked in zip(questions, asker.ask([each.text for each in questions]), strict=True):
        first = asker.moments(asked.ranking)[:1]
        if first and iou(first[0], question.truth) >= MIN_IOU:
            yield question.text, question.group, asked.ranking


def _judge_said(feedback: Sequence[Said], asker: _Asker) -> Iterator[Judged]:
    """For each query the moments of its ranking of which something was said."""
    said: dict[str, dict[str, bool]] = {}
    for each in feedback:
        if each.query.strip():
            said.setdefault(each.query, {})[each.clip_id] = each.relevant
    for asked in asker.ask(list(said)):
        of_query, odds = said[asked.text], asker.odds(asked.text)
        ranking = asker.mixed(asked.ranking, odds)
        moments = first_moments(cut_off(ranking, limit=NUM_CLIPS, margin=asker.margin), margin=asker.margin)
        flags = {
            place: of_query[clip_id] for place, moment in enumerate(moments)
            for clip_id in moment.clip_ids if clip_id in of_query
        }
        if flags:
            context = asker.context(asked, moments, odds)
            yield Judged(tuple(moments[place] for place in flags), context, tuple(flags.values()), FEEDBACK)
