"""What is kept with a run that has ended."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from tests.raising import raises
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


@pytest.mark.slow
def test_run__keeps_its_files_beside_its_database(run_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("a")
    assert tracking.attach(run_id, [(tmp_path / "a.txt", "archive")])
    assert (tmp_path / ".vidseek" / "mlartifacts" / run_id / "artifacts" / "archive" / "a.txt").is_file()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/elsewhere/runs.db")
    with tracking.run("train-lora", {}, {}) as other:
        pass
    assert tracking.attach(other.id, [(tmp_path / "a.txt", "archive")])
    assert [path.name for path in (tmp_path / "elsewhere" / "mlartifacts").iterdir()] == [other.id]


def test_attach__to_a_run_of_another_store_keeps_nothing(run_id: str, tmp_path: Path) -> None:
    assert not tracking.attach("0" * 32, [(tmp_path / "no such file", "archive")])


def test_attach__what_is_not_taken_is_our_error(run_id: str, tmp_path: Path) -> None:
    with raises(ServiceError, code="mlflow-no-answer"):
        tracking.attach(run_id, [(tmp_path / "no such file", "archive")])


def test_run__its_params_and_tags_have_no_secret_of_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    url = "https://me:pa55word@host.example/repo.git?token=s3cret"
    for command in (["git", "init", "-q"], ["git", "remote", "add", "origin", url]):
        subprocess.run(command, check=True)
    with tracking.run("train-lora", {"source": url, "lr": 0.1}, {"from": f"see {url}"}) as run:
        run.tag({"more": url})
    logged = mlflow.MlflowClient().get_run(run.id)
    mlflow.set_tracking_uri(None)
    assert logged.data.params == {"source": "https://host.example/repo.git", "lr": "0.1"}
    assert logged.data.tags["mlflow.source.git.repoURL"] == logged.data.tags["more"] == "https://host.example/repo.git"
    assert "pa55word" not in repr(logged.data) and "s3cret" not in repr(logged.data)
    store = (tmp_path / ".vidseek" / "mlflow.db").read_bytes()
    assert b"pa55word" not in store and b"s3cret" not in store


def test_connect__a_store_that_does_not_answer_is_told_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:pa55word@127.0.0.1:9/runs?token=s3cret")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with raises(ServiceError, code="mlflow-no-answer", naming="127.0.0.1:9/runs") as caught:
        tracking.connect()
    mlflow.set_tracking_uri(None)
    assert "s3cret" not in str(caught.value) and "pa55word" not in str(caught.value)
