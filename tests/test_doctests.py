"""The examples in docstrings of the functions that people call first: they run, each module's in a folder of its own."""

from __future__ import annotations

import doctest
import importlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.retrieval.archive import clip_row, video_row, write_archive
from tests.tiny_bundle import COLOURS, colour_vector, write_tiny_bundle
from vidseek_retrieval.index.publish import publish

ROOT = Path(__file__).parents[1]
MODULES = {
    "vidseek.client": 1,
    "vidseek.params": 2,
    "vidseek.printing": 1,
    "vidseek_encoder.encoder": 3,
    "vidseek_media.cutting.cut": 1,
    "vidseek_media.cutting.shots": 1,
    "vidseek_media.decoding.frames": 2,
    "vidseek_media.decoding.probe": 1,
    "vidseek_media.files.folders": 2,
    "vidseek_media.files.json_files": 1,
    "vidseek_media.ids": 3,
    "vidseek_media.sources.opening": 1,
    "vidseek_media.tables": 2,
    "vidseek_media.urls": 1,
    "vidseek_quality.intervals": 2,
    "vidseek_retrieval.index.aliases": 1,
    "vidseek_retrieval.search.filters": 1,
    "vidseek_retrieval.search.fusion": 1,
    "vidseek_retrieval.search.moments": 1,
    "vidseek_retrieval.search.searcher": 1,
    "vidseek_training.backbones.loading": 1,
    "vidseek_training.evaluation.metrics": 3,
    "vidseek_training.fitting.lora": 2,
    "vidseek_training.fitting.losses": 1,
}
"""Modules, and how many of their docstrings have examples at least."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project's folder: params.yaml, a bundle that knows colours, and two videos published as windows."""
    root = tmp_path_factory.mktemp("project")
    shutil.copy(ROOT / "params.yaml", root)
    write_tiny_bundle(root / "models/encoder")
    names = ("red", "blue")
    videos = [video_row(f"{number:032x}", f"{name}.mp4") for number, name in enumerate(names)]
    clips = [clip_row(f"{number:032x}", 0, 0, 3000, cut=("shots", "windows")) for number in range(2)]
    clips += [clip_row(f"{number:032x}", 1, 3000, 6000) for number in range(2)]
    colours = [COLOURS["red"], COLOURS["blue"], COLOURS["green"], COLOURS["green"]]
    tables = write_archive(root / "data", videos, clips, np.stack([colour_vector(colour) for colour in colours]))
    publish(**tables, index=root / "index")
    return root


@pytest.mark.parametrize("name", MODULES)
def test_examples__give_what_they_say(
    name: str, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(shutil.copytree(project, tmp_path / "project"))
    found = [each for each in doctest.DocTestFinder().find(importlib.import_module(name)) if each.examples]
    runner = doctest.DocTestRunner()
    for each in found:
        runner.run(each)
    assert runner.summarize(verbose=False).failed == 0, capsys.readouterr().out
    assert len(found) >= MODULES[name]
