"""The report of an archive: one self-contained page with figures, proofs and pictures."""

from __future__ import annotations

import base64
import html
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from vidseek.archive import Archive
from vidseek.paths import ArchivePaths
from vidseek.reports.overview import GATES, STAGES, read_json
from vidseek_media.files.folders import write_text
from vidseek_media.tables import CAPTIONS, CLIPS, PAIRS, REJECTED, VIDEOS, read_table
from vidseek_quality.intervals import interval_text

NUM_BARS = 12
NUM_REASONS = 10
_WIDTH, _HEIGHT = 560, 140
_STYLE = """
body{font:16px/1.55 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#1c2026}
h1{font-size:1.8rem;margin-bottom:.2rem}h2{font-size:1.25rem;margin-top:2.4rem;border-bottom:1px solid #d7dbe0}
table{border-collapse:collapse;margin:.6rem 0;display:block;overflow-x:auto}
td,th{padding:.3rem .9rem .3rem 0;text-align:left;vertical-align:top;border-bottom:1px solid #e6e9ec}
.big{display:flex;flex-wrap:wrap;gap:2.5rem}.big b{display:block;font-size:1.9rem;line-height:1.2}
.note{color:#5b636d}img{max-width:100%}figure{margin:1rem 0}figcaption{color:#5b636d}
.yes{color:#1d7a3a}.no{color:#b3261e}
"""


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
    sections = [
        _cautions(archive), _data(data), _rejected(data), _gates(reports), _proof(reports), _moments(reports),
        _calibration(reports), _drift(reports), _duplicates(data), _pictures(archive), _lineage(archive),
    ]
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>vidseek: the archive</title><style>{_STYLE}</style><h1>The archive</h1>{''.join(sections)}</html>\n"
    )
    write_text(path, page)


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


def _cautions(paths: ArchivePaths) -> str:
    return "".join(f'<p class="no"><b>{_text(each)}.</b></p>' for each in cautions(paths))


def _length(duration_ms: int) -> str:
    """In hours, or in minutes where it is less than one."""
    return f"{duration_ms / 3_600_000:,.1f} h" if duration_ms >= 3_600_000 else f"{duration_ms / 60_000:.1f} min"


def _data(data: Path) -> str:
    videos = read_table(data / "ingest" / "videos.parquet", VIDEOS)
    clips = read_table(data / "cut" / "clips.parquet", CLIPS)
    captions = read_table(data / "caption" / "captions.parquet", CAPTIONS)
    pairs = read_table(data / "pairs" / "pairs.parquet", PAIRS)
    big = [
        (len(videos), "videos"), (_length(int(videos["duration_ms"].sum())), "of video"), (len(clips), "clips"),
        (len(captions), "captions"), (len(pairs), "pairs"),
    ]
    splits = ", ".join(f"{num} {name}" for name, num in sorted(pairs["split"].value_counts().items())) or "none"
    return (
        '<div class="big">' + "".join(f"<div><b>{value}</b>{name}</div>" for value, name in big) + "</div>"
        + f"<p>Pairs by split: {_text(splits)}.</p>"
        + _histogram(videos["duration_ms"] / 1000, "Length of the videos, in seconds")
        + _histogram(captions["text"].str.len(), "Length of the captions, in characters")
        + _counted(captions["text"].map(script_of).value_counts(), "Writing of the captions", "captions")
        + _counted(captions["writer"].value_counts(), "Where the captions are from", "captions")
    )


def script_of(text: str) -> str:
    """Return the script of most letters of a text: Latin, Hangul, Cyrillic, ...; empty if it has no letters."""
    names = [unicodedata.name(char, "").split(" ")[0] for char in text if char.isalpha()]
    return Counter(names).most_common(1)[0][0].capitalize() if names else "none"


def _rejected(data: Path) -> str:
    tables = [(stage, data / stage / "rejected.parquet") for stage in STAGES]
    rows = [
        (stage, reason, num)
        for stage, path in tables if path.exists()
        for reason, num in read_table(path, REJECTED)["reason"].value_counts().head(NUM_REASONS).items()
    ]
    body = _table(["stage", "reason", "rows"], rows) if rows else "<p>Nothing was rejected.</p>"
    return f"<h2>What was rejected</h2>{body}"


def _gates(reports: Path) -> str:
    found = [(name, read_json(reports / "gates" / name / "result.json")) for name in GATES]
    rows = [
        (name, _mark(bool(result["passed"])), "; ".join(each["rule"] for each in result["failures"]))
        for name, result in found if result is not None
    ]
    return f"<h2>Gates</h2>{_table(['gate', '', 'not met'], rows)}" if rows else ""


def _proof(reports: Path) -> str:
    metrics = read_json(reports / "evaluate" / "metrics.json") or {}
    galleries: Mapping[str, Any] = metrics.get("galleries") or {}
    if not galleries:
        return "<h2>Base against adapted</h2><p>No test pair: nothing was measured.</p>"
    rows = [
        (f"{gallery} ({entry['num_queries']} queries)", model,
         *(_interval(entry[model][f"r{k}_interval"]) for k in (1, 5, 10)))
        for gallery, entry in galleries.items() for model in ("base", "adapted")
    ]
    gains = [
        f"<li>{_text(gallery)}: {_verdict(entry['gain']['r1'])}{_groups(entry)}.</li>"
        for gallery, entry in galleries.items()
    ]
    return (
        "<h2>Base against adapted</h2><p>Of the held-out queries, the share whose clip is the first (R@1), or among the "
        "first 5 or 10; in brackets the 95 % interval, in which the videos count, not the queries: captions of one video "
        "are alike. <i>Adapted</i> is the model that the archive is published with.</p>"
        + _table(["gallery", "model", "R@1", "R@5", "R@10"], rows) + f"<ul>{''.join(gains)}</ul>" + _on_both_sides(metrics)
        + _retention(metrics)
    )


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
    said = f"Test queries that stand on both sides: {', '.join(counts)}. R@1 without them: {'; '.join(without)}."
    return f"<p>{_text(said)}</p>"


def _retention(metrics: Mapping[str, Any]) -> str:
    kept = metrics.get("retention")
    if not isinstance(kept, dict):
        return f"<p>What was known before: {_text(str(kept))}.</p>"
    return (
        f"<p>What was known before (the general world, {kept['num_queries']} queries): R@1 {kept['base']['r1']:.3f} "
        f"before, {kept['adapted']['r1']:.3f} after; change {_interval(kept['change']['r1'])}.</p>"
    )


def _moments(reports: Path) -> str:
    moments = (read_json(reports / "evaluate" / "metrics.json") or {}).get("moments") or {}
    rows = [
        (name, *(_interval(entry[f"{key}_interval"]) for key in ("r1", "r5", "r10"))) for name, entry in moments.items()
    ]
    return (
        "<h2>Moments in whole videos</h2><p>The share of queries for which the first moment, or one of the first 5 or 10, "
        f"is the right span of the right video.</p>{_table(['gallery', 'first', 'of 5', 'of 10'], rows)}" if rows else ""
    )


def _calibration(reports: Path) -> str:
    figures = read_json(reports / "calibrate" / "metrics.json") or {}
    curve = reports / "calibrate" / "reliability.csv"
    if "calibration_error" not in figures or not curve.exists():
        return "<h2>Confidence</h2><p>Nothing was fitted: hits have no confidence.</p>"
    rows = pd.read_csv(curve)
    return (
        f"<h2>Confidence</h2><p>A hit of confidence 0.7 should be right in 7 of 10 cases. On {figures['num_queries']} test "
        f"queries the two differ by {figures['calibration_error']:.3f} on average.{_of_present(figures)}</p>"
        f"{_reliability(rows)}"
    )


def _of_present(figures: Mapping[str, Any]) -> str:
    """Describe the first hits of queries that have an answer: their mean confidence, and the share that is right."""
    first = figures.get("of_hits", {}).get("present", {}).get("first")
    return "" if first is None else (
        f" That takes {figures['prior']:.0%} of queries to have an answer in the archive. First hits of those that have one "
        f"are given {first['confidence']:.3f} and are right in {first['right']:.3f}."
    )


def _drift(reports: Path) -> str:
    found = read_json(reports / "drift.json")
    if found is None:
        return "<h2>Drift</h2><p>Nobody has looked: <code>vidseek drift</code>, once people search.</p>"
    queries, clips = found["queries"], found["clips"]
    rows = [(name, f"{value:.3f}", queries["levels"][name]) for name, value in (queries.get("psi") or {}).items()]
    if clips["psi"] is not None:
        rows.append(("clips", f"{clips['psi']:.3f}", clips["level"]))
    notes = [text for text in (queries["too_few"], clips["reason"]) if text]
    against = f"{queries.get('num_observed', 0)} queries and {clips['num_observed']} clips of now"
    return (
        f"<h2>Drift</h2><p>How far {against} are from those at publish of {_text(found['collection'])}, as "
        "<code>vidseek drift</code> found it: under 0.1 steady, from 0.25 of another kind.</p>"
        + (_table(["", "PSI", ""], rows) if rows else "") + "".join(f"<p>{_text(note)}.</p>" for note in notes)
    )


def _duplicates(data: Path) -> str:
    from vidseek_retrieval.dedup.decisions import read_decisions

    decided = read_decisions(data / "decisions")
    if not decided.accepted and not decided.refused:
        return "<h2>Near-duplicates</h2><p>Nobody has decided about near-duplicates.</p>"
    whole = sum(row.kind == "whole" for row in decided.accepted)
    return (
        f"<h2>Near-duplicates</h2><p>{whole} videos and {len(decided.accepted) - whole} parts of videos are taken for "
        f"duplicates of others; {len(decided.refused)} pairs were looked at and found to differ.</p>"
    )


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


def _pictures(paths: ArchivePaths) -> str:
    shown = [
        f'<figure><img alt="{_text(caption)}" src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}">'
        f"<figcaption>{_text(caption)}</figcaption></figure>"
        for path, caption in pictures_of(paths)
    ]
    return f"<h2>Pictures</h2>{''.join(shown)}" if shown else ""


def _lineage(archive: Archive) -> str:
    spec = read_json(archive.bundle / "encoder.json") or {}
    selected = read_json(archive.selected) or {}
    receipt = read_json(archive.receipts / "publish.json") or {}
    parts = [
        ("backbone", spec.get("backbone")), ("encoder_version", spec.get("encoder_version")),
        ("variants", ", ".join(spec.get("variants") or [])), ("setting", selected.get("setting")),
        ("adapter (sha256)", selected.get("adapter_sha256")), ("MLflow run", selected.get("run_id")),
        ("collection", receipt.get("collection")), ("clips in it", receipt.get("num_points")),
        ("recall at 10, approximate against exact", (receipt.get("verification") or {}).get("recall_at_10")),
    ]
    rows = [(name, str(value)) for name, value in parts if value not in (None, "")]
    return f"<h2>What it is made of</h2>{_table(['', ''], rows)}{_challenges(selected)}"


def _challenges(selected: Mapping[str, Any]) -> str:
    """Describe the proof of the adapter: the challenges, their rows, and how often these were used."""
    if "proof" not in selected:
        return ""
    from vidseek_training.evaluation.proof_ledger import lines_of

    lines = lines_of(selected)
    return f"<h2>How the adapter was chosen</h2><ul>{''.join(f'<li>{_text(line)}</li>' for line in lines)}</ul>"


def _histogram(values: pd.Series[Any], title: str) -> str:
    """Bars of equal width from the least to the greatest value."""
    values = values.dropna()
    if values.empty:
        return ""
    counts = values.value_counts(bins=min(NUM_BARS, max(1, values.nunique())), sort=False)
    step = _WIDTH / len(counts)
    bars = "".join(
        f'<rect x="{place * step + 1:.1f}" width="{step - 2:.1f}" y="{_HEIGHT - tall:.1f}" height="{tall:.1f}" '
        'fill="#3a7bd5"/>'
        for place, tall in enumerate(num / counts.max() * _HEIGHT for num in counts)
    )
    ends = f"{values.min():.4g} to {values.max():.4g}, half below {values.median():.4g}; the highest bar is {counts.max()}"
    return _figure(bars, title, ends)


def _reliability(rows: pd.DataFrame) -> str:
    """Return the share that is right against the confidence; on the line they agree."""
    points = "".join(
        f'<circle cx="{row.confidence * _HEIGHT:.1f}" cy="{(1 - row.right) * _HEIGHT:.1f}" r="4" fill="#3a7bd5"/>'
        for row in rows.itertuples()
    )
    line = f'<line x1="0" y1="{_HEIGHT}" x2="{_HEIGHT}" y2="0" stroke="#9aa0a8" stroke-dasharray="4"/>'
    title = "Share that is right (up) against confidence (right), both 0 to 1"
    return _figure(line + points, title, "on the line they agree", width=_HEIGHT)


def _figure(shapes: str, title: str, note: str, *, width: int = _WIDTH) -> str:
    return (
        f'<figure><figcaption>{_text(title)}</figcaption><svg viewBox="0 0 {width} {_HEIGHT}" width="{width}" '
        f'style="max-width:100%;background:#f4f6f8" role="img" aria-label="{_text(title)}">{shapes}</svg>'
        f'<figcaption class="note">{_text(note)}</figcaption></figure>'
    )


def _counted(counts: pd.Series[Any], title: str, what: str) -> str:
    return f"<p>{title}</p>{_table(['', what], list(counts.items()))}" if len(counts) else ""


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    head = f"<tr>{''.join(f'<th>{_text(each)}' for each in heads)}" if any(heads) else ""
    body = "".join(f"<tr>{''.join(f'<td>{_cell(each)}' for each in row)}" for row in rows)
    return f"<table>{head}{body}</table>"


class _Markup(str):
    """Text that is markup of ours already."""


def _cell(value: object) -> str:
    return value if isinstance(value, _Markup) else _text(str(value))


def _mark(passed: bool) -> _Markup:
    return _Markup(f'<span class="{"yes" if passed else "no"}">{"passed" if passed else "failed"}</span>')


def _interval(of: Mapping[str, Any]) -> str:
    return interval_text(of)


def _verdict(gain: Mapping[str, Any]) -> str:
    if gain["low"] is None:
        return f"it differs by {gain['value']:.3f} in R@1, {gain.get('note') or 'not proven'}"
    told = f"by {interval_text(gain)} in R@1"
    if gain["low"] > 0:
        return f"adapted is better {told}"
    return f"adapted is worse {told}" if gain["high"] < 0 else f"no difference is proven: it differs {told}"


def _groups(entry: Mapping[str, Any]) -> str:
    return f"; {entry['num_queries']} queries of {entry['num_groups']} groups of videos" if "num_groups" in entry else ""


def _text(text: str) -> str:
    return html.escape(text, quote=True)
