"""Held-out captions to a calibration and its proof: fitted on validation queries, measured on test queries."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vidseek_encoder.encoder import Encoder
from vidseek_media.errors import ArtifactError
from vidseek_media.folders import whole_folder
from vidseek_media.tables import CLIPS, PAIRS, read_table
from vidseek_retrieval.calibration import (
    Calibration,
    Context,
    Judged,
    calibration_error,
    fit,
    kept_and_turned_away,
    reliability,
)
from vidseek_retrieval.moment_recall import MIN_IOU, PublishedWindows, Truth, iou
from vidseek_retrieval.moments import NUM_CLIPS, RankedClip, merge_moments, rank_exact

CALIBRATION_FILE = "calibration.json"
NUM_HITS = 5
"""First hits of each query that are judged."""
NOT_MEASURED = "not measured"


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
) -> CalibrateReport:
    """Fit on the captions of the validation split, measure on those of the test split.

    Each caption is asked three times over: as it is (`present`); with its video taken out of the archive (`left_out`:
    what is asked for is not there, its like may be); and, as often, a caption of another world is asked (`unlike`), where
    there is one. A hit is right if it is of the right video and its IoU is at least 0.5.

    Args:
        embed_dir: With `parts/`.
        cut_dir: With clips.parquet.
        pairs: pairs.parquet.
        encoder: Its text tower is used.
        cut: The cut mode that is published.
        margin: `search.merge_margin`.
        general_pairs: pairs.parquet of another world.
        max_queries: Captions of each split, at most.

    Raises:
        ArtifactError: a table is missing or broken.
    """
    windows = PublishedWindows.load(embed_dir, cut_dir, cut=cut)
    table = read_table(pairs, PAIRS)
    spans = read_table(cut_dir / "clips.parquet", CLIPS).set_index("clip_id")
    other = read_table(general_pairs, PAIRS) if general_pairs is not None else None
    judged = {}
    for split in ("validation", "test"):
        rows = table[table["split"] == split].sort_values("clip_id").head(max_queries)
        unlike = [] if other is None else _unlike(other, is_test=split == "test", num=len(rows))
        judged[split] = _judge(rows, unlike, spans, windows, encoder, margin=margin)
    calibration = fit(judged["validation"], encoder_version=encoder.spec.encoder_version)
    if calibration is None or not judged["test"]:
        return CalibrateReport(calibration, {"calibration": NOT_MEASURED}, [])
    bins = reliability(calibration, judged["test"])
    firsts = [Judged(each.moments[:1], each.context, each.right[:1], each.kind) for each in judged["test"]]
    figures = {
        "num_queries": len(judged["test"]),
        "min_confidence": calibration.min_confidence,
        "calibration_error": round(calibration_error(bins), 4),
        "calibration_error_of_first": round(calibration_error(reliability(calibration, firsts)), 4),
        **kept_and_turned_away(calibration, judged["test"]),
    }
    return CalibrateReport(calibration, figures, bins)


def write_report(report: CalibrateReport, *, out: Path, reports: Path) -> None:
    """Write `out/calibration.json` (null where nothing was fitted), `reports/{metrics.json,reliability.csv}`."""
    content = report.calibration.to_json() if report.calibration else None
    with whole_folder(out) as folder:
        (folder / CALIBRATION_FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    with whole_folder(reports) as folder:
        (folder / "metrics.json").write_text(json.dumps(report.figures, indent=2) + "\n", encoding="utf-8")
        with (folder / "reliability.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["confidence", "right", "num"])
            writer.writeheader()
            # A plot of no points is one that DVC cannot draw.
            writer.writerows(report.bins or [{"confidence": 0, "right": 0, "num": 0}])


def read_calibration(folder: Path) -> Calibration | None:
    """What `write_report` wrote; None where nothing was fitted.

    Raises:
        ArtifactError: it is missing or broken.
    """
    path = folder / CALIBRATION_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} is missing or broken: {error}", remedy="Run `dvc repro calibrate`") from error
    return None if content is None else Calibration.from_json(content)


def _unlike(pairs: pd.DataFrame, *, is_test: bool, num: int) -> list[str]:
    """Captions of another world; those that are measured on are its test captions, and nothing else is."""
    captions = pairs[(pairs["split"] == "test") == is_test].sort_values("clip_id")["caption"]
    return [str(caption) for caption in captions.head(num)]


def _judge(
    rows: pd.DataFrame, unlike: Sequence[str], spans: pd.DataFrame, windows: PublishedWindows, encoder: Encoder, *,
    margin: float,
) -> list[Judged]:
    if not len(rows) or not windows.clips:
        return []
    # So many more that a ranking without the clips of one video is as long as one with them.
    most = int(pd.Series([clip.video_id for clip in windows.clips]).value_counts().max())
    judged = []
    for row, ranking in zip(
        rows.itertuples(), _rank(encoder.embed_texts(list(rows["caption"])), windows, NUM_CLIPS + most), strict=True
    ):
        span = spans.loc[row.clip_id]
        truth = Truth(str(row.video_id), int(span["start_ms"]), int(span["end_ms"]))
        others = [clip for clip in ranking if clip.video_id != truth.video_id]
        for clips, kind in ((ranking, "present"), (others, "left_out")):
            judged += _judged(clips, truth, kind, margin=margin)
    if unlike:
        for ranking in _rank(encoder.embed_texts(unlike), windows, NUM_CLIPS):
            judged += _judged(ranking, Truth("", 0, 1), "unlike", margin=margin)
    return judged


def _rank(queries: NDArray[np.float32], windows: PublishedWindows, limit: int) -> list[list[RankedClip]]:
    return rank_exact(queries, windows.vectors, windows.clips, limit=limit)


def _judged(ranking: Sequence[RankedClip], truth: Truth, kind: str, *, margin: float) -> list[Judged]:
    moments = merge_moments(ranking[:NUM_CLIPS], margin=margin)
    if not moments:
        return []
    firsts = tuple(moments[:NUM_HITS])
    return [Judged(firsts, Context.of(moments), tuple(iou(moment, truth) >= MIN_IOU for moment in firsts), kind)]
