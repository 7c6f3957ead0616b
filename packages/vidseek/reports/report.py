"""The report of an archive: one self-contained page, a brief in words first, then figures, proofs and pictures."""

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
from vidseek.reports.brief import (
    brief_of,
    counted,
    is_taught,
    length_text,
    percent,
    percent_interval,
    points_interval,
    verdict,
)
from vidseek.reports.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, histogram, reliability
from vidseek.reports.overview import GATES, STAGES, read_json
from vidseek_media.files.pages import write_page
from vidseek_media.tables import CAPTIONS, CLIPS, PAIRS, SEGMENTS, VIDEOS, read_rejected, read_table
from vidseek_media.text.segments import SEGMENTS_FILE

NUM_REASONS = 10
NUM_SCRIPTS = 10_000
"""Captions whose writing is told, drawn with a fixed seed: of a share of one half the standard error is 0.5 points."""
RETRIEVAL = "retrieval.png"
"""One picture of all answers, for MLflow; the page shows the answers one by one."""


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
        path, "vidseek", "report.html",
        width=WIDTH, height=HEIGHT, left=LEFT, right=WIDTH - RIGHT, top=TOP, bottom=HEIGHT - BOTTOM,
        brief=brief_of(archive), cautions=cautions(archive), data=_data(data), rejected=_rejected(data),
        fields=_fields(data), gates=_gates(reports), proof=_proof(metrics, selected), answers=_answers(reports),
        moments=_moments(reports), calibration=_calibration(reports), drift=_drift(reports),
        duplicates=_duplicates(data), pictures=_pictures(archive), lineage=_lineage(archive, selected),
        challenges=_challenges(selected),
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


def _data(data: Path) -> dict[str, Any]:
    videos = read_table(data / "ingest" / "videos.parquet", VIDEOS)
    clips = read_table(data / "cut" / "clips.parquet", CLIPS)
    captions = read_table(data / "caption" / "captions.parquet", CAPTIONS)
    pairs = read_table(data / "pairs" / "pairs.parquet", PAIRS)
    drawn = captions["text"].sample(min(len(captions), NUM_SCRIPTS), random_state=0)
    of_all = "" if len(drawn) == len(captions) else f", of {len(drawn)} drawn"
    groups = {
        ("script", f"Scripts that the captions are written in{of_all}"): drawn.map(script_of),
        ("from", "Where the captions are from (file: files that people wrote)"): captions["writer"],
    }
    return {
        "big": [
            _big(len(videos), "video"), (length_text(int(videos["duration_ms"].sum())), "of video"),
            _big(len(clips), "clip"), _big(len(captions), "caption"), _big(len(pairs), "pair"),
        ],
        "splits": ", ".join(f"{num:,} for {name}" for name, num in sorted(pairs["split"].value_counts().items())) or "none",
        "histograms": [
            histogram(videos["duration_ms"] / 1000, title="How long the videos are", x_label="length of a video, in seconds",
                      y_label="number of videos", unit="seconds"),
            histogram(captions["text"].str.len(), title="How long the captions are",
                      x_label="length of a caption, in characters", y_label="number of captions", unit="characters"),
        ],
        "evidence": _evidence(data),
        "counts": [(head, title, list(values.value_counts().items())) for (head, title), values in groups.items()],
    }


def _big(num: int, what: str) -> tuple[str, str]:
    number, noun = counted(num, what).split(" ")
    return number, noun


def _evidence(data: Path) -> list[tuple[str, int, int, str]]:
    """Return what was read and heard: for each stage and source of segments their number, the videos, and their length."""
    rows = []
    for stage in ("subtitles", "speech", "ocr"):
        if not (data / stage / SEGMENTS_FILE).is_file():
            continue
        table = read_table(data / stage / SEGMENTS_FILE, SEGMENTS, columns=["video_id", "start_ms", "end_ms", "source"])
        for source, segments in table.groupby("source"):
            length = length_text(int((segments["end_ms"] - segments["start_ms"]).sum()))
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


def _fields(data: Path) -> list[tuple[str, str, str]]:
    """Return the declared fields, and the columns that are none: name, type, and what is known of it."""
    from vidseek_media.fields.statements import read_fields

    table = read_fields(data / "fields")
    return [
        *((name, str(kind.declaration), "declared") for name, kind in table.declared.items()),
        *((each.column, "", f"no field: {each.num_cells} cells of {each.file}, the first {each.example!r}")
          for each in table.undeclared),
    ]


def _gates(reports: Path) -> list[tuple[str, bool, str]]:
    found = [(name, read_json(reports / "gates" / name / "result.json")) for name in GATES]
    return [
        (name, bool(result["passed"]), "; ".join(each["rule"] for each in result["failures"]))
        for name, result in found if result is not None
    ]


def _proof(metrics: Mapping[str, Any], selected: Mapping[str, Any]) -> dict[str, Any]:
    galleries: Mapping[str, Any] = metrics.get("galleries") or {}
    models = {"base": "as it came"} | ({"adapted": "taught"} if is_taught(selected) else {})
    return {
        "rows": [
            (f"{gallery} ({entry['num_queries']} captions)", told,
             *(percent_interval(entry[model][f"r{k}_interval"]) for k in (1, 5, 10)))
            for gallery, entry in galleries.items() for model, told in models.items()
        ],
        "ranges": [
            {"label": f"{gallery}, {told}", "is_taught": model == "adapted", **_range(entry[model]["r1_interval"])}
            for gallery, entry in galleries.items() for model, told in models.items()
        ],
        "gains": [f"{gallery}: {_gain(entry['gain']['r1'])}{_groups(entry)}" for gallery, entry in galleries.items()]
        if is_taught(selected) else [],
        "notes": [_on_both_sides(metrics), _retention(metrics)] if is_taught(selected) else [],
    }


def _range(figure: Mapping[str, Any]) -> dict[str, Any]:
    """Ends of an interval in per cent; without one, both are the value."""
    low, high = (figure["value"] if figure[end] is None else figure[end] for end in ("low", "high"))
    return {"value": 100 * figure["value"], "low": 100 * low, "high": 100 * high, "text": percent_interval(figure)}


def _answers(reports: Path) -> dict[str, Any] | None:
    """Some test captions with the clips that were found, as the stage `evaluate` drew them; None where it drew none."""
    folder = reports / "evaluate" / "pictures"
    content = read_json(folder / "answers.json")
    if content is None:
        return None
    for query in (*content["right"], *content["wrong"]):
        for each in query["answers"]:
            picture = folder / "answers" / Path(each["file"]).name
            each["picture"] = base64.b64encode(picture.read_bytes()).decode() if picture.is_file() else ""
    return content


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
        f"{gallery} {percent(entry['base']['r1'])} before, {percent(entry['adapted']['r1'])} after "
        f"({counted(entry['num_queries'], 'caption')})"
        if "adapted" in entry else f"{gallery} has no other caption" for gallery, entry in found["without"].items()
    ]
    return (f"Some test captions are easier because training has something alike: {', '.join(counts)}. The right clip is "
            f"first without these: {'; '.join(without)}")


def _retention(metrics: Mapping[str, Any]) -> str:
    kept = metrics.get("retention")
    if not isinstance(kept, dict):
        return f"What the model knew before: {kept}"
    return (
        f"What the model knew before (the general world, {counted(kept['num_queries'], 'caption')}): the right clip is "
        f"first for {percent(kept['base']['r1'])} before, {percent(kept['adapted']['r1'])} after; change "
        f"{points_interval(kept['change']['r1'])}"
    )


def _moments(reports: Path) -> dict[str, Any] | None:
    """The recalls of moments by gallery, and among how many clips; None where none was measured."""
    figures = read_json(reports / "calibrate" / "metrics.json") or {}
    if not figures.get("moments"):
        return None
    num, num_published = figures["num_clips"], figures["num_clips_published"]
    return {
        "rows": [
            (name, *(percent_interval(entry[f"{key}_interval"]) for key in ("r1", "r5", "r10")))
            for name, entry in figures["moments"].items()
        ],
        "num": num, "num_published": num_published,
        "expected": [
            f"{name}: {percent(entry['expected_of_all']['r1'])} first, {percent(entry['expected_of_all']['r5'])} of 5, "
            f"{percent(entry['expected_of_all']['r10'])} of 10"
            for name, entry in figures["moments"].items() if "expected_of_all" in entry
        ],
    }


def _calibration(reports: Path) -> dict[str, Any] | None:
    """The figures, and the share that is right against the confidence; None where nothing was fitted."""
    figures = read_json(reports / "calibrate" / "metrics.json") or {}
    curve = reports / "calibrate" / "reliability.csv"
    if "calibration_error" not in figures or not curve.exists():
        return None
    return {"figures": figures, "chart": reliability(pd.read_csv(curve).to_dict("records"))}


def _drift(reports: Path) -> dict[str, Any] | None:
    found = read_json(reports / "drift.json")
    if found is None:
        return None
    queries, clips = found["queries"], found["clips"]
    rows = [
        (f"queries, {name}", f"{value:.3f}", queries["levels"][name]) for name, value in (queries.get("psi") or {}).items()
    ]
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
    """Return the pictures that belong to the archive's model, each with a caption."""
    train = _training_of(paths, read_json(paths.selected) or {})
    wanted = [
        (paths.reports / "evaluate" / "pictures" / RETRIEVAL,
         "A row is a test caption with the clips that were found, the nearest first; the right one is framed in green"),
    ]
    if train is not None:
        wanted += [
            (train / "pictures" / "curves.png",
             "The training: the loss should fall, and the right clips should come first for more captions"),
            (train / "pictures" / "map.png",
             "Validation captions and clips as the model sees them, on a plane, before and after the training: lines join a "
             "caption and its clip; short lines are good, two clouds apart are not"),
        ]
    return [(path, caption) for path, caption in wanted if path.is_file()]


def _pictures(archive: Archive) -> list[tuple[str, str]]:
    has_answers = (archive.reports / "evaluate" / "pictures" / "answers.json").is_file()
    shown = [(path, told) for path, told in pictures_of(archive) if not (has_answers and path.name == RETRIEVAL)]
    return [(base64.b64encode(path.read_bytes()).decode(), told) for path, told in shown]


def _lineage(archive: Archive, selected: Mapping[str, Any]) -> list[tuple[str, str]]:
    spec = read_json(archive.bundle / "encoder.json") or {}
    receipt = read_json(archive.receipts / "publish.json") or {}
    recall = (receipt.get("verification") or {}).get("recall_at_10")
    parts = [
        ("Backbone: the model to begin from", spec.get("backbone")),
        ("Version of its vectors (encoder_version)", spec.get("encoder_version")),
        ("Precisions of the encoder that passed", ", ".join(spec.get("variants") or [])),
        ("Adapter: the setting of train.settings", selected.get("setting")),
        ("Digest of the adapter (sha256)", selected.get("adapter_sha256")), ("Its run in MLflow", selected.get("run_id")),
        ("Collection of the index", receipt.get("collection")), ("Clips in it", receipt.get("num_points")),
        ("Clips with tags by prompts", ", ".join(
            f"{each['tag']} {each['num_clips']:,}" for each in receipt.get("auto_tags") or ()
        )),
        ("Of the 10 nearest clips, found by the fast search", None if recall is None else percent(recall)),
    ]
    return [
        (name, f"{value:,}" if isinstance(value, int) else str(value)) for name, value in parts if value not in (None, "")
    ]


def _challenges(selected: Mapping[str, Any]) -> Sequence[str]:
    """Describe the proof of the adapter: the challenges, their rows, and how often these were used."""
    if "proof" not in selected:
        return ()
    from vidseek_training.evaluation.proof_ledger import lines_of

    return lines_of(selected)


def _gain(gain: Mapping[str, Any]) -> str:
    proven = {"better": "the taught model is better by", "worse": "the taught model is worse by"}
    return f"{proven.get(verdict(gain), 'no difference is proven; it differs by')} {points_interval(gain)}"


def _groups(entry: Mapping[str, Any]) -> str:
    return f"; from {counted(entry['num_groups'], 'group')} of videos that differ" if "num_groups" in entry else ""
