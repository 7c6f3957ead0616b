"""What our client makes of a network that fails: a stand-in on loopback that cuts off, refuses and delays real sockets.

It answers two routes and keeps nothing: it proves retries, time-outs and errors of the client, nothing about Qdrant.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from qdrant_client import QdrantClient, models

from tests.raising import raises
from tests.waiting import wait_until
from vidseek_media.errors import ServiceError
from vidseek_retrieval.index.qdrant import requests as qdrant_requests
from vidseek_retrieval.index.qdrant.backend import QdrantBackend


class StandIn(ThreadingHTTPServer):
    """Does to each request what `faults` says next, and then answers."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults: list[str] = []
        self.bodies: list[bytes] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: StandIn

    def answer(self) -> None:
        self.server.bodies.append(self.rfile.read(int(self.headers.get("content-length") or 0)))
        fault = self.server.faults.pop(0) if self.server.faults else ""
        result = {"aliases": []} if self.command == "GET" else {"operation_id": 1, "status": "completed"}
        body = json.dumps({"result": result, "status": "ok", "time": 0.0}).encode()
        if fault == "slow":
            num = len(self.server.bodies)
            wait_until(lambda: len(self.server.bodies) > num)  # until it is asked again
        if fault == "drop":
            self.connection.close()
            return
        self.send_response(503 if fault == "busy" else 400 if fault == "refuse" else 200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if fault == "cut" else body)
        self.close_connection = True

    do_GET = do_PUT = answer  # noqa: N815 - the names that the library calls

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    monkeypatch.setattr(qdrant_requests, "FIRST_WAIT_SECONDS", 0.01)
    standing = StandIn()
    thread = threading.Thread(target=standing.serve_forever, daemon=True)
    thread.start()
    yield standing
    standing.shutdown()
    standing.server_close()


def backend_at(url: str, *, timeout: int = 60) -> QdrantBackend:
    return QdrantBackend(QdrantClient(url=url, timeout=timeout, check_compatibility=False))


@pytest.mark.parametrize("fault", ["drop", "cut", "busy", "slow"])
def test_call__a_network_that_fails_once_is_asked_again(stand_in: StandIn, fault: str) -> None:
    stand_in.faults = [fault]
    assert backend_at(stand_in.url, timeout=2 if fault == "slow" else 60).aliases() == {}
    assert len(stand_in.bodies) == 2


@pytest.mark.parametrize("fault", ["drop", "cut", "busy"])
def test_call__one_that_goes_on_failing_is_our_error(stand_in: StandIn, fault: str) -> None:
    stand_in.faults = [fault] * 100
    code = "server-refused" if fault == "busy" else "server-no-answer"
    with raises(ServiceError, code=code, remedy="QDRANT_URL"):
        backend_at(stand_in.url).aliases()
    assert len(stand_in.bodies) == qdrant_requests.TRIES


def test_call__what_is_refused_is_not_asked_again(stand_in: StandIn) -> None:
    stand_in.faults = ["refuse"]
    with raises(ServiceError, code="server-refused", naming="400"):
        backend_at(stand_in.url).aliases()
    assert len(stand_in.bodies) == 1


def test_upsert__a_batch_that_was_cut_off_is_sent_once_more_as_it_was(stand_in: StandIn) -> None:
    stand_in.faults = ["cut", "drop"]
    client = QdrantClient(url=stand_in.url, timeout=60, check_compatibility=False)
    points = [models.PointStruct(id=number, vector={"video": [0.0, 1.0]}, payload={}) for number in range(256)]
    qdrant_requests.request(client.upsert, "clips", points, wait=True)
    assert len(stand_in.bodies) == 3 and len(set(stand_in.bodies)) == 1
    assert len(json.loads(stand_in.bodies[0])["points"]) == 256


def test_call__nobody_listens() -> None:
    with StandIn() as gone:
        url = gone.url
    with raises(ServiceError, code="server-no-answer"):
        backend_at(url).aliases()
