"""The journal of all that was asked of models: one line for each event, appended, never changed. It is cache and ledger.

    ask     a request goes out; `reserved_usd` is the most that it may cost
    answer  it was answered: captions by grain, or why there are none; tokens and cost
    free    it was not answered and cost nothing
    spent   the cost of an answer that was taken out

An ask that neither line follows was under way when the process died, or was given up in time: the provider may have
counted it, so it counts as spent at what was reserved.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import uuid
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vidseek_media.appending import append_to, read_lines
from vidseek_media.errors import ArtifactError, ConfigError
from vidseek_media.folders import sync_path, whole_file
from vidseek_media.urls import without_secrets

JOURNAL_NAME = "journal.jsonl"


@dataclass(frozen=True)
class Entry:
    """What is known of one key."""

    captions: Mapping[str, str] | None
    """By grain; None where the model gave none."""
    reason: str
    """Why there are none, or empty."""
    cost_usd: float
    """Of all requests that were made for it."""
    cut_at: int | None = None
    """Tokens at which the answer was cut off, at the last; it is asked for again where a longer one is allowed."""
    model: str = ""
    """That answered, by the provider's word."""


@dataclass
class Tally:
    """What the answers of one model and prompt cost against what was guessed."""

    num_answers: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    guessed_in: int = 0
    max_ratio_in: float = 0.0
    """The largest tokens_in / guessed_in."""
    max_tokens_out: int = 0

    def note(self, *, tokens_in: int, tokens_out: int, guessed_in: int) -> None:
        """Count one answer more."""
        self.num_answers += 1
        self.tokens_in += tokens_in
        self.tokens_out += tokens_out
        self.guessed_in += guessed_in
        self.max_ratio_in = max(self.max_ratio_in, tokens_in / max(1, guessed_in))
        self.max_tokens_out = max(self.max_tokens_out, tokens_out)


@dataclass
class Journal:
    """All events so far. Use `open_journal` to write, `read_journal` to look."""

    path: Path
    entries: dict[str, Entry] = field(default_factory=dict)
    """By key; the last answer counts, its cost is that of all."""
    tallies: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    """By `basis`: the model, the prompt, and what the guesses rested on."""
    settled_usd: float = 0.0
    """What answers cost."""
    num_broken: int = 0
    """Lines that a death tore. What they said is not known: an answer among them counts at what was reserved for it."""
    _open_asks: dict[str, float] = field(default_factory=dict)
    _descriptor: int | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def unsettled_usd(self) -> float:
        """What requests may have cost whose answer was never seen, and those under way, at the most."""
        return sum(self._open_asks.values())

    def ask(self, *, key: str, basis: str, video_id: str, reserved_usd: float) -> str:
        """A request goes out; its number, for `answer` or `free`."""
        number = uuid.uuid4().hex[:16]
        self._append({
            "event": "ask", "ask": number, "key": key, "basis": basis, "video_id": video_id, "reserved_usd": reserved_usd,
        }, sync=False)
        return number

    def free(self, number: str) -> None:
        """The request cost nothing."""
        self._append({"event": "free", "ask": number}, sync=False)

    def answer(
        self, number: str, *, key: str, basis: str, video_id: str, captions: Mapping[str, str] | None, reason: str,
        tokens: tuple[int, int] | None, guessed_in: int, cost_usd: float, cut_at: int | None = None, model: str = "",
    ) -> None:
        """The request was answered: on the disk when this returns.

        Args:
            captions: By grain, or None with a `reason`; neither where another request for the key follows.
            tokens: In and out, as the provider counted them; None where it did not say.
        """
        self._append({
            "event": "answer", "ask": number, "key": key, "basis": basis, "video_id": video_id,
            "captions": None if captions is None else dict(captions), "reason": without_secrets(reason),
            "tokens": None if tokens is None else list(tokens), "guessed_in": guessed_in, "cost_usd": cost_usd,
            "cut_at": cut_at, "model": model,
        }, sync=True)

    def _append(self, event: dict[str, Any], *, sync: bool) -> None:
        if self._descriptor is None:
            raise ArtifactError(f"{self.path} was not opened for writing")
        with self._lock:
            try:
                append_to(self._descriptor, event, sync=sync)
            except OSError as error:
                raise ArtifactError(
                    f"{self.path} cannot be written: {error.strerror or error}",
                    remedy="Make room; nothing more is asked until it is kept",
                ) from error
            self._apply(event)

    def _apply(self, event: Mapping[str, Any]) -> None:
        match event["event"]:
            case "ask":
                self._open_asks[event["ask"]] = float(event["reserved_usd"])
            case "free":
                self._open_asks.pop(event["ask"], None)
            case "spent":
                self.settled_usd += float(event["cost_usd"])
            case "answer":
                self._open_asks.pop(event["ask"], None)
                self._note_answer(event)

    def _note_answer(self, event: Mapping[str, Any]) -> None:
        cost = float(event["cost_usd"])
        self.settled_usd += cost
        if event["tokens"] is not None:
            tokens_in, tokens_out = event["tokens"]
            self.tallies[event["basis"]].note(
                tokens_in=tokens_in, tokens_out=tokens_out, guessed_in=event["guessed_in"]
            )
        before = self.entries.get(event["key"])
        self.entries[event["key"]] = Entry(
            captions=event["captions"], reason=event["reason"], cut_at=_cut_at(event), model=event.get("model", ""),
            cost_usd=cost + (before.cost_usd if before else 0.0),
        )


def _cut_at(event: Mapping[str, Any]) -> int | None:
    if "cut_at" in event:
        return None if event["cut_at"] is None else int(event["cut_at"])
    # Of an earlier version, whose reason alone says it.
    return int(event["max_output_tokens"]) if str(event["reason"]).startswith("the answer was cut off") else None


def read_journal(folder: Path) -> Journal:
    """The journal in `folder`, to look at; an empty one where there is none. Lines that a death tore are passed over.

    Raises:
        ArtifactError: it cannot be read.
    """
    events, num_broken = _events(folder / JOURNAL_NAME)
    journal = Journal(folder / JOURNAL_NAME, num_broken=num_broken)
    for event in events:
        try:
            journal._apply(event)
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise ArtifactError(
                f"{journal.path} holds a line that is none of its kind: {error!r} in {str(event)[:120]}",
                remedy="Mend that line, or move the file away: what it holds is then paid for again",
            ) from error
    return journal


@contextmanager
def open_journal(folder: Path) -> Iterator[Journal]:
    """The journal in `folder`, to read and append to by this process alone.

    Raises:
        ArtifactError: it cannot be read or written.
        ConfigError: another process has it open.
    """
    path = folder / JOURNAL_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be opened: {error.strerror}", remedy="Mend its rights") from error
    try:
        _lock_alone(descriptor, path)
        sync_path(folder)  # the name of a file that is new
        journal = read_journal(folder)
        journal._descriptor = descriptor
        yield journal
    finally:
        os.close(descriptor)


def forget_captions(folder: Path, video_ids: Collection[str]) -> int:
    """Take what was written about these videos out of the journal in `folder`; what it cost stays counted.

    Returns:
        How many answers were taken out.

    Raises:
        ArtifactError: it cannot be read or written.
        ConfigError: another process has it open.
    """
    path = folder / JOURNAL_NAME
    if not path.exists():
        return 0
    with open_journal(folder):
        events, _ = _events(path)
        answers = {e["ask"]: e for e in events if e["event"] == "answer" and e.get("video_id") in video_ids}
        if answers:
            kept = [
                {**event, "video_id": ""} if event.get("video_id") in video_ids else event
                for event in events if event.get("ask") not in answers
            ]
            kept += [{"event": "spent", "cost_usd": event["cost_usd"]} for event in answers.values()]
            _replace(path, kept)
    return len(answers)


def _replace(path: Path, events: Iterable[Mapping[str, Any]]) -> None:
    try:
        with whole_file(path) as beside:
            beside.write_text("".join(json.dumps(event, ensure_ascii=False) + "\n" for event in events), encoding="utf-8")
            beside.chmod(0o600)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be written: {error.strerror}", remedy="Make room") from error


def _lock_alone(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ConfigError(
            f"{path} is open in another process", remedy="Wait for the other `vidseek caption` or `dvc repro`"
        ) from error
    except OSError as error:
        raise ArtifactError(f"{path} cannot be locked: {error.strerror}", remedy="Keep it on a local disk") from error


def _events(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The events, and how many lines are none."""
    try:
        lines = read_lines(path)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}", remedy="Mend its rights") from error
    events = [value for value in lines.values if "event" in value]
    return events, lines.num_broken + len(lines.values) - len(events)
