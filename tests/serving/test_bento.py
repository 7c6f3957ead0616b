"""The built bento, started where torch is not, answers a search.

The short form starts it with this interpreter, in which torch and its kin cannot be imported; `make bento-check` with
one of a fresh environment that holds what the bento asks for and nothing else (VIDSEEK_BENTO_PYTHON).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import make_checkout
from tests.serving.colours import picture, video_id_of_colour, write_colour_archive
from tests.serving.live_api import free_port
from tests.serving.test_process import post, stop, wait_until_ready
from vidseek.archive import Archive

PYTHON = os.environ.get("VIDSEEK_BENTO_PYTHON", sys.executable)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return write_colour_archive(tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="module")
def bento(archive: Archive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a bento of this checkout, with the archive's bundle, which the archive has no more."""
    checkout, home = make_checkout(tmp_path_factory.mktemp("checkout")), tmp_path_factory.mktemp("bentoml")
    archive.bundle.rename(checkout.path / "bundle")
    (checkout.path / "models").mkdir(exist_ok=True)
    (checkout.path / "bundle").rename(checkout.path / "models" / "encoder")
    checkout.succeed(
        sys.executable, "-m", "bentoml", "build", "-f", "serving/bentofile.yaml", BENTOML_HOME=str(home),
        BENTOML_DO_NOT_TRACK="true",
    )
    (built,) = (path.parent for path in home.glob("bentos/vidseek/*/bento.yaml"))
    return built


@pytest.fixture(scope="module")
def address(bento: Path, archive: Archive, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    blocked = tmp_path_factory.mktemp("blocked")
    (blocked / "sitecustomize.py").write_text(
        "import sys\nfor one in ('torch', 'transformers', 'peft', 'mlflow', 'onnx'): sys.modules[one] = None\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("VIDSEEK", "BENTOML"))}
    environment |= {"PYTHONPATH": str(blocked), "VIDSEEK_HOME": str(archive.root)}
    command = [PYTHON, "-m", "bentoml", "serve", str(bento), "--host", "127.0.0.1", "--port", str(port)]
    with (archive.root / "bento.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=archive.root, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            stop(process)


def test_bento__holds_the_bundle_and_the_rooms_and_no_more(bento: Path) -> None:
    names = {path.name for path in (bento / "src").iterdir()}
    assert names == {"models", "packages", "serving", "pyproject.toml", "constraints.txt", "bentofile.yaml"}
    assert (bento / "src" / "models" / "encoder" / "encoder.json").is_file()
    wanted = (bento / "env" / "python" / "requirements.txt").read_text()
    assert "onnxruntime==" in wanted and "torch" not in wanted


def test_bento__answers_without_torch(address: str, archive: Archive) -> None:
    wait_until_ready(address, archive.root / "bento.log")
    found = post(f"{address}/v1/search", json={"text": "blue"})
    assert found.json()["hits"][0]["video_id"] == video_id_of_colour("blue")
    shown = post(f"{address}/v1/search", files={"image": picture("green")})
    assert shown.json()["hits"][0]["video_id"] == video_id_of_colour("green")
