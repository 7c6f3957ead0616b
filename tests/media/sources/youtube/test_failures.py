from __future__ import annotations

import errno
import os

import pytest

yt_dlp = pytest.importorskip("yt_dlp")
from yt_dlp.networking.exceptions import IncompleteRead, TransportError  # noqa: E402
from yt_dlp.utils import (  # noqa: E402
    DownloadError,
    ExtractorError,
    GeoRestrictedError,
    RegexNotFoundError,
    UnavailableVideoError,
    UserNotLive,
)

from vidseek_media.errors import ArtifactError  # noqa: E402
from vidseek_media.sources.youtube.failures import ALIKE_IN_A_ROW, Cause, SiteFailure, Streak, failure_of, stopped  # noqa: E402


def cause_of(error: Exception) -> Cause:
    found = failure_of(error)
    assert isinstance(found, SiteFailure)
    return found.cause


def wrapped(error: Exception) -> DownloadError:
    """As YoutubeDL.report_error passes on what an extractor or a downloader raised."""
    return DownloadError(f"ERROR: {error}", (type(error), error, None))


@pytest.mark.parametrize(("error", "cause"), [
    (TransportError("no route"), Cause.SILENT), (IncompleteRead(5, 9), Cause.CUT_SHORT),
    (ExtractorError("Unable to download webpage", cause=TransportError("no route")), Cause.SILENT),
    (GeoRestrictedError("not here", countries=["DE"]), Cause.VIDEO), (UserNotLive(), Cause.NOT_YET),
    (ExtractorError("Private video", expected=True), Cause.VIDEO),
    (ExtractorError("Join this channel to get access to members-only content", expected=True), Cause.VIDEO),
    (ExtractorError("Sign in to confirm your age", expected=True), Cause.VIDEO),
    (RegexNotFoundError("Unable to extract title"), Cause.CHANGED),
    (ExtractorError("An extractor error has occurred"), Cause.CHANGED),
    (ExtractorError("Sign in to confirm you\u2019re not a bot", expected=True), Cause.BLOCKED),
    (ExtractorError("Sign in to confirm you're not a bot", expected=True, cause=TransportError("earlier")), Cause.BLOCKED),
    (KeyError("odd page"), Cause.CHANGED),
])
def test_failure_of__tells_the_cause_by_class_first(error: Exception, cause: Cause) -> None:
    assert cause_of(error) is cause
    assert cause_of(wrapped(error)) is cause


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_failure_of__a_disk_that_takes_nothing_is_no_failure_of_the_site(number: int) -> None:
    error = OSError(number, os.strerror(number))
    assert isinstance(failure_of(error), ArtifactError)
    try:
        try:
            raise error
        except OSError as caught:
            raise UnavailableVideoError(caught) from None
    except UnavailableVideoError as found:
        assert isinstance(failure_of(found), ArtifactError)


def test_failure_of__what_a_socket_says_is_no_fault_of_the_disk() -> None:
    assert cause_of(TransportError("refused", cause=PermissionError(errno.EACCES, "not allowed"))) is Cause.SILENT
    assert cause_of(ConnectionResetError(errno.ECONNRESET, "reset")) is Cause.SILENT


def test_streak__counts_alike_failures_of_the_site_alone() -> None:
    streak = Streak()
    for cause in (Cause.BLOCKED, Cause.VIDEO, Cause.BLOCKED, Cause.NOT_YET):
        streak.add(cause)
    assert (streak.num, streak.is_full) == (2, False)
    streak.add(Cause.RELOAD)
    assert (streak.cause, streak.num) == (Cause.RELOAD, 1)
    for _ in range(ALIKE_IN_A_ROW - 1):
        streak.add(Cause.RELOAD)
    assert streak.is_full
    streak.end()
    assert (streak.cause, streak.is_full) == (None, False)


@pytest.mark.parametrize("cause", list(Cause))
def test_stopped__has_a_remedy_for_every_cause(cause: Cause) -> None:
    error = stopped(cause, "https://site.example/list", "it said so", num=3)
    assert error.remedy and error.cause is cause and "it said so" in error.message
