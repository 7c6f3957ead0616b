"""The examples of docs/clients.md, as they stand there: against the real API, and a stand-in for a Qdrant server.

The stand-in answers Qdrant's own route from the client's in-memory mode.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import QdrantClient, models

from tests.serving.colours import write_colour_archive
from tests.serving.live_api import live_api
from vidseek_retrieval.index.aliases import require_published
from vidseek_retrieval.index.edge.backend import EdgeBackend
from vidseek_retrieval.index.qdrant.backend import QdrantBackend

DOCUMENT = (Path(__file__).parents[2] / "docs" / "clients.md").read_text(encoding="utf-8")
KEY, QDRANT_KEY = "a key for everybody", "a key of qdrant"


def example(language: str) -> str:
    """The only block of that language in the document."""
    (code,) = re.findall(rf"```{language}\n(.*?)```", DOCUMENT, re.S)
    return str(code)


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Of the API and of the stand-in, which hold the same clips."""
    archive = write_colour_archive(tmp_path_factory.mktemp("clients"))
    client = QdrantClient(":memory:")
    copy_live(EdgeBackend(archive.index), QdrantBackend(client))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_over(client))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with live_api(archive, key=KEY) as url:
        yield {
            "VIDSEEK_URL": url, "VIDSEEK_API_KEY": KEY, "QDRANT_URL": f"http://127.0.0.1:{server.server_port}",
            "QDRANT_API_KEY": QDRANT_KEY,
        }
    server.shutdown()


def copy_live(source: EdgeBackend, to: QdrantBackend) -> None:
    alias = require_published(source, "clips")
    collection = source.open(alias.collection)
    with to.building():
        to.build(collection.metadata, collection.scroll())
        to.move_alias("clips", alias)


def handler_over(client: QdrantClient) -> type[BaseHTTPRequestHandler]:
    """Qdrant's routes that the examples ask, with what the client says."""
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if self.headers["api-key"] != QDRANT_KEY or self.path.split("?")[0] != "/collections/clips/points/query":
                self.send_error(404)
                return
            asked = models.QueryRequest.model_validate(body)
            found = client.query_points(
                "clips", query=asked.query, using=asked.using, limit=asked.limit or 10, query_filter=asked.filter,  # type: ignore[arg-type]
                with_payload=True if asked.with_payload is None else asked.with_payload,
            )
            self.answer({"result": json.loads(found.model_dump_json()), "status": "ok", "time": 0.0})

        def do_GET(self) -> None:  # the client asks which server it speaks to
            if self.path == "/aliases":
                listed = json.loads(client.get_aliases().model_dump_json())
                self.answer({"result": listed, "status": "ok", "time": 0.0})
            else:
                self.answer({"title": "qdrant", "version": "1.17.0"})

        def answer(self, content: Any) -> None:
            encoded = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(encoded)))
            self.end_headers()
            self.wfile.write(encoded)

        def log_message(self, *args: Any) -> None:
            pass

    return Handler


def run(command: list[str], addresses: dict[str, str]) -> str:
    done = subprocess.run(
        command, env={**os.environ, **addresses}, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_python__finds_the_clips_of_the_colour(addresses: dict[str, str]) -> None:
    lines = run([sys.executable, "-c", example("python")], addresses).splitlines()
    assert len(lines) == 3 and all("tapes/red.mp4" in line for line in lines)


@pytest.mark.slow
def test_python__asks_an_api_that_wants_no_key_without_one(addresses: dict[str, str], tmp_path: Path) -> None:
    with live_api(write_colour_archive(tmp_path)) as url:
        keyless = {name: value for name, value in addresses.items() if name != "VIDSEEK_API_KEY"} | {"VIDSEEK_URL": url}
        assert len(run([sys.executable, "-c", example("python")], keyless).splitlines()) == 3


@pytest.mark.skipif(not shutil.which("node"), reason="no node")
def test_javascript__finds_the_clips_of_the_colour(addresses: dict[str, str]) -> None:
    lines = run(["node", "--input-type=module", "-e", example("javascript")], addresses).splitlines()
    assert len(lines) == 3 and all("tapes/red.mp4" in line for line in lines)


@pytest.mark.skipif(not shutil.which("jq") or not shutil.which("curl"), reason="no curl and jq")
def test_curl__finds_the_clips_of_the_colour(addresses: dict[str, str]) -> None:
    answer = json.loads(run(["bash", "-euc", example("bash")], addresses))
    payloads = [point["payload"] for point in answer["result"]["points"]]
    assert [payload["uri"] for payload in payloads] == ["tapes/red.mp4"] * 3
    assert set(payloads[0]) == {"uri", "start_ms", "encoder_version"}
