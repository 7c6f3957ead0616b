"""What a publish does for saved searches: a look at what it brought, and what is due is sent. It fails no publish."""

from __future__ import annotations

from collections.abc import Iterator

from vidseek.archive import Archive
from vidseek.saved.looking import LookReport, look
from vidseek.saved.saved_table import SavedTable
from vidseek.saved.webhooks import DeliveryReport, deliver
from vidseek_media.errors import VidseekError


def after_publish(archive: Archive) -> Iterator[str]:
    """Look and send, and yield what came of it, in lines; none where nothing is saved.

    Args:
        archive: The archive.
    """
    if not SavedTable(archive.saved).path.exists():
        return
    try:
        yield from looked_told(look(archive))
    except (VidseekError, OSError) as error:
        yield f"saved searches were not looked at: {error}"
    yield from send_due(archive)


def send_due(archive: Archive) -> Iterator[str]:
    """Send what is due, and yield what came of it, in lines; none where nothing happened.

    Args:
        archive: The archive.
    """
    try:
        yield from delivered_told(deliver(archive))
    except (VidseekError, OSError) as error:
        yield f"new moments were not sent: {error}"


def looked_told(report: LookReport) -> Iterator[str]:
    """Yield what a look brought, in lines."""
    if report.num_videos or report.new:
        yield f"{len(report.new)} new moments of {report.num_searches} saved searches, in {report.num_videos} videos"
    for fault in report.faults:
        yield f"a saved search was not asked: {fault}"


def delivered_told(report: DeliveryReport) -> Iterator[str]:
    """Yield what was sent, in a line; none where nothing was."""
    counts = {"sent": report.num_sent, "refused": report.num_failed, "without an answer": report.num_unknown}
    if any(counts.values()):
        told = ", ".join(f"{num} {name}" for name, num in counts.items() if num)
        yield f"moments for webhooks: {told}; {report.num_waiting} wait"
