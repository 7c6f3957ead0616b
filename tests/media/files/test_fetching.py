from __future__ import annotations

import datetime
import ipaddress
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from tests.raising import raises
from vidseek_media.files.fetching import Fetcher, UrlRefused, is_public


class Site(BaseHTTPRequestHandler):
    """Pages by path, on loopback."""

    asked: ClassVar[list[tuple[str, str | None]]] = []
    num_dripped: ClassVar[int] = 0

    def handle(self) -> None:
        with suppress(BrokenPipeError):  # who is asked too slowly has gone
            super().handle()

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers["Host"]))
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "http://169.254.169.254/latest")
            self.end_headers()
            return
        if self.path == "/slow-head":
            for letter in b"HTTP/1.1 200 " + b"O" * 87:
                self.drip(bytes([letter]))
            return
        self.send_response(404 if self.path == "/gone" else 200)
        size = {"/large": 5000, "/cut": 20, "/slow": 100}.get(self.path, 7)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        if self.path == "/slow":
            for _ in range(size):
                self.drip(b"x")
        else:
            self.wfile.write(b"x" * 5000 if self.path == "/large" else b"picture")

    def drip(self, letter: bytes) -> None:
        self.wfile.write(letter)
        Site.num_dripped += 1
        time.sleep(0.2)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


class Names:
    """A resolver that says one thing after another, and remembers how often it was asked."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.num_asked = 0

    def __call__(self, host: str, port: int) -> Sequence[str]:
        self.num_asked += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def fetcher(port: int, names: Names | None = None, *, anywhere: bool = True, seconds: float = 60.0) -> Fetcher:
    """One that may ask `pictures.test` at `port`, and reach loopback if `anywhere`."""
    reach = {"may_reach": lambda address: True} if anywhere else {}
    return Fetcher(
        [f"Pictures.test:{port}"], max_bytes=1000, timeout_seconds=seconds,
        resolve=names or Names(["127.0.0.1"]), **reach,  # type: ignore[arg-type]
    )


def test_fetch__gives_what_an_allowed_host_has(port: int) -> None:
    assert fetcher(port).fetch(f"http://pictures.test:{port}/a.png?size=1#top") == b"picture"
    assert Site.asked[-1] == ("/a.png?size=1", f"pictures.test:{port}")


def test_fetch__by_default_nothing_is_fetched(port: int) -> None:
    names = Names(["127.0.0.1"])
    with raises(UrlRefused, code="fetching-off"):
        Fetcher([], max_bytes=9, timeout_seconds=1, resolve=names).fetch(f"http://pictures.test:{port}/")
    assert names.num_asked == 0


@pytest.mark.parametrize("url", [
    "http://other.test:{port}/", "http://pictures.test/", "http://pictures.test.other.test:{port}/",
    "https://127.0.0.1:{port}/", "http://pictures.test:{port}@other.test/", "http://me:secret@pictures.test:{port}/",
    "file:///etc/passwd", "ftp://pictures.test:{port}/", "//pictures.test:{port}/", "http://pictures.test:{port}\\@x/",
    "http://pictures.test:{port}/ x", "http://pictures.test:{port}/\r\nX: 1", "http://pictures.test:99999999/",
    "http://[::1/", "http://pictures.tést:{port}/", "", "http://pictures.test:{port}/" + "a" * 2000,
])
def test_fetch__other_hosts_and_odd_urls_are_refused_unasked(port: int, url: str) -> None:
    names = Names(["127.0.0.1"])
    with raises(UrlRefused, code=("host-not-allowed", "bad-address")):
        fetcher(port, names).fetch(url.format(port=port))
    assert names.num_asked == 0


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["8.8.8.8", "10.0.0.1"], ["::ffff:127.0.0.1"], []])
def test_fetch__name_that_leads_inside_is_refused(port: int, addresses: list[str]) -> None:
    num_asked = len(Site.asked)
    with raises(UrlRefused, code="private-host"):
        fetcher(port, Names(addresses), anywhere=False).fetch(f"http://pictures.test:{port}/a.png")
    assert len(Site.asked) == num_asked


def test_fetch__connects_to_the_address_that_was_checked(port: int) -> None:
    names = Names(["127.0.0.1"], ["192.0.2.1"])  # a second look would lead nowhere
    checked: list[str] = []
    one = Fetcher(
        [f"pictures.test:{port}"], max_bytes=1000, timeout_seconds=60, resolve=names,
        may_reach=lambda address: checked.append(address) or True,  # type: ignore[func-returns-value]
    )
    assert one.fetch(f"http://pictures.test:{port}/") == b"picture"
    assert names.num_asked == 1 and checked == ["127.0.0.1"]


@pytest.mark.parametrize(("path", "code", "fact"), [
    ("moved", "host-refuses", "302"), ("gone", "host-refuses", "404"), ("large", "download-too-large", "1000 bytes"),
    ("cut", "download-broken-off", "13 bytes"),
])
def test_fetch__what_is_no_whole_small_answer_is_refused(port: int, path: str, code: str, fact: str) -> None:
    with raises(UrlRefused, code=code, naming=fact):
        fetcher(port).fetch(f"http://pictures.test:{port}/{path}")


@pytest.mark.parametrize("path", ["slow", "slow-head"])
def test_fetch__host_that_drips_is_given_up(port: int, path: str) -> None:
    Site.num_dripped = 0
    with raises(UrlRefused, code="host-no-answer"):
        fetcher(port, seconds=0.3).fetch(f"http://pictures.test:{port}/{path}")
    assert Site.num_dripped < 90  # of 100; two come in that time


def test_fetch__nobody_there() -> None:
    with raises(UrlRefused, code="host-no-answer"):
        fetcher(9).fetch("http://pictures.test:9/")


@pytest.mark.parametrize(("address", "expected"), [
    ("8.8.8.8", True), ("2606:4700::1111", True), ("127.0.0.1", False), ("10.1.2.3", False), ("169.254.169.254", False),
    ("192.168.0.1", False), ("100.64.0.1", False), ("0.0.0.0", False), ("224.0.0.1", False), ("::1", False),
    ("fe80::1%eth0", False), ("fd00::1", False), ("::ffff:10.0.0.1", False), ("::ffff:8.8.8.8", True),
    ("2002:7f00:1::", False), ("64:ff9b::7f00:1", False),
])
def test_is_public__knows_own_and_private_networks(address: str, expected: bool) -> None:
    assert is_public(address) == expected


PUBLIC = ["8.8.8.8", "1.1.1.1", "100.63.255.255", "100.128.0.1", "172.15.255.255", "172.32.0.1", "223.255.255.254",
          "2606:4700:4700::1111", "2a00:1450:4001:82f::200e", "::ffff:1.1.1.1"]
SPECIAL = [
    "0.0.0.0", "0.1.2.3", "10.1.2.3", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.255.255", "169.254.169.254",
    "172.16.0.1", "172.31.255.255", "192.0.0.8", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.19.255.255",
    "198.51.100.7", "203.0.113.7", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::127.0.0.1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:100.64.0.1",
    "::ffff:0:8.8.8.8",
    "64:ff9b::127.0.0.1", "64:ff9b::8.8.8.8", "64:ff9b:1::1", "100::1", "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:10::1", "2001:20::1", "2001:db8::1", "2002:7f00:1::", "2002:808:808::1", "3fff::1", "5f00::1", "fc00::1",
    "fd12::1",
    "fe80::1", "fe80::1%eth0", "fec0::1", "feff::1", "ff02::1", "ff0e::1", "2606:4700:4700::1111%eth0",
]
NOT_AN_ADDRESS = [
    "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0x7f.1", "127.0.0.1:80", "[::1]", "localhost", "", "1.1.1.1 ",
    "\u0661.1.1.1", "127.0.0.01",
]


@pytest.mark.parametrize(("address", "expected"), [
    *((each, True) for each in PUBLIC), *((each, False) for each in SPECIAL), *((each, False) for each in NOT_AN_ADDRESS),
])
def test_is_public__knows_every_special_network_and_only_plain_addresses(address: str, expected: bool) -> None:
    assert is_public(address) == expected


@given(st.integers(0, 2**32 - 1))
def test_is_public__a_wrapped_address_is_never_more_public_than_the_one_in_it(number: int) -> None:
    inside = ipaddress.IPv4Address(number)
    assert is_public(f"::ffff:{inside}") == is_public(str(inside))
    mapped = [f"::{inside}", f"64:ff9b::{inside}", f"::ffff:0:{inside}", f"2002:{number >> 16:x}:{number & 0xFFFF:x}::1"]
    assert not any(map(is_public, mapped))


def certificate(folder: Path, name: str) -> Path:
    """A key with a certificate for `name` that it signed itself, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    signed = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - day).not_valid_after(now + day)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / f"{name}.pem"
    file.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + signed.public_bytes(Encoding.PEM)
    )
    return file


@pytest.mark.parametrize(("name", "is_trusted", "is_fetched"), [
    ("pictures.test", True, True), ("pictures.test", False, False), ("other.test", True, False),
])
def test_fetch__over_tls_the_host_must_prove_its_name(
    name: str, is_trusted: bool, is_fetched: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = certificate(tmp_path, name)
    if is_trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        Site.asked.clear()
        url = f"https://pictures.test:{server.server_port}/a"
        if is_fetched:
            assert fetcher(server.server_port).fetch(url) == b"picture"
            assert Site.asked == [("/a", f"pictures.test:{server.server_port}")]
        else:
            with raises(UrlRefused, code="host-no-answer", naming=("pictures.test", "SSLCertVerificationError")):
                fetcher(server.server_port).fetch(url)
            assert not Site.asked
    finally:
        server.shutdown()
        server.server_close()
