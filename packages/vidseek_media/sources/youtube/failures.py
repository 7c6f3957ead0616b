"""Classifies failures of yt-dlp by the class of the error, and by its message if yt-dlp has no class for it.

    ExtractorError, DownloadError, HTTPError, ... ─► cause ─┬─► SiteFailure   this video is rejected, the next one is tried
                                                            └─► SiteStopped   three of one cause in a row end the run

This is the only module that reads error messages: YouTube answers in sentences, and yt-dlp passes them on.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any

from vidseek_media.errors import ArtifactError, InputRejected, ServiceError, VidseekError

ALIKE_IN_A_ROW = 3
"""So many failures of one cause, with no video between them that came, end the run."""


class Cause(StrEnum):
    """The reason why a video could not be downloaded."""

    VIDEO = "video"
    """The video itself: private, removed, for members, not for this country."""
    NOT_YET = "not_yet"
    """It is live, or not shown yet."""
    BLOCKED = "blocked"
    """The site takes the caller for a machine: sign in, captcha, error 429."""
    FORBIDDEN = "forbidden"
    """Error 403, most often on the media file."""
    NO_FORMAT = "no_format"
    """The site offered no format that can be downloaded."""
    RELOAD = "reload"
    """The player gave no answer: "The page needs to be reloaded"."""
    CUT_SHORT = "cut_short"
    """The file ended early, or was empty."""
    SILENT = "silent"
    """The site does not answer, or answers with an error of its own."""
    CHANGED = "changed"
    """yt-dlp does not understand the site any more."""

    @property
    def is_of_the_site(self) -> bool:
        """Whether other videos would fail alike."""
        return self not in (Cause.VIDEO, Cause.NOT_YET)

    @property
    def retryable(self) -> bool:
        """Whether another run may get the video with nothing changed here."""
        return self not in (Cause.VIDEO, Cause.CHANGED)


class SiteFailure(InputRejected):
    """A video, a page or a subtitle that could not be had."""

    code = "site-failure"

    def __init__(self, message: str, *, cause: Cause = Cause.VIDEO) -> None:
        super().__init__(message)
        self.cause = cause
        self.retryable = cause.retryable


class SiteStopped(ServiceError):
    """The site refuses further downloads; finished downloads stay, and another run continues from there."""

    code = "site-stopped"
    retryable = True

    def __init__(self, message: str, *, cause: Cause, remedy: str) -> None:
        super().__init__(message, remedy=remedy)
        self.cause = cause


class Streak:
    """Counts consecutive failures of one cause. A failure that concerns only one video is not counted."""

    def __init__(self) -> None:
        self.cause: Cause | None = None
        self.num = 0

    def add(self, cause: Cause) -> None:
        """Count a failure."""
        if cause.is_of_the_site:
            self.num = self.num + 1 if cause is self.cause else 1
            self.cause = cause

    def end(self) -> None:
        """Reset the count after a success."""
        self.cause, self.num = None, 0

    @property
    def is_full(self) -> bool:
        """Whether asking on would be in vain."""
        return self.num >= ALIKE_IN_A_ROW


def stopped(cause: Cause, page: str, said: str, *, num: int = 0) -> SiteStopped:
    """Return the error that ends a run.

    Args:
        cause: The reason.
        page: The page that was requested.
        said: The last message of the site.
        num: Consecutive videos that failed; 0 if the page itself failed.
    """
    how_many = f"{num} videos in a row" if num > 1 else "it"
    return SiteStopped(f"{page}: {_MEANING[cause]} ({how_many}): {said}", cause=cause, remedy=f"{_REMEDY[cause]}. {_KEPT}")


def failure_of(error: Exception) -> VidseekError:
    """Convert an exception of yt-dlp: an ArtifactError if this machine's disk is the cause, else a SiteFailure."""
    said = words_of(error)
    if _is_of_the_disk(error):
        return ArtifactError(f"a download cannot be written: {said}", code="download-not-written",
                             remedy="Make room, then run it again")
    cause = cause_of(error)
    if cause is Cause.CHANGED:
        return SiteFailure(f"yt-dlp fails on it: {type(error).__name__}: {said}", cause=cause)
    return SiteFailure(said.split(". See ")[0], cause=cause)


def cause_of(error: Exception) -> Cause:
    """Classify an exception of yt-dlp that is not caused by the disk."""
    said = words_of(error)
    for cause, pattern in _WORDS.items():
        if pattern.search(said):
            return cause
    for each in chain_of(error):
        if (cause_of_class := _by_class(each)) is not None:
            return cause_of_class
    for cause, pattern in _WORDS_WITHOUT_CLASS.items():
        if pattern.search(said):
            return cause
    return Cause.VIDEO if _is_expected(error) else Cause.CHANGED


def _is_expected(error: Exception) -> bool:
    """Whether yt-dlp understands what went wrong, which it marks. Anything else is a bug, its own or of its knowledge."""
    from yt_dlp.utils import ExtractorError, YoutubeDLError

    chain = list(chain_of(error))
    for each in chain:
        if isinstance(each, ExtractorError):
            return bool(each.expected)
    return all(isinstance(each, YoutubeDLError | OSError) for each in chain)


def words_of(error: Exception) -> str:
    """Return the message of an exception in one line."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).removeprefix("ERROR:")
    return " ".join(plain.split())[:300]


def chain_of(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and its causes, nearest first; yt-dlp keeps them in attributes of its own."""
    seen: set[int] = set()
    todo: list[BaseException] = [error]
    while todo:
        each = todo.pop(0)
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        kept: list[Any] = [getattr(each, "cause", None), each.__cause__, each.__context__]
        kept += getattr(each, "exc_info", None) or ()
        todo += [one for one in kept if isinstance(one, BaseException)]


def _by_class(error: BaseException) -> Cause | None:
    from yt_dlp.networking.exceptions import HTTPError, IncompleteRead, TransportError
    from yt_dlp.utils import ContentTooShortError, GeoRestrictedError, UserNotLive

    if isinstance(error, HTTPError):
        return _by_status(error.status)
    if isinstance(error, IncompleteRead | ContentTooShortError):
        return Cause.CUT_SHORT
    if isinstance(error, TransportError | ConnectionError | TimeoutError):
        return Cause.SILENT
    if isinstance(error, UserNotLive):
        return Cause.NOT_YET
    return Cause.VIDEO if isinstance(error, GeoRestrictedError) else None


def _by_status(status: int) -> Cause:
    by_status = {403: Cause.FORBIDDEN, 408: Cause.SILENT, 429: Cause.BLOCKED}
    return by_status.get(status, Cause.SILENT if status >= 500 else Cause.VIDEO)


def _is_of_the_disk(error: BaseException) -> bool:
    from yt_dlp.networking.exceptions import RequestError

    for each in chain_of(error):
        if isinstance(each, RequestError):
            return False  # A socket's OSError lies behind it.
        if isinstance(each, OSError) and each.errno in _OF_THE_DISK:
            return True
    return False


_OF_THE_DISK = frozenset([
    errno.EACCES, errno.EEXIST, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EFBIG, errno.ENOSPC, errno.EROFS,
    errno.EDQUOT, errno.EIO, errno.ENAMETOOLONG,
])


def _words(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


_WORDS: Mapping[Cause, re.Pattern[str]] = {
    Cause.BLOCKED: _words(
        r"not a bot", r"HTTP Error 429", r"Too Many Requests", r"rate.?limited", r"captcha", r"IP is likely being blocked",
        r"unusual traffic",
    ),
    Cause.RELOAD: _words(r"page needs to be reloaded", r"Failed to extract any player response"),
    Cause.NO_FORMAT: _words(r"No video formats found", r"Requested format is not available", r"Only images are available"),
}
"""Of YouTube's answers, which come with no error of HTTP. They are looked for first: any error may be in their chain."""
_WORDS_WITHOUT_CLASS: Mapping[Cause, re.Pattern[str]] = {
    Cause.FORBIDDEN: _words(r"HTTP Error 403"),
    Cause.CUT_SHORT: _words(r"content too short", r"Did not get any data blocks", r"downloaded file is empty"),
    Cause.SILENT: _words(
        r"urlopen error", r"timed? ?out", r"Connection (?:refused|reset|aborted)", r"Failed to resolve",
        r"Name or service not known", r"Temporary failure in name resolution", r"Network is unreachable",
        r"No route to host", r"HTTP Error 5\d\d", r"Unable to connect",
    ),
    Cause.NOT_YET: _words(r"Premieres in", r"live event will begin", r"This live event has ended"),
}
"""Where yt-dlp keeps the words of an error and not the error."""

_MEANING: Mapping[Cause, str] = {
    Cause.VIDEO: "the site refuses it", Cause.NOT_YET: "the site does not show it yet",
    Cause.BLOCKED: "the site takes this machine for a bot and gives nothing more",
    Cause.FORBIDDEN: "the site refuses the media files (HTTP 403)",
    Cause.NO_FORMAT: "the site offers no format that can be downloaded",
    Cause.RELOAD: "the site's player gives no answer",
    Cause.CUT_SHORT: "downloads end early",
    Cause.SILENT: "the site does not answer",
    Cause.CHANGED: "yt-dlp does not understand the site any more",
}
_NEWER = (
    "Run `vidseek doctor`, which says whether yt-dlp has its JavaScript runtime and solver; run `pip install -U "
    "'yt-dlp[default,deno]'`, since sites change every few weeks"
)
_WAIT = (
    "wait some hours; set ingest.youtube.cookies to a cookies.txt of a browser that is signed in, and "
    "ingest.youtube.sleep_seconds higher"
)
_KEPT = "What is downloaded is kept, and the next run goes on from there (docs/youtube.md)"
_REMEDY: Mapping[Cause, str] = {
    Cause.VIDEO: "Open the page in a browser", Cause.NOT_YET: "Wait until it is shown",
    Cause.BLOCKED: _WAIT.capitalize(),
    Cause.FORBIDDEN: f"{_NEWER}; then {_WAIT}",
    Cause.NO_FORMAT: f"{_NEWER}; then {_WAIT}",
    Cause.RELOAD: f"{_NEWER}; then {_WAIT}",
    Cause.CUT_SHORT: "See that the connection holds, then run it again",
    Cause.SILENT: "See that the site is reachable from this machine, then run it again",
    Cause.CHANGED: _NEWER,
}
