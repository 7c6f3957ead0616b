"""The pipeline of an archive folder says what the repository's says, without source files and stated keys."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.raising import raises
from vidseek.configuration.archive_pipeline import STAGE, archive_pipeline, digest_of, write_settled
from vidseek.installation import PIPELINE, code_root
from vidseek.params import load_params
from vidseek_media.errors import ConfigError

PARAMS = """
ingest: {source: /videos}
backbone: {name: vidseek/viclip-tiny}
train: {settings: {lora: {seed: 0}}}
"""


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    (tmp_path / "params.yaml").write_text(PARAMS)
    (tmp_path / "dvc.yaml").write_text(archive_pipeline(), encoding="utf-8")
    return tmp_path


def stages_of(text: str) -> dict[str, dict[str, list[object]]]:
    return {name: stage.get("do", stage) for name, stage in yaml.safe_load(text)["stages"].items()}


def content(archive: Path) -> dict[str, str]:
    folder = archive / "data" / STAGE
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_archive_pipeline__has_each_stage_with_its_outputs_and_dependencies() -> None:
    ours = stages_of((code_root(PIPELINE) / PIPELINE).read_text(encoding="utf-8"))
    theirs = stages_of(archive_pipeline())
    assert list(theirs) == [STAGE, *ours]
    for name, stage in ours.items():
        there = theirs[name]
        assert all(there.get(key) == stage.get(key) for key in ("outs", "metrics", "plots", "always_changed"))
        assert len(there["deps"]) == len({*stage.get("params", ()), *stage.get("deps", ())})
        assert not [dep for dep in there["deps"] if str(dep).startswith(("packages", "pipelines"))]
        assert "params" not in there and f"vidseek.stage {name}" in str(there["cmd"])


def test_write_settled__writes_what_the_stages_depend_on_with_defaults(archive: Path) -> None:
    num = write_settled(archive)
    found = content(archive)
    assert len(found) == num
    deps = {str(dep) for stage in stages_of((archive / "dvc.yaml").read_text(encoding="utf-8")).values()
            for dep in stage.get("deps", ()) if str(dep).startswith(f"data/{STAGE}/")}
    assert {f"data/{STAGE}/{name}" for name in found} == {dep.replace("${key}", "lora") for dep in deps}
    assert json.loads(found["params/cut.json"])["window_length_seconds"] == 30
    assert all(text.strip() not in ("null", "") for name, text in found.items() if name.startswith("code/"))


def test_write_settled__a_setting_changes_its_own_files_alone(archive: Path) -> None:
    write_settled(archive)
    before = content(archive)
    write_settled(archive)
    assert content(archive) == before
    (archive / "params.yaml").write_text(PARAMS + "cut: {modes: [windows], window_length_seconds: 7.0}\n")
    write_settled(archive)
    after = content(archive)
    assert {name for name in after if after[name] != before.get(name)} == {"params/cut.json"}


def test_write_settled__follows_adapter_settings(archive: Path) -> None:
    write_settled(archive)
    (archive / "params.yaml").write_text(PARAMS.replace("lora:", "wide:"))
    write_settled(archive)
    assert "params/train.settings.wide.json" in content(archive)
    assert "params/train.settings.lora.json" not in content(archive)


def test_load_params__needs_no_key_in_an_archive_folder(archive: Path) -> None:
    with raises(ConfigError, code="setting-missing"):
        load_params(archive / "params.yaml")  # as in the repository
    write_settled(archive)
    assert load_params(archive / "params.yaml").ingest.source == "/videos"


def test_write_settled__a_pipeline_that_is_none_is_told(archive: Path) -> None:
    (archive / "dvc.yaml").write_text("stages: 3\n")
    with raises(ConfigError, code="dvc-failed", naming="dvc.yaml"):
        write_settled(archive)


def test_digest_of__is_that_of_the_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidseek.configuration.archive_pipeline.PACKAGES", tmp_path)
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "a.py").write_text("1")
    whole, module = digest_of("room"), digest_of("room.a")
    assert digest_of("room.b") not in (whole, module)
    (tmp_path / "room" / "__pycache__").mkdir()
    (tmp_path / "room" / "__pycache__" / "a.pyc").write_text("compiled")
    assert digest_of("room") == whole
    (tmp_path / "room" / "a.py").write_text("2")
    assert digest_of("room") != whole and digest_of("room.a") != module
