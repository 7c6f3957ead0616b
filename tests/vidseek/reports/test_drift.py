"""`vidseek drift` on a small archive: what it measures, refuses to say, writes and stops at."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.forking import run_command
from tests.raising import raises
from tests.serving.asked_colours import OTHER, queries
from tests.serving.colours import write_colour_archive
from vidseek.archive import Archive, load_encoder, open_searcher
from vidseek.params import load_section
from vidseek.reports.drift import accept, measure_drift, write_drift
from vidseek_media.errors import ArtifactError, ConfigError
from vidseek_quality.thresholds import DriftThresholds
from vidseek_retrieval.confidence.query_stats import QuerySample, write_sample
from vidseek_retrieval.settings import SearchSettings


def see(archive: Archive, texts: list[str]) -> None:
    """Leave these queries as a service leaves them."""
    searcher = open_searcher(archive, SearchSettings(), load_encoder(archive, SearchSettings(), text_only=True))
    sample = QuerySample.of([stats for text in texts if (stats := searcher.search_text(text, limit=1).query_stats)])
    assert sample is not None
    write_sample(archive.queries / "seen-here-1.json", sample)


def run(archive: Archive, *options: str) -> subprocess.CompletedProcess[str]:
    return run_command(("drift", *options), folder=archive.root, env=os.environ)


def test_drift__no_query_yet_says_so_and_gives_no_number(asked_archive: Archive) -> None:
    found = measure_drift(asked_archive)
    assert found.queries is not None and found.queries.too_few.startswith("too few queries: 0 seen")
    assert found.clips.reason.startswith("too few clips") and found.over(0.0) == []
    content = json.loads(write_drift(found, asked_archive.root).read_text())
    assert content["queries"]["psi"] == {} and content["queries"]["reference"] == "held-out captions"


@pytest.mark.slow
def test_drift__own_queries_pass_others_do_not_until_accepted(asked_archive: Archive) -> None:
    see(asked_archive, queries(300, seed=5))
    own = measure_drift(asked_archive)
    assert own.queries is not None and own.over(0.25) == [] and set(own.queries.psi) == {"score", "confidence", "query"}
    see(asked_archive, queries(300, seed=6, words=OTHER))
    done = run(asked_archive)
    assert done.returncode == 14 and "gates.drift.max_psi, 0.25" in done.stderr
    assert "As a whole they differ" in done.stdout
    assert json.loads((asked_archive.root / "reports" / "drift.json").read_text())["queries"]["levels"]["query"] == "act"
    assert accept(asked_archive) == 300
    now = measure_drift(asked_archive)
    assert now.is_accepted and now.over(0.25) == [] and now.to_json()["queries"]["reference"] == "accepted queries"


def test_drift__the_gate_is_as_wide_as_params_say(asked_archive: Archive) -> None:
    see(asked_archive, queries(300, seed=6, words=OTHER))
    asked_archive.params.write_text("gates: {drift: {max_psi: 100}}\n")
    assert run(asked_archive, "--json").returncode == 0
    asked_archive.params.write_text("gates: {drift: {max_psi: 0}}\n")
    done = run(asked_archive)
    assert done.returncode == 11 and "gates.drift.max_psi" in done.stderr


def test_accept__of_too_few_changes_nothing(asked_archive: Archive) -> None:
    see(asked_archive, queries(20, seed=5))
    with raises(ArtifactError, code="too-few-queries", naming="20 seen"):
        accept(asked_archive)
    assert not (asked_archive.queries / "accepted.json").exists()


def test_drift__of_an_archive_that_was_not_calibrated(tmp_path: Path) -> None:
    archive = write_colour_archive(tmp_path)
    found = measure_drift(archive)
    assert found.queries is None and "no held-out queries" in found.to_json()["queries"]["too_few"]
    with raises(ArtifactError, code="not-calibrated"):
        accept(archive)


def test_drift__broken_files_and_nothing_published(asked_archive: Archive, tmp_path: Path) -> None:
    bad = {"encoder_version": "0123456789abcdef", "axes": "", "width": 2, "rows": "AADAfwAAgD8="}  # NaN and 1
    asked_archive.queries.mkdir(parents=True)
    (asked_archive.queries / "seen-here-1.json").write_text(json.dumps(bad))
    done = run(asked_archive)
    assert done.returncode == 12 and "seen-here-1.json" in done.stderr and "Traceback" not in done.stderr
    with raises(ArtifactError, code="not-published"):
        measure_drift(Archive(tmp_path / "nowhere"))


@pytest.mark.parametrize(("text", "code"), [
    ("gates: {drift: {max_psi: much}}", "setting-out-of-range"), ("gates: {drift: {psi: 1}}", "unknown-setting"),
    ("gates: {drift: 3}", "setting-out-of-range"),
])
def test_gate__refuses_what_it_cannot_mean(text: str, code: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with raises(ConfigError, code=code, naming="gates.drift"):
        load_section(tmp_path / "params.yaml", DriftThresholds)
    assert load_section(tmp_path / "none.yaml", DriftThresholds) == DriftThresholds()
    assert np.isclose(DriftThresholds().max_psi, 0.25)
