"""The report over a small archive: what it says, what it leaves out, and that it loads nothing."""

from __future__ import annotations

import html
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.raising import raises
from tests.serving.colours import write_colour_archive
from vidseek.archive import Archive
from vidseek.reports.overview import STAGES
from vidseek.reports.report import script_of, write_report
from vidseek_media.errors import ArtifactError
from vidseek_media.tables import CAPTIONS, PAIRS, REJECTED, write_table
from vidseek_media.text.segments import Segment, write_segments
from vidseek_training.evaluation.champion import ProofRows, Selected
from vidseek_training.evaluation.proof import Challenge

INTERVAL = {"value": 0.8, "low": 0.7, "high": 0.9}


def caption(text: str) -> dict[str, object]:
    return {**dict.fromkeys(CAPTIONS.names), "video_id": "0" * 32, "text": text, "writer": "file"}


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    archive = write_colour_archive(tmp_path)
    data = tmp_path / "data"
    write_table(data / "caption" / "captions.parquet", [caption("a red <b>crane</b>"), caption("빨간 크레인")], CAPTIONS)
    write_table(data / "pairs" / "pairs.parquet", [], PAIRS)
    return archive


def test_report__counts_what_was_read_and_heard(archive: Archive) -> None:
    assert "read and heard" not in written(archive)
    said = [Segment(0, 60_000, "a", "en", "file"), Segment(0, 30_000, "b", "de", "file")]
    write_segments(archive.subtitles, {"0" * 32: said})
    write_segments(archive.ocr, {})
    assert "<td>subtitles: file<td>2<td>1<td>1.5 minutes" in written(archive)


def written(archive: Archive) -> str:
    path = archive.root / "reports" / "report.html"
    write_report(archive, path)
    return path.read_text(encoding="utf-8")


def evaluated(archive: Archive, **gain: Any) -> None:
    path = archive.root / "reports" / "evaluate" / "metrics.json"
    path.parent.mkdir(parents=True)
    model = {f"r{k}_interval": INTERVAL for k in (1, 5, 10)}
    entry = {"num_queries": 40, "base": model, "adapted": model, "gain": {"r1": gain}}
    path.write_text(json.dumps({"galleries": {"default": entry}, "retention": "not measured"}))
    archive.selected.parent.mkdir(exist_ok=True)
    archive.selected.write_text(json.dumps({"setting": "lora"}))


def test_report__of_an_archive_where_nothing_was_proven(archive: Archive) -> None:
    page = written(archive)
    for said in ("<b>4</b>videos", " minutes</b>of video", "<b>12</b>clips", "Nothing was rejected",
                 "nothing was measured", "have no confidence", "Nobody has decided", "Nobody has looked",
                 "<td>Hangul<td>1", "<td>Latin<td>1", "0123456789abcdef"):
        assert said in page


@pytest.mark.parametrize(("num", "says"), [(900, "All 900 published clips"), (2000, "900 of the 2,000 published")])
def test_report__says_among_how_many_clips_moments_were_found(archive: Archive, num: int, says: str) -> None:
    path = archive.root / "reports" / "calibrate" / "metrics.json"
    path.parent.mkdir(parents=True)
    entry: dict[str, Any] = {f"r{k}_interval": INTERVAL for k in (1, 5, 10)}
    if num > 900:
        entry["expected_of_all"] = {"r1": 0.25, "r5": 0.5, "r10": 0.75}
    path.write_text(json.dumps({"moments": {"near": entry}, "num_clips": 900, "num_clips_published": num}))
    page = written(archive)
    assert says in page and "<td>near<td>80 % (70 to 90)" in page
    assert ("25 % first, 50 % of 5, 75 % of 10" in page) == (num > 900)


def test_report__loads_nothing_and_equal_data_give_an_equal_page(archive: Archive) -> None:
    page = written(archive)
    assert not re.search(r'(src|href)="(?!data:)', page) and "<script" not in page and "@import" not in page
    assert written(archive) == page


@pytest.mark.parametrize(("low", "high", "says"), [
    (0.1, 0.3, "the taught model is better by +20.0 points"), (-0.3, -0.1, "the taught model is worse by -20.0 points"),
    (-0.1, 0.3, "no difference is proven"),
])
def test_report__says_what_the_interval_proves(archive: Archive, low: float, high: float, says: str) -> None:
    evaluated(archive, value=(low + high) / 2, low=low, high=high)
    page = written(archive)
    assert says in page and "80 % (70 to 90)" in page and "not measured" in page


def test_report__of_too_few_videos_says_so(archive: Archive) -> None:
    note = "not proven: too few videos (6 groups of videos, at least 20 are wanted)"
    evaluated(archive, value=0.4, low=None, high=None, num_groups=6, note=note)
    assert f"no difference is proven; it differs by +40.0 points ({note})" in written(archive)


def test_report__says_what_was_proven_and_how_worn_the_rows_are(archive: Archive) -> None:
    rows = ProofRows("r", 100, 21, 20, 2.0, 0.0021)
    won = Challenge("lora", "base", 0.8, 0.75, 0.7, 0.8, 1e-5, 0.0021, True, "proven better")
    left = Challenge("other", "base", -0.1, None, None, None, None, None, False, "not put to the proof")
    selected = Selected("lora", "b", "a", "", "g", 99, 0.9, (won, left), ("one note",), rows)
    (archive.root / "models" / "selected.json").write_text(json.dumps(asdict(selected)))
    page = written(archive)
    for said in ("lora against base: proven better, +0.750 [+0.700, +0.800]", "other against base: not put to the proof",
                 "100 queries of 21 groups of videos and had been used 2 times before", "tested at 0.0021 of 0.025",
                 "one note"):
        assert said in page


def test_report__lists_what_every_stage_refused(archive: Archive) -> None:
    stages = [stage for stage in STAGES if stage != "fields"]  # it wants fields.json beside it
    for stage in stages:
        row: dict[str, object] = {"id": "x", "stage": stage, "reason": f"refused by {stage}"}
        write_table(archive.root / "data" / stage / "rejected.parquet", [row], REJECTED)
    page = written(archive)
    assert {"subtitles", "ocr", "speech"} <= set(stages)
    assert all(f"refused by {stage}" in page for stage in stages)
    assert f"{len(stages)} inputs could not be used" in page


def test_report__names_of_files_and_reasons_are_text(archive: Archive) -> None:
    rows: list[dict[str, object]] = [{"id": "x", "stage": "ingest", "reason": "<script>alert(1)</script>"}]
    write_table(archive.root / "data" / "ingest" / "rejected.parquet", rows, REJECTED)
    page = written(archive)
    assert "<script" not in page and "&lt;script&gt;" in page


def test_report__broken_figures_stop_it_and_leave_the_page_before(archive: Archive) -> None:
    before = written(archive)
    (archive.root / "models" / "selected.json").write_text("{")
    with raises(ArtifactError, code="json-unreadable", naming="selected.json"):
        written(archive)
    assert (archive.root / "reports" / "report.html").read_text(encoding="utf-8") == before


@pytest.mark.parametrize(("text", "script"), [
    ("Ein Kran", "Latin"), ("컨테이너 크레인 3", "Hangul"), ("42", "none"), ("кран", "Cyrillic"),
])
def test_script_of__is_that_of_most_letters(text: str, script: str) -> None:
    assert script_of(text) == script


def test_report__shows_what_drift_found(archive: Archive) -> None:
    found = {
        "collection": "clips-0-0", "clips": {"psi": None, "num_observed": 3, "reason": "too few clips: 3", "level": None},
        "queries": {"too_few": "", "psi": {"score": 0.3124}, "levels": {"score": "act"}, "num_observed": 700},
    }
    path = archive.root / "reports" / "drift.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found))
    page = written(archive)
    for said in ("700 queries and 3 clips of now", "<td>queries, score<td>0.312<td>act", "<p>too few clips: 3.</p>"):
        assert said in page


def test_report__says_in_its_first_lines_that_forgetting_was_not_measured(archive: Archive) -> None:
    evaluated(archive, value=0.2, low=0.1, high=0.3)
    page = written(archive)
    assert page.index("Forgetting was not measured") < page.index("Pairs by split")
    metrics = archive.root / "reports" / "evaluate" / "metrics.json"
    kept = {"num_queries": 9, "base": {"r1": 0.5}, "adapted": {"r1": 0.4}, "change": {"r1": INTERVAL}}
    metrics.write_text(json.dumps({**json.loads(metrics.read_text()), "retention": kept}))
    assert "Forgetting was not measured" not in written(archive)


def test_report__says_in_its_first_lines_what_the_training_of_the_champion_warned_of(archive: Archive) -> None:
    evaluated(archive, value=0.2, low=0.1, high=0.3)
    (archive.root / "models").mkdir(exist_ok=True)
    (archive.root / "models" / "selected.json").write_text(json.dumps({"setting": "lora"}))
    trained = archive.root / "reports" / "train" / "lora" / "metrics.json"
    trained.parent.mkdir(parents=True)
    trained.write_text(json.dumps({"warnings": ["the update of <layer> is 0.31 of its weight"]}))
    page = written(archive)
    assert page.index("the update of &lt;layer&gt; is 0.31") < page.index("Pairs by split")


def test_report__shows_nothing_of_a_later_training_that_did_not_win(archive: Archive) -> None:
    evaluated(archive, value=0.2, low=0.1, high=0.3)
    (archive.root / "models").mkdir(exist_ok=True)
    selected = {"setting": "lora", "adapter_sha256": "a" * 64, "run_id": "run7"}
    (archive.root / "models" / "selected.json").write_text(json.dumps(selected))
    folder = archive.root / "reports" / "train" / "lora"
    (folder / "pictures").mkdir(parents=True)
    (folder / "pictures" / "curves.png").write_bytes(b"PNG")
    for of, is_own in (("a" * 64, True), ("b" * 64, False)):
        (folder / "metrics.json").write_text(json.dumps({"warnings": ["too strong"], "adapter_sha256": of}))
        page = written(archive)
        assert ("too strong" in page, "The training: the loss should fall" in page) == (is_own, is_own)
        assert ("in MLflow's run run7" in html.unescape(page)) == (not is_own)


def test_report__says_what_the_figures_are_without_queries_of_both_sides(archive: Archive) -> None:
    evaluated(archive, value=0.2, low=0.1, high=0.3)
    assert "both sides" not in written(archive)
    metrics = archive.root / "reports" / "evaluate" / "metrics.json"
    both = {
        "num_captions_in_training": 7, "num_clips_in_training": 0, "num_captions_in_general": 0, "num_clips_in_general": 2,
        "without": {"<far>": {"num_queries": 0}, "near": {"num_queries": 5, "base": {"r1": 0.1}, "adapted": {"r1": 0.6}}},
    }
    metrics.write_text(json.dumps({**json.loads(metrics.read_text()), "both_sides": both}))
    page = written(archive)
    assert "7 with a caption of training, 2 with a clip of the general world. The right clip is first" in page
    assert "&lt;far&gt; has no other caption; near 10 % before, 60 % after (5 captions)" in page
