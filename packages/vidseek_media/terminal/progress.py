"""Progress of what takes seconds, on standard error: a bar on a terminal, a line every ten seconds in a log.

Standard output stays free for results, and for the JSON document of `--json`.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import suppress
from types import TracebackType
from typing import Any, TypeVar

from vidseek_media.output import printable

SILENT_SECONDS = 2.0
"""A person at a terminal is told nothing of what takes less."""
LINE_SECONDS = 10.0
"""Between two lines."""
_LOOKS_SECONDS = 0.2
Item = TypeVar("Item")


class Activity:
    """Something that takes a while, told until it ends. Activities may be nested: the innermost is told.

    Attributes:
        title: What is done.
    """

    def __init__(self, title: str) -> None:
        """`title`: what is done, a few words."""
        self.title = title
        self.began = self.told_at = time.monotonic()
        self.was_told = False

    def __enter__(self) -> Activity:
        _REPORTER.begin(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _REPORTER.end(self)

    def line(self) -> str:
        """Return how far it is, without the title."""
        return f"{spoken(self.seconds())} so far"

    def seconds(self) -> float:
        """Return the seconds since it began."""
        return time.monotonic() - self.began

    def is_due(self, now: float, *, on_terminal: bool) -> bool:
        """Whether a line is due; `now` as `time.monotonic` gives it."""
        first = SILENT_SECONDS if on_terminal else LINE_SECONDS
        return now - self.told_at >= (LINE_SECONDS if self.was_told else first)


class Progress(Activity):
    """Progress of steps that are counted.

    Attributes:
        done: Steps so far.
        total: Of all steps; None if it is not known.
    """

    def __init__(
        self, title: str, *, unit: str, total: int | None = None, done: int = 0, is_shown: bool = True
    ) -> None:
        """Begin to count.

        Args:
            title: What is done, a few words.
            unit: One step, in the singular.
            total: Number of all steps; None if it is not known.
            done: Steps of an earlier run.
            is_shown: Whether it is told at all; of several processes one tells.
        """
        super().__init__(title)
        self.unit, self.total, self.done, self.is_shown = unit, total, done, is_shown
        self._first, self._figures = done, ""
        self._bar: Any = None

    def __enter__(self) -> Progress:
        if self.is_shown and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=self.total, initial=self.done, desc=self.title, unit=self.unit)
        if self.is_shown:
            super().__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        if self.is_shown:
            super().__exit__(kind, error, trace)
            if self.was_told and kind is None:
                _REPORTER.tell(self, f"{self._counted()} in {spoken(self.seconds())}")

    def update(self, num: int = 1) -> None:
        """Count `num` more steps."""
        self.done += num
        if self._bar is not None:
            self._bar.update(num)

    def note(self, figures: str) -> None:
        """Replace what is told beside the count, such as `loss 0.31`."""
        self._figures = figures
        if self._bar is not None:
            self._bar.set_postfix_str(figures, refresh=False)

    def line(self) -> str:
        """Return how far it is: steps, figures, time, and the time that is left where it can be told."""
        told = f"{self._counted()}, {spoken(self.seconds())} so far"
        left = self.seconds_left()
        return told if left is None else f"{told}, about {spoken(left)} left"

    def seconds_left(self) -> float | None:
        """Return about how long it still takes, at the speed so far; None if that is not known."""
        if self.total is None or self.done <= self._first:
            return None
        return max(0, self.total - self.done) * self.seconds() / (self.done - self._first)

    def is_due(self, now: float, *, on_terminal: bool) -> bool:
        """Implement `Activity.is_due`: a bar needs no lines."""
        return self._bar is None and super().is_due(now, on_terminal=on_terminal)

    def _counted(self) -> str:
        of = "" if self.total is None else f" of {self.total:,}"
        units = self.unit if (self.total or self.done) == 1 else f"{self.unit}s"
        return f"{self.done:,}{of} {units}" + (f", {self._figures}" if self._figures else "")


def counted(items: Iterable[Item], title: str, *, unit: str, total: int | None = None) -> Iterator[Item]:
    """Yield the items and show the progress.

    Args:
        items: Of one step each.
        title: What is done, a few words.
        unit: One step, in the singular.
        total: Number of all items; None takes it from `items`, if that has a length.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Progress(title, unit=unit, total=total) as progress:
        for item in items:
            yield item
            progress.update()


def waiting(title: str) -> Activity:
    """Return what tells what is done inside its `with` block, where it takes long.

    Args:
        title: What is done, a few words.
    """
    return Activity(title)


def spoken(seconds: float) -> str:
    """Format a duration: `45 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class _Reporter:
    """Tells of the innermost activity, from a thread that lives as long as there is one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._activities: list[Activity] = []
        self._ended: threading.Event | None = None

    def begin(self, activity: Activity) -> None:
        with self._lock:
            self._activities.append(activity)
            if self._ended is None:
                self._ended = threading.Event()
                threading.Thread(target=self._watch, args=(self._ended,), name="progress", daemon=True).start()

    def end(self, activity: Activity) -> None:
        with self._lock:
            if activity in self._activities:
                self._activities.remove(activity)
            if self._activities:
                # What is told next is of the time from now on.
                self._activities[-1].told_at = time.monotonic()
            elif self._ended is not None:
                self._ended.set()
                self._ended = None

    def tell(self, activity: Activity, line: str) -> None:
        with self._lock:
            self._tell(activity, line)

    def _watch(self, ended: threading.Event) -> None:
        while not ended.wait(_LOOKS_SECONDS):
            with self._lock:
                innermost = self._activities[-1] if self._activities else None
                on_terminal = sys.stderr is not None and sys.stderr.isatty()
                if innermost is not None and innermost.is_due(time.monotonic(), on_terminal=on_terminal):
                    self._tell(innermost, innermost.line())
                    innermost.told_at, innermost.was_told = time.monotonic(), True

    def _tell(self, activity: Activity, line: str) -> None:
        titles = [each.title for each in self._activities if each is not activity] + [activity.title]
        text = printable(f"{': '.join(dict.fromkeys(titles))}: {line}")
        with suppress(OSError, ValueError):  # a closed standard error is nobody's error
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()


_REPORTER = _Reporter()
