"""The real thing: `vidseek serve` on loopback, asked over HTTP, gives what `vidseek search` gives."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest

from bench.service.hostile_files import HostileFiles
from bench.service.soak import Bounds, broken_bounds, measure
from tests.forking import run_code, run_command
from tests.raising import raises
from tests.serving.colours import picture, video, video_id_of_colour, write_colour_archive
from tests.serving.live_api import free_port
from tests.serving.raw_http import FORM, FORM_HEAD, JSON, exchange, request
from tests.tiny_bundle import COLOURS, colour_vector, write_tiny_bundle
from tests.waiting import PATIENCE_SECONDS, wait_until
from vidseek.archive import Archive

PACKAGES = Path(__file__).parents[2] / "packages"
SOAK_SECONDS = float(os.environ.get("VIDSEEK_SOAK_SECONDS", "4"))
"""Long with `make soak`."""
SOAK_THREADS = 2
HOSTILE_SECONDS = 12.0
get, post = partial(httpx.get, timeout=PATIENCE_SECONDS), partial(httpx.post, timeout=PATIENCE_SECONDS)


def environment() -> dict[str, str]:
    """That of this process, without our own variables and BentoML's."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("VIDSEEK", "BENTOML"))}
    return {**inherited, "PYTHONPATH": str(PACKAGES)}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    root = tmp_path_factory.mktemp("served")
    (root / "params.yaml").write_text("serve: {connections: {header_seconds: 4, body_seconds: 4}}\n")
    return write_colour_archive(root)


@dataclass(frozen=True)
class Service:
    """One that runs."""

    address: str
    pid: int

    def worker(self) -> psutil.Process:
        """The process that answers: BentoML's own only watches it."""
        children = psutil.Process(self.pid).children(recursive=True)
        return max(children, key=lambda each: each.memory_info().rss)


@pytest.fixture(scope="module")
def address(service: Service) -> str:
    return service.address


@pytest.fixture(scope="module")
def service(archive: Archive) -> Iterator[Service]:
    port = free_port()
    log = (archive.root / "serve.log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", "vidseek.cli", "serve", "--port", str(port)], cwd=archive.root, env=environment(),
        stdout=log, stderr=log, start_new_session=True,
    )
    try:
        yield Service(f"http://127.0.0.1:{port}", process.pid)
    finally:
        stop(process)
        log.close()


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask a service that leads a session of its own to end, and end all of it where it does not."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)


def wait_until_ready(address: str, log: Path) -> None:
    until = time.monotonic() + 10 * PATIENCE_SECONDS
    while time.monotonic() < until:
        try:
            if get(f"{address}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    pytest.fail(log.read_text())


def wait_for_line(log: Path, request_id: str) -> None:
    """The line is written after the answer has gone."""
    def is_there() -> bool:
        # The last line may be half written.
        lines = [json.loads(line) for line in log.read_text().splitlines(keepends=True)
                 if line.startswith('{"time"') and line.endswith("\n")]
        return any(line.get("request_id") == request_id and line["route"] == "/v1/search" for line in lines)

    wait_until(is_there)


def test_serve__answers_as_the_command_does(archive: Archive, address: str) -> None:
    wait_until_ready(address, archive.root / "serve.log")
    said = run_command(("search", "blue", "--limit", "2", "--json"), folder=archive.root, env=environment())
    answered = post(f"{address}/v1/search", json={"text": "blue", "limit": 2})
    assert answered.json() == json.loads(said.stdout)
    assert answered.json()["hits"][0]["video_id"] == video_id_of_colour("blue")

    shown = post(f"{address}/v1/search", files={"image": picture("green")})
    assert shown.json()["hits"][0]["video_id"] == video_id_of_colour("green")
    assert get(f"{address}/healthz").json() == {"status": "ok"}
    assert get(f"{address}/nowhere").json()["error"]["code"] == "not_found"
    assert 'route="/v1/search",status="200"' in get(f"{address}/metrics").text
    blank = post(f"{address}/v1/search", json={"text": " "})
    assert (blank.status_code, blank.json()["error"]["code"]) == (422, "input_rejected")
    wait_for_line(archive.root / "serve.log", blank.json()["request_id"])


def test_serve__answers_clients_of_openai(archive: Archive, address: str) -> None:
    openai = pytest.importorskip("openai")
    wait_until_ready(address, archive.root / "serve.log")
    client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
    answer = client.embeddings.create(model="vidseek", input=["blue", "red"])  # base64, unless told otherwise
    np.testing.assert_allclose(
        [each.embedding for each in answer.data], [colour_vector(COLOURS[name]) for name in ("blue", "red")], atol=1e-6
    )
    numbers = client.embeddings.create(model=answer.model, input="blue", encoding_format="float").data[0].embedding
    assert numbers == pytest.approx(answer.data[0].embedding, abs=1e-7)
    with raises(openai.NotFoundError, naming="'gpt'"):
        client.embeddings.create(model="gpt", input="blue")


def ask_mixed(client: httpx.Client, number: int, clip: bytes) -> None:
    """Four requests, one of them wrong, and now and then a video."""
    answers = [
        client.post("/v1/search", json={"text": f"red {number}"}),
        client.post("/v1/embed/text", json={"texts": ["red", "blue"], "encoding": "base64"}),
        client.post("/v1/search", files={"image": picture("red")}),
        client.post("/v1/search", json={"image": "AAAA"}),
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 422]
    if number % 50 == 0:
        assert client.post("/v1/search", files={"clip": clip}).status_code == 200


def ask_for(client: httpx.Client, clip: bytes, *, seconds: float, every: float = 0.0) -> int:
    """Ask until then, one round each `every` seconds or as fast as it goes, from `SOAK_THREADS` threads; gives the number
    of rounds."""
    begin, numbers = time.monotonic(), itertools.count(1)

    def keep_asking() -> None:
        while True:
            number = next(numbers)
            time.sleep(max(0.0, begin + number * every - time.monotonic()))
            if time.monotonic() >= begin + seconds:
                return
            ask_mixed(client, number, clip)

    with ThreadPoolExecutor(SOAK_THREADS) as threads:
        for done in [threads.submit(keep_asking) for _ in range(SOAK_THREADS)]:
            done.result()
    return next(numbers) - 1 - SOAK_THREADS


@pytest.mark.slow
def test_serve__soak_leaks_neither_memory_nor_files(archive: Archive, service: Service, tmp_path: Path) -> None:
    """At 80 % of what it can answer here, clients and service together."""
    wait_until_ready(service.address, archive.root / "serve.log")
    clip = video("red", tmp_path / "a.mp4")
    with httpx.Client(base_url=service.address, timeout=PATIENCE_SECONDS) as client:
        warm_seconds = min(30.0, SOAK_SECONDS)
        capacity = ask_for(client, clip, seconds=warm_seconds) / warm_seconds
        worker = service.worker()
        files, memory = worker.num_fds(), worker.memory_info().rss
        number = ask_for(client, clip, seconds=SOAK_SECONDS, every=1 / (0.8 * capacity))
        assert number > 0.25 * capacity * SOAK_SECONDS  # it kept up, as far as other work beside it let it
        assert worker.num_fds() <= files + 3
        assert worker.memory_info().rss < memory + 25 * 2**20, number


@pytest.mark.slow
def test_serve__keeps_the_limits_of_params_on_its_connections(archive: Archive, service: Service) -> None:
    """BentoML sets up the server; tests/serving/http/test_connections.py has each limit by itself."""
    wait_until_ready(service.address, archive.root / "serve.log")
    port = int(service.address.rpartition(":")[2])
    begin = time.monotonic()
    with ExitStack() as held:
        for _ in range(300):
            connection = held.enter_context(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS))
            connection.sendall(b"GET / HTTP/1.1\r\n")
        half = request("/v1/search", method="POST", headers=[FORM, "Content-Length: 60000000"]) + FORM_HEAD + bytes(10**6)
        body = held.enter_context(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS))
        body.sendall(half)
        assert post(f"{service.address}/v1/search", json={"text": "blue"}).status_code == 200
        long = exchange(port, [b"GET / HTTP/1.1\r\nA: ", *[b"a" * 2**20] * 20])
        assert (long.status, long.error()) == (431, "header_too_large")
        bomb = request("/v1/embed/text", method="POST", headers=[JSON], body=b'{"texts":[' + b"1," * 3 * 10**6 + b"1]}")
        assert exchange(port, [bomb]).error() == "too_large"
        foreign = request("/v1/search", method="POST", headers=[FORM, "Origin: null"], body=FORM_HEAD)
        assert exchange(port, [foreign]).error() == "cross_site"
        assert connection.recv(12) == b"HTTP/1.1 408" and body.recv(12) == b"HTTP/1.1 408"
    assert time.monotonic() - begin >= 4
    assert 'vidseek_connections_ended_total{reason="too_slow"}' in get(f"{service.address}/metrics").text


@pytest.mark.slow
def test_serve__ordinary_client_is_answered_beside_hostile_ones(archive: Archive, service: Service) -> None:
    """`make soak-hostile` in short, with bounds five times as wide: other work may run on the machine of a test."""
    wait_until_ready(service.address, archive.root / "serve.log")
    port = int(service.address.rpartition(":")[2])
    found = measure(port, service.pid, HostileFiles.make(video_frames=30), seconds=HOSTILE_SECONDS)
    assert not found["failures"]
    assert not broken_bounds(found, Bounds(text_p99_seconds=5.0, picture_p99_seconds=15.0))
    assert all(row["requests"] for row in found["hostile"])
    assert set(next(row for row in found["hostile"] if row["kind"] == "cross-site forms")["answers"]) == {"403"}


@pytest.mark.slow
def test_serve__killed_worker_comes_back_and_nobody_waits_in_vain(archive: Archive, service: Service) -> None:
    wait_until_ready(service.address, archive.root / "serve.log")
    killed = service.worker()
    killed.kill()
    # The socket is the parent's: who connects now waits for the next worker.
    answer = post(f"{service.address}/v1/search", json={"text": "blue"})
    assert answer.json()["hits"][0]["video_id"] == video_id_of_colour("blue")
    assert service.worker().pid != killed.pid


@pytest.mark.parametrize(("fault", "reason"), [
    (lambda bundle: (bundle / "fp32" / "text.onnx").write_bytes(b"other"), "has the sha256"),
    (lambda bundle: (bundle / "tokenizer.json").unlink(), "is missing"),
    (lambda bundle: write_tiny_bundle(bundle, encoder_version="fedcba9876543210"), "cannot be compared"),
])
def test_serve__bundle_that_is_not_what_was_published_is_refused_at_start(
    archive: Archive, tmp_path: Path, fault: Callable[[Path], object], reason: str
) -> None:
    shutil.copytree(archive.root / "index", tmp_path / "index")
    if "compared" not in reason:
        shutil.copytree(archive.bundle, tmp_path / "models" / "encoder")
    fault(tmp_path / "models" / "encoder")
    done = run_command(("serve",), folder=tmp_path, env=environment())
    assert done.returncode == 12 and reason in done.stderr and "→" in done.stderr


@pytest.mark.slow
def test_service__sends_no_usage_data() -> None:
    """BentoML remembers its switch at the first question, which its command asks before it imports the service."""
    code = (
        "import os; os.environ.pop('BENTOML_DO_NOT_TRACK', None)\n"
        "from bentoml._internal.utils.analytics import usage_stats\n"
        "assert not usage_stats.do_not_track()\n"
        "import serving.service\n"
        "assert usage_stats.do_not_track()\n"
    )
    folder = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=folder, env={"PYTHONPATH": f"{PACKAGES}:{folder}"})


@pytest.mark.slow
@pytest.mark.parametrize(("text", "key", "reason"), [
    ("ingest: {youtube: {max_height: 720}}", "", "write ingest.youtube.max_side_px"),
    ("serve: {prot: 3000}", "", "serve.prot"),
    ("{}", "short", "VIDSEEK_API_KEY"),
])
def test_service__what_is_wrong_with_its_settings_is_one_message(text: str, key: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    folder = Path(__file__).parents[2]
    env = {"PYTHONPATH": f"{PACKAGES}:{folder}", "VIDSEEK_HOME": str(tmp_path), "VIDSEEK_API_KEY": key}
    done = run_code("import serving.service", imported=("bentoml", "fastapi", "numpy"), folder=folder, env=env)
    assert done.returncode == 11 and done.stderr.startswith("vidseek: ") and reason in done.stderr
    assert "Traceback" not in done.stderr and "→" in done.stderr


@pytest.mark.slow
def test_service__starts_without_what_no_answer_needs() -> None:
    """The service is imported twice before it is ready, so each of these would delay it twice."""
    code = (
        "import sys, serving.service\n"
        "late = {'pandas', 'pyarrow', 'av', 'decord', 'qdrant_client', 'torch', 'bentoml._internal.utils.analytics'}\n"
        "assert not late & set(sys.modules), late & set(sys.modules)\n"
    )
    folder = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=folder, env={"PYTHONPATH": f"{PACKAGES}:{folder}"})
