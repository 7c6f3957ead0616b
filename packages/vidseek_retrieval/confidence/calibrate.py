"""Held-out captions to a calibration and its proof: fitted on validation queries, measured on test queries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vidseek_encoder.encoder import Encoder
from vidseek_media.errors import ArtifactError
from vidseek_media.files.csv_files import write_csv
from vidseek_media.files.folders import whole_folder
from vidseek_media.files.json_files import read_json, write_json
from vidseek_media.splitting.video_groups import video_groups
from vidseek_media.tables import CLIPS, PAIRS, read_table
from vidseek_quality.intervals import MIN_GROUPS
from vidseek_retrieval.confidence.calibration import (
    FEEDBACK,
    PRESENT,
    Calibration,
    Context,
    Judged,
    fit,
    prior_weights,
)
from vidseek_retrieval.confidence.familiarity import Familiarity
from vidseek_retrieval.confidence.query_stats import MAX_QUERIES, QuerySample
from vidseek_retrieval.confidence.reliability import calibration_error, error_figures, kept_and_turned_away, reliability
from vidseek_retrieval.search.moment_recall import MIN_IOU, PublishedWindows, Truth, iou
from vidseek_retrieval.search.moments import NUM_CLIPS, Moment, RankedClip, first_moments, rank_exact
from vidseek_retrieval.settings import PRIOR

CALIBRATION_FILE = "calibration.json"
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


@dataclass(frozen=True)
class CalibrateReport:
    """What was fitted, and how well it holds."""

    calibration: Calibration | None
    figures: dict[str, Any]
    bins: list[dict[str, float]]


def calibrate(
    embed_dir: Path,
    cut_dir: Path,
    pairs: Path,
    encoder: Encoder,
    *,
    cut: str,
    margin: float,
    general_pairs: Path | None,
    max_queries: int,
    feedback: Sequence[Said] = (),
    prior: float = PRIOR,
) -> CalibrateReport:
    """Fit on the captions of the validation split and on feedback, measure on the captions of the test split.

    Each caption is asked three times over: as it is (`present`); with its video and the near-duplicates of that taken out
    of the archive (`left_out`: what is asked for is not there, its like may be); and, as often, a caption of another world
    is asked (`unlike`), where there is one. A hit is right if it is of the right video and its IoU is at least 0.5.
    Captions of the other world are those that no model was taught with: see `_unlike`.

    Args:
        embed_dir: With `parts/`.
        cut_dir: With clips.parquet.
        pairs: pairs.parquet; groups.parquet beside it says which videos show the same.
        encoder: Its text tower is used.
        cut: The cut mode that is published.
        margin: How far below its best clip a neighbour may score and still join a moment, as a cosine.
        general_pairs: pairs.parquet of another world.
        max_queries: Captions of each split, at most.
        feedback: What people said of hits; what is not in the ranking of its query, or no clip any more, counts nothing.
        prior: The share of queries that have an answer in the archive.

    Raises:
        ArtifactError: a table is missing or broken.
    """
    windows = PublishedWindows.load(embed_dir, cut_dir, cut=cut)
    table = _with_groups(pairs)
    spans = read_table(cut_dir / "clips.parquet", CLIPS).set_index("clip_id")
    learned = [str(caption) for caption in table[table["split"] == "train"].sort_values("clip_id")["caption"]]
    asker = _Asker(
        windows, encoder, Familiarity.learned(learned, encoder.embed_texts), margin, _groups_of(pairs, windows)
    )
    unlike = _unlike(general_pairs) if general_pairs is not None else {}
    judged = {}
    for split in ("validation", "test"):
        rows = table[table["split"] == split].sort_values("clip_id").head(max_queries)
        judged[split] = _judge(rows, unlike.get(split, _NO_QUERIES)[: len(rows)], spans, asker)
    said = list(_judge_said(feedback, asker))
    calibration = fit(
        judged["validation"] + said, encoder_version=encoder.spec.encoder_version, familiarity=asker.familiarity,
        prior=prior,
    )
    if calibration is not None:
        calibration = replace(calibration, reference=_reference(calibration, [*judged["test"], *judged["validation"]]))
    if calibration is None or not judged["test"]:
        return CalibrateReport(calibration, {"calibration": NOT_MEASURED}, [])
    bins = reliability(calibration, judged["test"], weights=prior_weights(judged["test"], prior))
    figures = _figures(calibration, judged["validation"], judged["test"], bins, num_feedback=len(said))
    return CalibrateReport(calibration, figures, bins)


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
        "min_confidence": calibration.min_confidence,
        "min_confidence_groups": num_groups,
        "min_confidence_assured": num_groups >= MIN_GROUPS,
        "calibration_error": round(calibration_error(bins), 4),
        "calibration_error_of_first": of_hits["at_prior"]["first"]["error"],
        **kept_and_turned_away(calibration, test),
        "of_hits": of_hits,
    }


def write_report(report: CalibrateReport, *, out: Path, reports: Path) -> None:
    """Write `out/calibration.json` (null where nothing was fitted), `reports/{metrics.json,reliability.csv}`."""
    content = report.calibration.to_json() if report.calibration else None
    with whole_folder(out) as folder:
        write_json(folder / CALIBRATION_FILE, content)
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
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{path} is missing or broken: {error}", code="calibration-broken", remedy="Run `dvc repro calibrate`",
        ) from error
    return None if content is None else Calibration.from_json(content)


def _reference(calibration: Calibration, judged: Sequence[Judged]) -> QuerySample | None:
    """Return the captions as they were asked of the whole archive."""
    asked = [each for each in judged if each.kind == PRESENT][:MAX_QUERIES]
    return QuerySample.of([calibration.query_stats(each.moments, each.context) for each in asked])


class _Query(NamedTuple):
    text: str
    group: str


_NO_QUERIES: list[_Query] = []


def _groups_of(pairs: Path, windows: PublishedWindows) -> dict[str, str]:
    """Return the group of each video that is published."""
    video_ids = sorted({clip.video_id for clip in windows.clips})
    return dict(zip(video_ids, map(str, video_groups(pairs, video_ids)), strict=True))


def _with_groups(pairs: Path) -> pd.DataFrame:
    """Return the pairs, with the column `group`: of their video, or the video itself."""
    table = read_table(pairs, PAIRS)
    return table.assign(group=video_groups(pairs, table["video_id"]))


def _unlike(pairs: Path) -> dict[str, list[_Query]]:
    """Return captions of another world that no model was taught with, for the fit (`validation`) and for the measure
    (`test`).

    Training replays the training split, so its captions are no strange queries. Where there is no validation split, the
    groups of the test split are dealt out, one to the fit and one to the measure in turn.
    """
    table = _with_groups(pairs).sort_values("clip_id")
    splits = {name: table[table["split"] == name] for name in ("validation", "test")}
    if not len(splits["validation"]):
        names = sorted(set(splits["test"]["group"]))
        for_fit = splits["test"]["group"].isin(names[::2])
        splits = {"validation": splits["test"][for_fit], "test": splits["test"][~for_fit]}
    return {
        name: [_Query(str(row.caption), str(row.group)) for row in rows.itertuples()] for name, rows in splits.items()
    }


@dataclass(frozen=True)
class _Asker:
    windows: PublishedWindows
    encoder: Encoder
    familiarity: Familiarity | None
    margin: float
    groups: Mapping[str, str]
    """Of videos; one that is not named is a group of its own."""

    def ask(self, texts: Sequence[str], *, limit: int = NUM_CLIPS) -> Iterator[tuple[_AskedText, list[RankedClip]]]:
        """Yield each text with its ranking."""
        if not texts or not self.windows.clips:
            return
        vectors = self.encoder.embed_texts(list(texts))
        rankings = rank_exact(vectors, self.windows.vectors, self.windows.clips, limit=limit, margin=self.margin)
        yield from zip(map(_AskedText, texts, vectors), rankings, strict=True)

    def group(self, video_id: str) -> str:
        """Return the group of a video."""
        return self.groups.get(video_id, video_id)

    def judge(
        self, asked: _AskedText, ranking: Sequence[RankedClip], truth: Truth, kind: str, *, group: str
    ) -> list[Judged]:
        """Return the first hits of one query; nothing where there is none."""
        moments = first_moments(ranking, margin=self.margin)
        if not moments:
            return []
        firsts = tuple(moments[:NUM_HITS])
        right = tuple(iou(moment, truth) >= MIN_IOU for moment in firsts)
        return [Judged(firsts, self.context(asked, moments), right, kind, group)]

    def context(self, asked: _AskedText, moments: Sequence[Moment]) -> Context:
        return Context.of(moments, familiarity=self.familiarity, text=asked.text, vector=asked.vector)


class _AskedText(NamedTuple):
    text: str
    vector: NDArray[np.float32]


def _judge(rows: pd.DataFrame, unlike: Sequence[_Query], spans: pd.DataFrame, asker: _Asker) -> list[Judged]:
    # So many more that a ranking without the clips of one group is as long as one with them.
    most = max(Counter(asker.group(clip.video_id) for clip in asker.windows.clips).values(), default=0)
    judged = []
    asked = asker.ask(list(rows["caption"]), limit=NUM_CLIPS + most)
    for row, (query, ranking) in zip(rows.itertuples(), asked, strict=False):
        span, group = spans.loc[row.clip_id], str(row.group)
        truth = Truth(str(row.video_id), int(span["start_ms"]), int(span["end_ms"]))
        others = [clip for clip in ranking if asker.group(clip.video_id) != group]
        for clips, kind in ((ranking, PRESENT), (others, LEFT_OUT)):
            judged += asker.judge(query, clips, truth, kind, group=group)
    for each, (query, ranking) in zip(unlike, asker.ask([each.text for each in unlike]), strict=False):
        judged += asker.judge(query, ranking, Truth("", 0, 1), UNLIKE, group=each.group)
    return judged


def _judge_said(feedback: Sequence[Said], asker: _Asker) -> Iterator[Judged]:
    """For each query the moments of its ranking of which something was said."""
    said: dict[str, dict[str, bool]] = {}
    for each in feedback:
        if each.query.strip():
            said.setdefault(each.query, {})[each.clip_id] = each.relevant
    for query, ranking in asker.ask(list(said)):
        moments = first_moments(ranking, margin=asker.margin)
        flags = {
            place: said[query.text][clip_id] for place, moment in enumerate(moments)
            for clip_id in moment.clip_ids if clip_id in said[query.text]
        }
        if flags:
            of_those = tuple(moments[place] for place in flags)
            yield Judged(of_those, asker.context(query, moments), tuple(flags.values()), FEEDBACK)
