"""What a wheel carries beside the packages, and how its stages are found."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import setuptools  # noqa: F401  it takes the place of distutils, and refuses to where a test before it imported that

from tests.raising import raises
from vidseek import installation
from vidseek.installation import PIPELINE, SERVICE, STAGES, code_root
from vidseek_media import installing
from vidseek_media.errors import ConfigError
from vidseek_media.installing import install_command

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`vidseek/shipped` of a wheel."""
    spec = importlib.util.spec_from_file_location("setup_of_vidseek", ROOT / "setup.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = tmp_path_factory.mktemp("wheel") / "shipped"
    module.copy_shipped(folder)
    return folder


def test_shipped__has_every_file_of_the_stages_the_service_and_the_pipeline(shipped: Path) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "pipelines", "serving", ".dvc/plots", PIPELINE, "constraints.txt"], cwd=ROOT, text=True,
        capture_output=True, check=True,
    ).stdout.split()
    assert tracked and all((shipped / name.removeprefix(".")).is_file() for name in tracked)
    assert not list(shipped.rglob("__pycache__"))


def test_code_root__is_the_wheel_or_the_repository(shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert code_root(STAGES) == code_root(SERVICE) == ROOT
    monkeypatch.setattr(installation, "SHIPPED", shipped)
    assert code_root(STAGES) == code_root(SERVICE) == code_root(PIPELINE) == shipped
    monkeypatch.setattr(installation, "SHIPPED", tmp_path)
    monkeypatch.setattr(installation, "PACKAGES", tmp_path / "packages")
    monkeypatch.chdir(tmp_path)
    with raises(ConfigError, code="installation-incomplete", naming=SERVICE):
        code_root(SERVICE)


def test_stage__runs_a_stage_where_no_pipelines_are_importable(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "vidseek.stage", "settings"], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={"PYTHONPATH": str(ROOT / "packages"), "PATH": ""},
    )
    assert run.returncode == ConfigError.exit_code and run.stderr.startswith("settings: ")
    assert "params.yaml" in run.stderr


@pytest.mark.parametrize("name", ["nothing", "../ingest", ""])
def test_stage__an_unknown_one_is_told_in_a_line(tmp_path: Path, name: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "vidseek.stage", name], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={"PYTHONPATH": str(ROOT / "packages"), "PATH": ""},
    )
    assert run.returncode == 1 and len(run.stderr.splitlines()) == 1


def test_install_command__is_true_of_a_wheel_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert install_command("ocr") == "pip install -c constraints.txt -e '.[ocr]'"
    monkeypatch.setattr(installing, "_REPOSITORY", tmp_path)
    assert (install_command("ocr"), install_command("base")) == ("pip install 'vidseek[ocr]'", "pip install vidseek")
