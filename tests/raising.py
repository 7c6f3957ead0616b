"""What a test expects of an error: its class, its code, and the facts that its text names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

import pytest

from vidseek_media.errors import VidseekError

Raised = TypeVar("Raised", bound=BaseException)


@dataclass
class Caught(Generic[Raised]):
    """Holds the error when the block has ended."""

    error: Raised | None = None

    @property
    def value(self) -> Raised:
        """The error."""
        assert self.error is not None, "the block has not ended yet"
        return self.error


@contextmanager
def raises(
    kind: type[Raised], *, code: str | Sequence[str] = "", naming: object | Sequence[object] = (),
    remedy: object | Sequence[object] = (),
) -> Iterator[Caught[Raised]]:
    """The block raises an error of this class, with this code, whose message names these facts.

    Args:
        kind: Class of the error, or one above it.
        code: Its code; needed for errors of our family, and only there. Several where the machine decides which it is.
        naming: Facts of which the message tells: names, numbers, paths. One, or several.
        remedy: The same for the remedy.
    """
    assert bool(code) == issubclass(kind, VidseekError), "errors of the family, and only they, have a code"
    caught: Caught[Raised] = Caught()
    with pytest.raises(kind) as found:
        yield caught
    caught.error = error = found.value
    if isinstance(error, VidseekError):
        assert error.code in ([code] if isinstance(code, str) else code), f"{error.code}: {error}"
        assert_names(error.message, naming)
        assert_names(error.remedy, remedy)
    else:
        assert_names(str(error), naming)


def assert_names(text: str, facts: object | Sequence[object]) -> None:
    """The text has each of the facts in it."""
    for fact in [facts] if isinstance(facts, str) or not isinstance(facts, Sequence) else facts:
        assert str(fact) in text, f"{fact!s} is not named in: {text}"
