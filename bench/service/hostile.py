"""Eight kinds of hostile clients and one ordinary client, all in one process that uses little of the machine.

Each hostile kind begins a request every so many seconds, and has at most so many under way; the figures are in `kinds_of`.
Each kind comes from an address of its own (127.0.1.1 to 127.0.1.8), the ordinary client from 127.0.0.1.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from bench.service.hostile_files import HostileFiles

PATIENCE_SECONDS = 30.0
"""So long a client waits for an answer."""
ORDINARY_ADDRESS = "127.0.0.1"
SEARCH = "/v1/search"
JSON, FORM = "application/json", "multipart/form-data; boundary=x"
OTHER_SITE = {"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"}


@dataclass(frozen=True)
class Attempt:
    """What one hostile connection sends."""

    pieces: Iterable[bytes]
    pause: float = 0.0
    """Seconds before each piece but the first."""


@dataclass(frozen=True)
class Kind:
    """One kind of hostile client."""

    name: str
    every_seconds: float
    at_once: int
    attempts: Sequence[Attempt]
    """Sent in turns."""


@dataclass
class Seen:
    """What came of the requests."""

    texts: list[float] = field(default_factory=list)
    """Seconds to the last byte of an answer of 200 for each ordinary text search; `PATIENCE_SECONDS` for any other."""
    pictures: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    """Of the ordinary client, by what came in the place of 200."""
    hostile: dict[str, Counter[str]] = field(default_factory=dict)
    """For each kind: how many of its requests had which status; `cut`, `nothing` where there was none."""


def kinds_of(files: HostileFiles) -> tuple[Kind, ...]:
    """The eight kinds."""
    return (
        Kind("long headers", 1.0, 2, [
            Attempt((b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nA: ", *itertools.repeat(b"a" * 2**18, 64))),
            Attempt((request("GET", "/" + "a" * 10**6),)),
            Attempt((request("GET", "/", headers={"A": "b"}, repeat=20_000),)),
        ]),
        Kind("half-open connections", 0.02, 400, [
            Attempt((b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nA: ", *itertools.repeat(b"a", 30)), pause=1.0), Attempt(()),
            Attempt((b"POST /v1/search HTTP/1.1\r\n",)),
        ]),
        Kind("half bodies", 0.5, 30, [
            Attempt((head("POST", SEARCH, FORM, 60_000_000), form_part("image") + bytes(4 * 2**20))),
            Attempt((head("POST", SEARCH, JSON, 1_000_000), b'{"text": "' + b"a" * 900_000)),
            Attempt((head("POST", SEARCH, FORM, 60_000_000), form_part("image"), *itertools.repeat(b"a", 30)), pause=1.0),
        ]),
        Kind("JSON bombs", 0.25, 4, [Attempt((request("POST", route, JSON, body),)) for route, body in json_bombs()]),
        Kind("form floods", 0.5, 2, [Attempt((request("POST", SEARCH, FORM, body),)) for body in form_floods()]),
        Kind("slow pictures", 1.0, 3, [Attempt((upload("image", content),)) for content in files.pictures]),
        Kind("heavy videos", 4.0, 2, [Attempt((upload("clip", content),)) for content in files.videos]),
        Kind("cross-site forms", 0.2, 4, [
            Attempt((request("POST", SEARCH, kind, body, headers=OTHER_SITE),)) for kind, body in (
                (FORM, form_part("query", is_file=False) + b'{"text": "sent by another site"}\r\n--x--\r\n'),
                ("text/plain", b'{"text": "sent by another site"}'),
                (FORM, form_part("image") + files.pictures[0] + b"\r\n--x--\r\n"),
            )
        ]),
    )


def json_bombs() -> list[tuple[str, bytes]]:
    """Routes and bodies: just within the limit of JSON, and above it."""
    num = 900_000
    keys = b",".join(b'"%x":1' % number for number in range(num // 9))
    return [
        ("/v1/embed/text", b'{"texts":[' + b"1," * (num // 2) + b"1]}"),
        (SEARCH, b'{"text":"a","filters":{"start_ms":[' + b",".join(b"%d" % each for each in range(num // 7)) + b"]}}"),
        (SEARCH, b'{"text":"a",' + keys + b"}"),
        ("/v1/embeddings", b'{"model":"vidseek","input":[' + b"[]," * (num // 3) + b"1]}"),
        (SEARCH, b'{"text":"a","filters":{"start_ms":' + b"9" * num + b"}}"),
        (SEARCH, b'{"text":"a","filters":' + b'{"a":' * (num // 5)),
        ("/v1/embed/text", b'{"texts":[' + b"1," * (3 * 2**20) + b"1]}"),
    ]


def form_floods() -> list[bytes]:
    """Forms of many parts, of JSON that is too large, and of what is nearly a boundary."""
    return [
        (form_part("image") + b"a\r\n") * 2000 + b"--x--\r\n",
        (form_part("query", is_file=False) + b"{}\r\n") * 2000 + b"--x--\r\n",
        form_part("query") + b'{"text":[' + b"1," * 10**6 + b"1]}\r\n--x--\r\n",
        form_part("image") + b"\r\n--" * 500_000 + b"\r\n--x--\r\n",
        form_part("image")[:-2] + b"a: b\r\n" * 300_000,
    ]


def head(method: str, path: str, kind: str, length: int) -> bytes:
    """The headers of a request whose body has `length` bytes."""
    return (
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n"
        "Connection: close\r\n\r\n"
    ).encode()


def request(
    method: str, path: str, kind: str = JSON, body: bytes = b"", *, headers: dict[str, str] | None = None, repeat: int = 1
) -> bytes:
    """A whole request; `headers` come `repeat` times."""
    more = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items()) * repeat
    begin, _, _ = head(method, path, kind, len(body)).partition(b"\r\n\r\n")
    return begin + b"\r\n" + more.encode() + b"\r\n" + body


def form_part(name: str, *, is_file: bool = True) -> bytes:
    """The beginning of a part."""
    filename = '; filename="a"' if is_file else ""
    return f'--x\r\nContent-Disposition: form-data; name="{name}"{filename}\r\n\r\n'.encode()


def upload(name: str, content: bytes) -> bytes:
    """A search by a file."""
    return request("POST", SEARCH, FORM, form_part(name) + content + b"\r\n--x--\r\n")


async def attack(port: int, files: HostileFiles, *, seconds: float, one_address: bool = False) -> Seen:
    """Ask the service at `port` of 127.0.0.1 for so long, and say what came of it.

    Args:
        port: Of the service.
        files: What is uploaded.
        seconds: How long new requests are begun. The last ones are waited for.
        one_address: All clients come from one address, as programs on one machine do.
    """
    seen = Seen()
    begin = time.monotonic()
    end = begin + seconds
    async with asyncio.TaskGroup() as group:
        for number, kind in enumerate(kinds_of(files), start=1):
            address = ORDINARY_ADDRESS if one_address else f"127.0.1.{number}"
            seen.hostile[kind.name] = Counter()
            group.create_task(_keep_up(kind, port, address, end, seen.hostile[kind.name]))
        group.create_task(_ask_ordinarily(port, files.ordinary_picture, begin, end, seen))
    return seen


async def _keep_up(kind: Kind, port: int, address: str, end: float, counts: Counter[str]) -> None:
    running: set[asyncio.Task[None]] = set()

    async def one(attempt: Attempt) -> None:
        counts[await _exchange(port, attempt, address)] += 1

    for number in itertools.count():
        if time.monotonic() >= end:
            break
        if len(running) < kind.at_once:
            task = asyncio.create_task(one(kind.attempts[number % len(kind.attempts)]))
            running.add(task)
            task.add_done_callback(running.discard)
        await asyncio.sleep(kind.every_seconds)
    if running:
        counts["under way"] += len(running)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


async def _ask_ordinarily(port: int, picture: bytes, begin: float, end: float, seen: Seen) -> None:
    """One request a second, a text and a picture in turns, whether or not the one before was answered."""
    async def one(asked: bytes, times: list[float]) -> None:
        sent = time.monotonic()
        status = await _exchange(port, Attempt((asked,)), ORDINARY_ADDRESS)
        times.append(time.monotonic() - sent if status == "200" else PATIENCE_SECONDS)
        if status != "200":
            seen.failures[status] += 1

    async with asyncio.TaskGroup() as group:
        for number in itertools.count():
            await asyncio.sleep(max(0.0, begin + number - time.monotonic()))
            if time.monotonic() >= end:
                return
            text = request("POST", SEARCH, JSON, json.dumps({"text": f"a red car {number}"}).encode())
            asked, times = (upload("image", picture), seen.pictures) if number % 2 else (text, seen.texts)
            group.create_task(one(asked, times))


async def _exchange(port: int, attempt: Attempt, address: str) -> str:
    """The status of the answer; `cut` where the connection was reset, `nothing` where it ended or nothing came."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS), _connection(port, address) as (reader, writer):
            sending = asyncio.create_task(_send(writer, attempt))
            try:
                content = await reader.read(12)
                while await reader.read(2**16):
                    pass
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
        return content[9:12].decode("latin-1") or "nothing"
    except TimeoutError:
        return "nothing"
    except OSError:
        return "cut"


@asynccontextmanager
async def _connection(port: int, address: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def _send(writer: asyncio.StreamWriter, attempt: Attempt) -> None:
    with suppress(OSError):
        for number, piece in enumerate(attempt.pieces):
            await asyncio.sleep(attempt.pause if number else 0.0)
            writer.write(piece)
            await writer.drain()


def percentile(times: Sequence[float], share: float) -> float:
    """The smallest time that at least this share of them do not exceed; infinite if there are none."""
    ranked = sorted(times)
    return ranked[min(len(ranked) - 1, max(0, -int(-len(ranked) * share // 1) - 1))] if ranked else float("inf")
