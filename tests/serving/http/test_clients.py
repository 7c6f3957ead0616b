"""Which client a request belongs to behind proxies, and how many requests it may have at once."""

from __future__ import annotations

import asyncio
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from starlette.types import Message, Receive, Scope, Send

from serving.http.answers import answer_error
from serving.http.clients import PEER, ProxiedClients, Proxies, client_key
from tests.raising import raises
from tests.serving.http.test_connections import examples
from vidseek.settings import ConnectionLimits
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
            await asyncio.wait_for(entered.acquire(), 60)
        await limited(scope_of(PROXY, ["6.6.6.6, 1.2.3.4"]), receive, send)
        assert statuses[0] == 503
        let_go.set()
        await asyncio.gather(*running)
        await asyncio.wait_for(limited(scope_of(PROXY, ["1.2.3.4"]), receive, send), 60)
        assert not limited._at_once

    asyncio.run(run())
