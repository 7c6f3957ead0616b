"""Keeps the answer to each span of speech, so that a stopped run pays for none twice, and counts what was spent.

A video has one file, `<video_id>-<digits>.parts.jsonl`, until all of its spans are answered. `spent.jsonl` has a line for
each request that may cost money, without any content; it is written before the request goes out.
"""

from __future__ import annotations

import math
import threading
import uuid
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict
from pathlib import Path

from vidseek_media.errors import ArtifactError, ConfigError, foreign
from vidseek_media.files.appending import append_line, read_lines
from vidseek_media.files.video_memory import VideoMemory
from vidseek_media.speech.engine import Utterance

SPENT_NAME = "spent.jsonl"
_ROUNDING_USD = 1e-9

SpanKey = tuple[int, int]
"""First sample of a span, and the first one behind."""


class SpanJournal:
    """Answers by video and span, for one engine with its settings. Safe between threads.

    Args:
        folder: That holds the files; created where it is missing.
        settings: What decides an answer: engine, model, language, options.
    """

    def __init__(self, folder: Path, settings: Mapping[str, object]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._memory = VideoMemory(folder, settings)
        self._lock = threading.Lock()

    def recall(self, video_id: str) -> dict[SpanKey, list[Utterance]]:
        """Return the answers of a video, by span; a torn line is an answer that is not known."""
        found: dict[SpanKey, list[Utterance]] = {}
        with self._faults():
            lines = read_lines(self._path(video_id)).values
        for line in lines:
            with suppress(KeyError, TypeError, ValueError):
                found[int(line["start"]), int(line["end"])] = [Utterance(**each) for each in line["utterances"]]
        return found

    def remember(self, video_id: str, span: SpanKey, utterances: Iterable[Utterance]) -> None:
        """Keep the answer to a span; it is on the disk when this returns."""
        content = {"start": span[0], "end": span[1], "utterances": [asdict(each) for each in utterances]}
        with self._lock, self._faults():
            append_line(self._path(video_id), content, mode=0o600)

    def forget(self, video_id: str) -> None:
        """Remove the answers of a video whose segments are kept elsewhere."""
        with self._faults():
            self._path(video_id).unlink(missing_ok=True)

    def _path(self, video_id: str) -> Path:
        return self._memory.path(video_id, ".parts.jsonl")

    def _faults(self) -> AbstractContextManager[None]:
        return foreign(
            ArtifactError, f"{self._folder} cannot be used", code="not-writable",
            remedy="Make room or mend its rights; nothing more is asked until answers are kept",
        )


class SpeechBudget:
    """What all runs of an archive have spent on speech, and may spend. Safe between threads.

    Args:
        folder: Of `spent.jsonl`.
        usd_per_minute: Price of a minute of sound, at least 0.
        budget_usd: Of all runs together.
    """

    def __init__(self, folder: Path, *, usd_per_minute: float, budget_usd: float) -> None:
        self._path = folder / SPENT_NAME
        self._usd_per_minute, self._budget_usd = usd_per_minute, budget_usd
        self._lock = threading.Lock()
        self._spent = _read_spent(self._path)

    @property
    def spent_usd(self) -> float:
        """Spent by all runs so far, and by requests under way."""
        return math.fsum(self._spent.values())

    def reserve(self, seconds: float) -> str:
        """Count the cost of so many seconds of sound, and return its number for `free`.

        Raises:
            ConfigError: the budget does not allow it.
        """
        cost = seconds / 60 * self._usd_per_minute
        with self._lock:
            if cost and self.spent_usd + cost > self._budget_usd + _ROUNDING_USD:
                raise ConfigError(
                    f"the budget of {self._budget_usd:g} USD for speech is used up: {self.spent_usd:.4f} are spent, and "
                    f"{seconds:.0f} s more cost {cost:.4f}", code="budget-used-up",
                    remedy="Raise speech.budget_usd; all that was answered is kept and not asked again",
                )
            number = uuid.uuid4().hex[:16]
            if cost:
                self._write({"number": number, "usd": cost})
                self._spent[number] = cost
            return number

    def free(self, number: str) -> None:
        """Take back the cost of a request that nobody charges."""
        with self._lock:
            if number in self._spent:
                self._write({"number": number, "usd": 0.0})
                del self._spent[number]

    def _write(self, content: Mapping[str, object]) -> None:
        with foreign(
            ArtifactError, f"{self._path} cannot be written", code="not-writable",
            remedy="Make room or mend its rights; nothing more is asked until costs are kept",
        ):
            append_line(self._path, content, mode=0o600)


def _read_spent(path: Path) -> dict[str, float]:
    """Return the cost of each request; the last line of a number counts."""
    with foreign(ArtifactError, f"{path} cannot be read", code="not-writable", remedy="Mend its rights"):
        lines = read_lines(path).values
    spent: dict[str, float] = {}
    for line in lines:
        number, cost = line.get("number"), line.get("usd")
        if isinstance(number, str) and isinstance(cost, int | float) and 0 <= cost < math.inf:
            spent[number] = float(cost)
    return spent
