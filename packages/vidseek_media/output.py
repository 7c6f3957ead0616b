"""Output for terminals and logs: without secrets of URLs, and without control characters."""

from __future__ import annotations

import errno
import logging
import sys
import tempfile
import traceback
import unicodedata
from contextlib import suppress
from types import TracebackType
from typing import Any

from vidseek_media.errors import ArtifactError, GateFailed, VidseekError
from vidseek_media.urls import without_secrets

_JOINERS = "\u200c\u200d"
"""Letters of Persian and parts of emoji are joined by them, or kept apart."""
_FULL = {
    errno.ENOSPC: "full", errno.EDQUOT: "over its quota", errno.EROFS: "read-only",
    errno.EFBIG: "at its limit of a file's size",
}
_NO_TEMPORARY = "No usable temporary directory"
"""How Python says that no folder for temporary files takes one."""


def printable(text: str, *, keep: str = "") -> str:
    r"""Escape control characters (control bytes, escapes, changes of direction) as `\x1b`, `\u202e`.

    Args:
        text: Any text; a file name or title may come from anybody.
        keep: Characters that stay, such as line ends.
    """
    if text.isprintable():
        return text
    return "".join(char if _is_plain(char) or char in keep else _escaped(char) for char in text)


def lines_of(error: VidseekError) -> str:
    """Return the control characters to keep in an error's message: line ends for the table of a gate, none for others."""
    return "\n" if isinstance(error, GateFailed) else ""


def shown(text: str, *, keep: str = "") -> str:
    """Return a text for a terminal or log: control characters escaped, secrets of URLs removed.

    Args:
        text: Any text.
        keep: Control characters that stay, such as line ends.
    """
    return printable(without_secrets(text), keep=keep)


def print_exceptions_shown() -> None:
    """Make this process print its uncaught errors, and all log records of libraries, through `shown`."""
    sys.excepthook = _print_shown
    logging.setLogRecordFactory(shown_record)


def shown_record(*args: Any, **named: Any) -> logging.LogRecord:
    """Create a log record whose message and traceback passed through `shown`."""
    record = logging.LogRecord(*args, **named)
    with suppress(TypeError, ValueError):  # a message that does not fit its arguments: logging says so
        record.msg, record.args = shown(record.getMessage(), keep="\n\t"), ()
    if record.exc_info:
        record.exc_text = shown(logging.Formatter().formatException(record.exc_info), keep="\n\t")
    return record


def disk_fault(error: BaseException) -> ArtifactError | None:
    """Convert the error of a full disk into one of ours, with the folder and a remedy; None for any other error."""
    found = _os_error(error)
    if found is None:
        return None
    is_temporary = _NO_TEMPORARY in str(found)
    where = found.filename if isinstance(found.filename, str) and not is_temporary else None
    why = "takes no file" if is_temporary else f"is {_FULL[found.errno or errno.ENOSPC]}"
    folder = where or _temporary_folder()
    said = f"the disk of {folder} {why}" if where else f"a disk {why}; temporary files go to {folder}"
    return ArtifactError(
        said, code="not-writable", remedy="Make room there, or set TMPDIR to a folder on another disk; then try again",
    )


def _os_error(error: BaseException | None) -> OSError | None:
    """Return the fault of a disk that `error` is, or came of."""
    for _ in range(8):
        if isinstance(error, OSError) and (error.errno in _FULL or _NO_TEMPORARY in str(error)):
            return error
        error = error.__cause__ or error.__context__ if error is not None else None
    return None


def _temporary_folder() -> str:
    try:
        return tempfile.gettempdir()
    except OSError:
        return "TMPDIR"


def _is_plain(char: str) -> bool:
    return char.isprintable() or char in _JOINERS or unicodedata.category(char) == "Zs"


def _escaped(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii") if char != "\\" else char


def _print_shown(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    text = "".join(traceback.format_exception(kind, error, trace))
    sys.stderr.write(shown(text, keep="\n\t"))
