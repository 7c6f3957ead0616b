from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from vidseek.archive import Archive
from vidseek.reports import doctor
from vidseek.reports.doctor import Diagnosis, Finding, constraints, declared_packages, examine
from vidseek_media.sources.youtube.javascript import javascript

REAL_QUESTIONS = dict(doctor.QUESTIONS)

PYPROJECT = """
[project]
dependencies = ["numpy", "PyYAML>=6", "no-such-package-at-all"]
[project.optional-dependencies]
index = []
serve = ["also_not.there"]
"""


@pytest.fixture(autouse=True)
def no_runtimes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking the libraries takes seconds; `test_ask__…` does it."""
    monkeypatch.setattr(doctor, "QUESTIONS", {"decord": "say('1.0', [])"})


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    return Archive(tmp_path)


def by_name(diagnosis: Diagnosis) -> dict[str, Finding]:
    return {finding.name: finding for finding in diagnosis.findings}


def test_constraints__reads_pins_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "constraints.txt"
    path.write_text("# tried together\nGreat_Expectations==1.24.1\ntorch == 2.13.0  # cpu\nnumpy>=2\n")
    assert constraints(path) == {"great-expectations": "1.24.1", "torch": "2.13.0"}


def test_declared_packages__are_those_of_pyproject(archive: Archive) -> None:
    assert declared_packages(archive.root) == {
        "base": ["numpy", "pyyaml", "no-such-package-at-all"], "index": [], "serve": ["also-not-there"],
    }


def test_examine__missing_base_package_is_an_error_and_names_the_command(archive: Archive) -> None:
    diagnosis = examine(archive)
    found = by_name(diagnosis)
    assert not diagnosis.is_well
    assert found["no-such-package-at-all"].state == "error"
    assert "pip install -c constraints.txt -e ." in found["no-such-package-at-all"].remedy
    assert found["also-not-there"].state == "missing"
    assert "'.[serve]'" in found["also-not-there"].remedy
    assert found["numpy"].state == "ok"


def test_examine__other_version_than_the_constraints_is_a_note(archive: Archive) -> None:
    (archive.root / "constraints.txt").write_text("numpy==0.0.1\n")
    assert by_name(examine(archive))["numpy"].state == "note"


@pytest.mark.parametrize(("installed", "state"), [
    ({"onnxruntime": "1.31.1", "onnxruntime-gpu": "1.31.1"}, "error"),
    ({"onnxruntime-gpu": "1.31.1"}, "ok"),
    ({"onnxruntime": "1.31.1"}, "ok"),
    ({}, "error"),
])
def test_examine__exactly_one_flavour_of_onnxruntime(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, installed: dict[str, str], state: str
) -> None:
    monkeypatch.setattr(doctor, "_version", installed.get)
    (finding,) = (one for one in examine(archive).findings if one.group == "cpu or gpu")
    assert finding.state == state
    assert bool(finding.remedy) == (state == "error")


def test_examine__says_whether_the_pipeline_has_run(archive: Archive) -> None:
    diagnosis = examine(archive)
    before = by_name(diagnosis)
    assert (before["encoder bundle"].state, before["index"].state) == ("missing", "missing")
    assert not diagnosis.is_searchable
    collection = archive.index / "clips-abc-1"
    for path, content in (
        (archive.bundle / "encoder.json", {"encoder_version": "abc"}),
        (archive.index / "aliases.json", {"clips": {"collection": "clips-abc-1", "previous": []}}),
        (collection / "collection.json", {"encoder_version": "abc"}),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    after = by_name(examine(archive))
    assert after["index"].found == "clips → clips-abc-1"
    assert after["versions agree"].state == "ok"
    (collection / "collection.json").write_text('{"encoder_version": "def"}')
    assert by_name(examine(archive))["versions agree"].state == "error"


def test_examine__a_backbone_of_the_hub_is_fetched_and_pinned(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    commit = "0123456789abcdef0123456789abcdef01234567"
    archive.params.write_text("backbone: {name: someone/clip}\n")
    found = by_name(examine(archive))["backbone"]
    assert (found.state, found.remedy) == ("missing", "vidseek backbone fetch someone/clip")
    (tmp_path / "cache" / "models--someone--clip" / "snapshots" / commit).mkdir(parents=True)
    (tmp_path / "cache" / "models--someone--clip" / "refs").mkdir()
    (tmp_path / "cache" / "models--someone--clip" / "refs" / "main").write_text(commit)
    found = by_name(examine(archive))["backbone"]
    assert found.state == "note" and f"someone/clip@{commit}" in found.remedy
    archive.params.write_text(f"backbone: {{name: someone/clip@{commit}}}\n")
    assert by_name(examine(archive))["backbone"].state == "ok"
    archive.params.write_text("backbone: {name: vidseek/viclip-tiny}\n")
    assert "backbone" not in by_name(examine(archive))


def test_examine__wrong_params_are_an_error(archive: Archive) -> None:
    archive.params.write_text("search: {nonsense: 1}")
    assert by_name(examine(archive))["params.yaml"].state == "error"


def test_examine__an_index_on_a_server_is_not_said_to_be_missing(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QDRANT_URL", "http://someone:secret@index:6333")
    found = by_name(examine(archive))["index"]
    assert found.state == "ok" and "index:6333" in found.found and "secret" not in found.found


def test_is_searchable__wants_bundle_and_index_and_no_error() -> None:
    bundle, index = (Finding("pipeline", name, "ok", "") for name in ("encoder bundle", "index"))
    broken = Finding("python", "av", "error", "")
    assert Diagnosis((bundle, index)).is_searchable
    for other in ((bundle,), (bundle, replace(index, state="missing")), (bundle, index, broken)):
        assert not Diagnosis(other).is_searchable


def test_summary__right_packages_are_one_line_and_wrong_ones_their_own() -> None:
    good = [Finding("base", name, "ok", "1", is_package=True) for name in ("a", "b")]
    bad = Finding("base", "c", "error", "not installed", "pip", is_package=True)
    assert Diagnosis((*good, bad)).summary() == [Finding("base", "packages", "ok", "a 1, b 1"), bad]


def test_ask__broken_library_is_an_answer() -> None:
    assert doctor._ask("say('1.2', ['x'])") == ("1.2", ["x"])
    version, (reason,) = doctor._ask("import no_such_library")
    assert version is None and "no_such_library" in reason
    assert doctor._ask("import os; os._exit(3)") == (None, ["exit code 3"])


@pytest.mark.parametrize(("answer", "state"), [
    ("['deno 2.9.8; yt-dlp-ejs 0.8.0', '']", "ok"), ("['no JavaScript runtime', 'Run this']", "note"),
])
def test_examine__says_whether_yt_dlp_has_its_javascript(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, answer: str, state: str
) -> None:
    monkeypatch.setattr(doctor, "QUESTIONS", {"yt-dlp": f"say('2026.10.26', {answer})"})
    found = by_name(examine(archive))["JavaScript for YouTube"]
    assert (found.state, found.remedy) == (state, "Run this" if state == "note" else "")


def test_questions__the_one_about_javascript_is_answered_by_yt_dlp_itself() -> None:
    pytest.importorskip("yt_dlp")
    version, (said, remedy) = doctor._ask(REAL_QUESTIONS["yt-dlp"])
    assert version and said and (remedy == "") == javascript().is_whole


def test_doctor__loads_where_libraries_of_the_rooms_are_missing() -> None:
    blocked = ("av", "numpy", "pandas", "pyarrow")
    code = f"import sys\nfor one in {blocked!r}: sys.modules[one] = None\nimport vidseek.reports.doctor"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
