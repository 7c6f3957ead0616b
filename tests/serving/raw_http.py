"""HTTP as bytes on a socket: what no HTTP library would send, and what comes back."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Reply:
    """What came back until the other side ended, or the patience of the test."""

    content: bytes
    seconds: float
    is_ended: bool
    """The other side closed or reset the connection."""

    @property
    def status(self) -> int:
        """Of the first answer; 0 if there is none."""
        return int(self.content[9:12]) if self.content.startswith(b"HTTP/1.1 ") else 0

    @property
    def num_answers(self) -> int:
        return self.content.count(b"HTTP/1.1 ")

    def error(self) -> str:
        """The code of an error, whose answer has the one shape that all errors have."""
        head, _, body = self.content.partition(b"\r\n\r\n")
        said: dict[str, Any] = json.loads(body)
        assert set(said) == {"error", "request_id"} and set(said["error"]) == {"code", "fault", "message", "remedy"}, said
        assert b"x-request-id: " + said["request_id"].encode() in head.lower()
        assert b"frame-ancestors 'none'" in head
        return str(said["error"]["code"])


def exchange(port: int, pieces: Iterable[bytes], *, pause: float = 0.0, patience: float = 30.0, end: bool = False) -> Reply:
    """Send `pieces`, each after a pause, and read what comes back.

    Args:
        port: Of 127.0.0.1.
        pieces: Bytes; what the other side does not take any more is not sent.
        pause: Seconds before each piece but the first.
        patience: Seconds to wait for more.
        end: Close the sending side after the last piece.
    """
    begin = time.monotonic()
    with closing(socket.create_connection(("127.0.0.1", port), timeout=patience)) as connection:
        try:
            for number, piece in enumerate(pieces):
                time.sleep(pause if number else 0.0)
                connection.sendall(piece)
            if end:
                connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        content, is_ended = b"", False
        try:
            while not is_ended:
                chunk = connection.recv(65536)
                content, is_ended = content + chunk, not chunk
        except TimeoutError:
            pass
        except OSError:
            is_ended = True
    return Reply(content, time.monotonic() - begin, is_ended)


def request(
    path: str = "/healthz", *, method: str = "GET", headers: Iterable[str] = (), body: bytes | None = None,
    close: bool = True,
) -> bytes:
    """A request as bytes; a body has its length in the headers."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *headers, *(["Connection: close"] if close else [])]
    lines += [f"Content-Length: {len(body)}"] if body is not None else []
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b"")


JSON = "Content-Type: application/json"
CHUNKED = "Transfer-Encoding: chunked"
FORM = "Content-Type: multipart/form-data; boundary=x"
FORM_HEAD = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
