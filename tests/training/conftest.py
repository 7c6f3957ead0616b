from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests.sharing import made_once
from tests.training.forked_trainings import Trainings
from tests.training.one_registry import sharing_registry
from tests.training.tiny import Archive, all_colours, write_archive, write_viclip

# What asks open_clip itself runs where it is installed: `make open-clip-check`.
collect_ignore = [] if importlib.util.find_spec("open_clip") else ["test_open_clip_itself.py"]
# Threads wait for each other longer than so small a model runs.
torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def shared_registry() -> Iterator[None]:
    """Exports share torch's table of operators."""
    with sharing_registry():
        yield


@pytest.fixture(scope="session")
def tracking_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an MLflow store of its own; making its tables takes seconds, so all tests share it."""
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture
def tracked(tracking_store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Runs go into the shared store; no test leaves one open."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tracking_store / 'mlflow.db'}")
    monkeypatch.chdir(tracking_store)  # artifacts are kept beside, in .vidseek
    yield tracking_store
    import mlflow

    assert mlflow.active_run() is None


@pytest.fixture(scope="session")
def trainings() -> Iterator[Trainings]:
    """What starts trainings in processes of their own."""
    with Trainings() as started:
        yield started


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny ViCLIP with random weights."""
    return made_once(tmp_path_factory, "backbone", write_viclip)


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """16 combinations in each of two training videos, one of validation, one of test, the last with contrasts."""
    rows = [
        *all_colours(1, "train", contrasts=True), *all_colours(2, "train", contrasts=True),
        *all_colours(3, "validation", contrasts=True), *all_colours(4, "test", contrasts=True),
    ]
    return write_archive(tmp_path_factory.mktemp("archive"), rows)


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than a tiny training."""
    from vidseek_training.fitting import pictures

    for name in ("draw_curves", "draw_similarity", "draw_retrieval", "draw_map"):
        monkeypatch.setattr(pictures, name, lambda *_, **__: None)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, archive: Archive, backbone: Path) -> Path:
    """A folder with a champion (an adapter that was shaken) and the bundle that was exported of it."""
    return made_once(tmp_path_factory, "exported", lambda root: _export(root, backbone, archive, seed=7))


@pytest.fixture(scope="session")
def export_once(tmp_path_factory: pytest.TempPathFactory, archive: Archive) -> Callable[[str, Callable[[Path], Path]], Path]:
    """Exports a backbone once for all tests that name it so; gives a folder as `exported`, with the backbone in it."""

    def export(name: str, write_backbone: Callable[[Path], Path]) -> Path:
        def make(root: Path) -> None:
            _export(root, write_backbone(root / "backbone"), archive, seed=3)

        return made_once(tmp_path_factory, f"exported {name}", make)

    return export


def _export(root: Path, backbone: Path, archive: Archive, *, seed: int) -> None:
    from tests.training.champions import write_champion
    from vidseek_training.export.onnx_export import export_champion
    from vidseek_training.settings import ParitySettings

    write_champion(root / "champion", backbone, seed=seed)
    export_champion(
        root / "champion", backbone=str(backbone), pairs=archive.pairs, frames=archive.frames, out=root / "encoder",
        limits={"fp32": ParitySettings().fp32}, max_clips=16,
    )
