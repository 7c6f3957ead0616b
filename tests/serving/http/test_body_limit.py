"""How the bytes of many uploads share their limit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import ExitStack

import hypothesis
import pytest
from hypothesis import strategies as st
from starlette.types import Message, Receive, Scope, Send

from serving.http.body_limit import BodyLimit, BodyTooSlow, Upload, Uploads
from serving.http.clients import Busy, Proxies
from tests.raising import raises
from tests.serving.http.test_clients import scope_of
from tests.serving.http.test_connections import examples
from vidseek.settings import ConnectionLimits, ServeSettings


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


async def read(
    uploads: Uploads, body: Slow, *, client: str, seconds: float = 120.0, answering: Awaitable[object] | None = None
) -> int:
    """Read a form of `client` through the limit, and go on answering as long as `answering` takes."""
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        num = 0
        while True:
            message = await receive()
            num += len(message["body"])
            if not message["more_body"]:
                await (answering or asyncio.sleep(0))
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
        end = asyncio.Event()
        answered, other = (
            asyncio.create_task(read(uploads, Slow([b"a" * 450]), client=client, answering=end.wait()))
            for client in ("1.2.3.4", "1.2.3.5")
        )
        await asyncio.sleep(1.2)  # they are not too new to give way
        with raises(Busy, code="too-many-uploads"):
            await read(uploads, Slow([b"a" * 450]), client="1.2.3.6")
        end.set()
        assert await answered == await other == 450

    asyncio.run(run())


@pytest.mark.slow
def test_bodies__that_come_steadily_may_take_longer() -> None:
    async def run() -> None:
        uploads = Uploads(2**30)
        # Three seconds, where two are allowed for none; each piece allows as much again as it takes.
        steady = Slow([b"a" * 250_000] * 12, every=0.25)
        assert await read(uploads, steady, client="1.2.3.4", seconds=2.0) == 3_000_000
        for slow in (Slow([b"a"] * 20, every=0.1), Slow([b"a" * 10**6], is_whole=False), Slow([], is_whole=False)):
            with raises(BodyTooSlow, code="body-too-slow"):
                await asyncio.wait_for(read(uploads, slow, client="1.2.3.4", seconds=0.3), 60)

    asyncio.run(run())


def test_bodies__time_in_which_the_application_works_does_not_count() -> None:
    async def run() -> None:
        uploads, answering = Uploads(2**30), asyncio.sleep(0.7)
        assert await read(uploads, Slow([b"a"]), client="1.2.3.4", seconds=0.5, answering=answering) == 1

    asyncio.run(run())
