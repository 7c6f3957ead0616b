"""The one family of errors, sorted by what the caller can do about it.

    VidseekError
    ├── InputRejected   exit 10  this input cannot be used: skip it, go on with the others
    ├── ConfigError     exit 11  params, paths or options are wrong: fix the configuration
    ├── ArtifactError   exit 12  a file that a stage wrote is missing, broken or of another kind: make it again
    ├── DeviceError     exit 13  the device or provider asked for is not there
    ├── GateFailed      exit 14  the data did not pass: look at the rows named
    └── ServiceError    exit 15  another program did not answer: try again

Every message says what came, what was wanted and where; `remedy` says what to do. What other libraries say goes into it:
passwords and signatures of URLs are taken out here.

`code` names the kind of fault, for programs and tests: a short, stable slug such as `unknown-choice`, given where the error
is raised. A code belongs to one class; docs/errors.md lists them all. A class that is raised for one kind of fault has its
code in its body. `category` is the coarser name, the `code` of HTTP answers.
"""

from __future__ import annotations

import copyreg
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar


class VidseekError(Exception):
    """Base of all errors that vidseek raises on purpose.

    Args:
        message: What came, what was wanted, and where.
        code: The kind of fault, a slug of docs/errors.md. It may be left out where the class has one.
        remedy: What the reader can do about it; one sentence, may be empty.
    """

    exit_code: ClassVar[int] = 1
    category: ClassVar[str] = "error"
    code: str = ""
    retryable: bool = False
    """Whether the same may go well in another run, with nothing changed here."""

    def __init__(self, message: str, *, code: str = "", remedy: str = "") -> None:
        from vidseek_media.urls import without_secrets  # when one is raised: `vidseek --help` loads no more than this module

        message = without_secrets(message)
        super().__init__(message)
        self.message = message
        self.code = code or self.code
        self.remedy = without_secrets(remedy)

    def __str__(self) -> str:
        return f"{self.message}. {self.remedy}" if self.remedy else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # Not by `__init__`, which may want more than the message; and by nothing that workers' answers may not name.
        return copyreg.__newobj__, (type(self), *self.args), vars(self)  # type: ignore[attr-defined]


class InputRejected(VidseekError):
    """One input cannot be used; the others can."""

    exit_code = 10
    category = "input_rejected"


class ConfigError(VidseekError):
    """Params, paths or options are wrong."""

    exit_code = 11
    category = "config_error"


class ArtifactError(VidseekError):
    """A file that a stage wrote is missing, broken, or not of the kind that is wanted."""

    exit_code = 12
    category = "artifact_error"


class DeviceError(VidseekError):
    """The device or execution provider that was asked for is not there."""

    exit_code = 13
    category = "device_error"


class GateFailed(VidseekError):
    """The data did not pass a gate; nothing below it has changed. The message may have lines: what it quotes has none."""

    exit_code = 14
    category = "gate_failed"


class ServiceError(VidseekError):
    """Another program did not answer, or not in time."""

    exit_code = 15
    category = "service_error"


@contextmanager
def foreign(
    kind: type[VidseekError], what: str, *, code: str, remedy: str = "",
    errors: type[Exception] | tuple[type[Exception], ...] = OSError,
) -> Iterator[None]:
    """Raise what other libraries raise in this block as an error of ours; one that is ours already passes.

    Args:
        kind: Of the error that is raised.
        what: What failed; what the library says is put behind it.
        code: The kind of fault.
        remedy: What the reader can do about it.
        errors: What is taken for a fault. `Exception`: all of them, and a panic of a library in Rust, which is none.

    Raises:
        VidseekError: of this kind.
    """
    try:
        yield
    except VidseekError:
        raise
    except errors as error:
        raise kind(f"{what}: {_said(error, what)}", code=code, remedy=remedy) from error
    except BaseException as error:
        if errors is not Exception or not is_panic(error):
            raise
        raise kind(f"{what}: {error}", code=code, remedy=remedy) from error


def _said(error: Exception, what: str) -> str:
    """What the library says; of an OSError the reason, and the file where `what` does not name it."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error) or type(error).__name__
    is_named = error.filename is None or str(error.filename) in what
    return error.strerror if is_named else f"{error.strerror}: {error.filename}"


def is_panic(error: BaseException) -> bool:
    """Whether it is a panic of a library in Rust: no Exception, of a class that each library has for itself."""
    return type(error).__name__ == "PanicException"
