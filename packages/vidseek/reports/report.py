"""The report of an archive: one self-contained page with figures, proofs and pictures."""

from __future__ import annotations

import base64
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from vidseek.archive import Archive
from vidseek.paths import ArchivePaths
from vidseek.reports.overview import GATES, STAGES, read_json
from vidseek_media.files.pages import write_page
from vidseek_media.tables import CAPTIONS, CLIPS, PAIRS, SEGMENTS, VIDEOS, read_rejected, read_table
from vidseek_media.text.segments import SEGMENTS_FILE
from vidseek_quality.intervals import interval_text

NUM_BARS = 12
NUM_REASONS = 10
NUM_SCRIPTS = 10_000
"""Captions whose writing is told, drawn with a fixed seed: of a share of one half the standard error is 0.5 points."""
_WIDTH, _HEIGHT = 560, 140


def write_report(archive: Archive, path: Path) -> None:
    """Write the page of an archive, whole or not at all, equal for equal data.

    Args:
        archive: The archive.
        path: The file to write.

    Raises:
        ArtifactError: a table or a report is missing or broken.
        OSError: the disk cannot hold it.
    """
    data, reports = archive.data, archive.reports
    metrics = read_json(reports / "evaluate" / "metrics.json") or {}
    selected = read_json(archive.selected) or {}
    write_page(
        path, "vidseek", "report.html", width=_WIDTH, height=_HEIGHT, cautions=cautions(archive), data=_data(data),
        rejected=_rejected(data), gates=_gates(reports), proof=_proof(metrics), moments=_moments(reports),
        calibration=_calibration(reports), drift=_drift(reports), duplicates=_duplicates(data),
        pictures=[(base64.b64encode(path.read_bytes()).decode(), caption) for path, caption in pictures_of(archive)],
        lineage=_lineage(archive, selected), challenges=_challenges(selected),
    )


def cautions(paths: ArchivePaths) -> list[str]:
    """Return what a reader must know before the figures: what was not measured, and warnings of the training."""
    metrics = read_json(paths.reports / "evaluate" / "metrics.json") or {}
    selected = read_json(paths.selected) or {}
    if not metrics or selected.get("setting") == "base":
        return []
    found = []
    if not isinstance(metrics.get("retention"), dict):
        found.append(
            "Forgetting was not measured: there are no general test pairs (general.source), so nothing shows what the "
            "adapted model lost of what the base knew"
        )
    if selected.get("setting"):
        folder = _training_of(paths, selected)
        if folder is None:
            found.append(
                f"The adapter {selected['setting']} is of an earlier training than the last of that name: what was warned "
                f"of then is in MLflow's run {selected.get('run_id') or '(unknown)'}"
            )
        trained = (read_json(folder / "metrics.json") if folder else None) or {}
        found += [f"Training: {warning}" for warning in trained.get("warnings") or [] if "general.source" not in warning]
    return found


def _training_of(paths: ArchivePaths, selected: Mapping[str, Any]) -> Path | None:
    """Return the report folder of the training that the adapter is from; None where a later one of its name has overwritten
    it.
    """
    folder = paths.reports / "train" / str(selected.get("setting", ""))
    of = (read_json(folder / "metrics.json") or {}).get("adapter_sha256")
    return None if of is not None and of != selected.get("adapter_sha256") else folder


def _length(duration_ms: int) -> str:
    """In hours, or in minutes where it is less than one."""
    return f"{duration_ms / 3_600_000:,.1f} h" if duration_ms >= 3_600_000 else f"{duration_ms / 60_000:.1f} min"


def _data(data: Path) -> dict[str, Any]:
    videos = read_table(data / "ingest" / "videos.parquet", VIDEOS)
    clips = read_table(data / "cut" / "clips.parquet", CLIPS)
    captions = read_table(data / "caption" / "captions.parquet", CAPTIONS)
    pairs = read_table(data / "pairs" / "pairs.parquet", PAIRS)
    drawn = captions["text"].sample(min(len(captions), NUM_SCRIPTS), random_state=0)
    of_all = "" if len(drawn) == len(captions) else f", of {len(drawn)} drawn"
    counted = {
        f"Writing of the captions{of_all}": drawn.map(script_of), "Where the captions are from": captions["writer"],
    }
    return {
        "big": [
            (len(videos), "videos"), (_length(int(videos["duration_ms"].sum())), "of video"), (len(clips), "clips"),
            (len(captions), "captions"), (len(pairs), "pairs"),
        ],
        "splits": ", ".join(f"{num} {name}" for name, num in sorted(pairs["split"].value_counts().items())) or "none",
        "histograms": [
            _histogram(videos["duration_ms"] / 1000, "Length of the videos, in seconds"),
            _histogram(captions["text"].str.len(), "Length of the captions, in characters"),
        ],
        "evidence": _evidence(data),
        "counts": {title: list(values.value_counts().items()) for title, values in counted.items()},
    }


def _evidence(data: Path) -> list[tuple[str, int, int, str]]:
    """Return what was read and heard: for each stage and source of segments their number, the videos, and their length."""
    rows = []
    for stage in ("subtitles", "speech", "ocr"):
        if not (data / stage / SEGMENTS_FILE).is_file():
            continue
        table = read_table(data / stage / SEGMENTS_FILE, SEGMENTS, columns=["video_id", "start_ms", "end_ms", "source"])
        for source, segments in table.groupby("source"):
            length = _length(int((segments["end_ms"] - segments["start_ms"]).sum()))
            rows.append((f"{stage}: {source}", len(segments), segments["video_id"].nunique(), length))
    return rows


def script_of(text: str) -> str:
    """Return the script of most letters of a text: Latin, Hangul, Cyrillic, ...; empty if it has no letters."""
    names = [unicodedata.name(char, "").split(" ")[0] for char in text if char.isalpha()]
    return Counter(names).most_common(1)[0][0].capitalize() if names else "none"


def _rejected(data: Path) -> list[tuple[Any, ...]]:
    tables = [(stage, data / stage / "rejected.parquet") for stage in STAGES]
    return [
        (stage, code, reason, num)
        for stage, path in tables if path.exists()
        for (code, reason), num in read_rejected(path.parent)[["code", "reason"]].value_counts().head(NUM_REASONS).items()
    ]


def _gates(reports: Path) -> list[tuple[str, bool, str]]:
    found = [(name, read_json(reports / "gates" / name / "result.json")) for name in GATES]
    return [
        (name, bool(result["passed"]), "; ".join(each["rule"] for each in result["failures"]))
        for name, result in found if result is not None
    ]


def _proof(metrics: Mapping[str, Any]) -> dict[str, Any]:
    galleries: Mapping[str, Any] = metrics.get("galleries") or {}
    return {
        "rows": [
            (f"{gallery} ({entry['num_queries']} queries)", model,
             *(interval_text(entry[model][f"r{k}_interval"]) for k in (1, 5, 10)))
            for gallery, entry in galleries.items() for model in ("base", "adapted")
        ],
        "gains": [f"{gallery}: {_verdict(entry['gain']['r1'])}{_groups(entry)}" for gallery, entry in galleries.items()],
        "notes": [_on_both_sides(metrics), _retention(metrics)],
    }


def _on_both_sides(metrics: Mapping[str, Any]) -> str:
    """Describe how many test queries also occur in training, and R@1 without them."""
    found = metrics.get("both_sides") or {}
    counts = [
        f"{num} {what}" for key, what in (
            ("captions_in_training", "with a caption of training"), ("clips_in_training", "with a clip that shows what a "
             "training clip shows"), ("captions_in_general", "with a caption of the general world"),
            ("clips_in_general", "with a clip of the general world"),
        ) if (num := found.get(f"num_{key}"))
    ]
    if not counts:
        return ""
    without = [
        f"{gallery} {entry['base']['r1']:.3f} before, {entry['adapted']['r1']:.3f} after ({entry['num_queries']} queries)"
        if "adapted" in entry else f"{gallery} has no other query" for gallery, entry in found["without"].items()
    ]
    return f"Test queries that stand on both sides: {', '.join(counts)}. R@1 without them: {'; '.join(without)}"


def _retention(metrics: Mapping[str, Any]) -> str:
    kept = metrics.get("retention")
    if not isinstance(kept, dict):
        return f"What was known before: {kept}"
    return (
        f"What was known before (the general world, {kept['num_queries']} queries): R@1 {kept['base']['r1']:.3f} "
        f"before, {kept['adapted']['r1']:.3f} after; change {interval_text(kept['change']['r1'])}"
    )


def _moments(reports: Path) -> dict[str, Any] | None:
    """The recalls of moments by gallery, and among how many clips; None where none was measured."""
    figures = read_json(reports / "calibrate" / "metrics.json") or {}
    if not figures.get("moments"):
        return None
    num, num_published = figures["num_clips"], figures["num_clips_published"]
    return {
        "rows": [
            (name, *(interval_text(entry[f"{key}_interval"]) for key in ("r1", "r5", "r10")))
            for name, entry in figures["moments"].items()
        ],
        "num": num, "num_published": num_published,
        "expected": [
            f"{name}: R@1 {entry['expected_of_all']['r1']:.3f}, R@5 {entry['expected_of_all']['r5']:.3f}, R@10 "
            f"{entry['expected_of_all']['r10']:.3f}"
            for name, entry in figures["moments"].items() if "expected_of_all" in entry
        ],
    }


def _calibration(reports: Path) -> dict[str, Any] | None:
    """The figures, and the share that is right against the confidence; None where nothing was fitted."""
    figures = read_json(reports / "calibrate" / "metrics.json") or {}
    curve = reports / "calibrate" / "reliability.csv"
    if "calibration_error" not in figures or not curve.exists():
        return None
    return {"figures": figures, "bins": pd.read_csv(curve).to_dict("records")}


def _drift(reports: Path) -> dict[str, Any] | None:
    found = read_json(reports / "drift.json")
    if found is None:
        return None
    queries, clips = found["queries"], found["clips"]
    rows = [(name, f"{value:.3f}", queries["levels"][name]) for name, value in (queries.get("psi") or {}).items()]
    if clips["psi"] is not None:
        rows.append(("clips", f"{clips['psi']:.3f}", clips["level"]))
    return {
        "collection": found["collection"], "rows": rows,
        "against": f"{queries.get('num_observed', 0)} queries and {clips['num_observed']} clips of now",
        "notes": [text for text in (queries["too_few"], clips["reason"]) if text],
    }


def _duplicates(data: Path) -> dict[str, int] | None:
    from vidseek_retrieval.dedup.decisions import read_decisions

    decided = read_decisions(data / "decisions")
    if not decided.accepted and not decided.refused:
        return None
    whole = sum(row.kind == "whole" for row in decided.accepted)
    return {"whole": whole, "parts": len(decided.accepted) - whole, "refused": len(decided.refused)}


def pictures_of(paths: ArchivePaths) -> list[tuple[Path, str]]:
    """Return the pictures of the page, each with a caption."""
    train = _training_of(paths, read_json(paths.selected) or {})
    wanted = [
        (paths.reports / "evaluate" / "pictures" / "retrieval.png",
         "Test queries and the clips that were found; the right one is framed in green"),
        (paths.reports / "evaluate" / "pictures" / "map.png", "Texts and clips on a plane"),
    ]
    if train is not None:
        wanted += [
            (train / "pictures" / "map.png", "Texts and clips on a plane, before and after the training"),
            (train / "pictures" / "curves.png", "The training"),
        ]
    return [(path, caption) for path, caption in wanted if path.is_file()]


def _lineage(archive: Archive, selected: Mapping[str, Any]) -> list[tuple[str, str]]:
    spec = read_json(archive.bundle / "encoder.json") or {}
    receipt = read_json(archive.receipts / "publish.json") or {}
    parts = [
        ("backbone", spec.get("backbone")), ("encoder_version", spec.get("encoder_version")),
        ("variants", ", ".join(spec.get("variants") or [])), ("setting", selected.get("setting")),
        ("adapter (sha256)", selected.get("adapter_sha256")), ("MLflow run", selected.get("run_id")),
        ("collection", receipt.get("collection")), ("clips in it", receipt.get("num_points")),
        ("recall at 10, approximate against exact", (receipt.get("verification") or {}).get("recall_at_10")),
    ]
    return [(name, str(value)) for name, value in parts if value not in (None, "")]


def _challenges(selected: Mapping[str, Any]) -> Sequence[str]:
    """Describe the proof of the adapter: the challenges, their rows, and how often these were used."""
    if "proof" not in selected:
        return ()
    from vidseek_training.evaluation.proof_ledger import lines_of

    return lines_of(selected)


def _histogram(values: pd.Series[Any], title: str) -> dict[str, Any] | None:
    """Bars of equal width from the least to the greatest value; None where there is none."""
    values = values.dropna()
    if values.empty:
        return None
    counts = values.value_counts(bins=min(NUM_BARS, max(1, values.nunique())), sort=False)
    step = _WIDTH / len(counts)
    return {
        "title": title,
        "bars": [
            {"x": place * step + 1, "width": step - 2, "height": num / counts.max() * _HEIGHT}
            for place, num in enumerate(counts)
        ],
        "note": f"{values.min():.4g} to {values.max():.4g}, half below {values.median():.4g}; "
                f"the highest bar is {counts.max()}",
    }


def _verdict(gain: Mapping[str, Any]) -> str:
    if gain["low"] is None:
        return f"it differs by {gain['value']:.3f} in R@1, {gain.get('note') or 'not proven'}"
    told = f"by {interval_text(gain)} in R@1"
    if gain["low"] > 0:
        return f"adapted is better {told}"
    return f"adapted is worse {told}" if gain["high"] < 0 else f"no difference is proven: it differs {told}"


def _groups(entry: Mapping[str, Any]) -> str:
    return f"; {entry['num_queries']} queries of {entry['num_groups']} groups of videos" if "num_groups" in entry else ""
