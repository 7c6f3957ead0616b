"""Faults of ours and of the disk: what the answer says, and what the log says under the same request id."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from serving.app import create_app
from serving.engine import Engine, Places
from serving.logs import JsonLines, write_json_lines
from serving.model import Opened, open_archive
from tests.serving.colours import write_colour_archive
from tests.serving.test_app import LIMITS, asking, is_error
from vidseek.archive import Archive
from vidseek.params import Settings


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return write_colour_archive(tmp_path_factory.mktemp("faults"))


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What the service logs, as it writes it."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    logger = logging.getLogger("vidseek.serving")
    logger.addHandler(handler)
    yield stream
    logger.removeHandler(handler)


def answer_where(archive: Archive, error: Exception, request_id: str) -> object:
    class Broken:
        spec = open_archive(archive, Settings()).encoder.spec

        def embed_texts(self, texts: list[str]) -> np.ndarray:
            raise error

    engine = Engine(lambda: Opened(Broken(), None), LIMITS, Places.of(archive))  # type: ignore[arg-type]
    with asking(create_app(engine)) as client:
        answer = client.post("/v1/search", json={"text": "red"}, headers={"x-request-id": request_id})
    engine.close()
    return answer


def test_fault__its_traceback_is_in_the_log_with_the_request_id_and_without_secrets(
    archive: Archive, lines: io.StringIO
) -> None:
    answer = answer_where(archive, RuntimeError("http://me:pa55@host/x?sig=s3cret \x1b[2J"), "abc-1")
    assert is_error(answer, 500, "internal_error")
    told = [json.loads(line) for line in lines.getvalue().splitlines()]
    [fault] = [line for line in told if "traceback" in line]
    assert fault["request_id"] == "abc-1" and "RuntimeError" in fault["traceback"] and "embed_texts" in fault["traceback"]
    assert "pa55" not in lines.getvalue() and "s3cret" not in lines.getvalue() and "\x1b" not in lines.getvalue()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_fault__a_full_temp_folder_is_503_with_its_name(archive: Archive, tmp_path: Path, number: int) -> None:
    answer = answer_where(archive, OSError(number, os.strerror(number), str(tmp_path / "upload")), "abc-2")
    assert is_error(answer, 503, "artifact_error")
    said = answer.json()["error"]  # type: ignore[attr-defined]
    assert str(tmp_path) in said["message"] and "TMPDIR" in said["remedy"]


def test_log__what_the_server_itself_says_has_no_secret_and_no_fault_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.getLogger("uvicorn.error")
    monkeypatch.setattr(logger, "disabled", False)  # MLflow's database disables all loggers that a process had before
    before, filters = logging.getLogger("vidseek").handlers, list(logger.filters)
    write_json_lines()
    logging.getLogger("vidseek").handlers = before
    logging.getLogger("vidseek").propagate = True
    seen: list[str] = []

    class Seen(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record.getMessage())

    handler = Seen()
    logger.addHandler(handler)
    try:
        logger.error("Exception in ASGI application\n")
        logger.error("cannot reach %s", "http://me:pa55@host/?sig=1")
    finally:
        logger.removeHandler(handler)
        logger.filters = filters
    assert seen == ["cannot reach http://host/"]


def test_upload__a_temp_folder_that_fills_up_under_it_is_503(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(tempfile.SpooledTemporaryFile[bytes]):
        def write(self, content: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("starlette.formparsers.SpooledTemporaryFile", Full)
    engine = Engine(lambda: open_archive(archive, Settings()), LIMITS, Places.of(archive))
    with asking(create_app(engine)) as client:
        answer = client.post("/v1/search", files={"image": b"\x89PNG"})
    engine.close()
    assert is_error(answer, 503, "artifact_error")
    assert tempfile.gettempdir() in answer.json()["error"]["message"]
