"""Fetches pictures and videos from allowed hosts only, and posts to them; no name may lead into the local network."""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import BinaryIO
from urllib.parse import SplitResult, urlsplit

from vidseek_media.errors import InputRejected, foreign

PORTS = {"http": 80, "https": 443}
LONGEST = 2000
"""Characters of a URL."""
_CHUNK = 64 * 1024
_AGENT = {"User-Agent": "vidseek", "Accept-Encoding": "identity"}
_ACCEPTED = {"picture": "image/*", "video": "video/*, application/octet-stream;q=0.9"}

_GIVEN_OUT = ipaddress.ip_network("2000::/3")
"""All global unicast addresses there are (RFC 4291; IANA's IPv6 address space)."""
_SPECIAL = tuple(map(ipaddress.ip_network, (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
    "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
    "2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20",
)))
"""IANA's registries of special-purpose addresses: what Python knows of them differs from version to version. Teredo is in
2001::/23, 6to4 is 2002::/16."""

Resolve = Callable[[str, int], Sequence[str]]


class UrlRefused(InputRejected):
    """The URL is not allowed, or its content is not available."""

    category = "url_refused"


class AnswerLost(UrlRefused):
    """Something was sent, and nobody knows whether it was received."""

    code = "answer-lost"


def resolve(host: str, port: int) -> list[str]:
    """Return the IP addresses of a host.

    Args:
        host: Name of the host.
        port: Port of the connection.

    Raises:
        OSError: it has none.
    """
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet: not to this machine, a private or a special network.

    Only the usual spelling is accepted: libraries read `0x7f.1`, `017700000001` or `2130706433` in different ways.
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:  # leads to that one
            return is_public(str(ip.ipv4_mapped))
        # Compatible, translated, NAT64 and site-local addresses lie outside of what is given out; tunnels lead anywhere.
        if ip.scope_id is not None or ip not in _GIVEN_OUT:
            return False
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _SPECIAL)


class Fetcher:
    """Fetches from `hosts` alone. Safe to share between threads.

    The name is looked up once, every address that it has must be public, and the connection goes to an address that was
    looked at: a name that changes its answer meanwhile (DNS rebinding) changes nothing. Redirects are not followed.

    Args:
        hosts: Names, with `:port` where that is not the usual one.
        max_bytes: The most that is read of one answer.
        timeout_seconds: For all of one fetch.
        what: `picture` or `video`, for the request and for messages.
        resolve: Looks names up.
        may_reach: Whether an address may be connected to.
    """

    def __init__(
        self,
        hosts: Sequence[str],
        *,
        max_bytes: int,
        timeout_seconds: float,
        what: str = "picture",
        resolve: Resolve = resolve,
        may_reach: Callable[[str], bool] = is_public,
    ) -> None:
        self._hosts = frozenset(host.lower() for host in hosts)
        self._max_bytes = max_bytes
        self._timeout_seconds = timeout_seconds
        self._what = what
        self._resolve = resolve
        self._may_reach = may_reach

    def fetch(self, url: str) -> bytes:
        """Download the content of a URL.

        Raises:
            UrlRefused: its host is not allowed or not public, or it does not answer with 200, whole, in size and in time.
        """
        with self._open(url) as (connection, parts, until):
            return self._read(connection, parts, until)

    def fetch_to(self, url: str, file: BinaryIO) -> None:
        """Download the content of a URL into an open file, piece by piece. Raises as `fetch`, and OSError of a full disk."""
        with self._open(url) as (connection, parts, until):
            for chunk in self._chunks(connection, parts, until):
                try:
                    file.write(chunk)
                except OSError as error:
                    raise _DiskFault(error) from error

    def post(self, url: str, content: bytes, headers: Mapping[str, str]) -> int:
        """Send content to a URL, and return the status of the answer, of which nothing else is read.

        Args:
            url: Where to.
            content: The body.
            headers: Of the request, beside `User-Agent`.

        Raises:
            UrlRefused: its host is not allowed or not public, or no connection comes about: nothing was sent.
            AnswerLost: the connection was there, and no answer came in time: the content may have been received.
        """
        with self._open(url) as (connection, parts, _):
            connection.connect()
            try:
                connection.request("POST", _target_of(parts), body=content, headers={**_AGENT, **headers})
                return int(connection.getresponse().status)
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise AnswerLost(
                    f"{connection.host} was sent it, and does not answer: {type(error).__name__}",
                    remedy="Look there whether it came",
                ) from error

    def check(self, url: str) -> None:
        """Check that a URL may be fetched now, without asking it for anything but the addresses of its host.

        Raises:
            UrlRefused: its host is not allowed, not known or not public.
        """
        _, host, port = self._checked(url)
        self._address(host, port)

    @contextlib.contextmanager
    def _open(self, url: str) -> Iterator[tuple[_Connection, SplitResult, float]]:
        until = time.monotonic() + self._timeout_seconds
        parts, host, port = self._checked(url)
        address = self._address(host, port)
        connection = _Connection(host, port, address=address, is_secure=parts.scheme == "https", until=until)
        # A host that drips byte after byte never runs into the time-out of a socket.
        end = threading.Timer(max(until - time.monotonic(), 0), connection.cut)
        end.start()
        try:
            yield connection, parts, until
        except _DiskFault as fault:
            raise fault.error from fault
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise UrlRefused(
                f"{host} does not answer: {type(error).__name__}", code="host-no-answer",
                remedy=f"Send the {self._what} itself",
            ) from error
        finally:
            end.cancel()
            connection.close()

    def _address(self, host: str, port: int) -> str:
        try:
            addresses = self._resolve(host, port)
        except OSError as error:
            raise UrlRefused(f"the host {host} is not known", code="unknown-host", remedy="Look at the URL") from error
        if not addresses or not all(self._may_reach(address) for address in addresses):
            raise UrlRefused(
                f"the host {host} is not one of the open internet", code="private-host",
                remedy=f"Send the {self._what} itself",
            )
        return addresses[0]

    def _checked(self, url: str) -> tuple[SplitResult, str, int]:
        if not self._hosts:
            raise UrlRefused(
                "this service fetches no URL", code="fetching-off",
                remedy=f"Send the {self._what} itself, or set serve.url_hosts",
            )
        with foreign(UrlRefused, "the URL cannot be used", code="bad-address", remedy="Look at it", errors=ValueError):
            if len(url) > LONGEST or not url.isascii() or not url.isprintable() or set(url) & set(" \\"):
                raise ValueError(f"it has more than {LONGEST} characters, or others than a URL has")
            parts = urlsplit(url)
            host, port = (parts.hostname or "").rstrip("."), parts.port or PORTS.get(parts.scheme, 0)
            if parts.scheme not in PORTS or not host or "@" in parts.netloc:
                raise ValueError("wanted http:// or https:// and a host, without a name or password")
        wanted = host if port == PORTS[parts.scheme] else f"{host}:{port}"
        if wanted not in self._hosts:
            raise UrlRefused(
                f"{wanted} is not among the hosts that are fetched from", code="host-not-allowed",
                remedy=f"Send the {self._what} itself",
            )
        return parts, host, port

    def _read(self, connection: _Connection, parts: SplitResult, until: float) -> bytes:
        return b"".join(self._chunks(connection, parts, until))

    def _chunks(self, connection: _Connection, parts: SplitResult, until: float) -> Iterator[bytes]:
        connection.request("GET", _target_of(parts), headers={**_AGENT, "Accept": _ACCEPTED[self._what]})
        answer = connection.getresponse()
        if answer.status != 200:
            raise UrlRefused(
                f"{connection.host} answers {answer.status}, wanted 200; redirects are not followed", code="host-refuses",
                remedy=f"Give the URL at which the {self._what} lies",
            )
        num_bytes = 0
        while chunk := answer.read1(_CHUNK):
            num_bytes += len(chunk)
            if num_bytes > self._max_bytes:
                raise UrlRefused(
                    f"more than {self._max_bytes} bytes", code="download-too-large",
                    remedy=f"Give a smaller {self._what}",
                )
            yield chunk
        if time.monotonic() >= until:
            raise TimeoutError("it took too long")
        if answer.length:
            raise UrlRefused(
                f"{connection.host} broke off {answer.length} bytes before the end", code="download-broken-off",
                remedy="Try again",
            )


def _target_of(parts: SplitResult) -> str:
    return f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"


class _DiskFault(Exception):
    """What the disk said, which is no fault of the host."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


class _Connection(http.client.HTTPConnection):
    """To `address` and no other, under the name `host`."""

    def __init__(self, host: str, port: int, *, address: str, is_secure: bool, until: float) -> None:
        super().__init__(host, port)
        self.default_port = PORTS["https" if is_secure else "http"]  # type: ignore[misc]  # left out of the Host header
        self._address = address
        self._is_secure = is_secure
        self._until = until
        self._wire: socket.socket | None = None
        """The socket, also when the answer has taken it over."""

    def connect(self) -> None:
        left = max(self._until - time.monotonic(), 0.001)
        self.sock = self._wire = socket.create_connection((self._address, self.port), timeout=left)
        if self._is_secure:
            self.sock = self._wire = ssl.create_default_context().wrap_socket(self.sock, server_hostname=self.host)

    def cut(self) -> None:
        """End whatever is under way, from another thread."""
        if self._wire is not None:
            with contextlib.suppress(OSError):  # it is closed already
                self._wire.shutdown(socket.SHUT_RDWR)
