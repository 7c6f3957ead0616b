"""Who a request belongs to behind proxies, and how the bytes of many uploads share their room."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

from serving.http.answers import answer_error
from serving.http.clients import PEER, Proxies, client_key
from serving.http.middleware import BodyLimit, BodyTooSlow, Busy, ProxiedClients, RequestId, Upload, Uploads
from tests.raising import raises
from tests.serving.http.test_connections import examples
from vidseek.settings import ConnectionLimits, ServeSettings
from vidseek_media.errors import ConfigError

addresses = st.ip_addresses().map(str)
PROXY = "10.1.2.3"


def scope_of(peer: str, forwarded: list[str] | None = None, **more: Any) -> Scope:
    headers = [(b"x-forwarded-for", each.encode()) for each in forwarded or []]
    state = {PEER: peer, "request_id": "one"}
    return {"type": "http", "headers": headers, "state": state, "path": "/", "method": "GET", **more}


@hypothesis.given(peer=addresses, claimed=st.lists(st.text(max_size=20) | addresses))
@examples
def test_client__of_nobody_who_is_trusted_is_its_own_address(peer: str, claimed: list[str]) -> None:
    scope = scope_of(peer, [", ".join(claimed).encode("ascii", "replace").decode()])
    assert Proxies([]).client_of(scope) == client_key(peer)


@hypothesis.given(client=st.ip_addresses(v=4), claimed=st.lists(addresses, max_size=5), num_proxies=st.integers(1, 3))
@examples
def test_client__behind_proxies_is_the_nearest_that_is_none(client: Any, claimed: list[str], num_proxies: int) -> None:
    hypothesis.assume(str(client) not in Proxies(["10.0.0.0/8"]))
    hops = [*claimed, str(client), *[f"10.0.0.{number}" for number in range(1, num_proxies)]]
    for forwarded in ([", ".join(hops)], hops):  # one header, or one each
        assert Proxies(["10.0.0.0/8"]).client_of(scope_of(PROXY, forwarded)) == str(client)


@pytest.mark.parametrize(("one", "other", "same"), [
    ("2001:db8::1", "2001:db8::ffff", True), ("2001:db8::1", "2001:db8:0:1::1", False), ("::ffff:1.2.3.4", "1.2.3.4", True),
    ("127.0.0.1", "127.0.0.2", False), ("fe80::1%eth0", "fe80::1", True), ("nobody", "", True),
])
def test_client__of_ipv6_is_its_network(one: str, other: str, *, same: bool) -> None:
    assert (client_key(one) == client_key(other)) is same


@pytest.mark.parametrize("given", [["anybody"], ["10.0.0.1/8"], [""], ["1.2.3.4:80"]])
def test_proxies__are_addresses_or_networks(given: list[str]) -> None:
    with raises(ConfigError, code="setting-out-of-range", naming="trusted_proxies"):
        ConnectionLimits.of({"trusted_proxies": given})


@hypothesis.given(
    sizes=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 600), st.booleans()), max_size=40), most=st.integers(1, 1000)
)
@examples
def test_uploads__never_hold_more_than_their_room(sizes: list[tuple[int, int, bool]], most: int) -> None:
    """Of clients 0 to 3: bodies of so many bytes, each of them at its end or still held."""
    uploads = Uploads(most)
    with ExitStack() as held:
        taken: dict[Upload, str] = {}
        for client, num_bytes, is_held in sizes:
            with ExitStack() as own:
                upload = (held if is_held else own).enter_context(uploads.one(str(client)))
                try:
                    uploads.add(upload, num_bytes)
                    if is_held:
                        taken[upload] = str(client)
                except Busy:
                    assert upload.is_given_up
                assert uploads.num_bytes <= most
                of_client = sum(each.num_bytes for each, name in taken.items() if name == str(client))
                assert of_client <= most // 2
    assert uploads.num_bytes == 0 and not uploads._of_client


class Slow:
    """A body: pieces after so many seconds each, and nothing more where it is not whole."""

    def __init__(self, pieces: list[bytes], *, every: float = 0.0, is_whole: bool = True) -> None:
        self._pieces = list(pieces)
        self._every = every
        self._is_whole = is_whole

    async def receive(self) -> Message:
        await asyncio.sleep(self._every)
        if not self._pieces:
            await asyncio.sleep(60)
        piece = self._pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(self._pieces) or not self._is_whole}


async def read(uploads: Uploads, body: Slow, *, client: str, seconds: float = 0.3, hold: float = 0.0) -> int:
    """Read a form of `client` through the limit, and go on answering for `hold` seconds."""
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        num = 0
        while True:
            message = await receive()
            num += len(message["body"])
            if not message["more_body"]:
                await asyncio.sleep(hold)
                scope["num"] = num
                return

    limits = ConnectionLimits(body_seconds=seconds, min_body_kb_per_second=1000)
    limited = BodyLimit(app, settings=ServeSettings(connections=limits), uploads=uploads, proxies=Proxies([]))
    scope = scope_of(client)
    scope["headers"] = [(b"content-type", b"multipart/form-data; boundary=x")]
    await limited(scope, body.receive, lambda message: asyncio.sleep(0))
    return int(scope["num"])


def test_uploads__the_slowest_that_waits_gives_way() -> None:
    async def run() -> None:
        uploads = Uploads(1000)
        stalled = [
            asyncio.create_task(read(uploads, Slow([b"a" * 400], is_whole=False), client=f"1.2.3.{number}", seconds=30))
            for number in range(2)
        ]
        await asyncio.sleep(1.1)  # before, they are too new to give way
        assert await read(uploads, Slow([b"a" * 100] * 4), client="9.9.9.9") == 400
        with raises(Busy, code="too-slow-upload"):
            await next(each for each in stalled if each.done())
        assert uploads.num_bytes == 400
        for each in stalled:
            each.cancel()
        await asyncio.gather(*stalled, return_exceptions=True)
        assert uploads.num_bytes == 0

    asyncio.run(run())


def test_uploads__what_is_being_answered_gives_way_to_nobody() -> None:
    async def run() -> None:
        uploads = Uploads(1000)
        answered = asyncio.create_task(read(uploads, Slow([b"a" * 450]), client="1.2.3.4", hold=1.5))
        other = asyncio.create_task(read(uploads, Slow([b"a" * 450]), client="1.2.3.5", hold=1.5))
        await asyncio.sleep(1.2)
        with raises(Busy, code="too-many-uploads"):
            await read(uploads, Slow([b"a" * 450]), client="1.2.3.6")
        assert await answered == await other == 450

    asyncio.run(run())


def test_bodies__that_come_steadily_may_take_longer() -> None:
    async def run() -> None:
        uploads = Uploads(2**30)
        steady = Slow([b"a" * 200_000] * 10, every=0.1)  # a second, where 0.3 are allowed for none
        assert await read(uploads, steady, client="1.2.3.4") == 2_000_000
        for slow in (Slow([b"a"] * 20, every=0.1), Slow([b"a" * 10**6], is_whole=False), Slow([], is_whole=False)):
            with raises(BodyTooSlow, code="body-too-slow"):
                await asyncio.wait_for(read(uploads, slow, client="1.2.3.4"), 2)

    asyncio.run(run())


def test_bodies__time_in_which_the_application_works_does_not_count() -> None:
    async def run() -> None:
        assert await read(Uploads(2**30), Slow([b"a"]), client="1.2.3.4", hold=0.5) == 1

    asyncio.run(run())


def test_proxied__clients_have_so_many_requests_at_once_and_others_their_connections() -> None:
    async def run() -> None:
        entered, let_go = asyncio.Semaphore(0), asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            entered.release()
            await let_go.wait()

        limited = ProxiedClients(app, proxies=Proxies([PROXY]), most=2, refuse=answer_error)
        statuses = []

        async def send(message: Message) -> None:
            statuses.append(message.get("status"))

        async def receive() -> Message:
            return {"type": "http.disconnect"}

        scopes = [scope_of(PROXY, ["1.2.3.4"]) for _ in range(2)] + [scope_of(PROXY, ["5.6.7.8"])]
        scopes += [scope_of("9.9.9.9", ["1.2.3.4"]) for _ in range(3)]
        running = [asyncio.create_task(limited(each, receive, send)) for each in scopes]
        for _ in scopes:
            await asyncio.wait_for(entered.acquire(), 2)
        await limited(scope_of(PROXY, ["6.6.6.6, 1.2.3.4"]), receive, send)
        assert statuses[0] == 503
        let_go.set()
        await asyncio.gather(*running)
        await asyncio.wait_for(limited(scope_of(PROXY, ["1.2.3.4"]), receive, send), 2)
        assert not limited._at_once

    asyncio.run(run())


def test_request_id__of_a_caller_is_taken_only_if_it_is_plain() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    client = TestClient(RequestId(app))
    assert client.get("/", headers={"X-Request-Id": "a.b-c_1"}).headers["x-request-id"] == "a.b-c_1"
    for given in ("a b", "a" * 65, "<script>", ""):
        assert client.get("/", headers={"X-Request-Id": given}).headers["x-request-id"] != given
