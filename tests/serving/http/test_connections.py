"""Limits on connections, asked with raw sockets: what comes before any key, and what HTTP libraries do not send."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import Any

import hypothesis
import pytest
import uvicorn
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from serving.app import create_app
from serving.engine import Engine, Places
from serving.http.connections import Connections
from serving.http.limited_protocol import MAX_PIPELINED, protocol_of
from serving.model import open_archive
from tests.serving.colours import write_colour_archive
from tests.serving.live_api import free_port
from tests.serving.raw_http import CHUNKED, FORM, FORM_HEAD, JSON, exchange, request
from tests.waiting import wait_until
from vidseek.archive import Archive
from vidseek.params import Settings
from vidseek.settings import ConnectionLimits, ServeSettings

SIZES: dict[str, Any] = {"max_header_kb": 4, "max_connections": 30, "max_per_client": 24, "max_uploads_mb": 4}
LIMITS = ConnectionLimits(
    header_seconds=120, body_seconds=120, min_body_kb_per_second=1000, idle_seconds=120, send_seconds=120, **SIZES
)
"""A test that is about something else never meets a time limit, however loaded the machine is."""
HASTY = ConnectionLimits(
    header_seconds=0.6, body_seconds=0.6, min_body_kb_per_second=1000, idle_seconds=0.6, send_seconds=0.6, **SIZES
)
SETTINGS = ServeSettings(max_body_mb=3, max_json_mb=1, connections=LIMITS)
LARGE_BYTES = 64 * 2**20
NUM_EXAMPLES = max(25, int(os.environ.get("VIDSEEK_FAULTS", "0")))
examples = hypothesis.settings(max_examples=NUM_EXAMPLES, deadline=None, derandomize=True, database=None)


class Served:
    """A service in a thread of the test, with small limits."""

    def __init__(self, app: Any, limits: ConnectionLimits = LIMITS) -> None:
        self.port = free_port()
        self.ended: list[tuple[str, int]] = []
        self.connections = Connections(limits, lambda reason, status: self.ended.append((reason, status)))
        config = uvicorn.Config(
            app, port=self.port, http=protocol_of(self.connections), ws="none", log_level="critical", lifespan="off",
            timeout_graceful_shutdown=1,
        )
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run)

    def reasons(self) -> set[str]:
        return {reason for reason, _ in self.ended}

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def answers(self) -> bool:
        """A search is answered as ever."""
        asked = request("/v1/search", method="POST", headers=[JSON], body=b'{"text": "blue"}')
        return exchange(self.port, [asked]).status == 200


def posted(body: bytes, *headers: str) -> bytes:
    """A search."""
    return request("/v1/search", method="POST", headers=headers, body=body)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return write_colour_archive(tmp_path_factory.mktemp("connections"))


@pytest.fixture(scope="module")
def served(archive: Archive) -> Iterator[Served]:
    with serving(archive, LIMITS) as one:
        yield one


@pytest.fixture(scope="module")
def hasty(archive: Archive) -> Iterator[Served]:
    with serving(archive, HASTY) as one:
        yield one


@contextmanager
def serving(archive: Archive, limits: ConnectionLimits) -> Iterator[Served]:
    settings = SETTINGS.model_copy(update={"connections": limits})
    engine = Engine(lambda: open_archive(archive, Settings()), settings, Places.of(archive))
    app = create_app(engine)

    async def with_large(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != "/large":
            await app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(LARGE_BYTES // 2**20):
            await send({"type": "http.response.body", "body": bytes(2**20), "more_body": True})
        await send({"type": "http.response.body"})

    one = Served(with_large, limits)
    one.thread.start()
    wait_until(lambda: one.server.started)
    yield one
    one.server.should_exit = True
    one.thread.join(60)
    engine.close()


@hypothesis.given(length=st.integers(1, 12_000), num_pieces=st.integers(1, 5), in_url=st.booleans())
@examples
def test_headers__are_taken_up_to_their_limit_however_they_are_cut(
    served: Served, length: int, num_pieces: int, in_url: bool
) -> None:
    filling = "a" * length
    asked = request(f"/healthz?{filling}") if in_url else request(headers=[f"A: {filling}"])
    size = -(-len(asked) // num_pieces)
    reply = exchange(served.port, [asked[place : place + size] for place in range(0, len(asked), size)])
    most = 1024 * LIMITS.max_header_kb
    if len(asked) > most + 1:
        assert (reply.status, reply.error()) == (431, "header_too_large")
    elif len(asked) <= most:
        assert reply.status == 200


def test_headers__of_megabytes_are_answered_and_nobody_waits(served: Served) -> None:
    reply = exchange(served.port, [b"GET / HTTP/1.1\r\nA: ", *[b"a" * 2**20] * 30])
    assert (reply.status, reply.error()) == (431, "header_too_large")
    assert served.answers()


def test_headers__more_than_a_hundred_are_refused(served: Served) -> None:
    assert exchange(served.port, [request(headers=["A: b"] * 90)]).status == 200
    assert exchange(served.port, [request(headers=["A: b"] * 101)]).error() == "header_too_large"


def test_headers__bytes_that_trickle_do_not_reset_the_clock(hasty: Served) -> None:
    reply = exchange(hasty.port, [b"GET / HTTP/1.1\r\nA: ", *[b"a"] * 12], pause=0.1)
    assert (reply.status, reply.error()) == (408, "too_slow")
    with closing(hasty.connect()) as connection:
        for _ in range(40):
            connection.sendall(b"\r\n")  # what a parser skips before a request counts too
            time.sleep(0.1)
            if b"408" in _received(connection):
                break
        else:
            pytest.fail("it may go on for ever")


def _received(connection: socket.socket) -> bytes:
    connection.settimeout(0.01)
    try:
        return connection.recv(65536)
    except TimeoutError:
        return b""


def test_connections__that_say_nothing_or_nothing_more_are_closed(hasty: Served) -> None:
    silent = exchange(hasty.port, [])
    assert silent.is_ended and not silent.content
    idle = exchange(hasty.port, [request(close=False)])
    assert idle.is_ended and idle.status == 200 and idle.num_answers == 1


def test_connections__half_open_ones_push_out_each_other_and_no_client(served: Served) -> None:
    with ExitStack() as held:
        for _ in range(60):
            connection = held.enter_context(closing(served.connect()))
            connection.sendall(b"GET / HTTP/1.1\r\n")
        assert len(served.connections) <= LIMITS.max_per_client
        assert served.answers()
    assert "evicted" in served.reasons()


def test_connections__more_requests_than_places_are_told_so(served: Served) -> None:
    """Uploads that have just begun give way to nobody."""
    begun = request("/v1/search", method="POST", headers=[FORM, "Content-Length: 2000000"])
    with ExitStack() as held:
        for _ in range(LIMITS.max_per_client):
            held.enter_context(closing(served.connect())).sendall(begun)
        wait_until(lambda: len(served.connections) >= LIMITS.max_per_client)
        reply = exchange(served.port, [request()])
        assert (reply.status, reply.error()) == (503, "busy")
        assert b"retry-after: 1" in reply.content
    wait_until(served.answers)


@pytest.mark.slow
@pytest.mark.parametrize("headers", [[JSON], [FORM]])
def test_bodies__that_trickle_or_stop_are_answered(hasty: Served, headers: list[str]) -> None:
    head = request("/v1/search", method="POST", headers=[*headers, "Content-Length: 500000"])
    begin = FORM_HEAD if headers == [FORM] else b'{"text": "'
    for pieces in ([head, begin], [head, begin, *[b"a"] * 12]):
        reply = exchange(hasty.port, pieces, pause=0.1)
        assert (reply.status, reply.error()) == (408, "too_slow")
        assert reply.is_ended


@hypothesis.given(
    num_bytes=st.integers(0, 5 * 2**20), is_form=st.booleans(), is_chunked=st.booleans(), route=st.sampled_from(
        ["/v1/search", "/v1/embed/text", "/v1/embed/image", "/v1/embeddings", "/v1/feedback"]
    ),
)
@hypothesis.example(num_bytes=2**20, is_form=False, is_chunked=False, route="/v1/search")
@hypothesis.example(num_bytes=2**20 + 1, is_form=False, is_chunked=True, route="/v1/search")
@examples
def test_bodies__have_a_limit_by_their_type(
    served: Served, num_bytes: int, is_form: bool, is_chunked: bool, route: str
) -> None:
    content = b"a" * num_bytes
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in _parts(content, 2**16)) + b"0\r\n\r\n"
    headers = [FORM if is_form else JSON, *([CHUNKED] if is_chunked else [])]
    asked = request(route, method="POST", headers=headers, body=None if is_chunked else content)
    reply = exchange(served.port, [asked + (chunks if is_chunked else b"")])
    takes_forms = route in ("/v1/search", "/v1/embed/image")
    most = (SETTINGS.max_body_mb if is_form else SETTINGS.max_json_mb) * 2**20
    wanted = 415 if is_form and not takes_forms else 413 if num_bytes > most and not is_form else (400, 413, 422)
    assert reply.status == wanted or (isinstance(wanted, tuple) and reply.status in wanted), reply.content[:300]
    assert reply.error() in ("unsupported_media_type", "too_large", "invalid_request")


def _parts(content: bytes, size: int) -> list[bytes]:
    return [content[place : place + size] for place in range(0, len(content), size)]


def test_bodies__too_large_as_a_file(served: Served) -> None:
    content = FORM_HEAD + bytes(4 * 2**20) + b"\r\n--x--\r\n"
    reply = exchange(served.port, [request("/v1/search", method="POST", headers=[FORM], body=content)])
    assert (reply.status, reply.error()) == (413, "too_large")


@hypothesis.given(size=st.integers(1, 2000), extension=st.integers(0, 3000), trailer=st.integers(0, 200_000))
@hypothesis.example(size=1, extension=0, trailer=0)
@hypothesis.example(size=2000, extension=0, trailer=100_000)
@examples
def test_bodies__chunks_that_are_mostly_framing_are_refused(
    served: Served, size: int, extension: int, trailer: int
) -> None:
    content = b'{"text": "blue"' + b" " * 200_000 + b"}"
    framing = b";" + b"e" * extension if extension else b""
    chunks = b"".join(b"%x%s\r\n%s\r\n" % (len(part), framing, part) for part in _parts(content, size))
    tail = b"0\r\nT: " + b"t" * trailer + b"\r\n\r\n"
    reply = exchange(served.port, [request("/v1/search", method="POST", headers=[JSON, CHUNKED]) + chunks + tail])
    num_framing = len(chunks) - len(content)
    if num_framing > 32 * 1024 + 66_000 + len(content) // 8 or trailer > 32 * 1024 + 66_000:
        assert (reply.status, reply.error()) == (400, "invalid_request")
    elif num_framing < 30 * 1024 and trailer < 30 * 1024:
        assert reply.status == 200
    else:  # which piece it is counted in decides
        assert reply.status in (200, 400)


def test_bodies__trailers_are_no_headers(served: Served) -> None:
    body = b'10\r\n{"text": "blue"}\r\n0\r\nSec-Fetch-Site: cross-site\r\nOrigin: http://evil.example\r\n\r\n'
    assert exchange(served.port, [request("/v1/search", method="POST", headers=[JSON, CHUNKED]) + body]).status == 200


def test_bodies__of_many_uploads_together_have_a_limit(served: Served) -> None:
    """Half bodies of 12 MB in all, of which 2 MB may be held for one client: the rest is told to come again."""
    half = request("/v1/search", method="POST", headers=[FORM, "Content-Length: 3000000"]) + FORM_HEAD + bytes(2**20)
    with ExitStack() as held:
        uploads = [held.enter_context(closing(served.connect())) for _ in range(12)]
        for upload in uploads:
            upload.sendall(half)
        wait_until(lambda: any(b"too-many-uploads" in _received(upload) for upload in uploads))
        assert served.answers()
    wait_until(served.answers)


def test_pipelining__a_few_are_answered_in_order_and_a_flood_is_cut(served: Served) -> None:
    few = [request(f"/nowhere/{number}", close=False) for number in range(MAX_PIPELINED - 1)]
    reply = exchange(served.port, [b"".join(few) + request()])
    assert reply.num_answers == MAX_PIPELINED and reply.content.endswith(b'{"status":"ok"}')
    flood = exchange(served.port, [request(close=False) * 5000])
    assert flood.is_ended and flood.num_answers < 100
    assert "pipelined" in served.reasons() and served.answers()


def test_answers__that_nobody_reads_end_their_connection(hasty: Served) -> None:
    with closing(socket.socket()) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", hasty.port))
        connection.sendall(request("/large"))
        wait_until(lambda: "send_stalled" in hasty.reasons())
        connection.settimeout(30)
        num_bytes = 0
        with suppress(ConnectionError):
            while chunk := connection.recv(2**20):
                num_bytes += len(chunk)
    assert num_bytes < LARGE_BYTES


def test_answers__that_are_read_slowly_come_whole(served: Served) -> None:
    with closing(served.connect()) as connection:
        connection.sendall(request("/large"))
        num_bytes = 0
        while chunk := connection.recv(2**20):
            num_bytes += len(chunk)
            time.sleep(0.01)
    assert num_bytes > LARGE_BYTES


def test_answers__before_the_body_has_come_are_not_lost(served: Served) -> None:
    """The client sends on: the connection stays open for it, but not for long."""
    head = request("/v1/search", method="POST", headers=[JSON, "Content-Length: 900000000"])
    reply = exchange(served.port, [head, *[b"a" * 2**20] * 20])
    assert (reply.status, reply.error()) == (413, "too_large")
    endless = exchange(served.port, [head, *[b"a" * 2**16] * 60], pause=0.05)
    assert endless.is_ended


def test_halves__a_whole_request_is_answered_and_a_part_is_told_so(served: Served) -> None:
    whole = request("/v1/search", method="POST", headers=[JSON], body=b'{"text": "blue"}', close=False)
    assert exchange(served.port, [whole], end=True).status == 200
    for part in (whole[:20], whole[:-3]):
        reply = exchange(served.port, [part], end=True)
        assert (reply.status, reply.error()) == (400, "invalid_request") and reply.is_ended


BROKEN = {
    "no words": b"\0\1\2\3\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "two hosts": request(headers=["Host: evil.example"]),
    "two lengths": request("/v1/search", method="POST", headers=["Content-Length: 3"], body=b"abcd"),
    "length and chunks": request("/v1/search", method="POST", headers=[CHUNKED], body=b"0\r\n\r\n"),
    "length below zero": request("/v1/search", method="POST", headers=["Content-Length: -3"]),
    "length of 30 digits": request("/v1/search", method="POST", headers=["Content-Length: " + "9" * 30]),
    "other coding": request("/v1/search", method="POST", headers=["Transfer-Encoding: gzip"]),
    "chunk without size": request("/v1/search", method="POST", headers=[JSON, CHUNKED]) + b"zz\r\n",
    "second chunk without size": request("/v1/search", method="POST", headers=[JSON, CHUNKED]) + b"1\r\na\r\nzz\r\n",
    "not ASCII": b"GET /\xff HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "CONNECT": b"CONNECT a:80 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "NUL": request(headers=["A: \0"]),
    "bare CR": b"GET / HTTP/1.1\rHost: a\r\n\r\n",
    "folded": b"GET / HTTP/1.1\r\nHost: a\r\n b: c\r\n\r\n",
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken__requests_have_our_shape(served: Served, name: str) -> None:
    reply = exchange(served.port, [BROKEN[name]])
    assert reply.status in (400, 403) and reply.error() in ("invalid_request", "key_needed") and reply.is_ended


@pytest.mark.parametrize(("asked", "status", "code"), [
    (request("/nowhere"), 404, "not_found"),
    (request("/%ff%00"), 404, "not_found"),
    (request("*", method="OPTIONS"), 404, "not_found"),
    (request("/v1/search", method="PUT"), 405, "method_not_allowed"),
    (request("/livez", method="POST"), 405, "method_not_allowed"),
    (posted(b"{}", JSON, "Content-Encoding: br"), 415, "unsupported_media_type"),
    (posted(b"a", "Content-Type: multipart/form-data"), 400, "invalid_request"),
    (posted(b"abc", FORM), 400, "invalid_request"),
    (posted(b"", JSON), 422, "invalid_request"),
])
def test_framework__errors_have_our_shape(served: Served, asked: bytes, status: int, code: str) -> None:
    reply = exchange(served.port, [asked])
    assert (reply.status, reply.error()) == (status, code)


@pytest.mark.parametrize("protocol", ["websocket", "h2c"])
def test_upgrades__are_not_made(hasty: Served, protocol: str) -> None:
    headers = ["Connection: upgrade", f"Upgrade: {protocol}", "Sec-WebSocket-Key: a", "Sec-WebSocket-Version: 13"]
    reply = exchange(hasty.port, [request(headers=headers, close=False)])
    assert reply.status == 200 and reply.is_ended


@hypothesis.given(noise=st.binary(max_size=300), place=st.integers(0, 120), num_pieces=st.integers(1, 3))
@examples
def test_noise__is_answered_or_cut_and_nothing_stops(served: Served, noise: bytes, place: int, num_pieces: int) -> None:
    asked = request("/v1/search", method="POST", headers=[JSON], body=b'{"text": "blue"}')
    spoilt = asked[:place] + noise + asked[place:]
    size = -(-len(spoilt) // num_pieces)
    reply = exchange(served.port, _parts(spoilt, size), end=True)
    assert reply.is_ended
    assert reply.status in (0, 200) or reply.error()
    assert exchange(served.port, [request()]).status == 200


def test_server__ends_although_connections_are_open() -> None:
    async def ok(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    one = Served(ok)
    one.thread.start()
    wait_until(lambda: one.server.started)
    with closing(one.connect()) as idle, closing(one.connect()) as silent:
        idle.sendall(request(close=False))
        assert idle.recv(65536)
        one.server.should_exit = True
        one.thread.join(60)
        assert not one.thread.is_alive()
        assert silent.recv(10) == b""


def test_limits__are_set_for_the_server_that_bentoml_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    from serving.http import limited_protocol as module

    for name in ("HTTP_PROTOCOLS", "WS_PROTOCOLS"):
        monkeypatch.setattr(uvicorn.config, name, dict(getattr(uvicorn.config, name)))

    async def app(scope: Scope, receive: Receive, send: Send) -> None: ...

    module.limit_connections(app, LIMITS, lambda reason, status: None)
    config = uvicorn.Config("serving.app:create_app", factory=True)
    config.app = app  # type: ignore[assignment]
    config.factory = False
    config.load()
    assert issubclass(config.http_protocol_class, module.LimitedProtocol) and config.ws_protocol_class is None
    assert asyncio.iscoroutinefunction(config.http_protocol_class.asked)
