"""URLs that may be stored and shown: without passwords, signatures and keys.

Complete URLs stay in two places: the user's manifest, and the environment. Tables, messages, logs and pages only contain
the output of `bare_url` or `without_secrets`.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, quote_plus, unquote, unquote_plus

IDENTITY = "vidseek-id"
"""Stands in a bare URL for those of its parameters that may tell one file from another."""

_SIGNING = re.compile(
    r"(?:x-(?:amz|goog|oss|cos|obs|ms|bz|tos)-.*|awsaccesskeyid|googleaccessid|ossaccesskeyid|key-pair-id"
    r"|.*(?:signature|token|secret|passw|credential|authoriz|session|expir|nonce|hmac).*"
    r"|.*(?:access|api|app)_?key.*"
    r"|(?:.*[_.-])?(?:sig|sign|key|auth|pass|pwd|pw|jwt|otp|sas|policy)|hdnts|hdnea|hdntl|__gda__)",
    re.IGNORECASE,
)
"""Parameters that say who may read a file and until when, not which file it is: of S3, Google, Azure, CloudFront, Akamai,
Alibaba, Tencent, and what people call them elsewhere."""
_BESIDE = frozenset([
    *("e", "st", "s", "h", "t", "exp", "ttl", "hash", "md5", "ip", "user", "username", "login", "client_id"),
    *("sv", "ss", "srt", "sp", "se", "spr", "sip", "sr", "si", "skoid", "sktid", "skt", "ske", "sks", "skv", "saoid"),
    *("suoid", "scid", "sdd", "ses", "rscc", "rscd", "rsce", "rscl", "rsct", "hash-algorithm", "keyname"),
])
"""Parameters that belong to a signature where there is one (most are of Azure's), and else may mean anything."""
_FILE = re.compile(
    r".+\.(?:mp4|mov|mkv|webm|avi|m4v|mpe?g|m?ts|m2ts|mxf|wmv|flv|ogv|3gp|gif|jpe?g|png|webp|bmp|csv|jsonl|parquet)",
    re.IGNORECASE,
)
"""A value that is a file's name: `?key=videos/a.mp4` is no key."""
_PAGES = re.compile(r"(?:.+\.)?(?:youtube\.com|youtu\.be|youtube-nocookie\.com)", re.IGNORECASE)
_OF_PAGES = frozenset({"v", "list", "index"})
"""Of YouTube's pages: they name a video, and are no secret."""

_BARE_QUERY = re.compile(rf"{IDENTITY}=[0-9a-f]{{12}}")
_USER = re.compile(r"(?P<protocol>[a-zA-Z][a-zA-Z0-9+.-]{0,30}:/{2,})[^\s/?#\"<>]*@")
_URL = re.compile(
    r"[a-zA-Z][a-zA-Z0-9+.-]{0,30}:/{2,}[^\s\"'<>`|\\^{}?#]+(?:[?#](?:[^\s\"'<>]|'(?=[^\s\"'<>),;:\]}]))*)?"
)
"""In a text. A quote ends it, but for one within its query. Lengths are bounded: a text may be long, and anybody's."""
_ENCODED_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]{0,30}%3a(?:%2f|/)[^\s\"'<>`|]*", re.IGNORECASE)
_NAMED_PATH = re.compile(r"(?P<path>\burl[:=]\s*[\"']?/[^\s?\"']*)\?[^\s\"']+", re.IGNORECASE)
"""How urllib3 shows what it asked for."""
_PASSWORD = re.compile(r"(?<![\w/])[^\s:/@\"'=(]{1,100}:[^\s/@\"']{1,200}@(?=[\w.-])")
_SLASHED_PASSWORD = re.compile(r"(?:(?<=:/)|(?<=//)|(?<=\\/))[^\s:/@\"'=(]{1,100}:[^\s/@\"']{1,200}@(?=[\w.\[-])")
"""Behind the slashes of what is nearly a URL: one slash, no protocol, or JSON's `\\/`."""
_PARAMETER = re.compile(
    r"(?P<start>[?&;]|%3f|%26)(?P<name>[\w.-]{1,64})(?P<equals>=|%3d)(?:(?!%26)[^\s&\"'<>])+", re.IGNORECASE
)
"""Of a path without its host, as logs of requests have it, or of what is nearly a URL."""
_TRAILING = ".,;:!)]}'\""
_LEAST_LENGTH = 4
"""Of a secret that is looked for by itself: shorter ones are in every text."""


@dataclass(frozen=True)
class _Parts:
    protocol: str
    """With its colon and slashes."""
    user: str
    """And password; empty where there are none."""
    host: str
    """And port."""
    path: str
    query: str
    fragment: str

    @property
    def pairs(self) -> list[tuple[str, str]]:
        return parse_qsl(self.query, keep_blank_values=True, max_num_fields=None)

    @property
    def head(self) -> str:
        """What is never secret."""
        return f"{self.protocol}{self.host}{_plain_path(self.path)}"

    @property
    def naming(self) -> list[tuple[str, str]]:
        """The parameters that may name the file, and the fragment where it is a part of the name: not over HTTP."""
        if self.is_page:
            return [(name, value) for name, value in self.pairs if name in _OF_PAGES]
        is_signed = any(_is_signing(name, value) for name, value in self.pairs)
        pairs = [
            (name, value) for name, value in self.pairs
            if not _is_signing(name, value) and not (is_signed and name.lower() in _BESIDE)
        ]
        is_web = self.protocol.lower().startswith(("http:", "https:"))
        return pairs + ([("#", self.fragment)] if self.fragment and not is_web else [])

    @property
    def is_page(self) -> bool:
        """Of YouTube."""
        return _PAGES.fullmatch(self.host) is not None


def is_url(text: str) -> bool:
    """Whether it names a protocol."""
    return re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", text) is not None


def bare_url(url: str) -> str:
    """Remove user, password, query and fragment from a URL; the result may be stored and identifies one file.

    Parameters that are not a signature or key may identify the file (`?id=7`) and are replaced by a digest. So a file keeps
    its
    name if it is signed again, and two files have different names. A bare URL stays as it is, and so does a text that is not
    a
    URL of another machine.

    Examples:
        >>> bare_url("https://user:secret@videos.example/a.mp4?X-Amz-Signature=123")
        'https://videos.example/a.mp4'
    """
    if not is_url(url) or url.lower().startswith("file:"):
        return url
    parts = _split(url)
    if _BARE_QUERY.fullmatch(parts.query):
        return f"{parts.head}?{parts.query}"
    naming = parts.naming
    if not naming:
        return parts.head
    text = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in sorted(naming))
    if parts.is_page:
        return f"{parts.head}?{text}"
    return f"{parts.head}?{IDENTITY}={hashlib.sha256(text.encode()).hexdigest()[:12]}"


def bare_address(value: object) -> str:
    """Return the URL of a thumbnail without anything that may be secret; empty if it is not a URL."""
    return bare_url(value).partition("?")[0] if isinstance(value, str) and "://" in value else ""


def without_secrets(text: str, *, of: Iterable[str] = ()) -> str:
    """Remove user, password, query and fragment of every URL in a text.

    Args:
        text: A message, possibly of another library.
        of: URLs whose secrets are also searched for alone, in several spellings: some libraries print a decoded password, or
            a
            header that contains it.
    """
    for secret in sorted({each for url in of for each in _spellings(url)}, key=len, reverse=True):
        text = text.replace(secret, "***")
    if "://" in text:
        text = _USER.sub(r"\g<protocol>", text)
        text = _URL.sub(lambda match: _shown(match.group()), text)
    if "%3" in text:
        text = _ENCODED_URL.sub("[a URL]", text)
    if "@" in text:
        text = _SLASHED_PASSWORD.sub("***@", _PASSWORD.sub("***@", text))
    text = _PARAMETER.sub(_without_value, text)
    return _NAMED_PATH.sub(r"\g<path>", text) if "?" in text else text


def has_secrets(url: str) -> bool:
    """Whether the URL has a user or a password, or parameters that sign it."""
    if not is_url(url):
        return False
    parts = _split(url)
    return bool(parts.user) or any(_is_signing(name, value) for name, value in parts.pairs)


def _without_value(match: re.Match[str]) -> str:
    return f"{match['start']}{match['name']}{match['equals']}***" if _SIGNING.fullmatch(match["name"]) else match[0]


def _shown(url: str) -> str:
    """Return a URL of a text, as the text may have it."""
    kept = url.rstrip(_TRAILING)
    parts = _split(kept) if is_url(kept) else None
    if parts is None:
        return url
    keeps_query = _BARE_QUERY.fullmatch(parts.query) or (parts.query and parts.is_page)
    return (bare_url(kept) if keeps_query else parts.head) + url[len(kept) :]


def _split(url: str) -> _Parts:
    """By hand, and never with an error: a password may have signs that no parser takes, and must not be shown for it."""
    match = re.match(r"([a-zA-Z][a-zA-Z0-9+.-]*:/{2,})(.*)", url, re.DOTALL)
    assert match is not None
    protocol, rest = match.groups()
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    user = ""
    if "@" in authority or (re.search(r":(?!\d*$)", re.sub(r"\[.*\]", "", authority)) and "@" in rest):
        # What stands before the first sign is no host and port: a password goes on behind it.
        end = len(authority) if "@" in authority else len(rest)
        user, _, host = rest[:end].rpartition("@")
        rest = host + rest[end:]
        authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    before, _, fragment = rest[len(authority) :].partition("#")
    path, _, query = before.partition("?")
    host = re.sub(r":(?!\d*$)[^\]]*$", "", authority)
    return _Parts(protocol, user, host, path, query, fragment)


def _plain_path(path: str) -> str:
    """Without `;jsessionid=...` and its like."""
    if ";" not in path:
        return path
    return re.sub(r";([^/;=]+)=[^/;]*", lambda match: "" if _SIGNING.fullmatch(match[1]) else match[0], path)


def _is_signing(name: str, value: str) -> bool:
    return _SIGNING.fullmatch(name) is not None and not (name.lower() == "key" and _FILE.fullmatch(value))


def _spellings(url: str) -> set[str]:
    """Return the forms in which the secrets of a URL may appear in a text."""
    if not is_url(url):
        return set()
    parts = _split(url)
    name, _, password = parts.user.partition(":")
    values = [value for key, value in parts.pairs if _is_signing(key, value) or len(value) >= 2 * _LEAST_LENGTH]
    known = _decoded({parts.user, name, password, parts.fragment, parts.query, *values})
    found = set(known)
    for each in known:
        found |= {quote(each, safe=""), quote(each), quote_plus(each), quote(each, safe="").lower(), repr(each)[1:-1]}
    found |= {base64.b64encode(each.encode()).decode() for each in _decoded({parts.user}) if each}
    return {each for each in found if len(each) >= _LEAST_LENGTH}


def _decoded(texts: set[str]) -> set[str]:
    """With what is in them where they were encoded, even twice."""
    found = set(texts)
    for _ in range(2):
        found |= {unquote(each) for each in found} | {unquote_plus(each) for each in found}
    return found
