"""What is kept with a run that has ended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from vidseek_media.errors import ServiceError
from vidseek_training import tracking


@pytest.fixture
def run_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Of a run that has ended, in a store of its own."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    with tracking.run("train-lora", {}, {}) as run:
        pass
    yield run.id
    mlflow.set_tracking_uri(None)


def kept(run_id: str, folder: str) -> set[str]:
    return {each.path for each in mlflow.MlflowClient().list_artifacts(run_id, folder)}


def test_attach__keeps_files_with_the_run_and_replaces_them(run_id: str, tmp_path: Path) -> None:
    page, picture = tmp_path / "report.html", tmp_path / "map.png"
    for text in ("first", "second"):
        page.write_text(text)
        picture.write_bytes(b"\x89PNG")
        assert tracking.attach(run_id, [(page, "archive"), (picture, "archive/evaluate")])
    assert kept(run_id, "archive") == {"archive/report.html", "archive/evaluate"}
    assert kept(run_id, "archive/evaluate") == {"archive/evaluate/map.png"}
    client = mlflow.MlflowClient()
    assert Path(client.download_artifacts(run_id, "archive/report.html")).read_text() == "second"
    assert client.get_run(run_id).info.status == "FINISHED"


def test_attach__to_a_run_of_another_store_keeps_nothing(run_id: str, tmp_path: Path) -> None:
    assert not tracking.attach("0" * 32, [(tmp_path / "no such file", "archive")])


def test_attach__what_is_not_taken_is_our_error(run_id: str, tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="does not take what is logged"):
        tracking.attach(run_id, [(tmp_path / "no such file", "archive")])
