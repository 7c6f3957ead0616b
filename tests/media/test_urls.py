from __future__ import annotations

import base64
import os
import pickle
import string
import time
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidseek_media.errors import InputRejected, ServiceError
from vidseek_media.records import Rejection
from vidseek_media.urls import bare_url, has_secrets, without_secrets

FAULTS = int(os.environ.get("VIDSEEK_FAULTS", "0"))
"""More of them in `make faults`."""
ALPHABET = string.ascii_letters + string.digits + "-._~!$&'()*+,;=:@/?#[]% \"é密"
SECRETS = st.text(ALPHABET, min_size=3, max_size=20).map(lambda text: f"Zq7{text}9xK")
"""Begins and ends with what stands in no message, so that it cannot occur by chance."""
ENCODINGS = st.sampled_from([
    lambda text: quote(text, safe=""), lambda text: quote(text, safe="!$&'()*+,;=:"), quote_plus,
    lambda text: "".join(f"%{byte:02x}" for byte in text.encode()), lambda text: quote(quote(text, safe=""), safe=""),
])
NAMES = st.sampled_from([
    "X-Amz-Signature", "X-Amz-Credential", "X-Amz-Security-Token", "X-Goog-Signature", "Signature", "sig", "token",
    "access_token", "api_key", "apikey", "key", "Policy", "Key-Pair-Id", "auth", "password", "hdnts", "x-oss-signature",
    "Expires", "id", "anything", "é",
])
SIGNING = NAMES.filter(lambda each: each not in ("id", "anything", "é"))


def spellings(secret: str) -> set[str]:
    return {secret, quote(secret, safe=""), quote_plus(secret), quote(secret), repr(secret)[1:-1]}


@settings(max_examples=max(200, 10 * FAULTS), deadline=None)
@given(secret=SECRETS, encode=ENCODINGS, name=NAMES, place=st.sampled_from(["user", "password", "query", "fragment"]),
       scheme=st.sampled_from(["http", "https", "s3", "gs", "HTTPS", "postgresql+psycopg2"]))
def test_secrets__are_in_nothing_that_is_stored_or_shown(
    secret: str, encode: Callable[[str], str], name: str, place: str, scheme: str
) -> None:
    said = encode(secret)
    user = {"user": f"{said}@", "password": f"me:{said}@"}.get(place, "")
    query = f"?{name}={said}&part=2" if place == "query" else ""
    url = f"{scheme}://{user}host.example:8443/deep/a.mp4{query}{f'#{said}' if place == 'fragment' else ''}"
    credentials = base64.b64encode(f"me:{secret}".encode()).decode()
    texts = [
        bare_url(url), without_secrets(f"cannot open {url}: refused"), without_secrets(f"404, url=URL('{url}')"),
        without_secrets(f"<{url}>, ({url}) and \"{url}\"."), str(ServiceError(f"{url} fails", remedy=f"See {url}")),
        str(pickle.loads(pickle.dumps(InputRejected(f"{url} fails")))), str(Rejection(url, "ingest", f"names {url}")),
    ]
    if place == "password":
        texts.append(without_secrets(f"sent {secret} or {quote(secret, safe='')} or {credentials}", of=[url]))
    for text in texts:
        assert not any(each in text for each in {*spellings(secret), said, credentials}), text
    assert bare_url(bare_url(url)) == bare_url(url) and bare_url(url).startswith(f"{scheme}://host.example:8443/deep/a.mp4")
    assert all("host.example:8443/deep/a.mp4" in text for text in texts[1:6])


@settings(max_examples=100, deadline=None)
@given(first=SECRETS, second=SECRETS, names=st.sets(SIGNING, min_size=1), number=st.integers(0, 99))
def test_bare__a_file_that_is_signed_anew_is_the_same_and_another_is_not(
    first: str, second: str, names: set[str], number: int
) -> None:
    def signed(secret: str, id: int) -> str:
        return f"https://host/get?id={id}&" + "&".join(f"{name}={quote(secret, safe='')}" for name in sorted(names))

    assert bare_url(signed(first, number)) == bare_url(signed(second, number)) == bare_url(f"https://host/get?id={number}")
    assert bare_url(signed(first, number)) != bare_url(signed(first, number + 1))


@pytest.mark.parametrize(("url", "bare"), [
    ("https://host/a.mp4", "https://host/a.mp4"),
    ("https://user:pw@host/a.mp4?X-Amz-Date=1&X-Amz-Signature=2#t=3", "https://host/a.mp4"),
    ("https://a.blob.core.windows.net/c/a.mp4?sv=2022&st=1&se=2&sr=b&sp=r&sig=x%2By", "https://a.blob.core.windows.net/c/a.mp4"),
    ("https://host/a.mp4?Expires=1&Signature=2&Key-Pair-Id=3&Policy=4", "https://host/a.mp4"),
    ("https://storage.googleapis.com/b/a.mp4?GoogleAccessId=1&Expires=2&Signature=3",
     "https://storage.googleapis.com/b/a.mp4"),
    ("https://www.youtube.com/watch?v=abc&si=shared&t=3", "https://www.youtube.com/watch?v=abc"),
    ("https://user:p/w@host:80/a.mp4", "https://host:80/a.mp4"),
    ("https://user:p?w#x@host/a.mp4", "https://host/a.mp4"),
    ("https://user:pw", "https://user"),
    ("https://host/@channel/pkg@1.0/a.mp4", "https://host/@channel/pkg@1.0/a.mp4"),
    ("http://[::1]:80/a.mp4?token=x", "http://[::1]:80/a.mp4"),
    ("http://[host/a.mp4", "http://[host/a.mp4"),
    ("https://host/a;jsessionid=1/b;v=2.mp4", "https://host/a/b;v=2.mp4"),
    ("file:///videos/what?.mp4", "file:///videos/what?.mp4"),
    ("videos/what?.mp4", "videos/what?.mp4"),
    ("", ""),
])
def test_bare__is_the_part_that_names_the_file(url: str, bare: str) -> None:
    assert bare_url(url) == bare and bare_url(bare) == bare


def test_bare__a_file_that_only_its_query_names_keeps_a_name_of_its_own() -> None:
    names = {bare_url(url) for url in (
        "https://host/get?id=1", "https://host/get?id=2", "https://host/get?key=videos/a.mp4",
        "https://host/get?key=videos/b.mp4", "s3://bucket/a#1.mp4", "s3://bucket/a#2.mp4",
    )}
    assert len(names) == 6 and not any("videos/a" in name for name in names)


@pytest.mark.parametrize(("text", "shown"), [
    ("retries exceeded with url: /api/2.0/runs?token=abcd (Caused)", "retries exceeded with url: /api/2.0/runs (Caused)"),
    ("url=https%3A%2F%2Fuser%3Apw%40host", "url=[a URL]"),
    ("mlflow:secret@postgres refused", "***@postgres refused"),
    ("see https://host/a?b, then https://x@host/c.", "see https://host/a, then https://host/c."),
    ("cannot open /videos/what?.mp4", "cannot open /videos/what?.mp4"),
    ("git@github.com:org/repo.git, me@example.org at 12:30", "git@github.com:org/repo.git, me@example.org at 12:30"),
    ("https://host/get?vidseek-id=0123456789ab is gone", "https://host/get?vidseek-id=0123456789ab is gone"),
])
def test_shown__a_message_keeps_what_is_no_secret(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


@pytest.mark.parametrize(("url", "has"), [
    ("https://user:pw@host/", True), ("https://user@host/", True), ("https://host/?sig=1", True),
    ("https://host/?id=1", False), ("https://host/@me", False), ("videos", False),
    ("https://www.youtube.com/watch?v=abc", False),
])
def test_has_secrets(url: str, has: bool) -> None:
    assert has_secrets(url) == has


@pytest.mark.slow
@pytest.mark.parametrize("text", [
    "a" * 10**6, "a://" + "a" * 10**6, "-" * 300_000 + ":@", "a:" * 300_000 + "@", "http://" * 150_000, "%3" + "a" * 300_000,
    "url:" * 200_000 + "?", "https://h/?" + "a'" * 400_000, "https://h/?" + "token=" * 150_000, "@" * 10**6 + "a://",
    "a://" + "@" * 10**6,
])
def test_shown__a_long_text_takes_no_long_time(text: str) -> None:
    begin = time.process_time()
    without_secrets(text)
    bare_url(text)
    assert time.process_time() - begin < 3


@pytest.mark.parametrize("text", [
    "https:/name:S3CRET@host/a.mp4 is missing", "//name:S3CRET@host/a.mp4", r"https:\/\/name:S3CRET@host\/a.mp4",
    "GET /a.mp4?id=7&X-Amz-Signature=S3CRET HTTP/1.1", r"https://host/a.mp4\?sig=S3CRET",
    "https://host/a.mp4%3FX-Amz-Signature=S3CRET", "/a.mp4%3fid=7%26token%3dS3CRET",
])
def test_without_secrets__what_is_nearly_a_url(text: str) -> None:
    assert "S3CRET" not in without_secrets(text)
    assert without_secrets(without_secrets(text)) == without_secrets(text)
