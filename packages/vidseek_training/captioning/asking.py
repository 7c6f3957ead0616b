"""Asks a model many questions, a bounded number at a time; each is retried or skipped, or the run stops, by the failure."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Literal

from vidseek_media.errors import ServiceError
from vidseek_media.terminal.progress import Progress
from vidseek_training.captioning.budget import Budget, Cancelled, Reservation, Subject
from vidseek_training.captioning.journal import Journal
from vidseek_training.captioning.prompt import BadAnswer, read_answer
from vidseek_training.captioning.provider import Answer, Provider, Request, Retry, Skip, Stop, Usage
from vidseek_training.captioning.settings import LlmSettings

BACKOFF_SECONDS = 1.0
"""Before the second attempt; twice as long before each further one."""
MAX_BACKOFF_SECONDS = 60.0
MAX_WAIT_SECONDS = 300.0
"""A server that asks for more is not waited for."""
MAX_UNANSWERED = 3
"""Clips that stay without an answer, none between them answered: then it is not the clips."""
MAX_FRUITLESS = 5
"""Clips at the beginning of a run that are answered without captions: then it is the model, or how it is asked."""
TRIES_FOR_AN_ANSWER = 2
"""An answer that holds no captions is asked for once more."""
LONGER = 4
"""Times as many tokens may an answer have that is asked for again because it was cut off."""


@dataclass(frozen=True)
class Outcome:
    """The result for one clip. Captions are in the journal."""

    subject: Subject
    kind: Literal["captioned", "declined", "unanswered"]
    """`declined`: the model, its filter or two bad answers; it was paid for and is not asked again. `unanswered`: another
    run may ask again."""
    reason: str = ""
    """Why there are no captions."""


def ask_all(
    jobs: Iterable[tuple[Subject, Request]], *, num_jobs: int, provider: Provider, settings: LlmSettings, journal: Journal
) -> list[Outcome]:
    """Send requests, at most `settings.concurrency` at a time; the journal receives each answer immediately.

    Until the first clip has a caption, requests are sent one by one: a wrong key then costs one request, and the cost of the
    first answer corrects the reservations of the others.

    Args:
        jobs: Subjects and requests, created when they are sent.
        num_jobs: Number of jobs, for the progress bar.
        provider: The client.
        settings: The section `caption.llm`.
        journal: Receives answers and costs.

    Returns:
        The clips without an answer.

    Raises:
        VidseekError: nothing more can be asked (`provider.Stop` holds it), `MAX_UNANSWERED` clips in a row got no answer, or
            the first `MAX_FRUITLESS` clips got no captions. Pending requests are finished first, also on an interrupt.
    """
    run = _Run(provider, settings, journal)
    pending: set[Future[Outcome]] = set()
    try:
        with (
            Progress("caption", unit="clip", total=num_jobs) as progress,
            ThreadPoolExecutor(settings.concurrency, thread_name_prefix="caption") as pool,
        ):
            try:
                for subject, request in jobs:
                    while len(pending) >= (settings.concurrency if run.is_proven else 1):
                        pending = run.collect(pending, progress)
                    pending.add(pool.submit(run.caption, subject, request))
                while pending:
                    pending = run.collect(pending, progress)
            except BaseException:
                progress.note("waiting for those under way")
                run.stop()  # The pool is then left when those under way are answered.
                raise
    except Stop as stop:
        raise stop.error from stop
    return run.unanswered


class _Run:
    def __init__(self, provider: Provider, settings: LlmSettings, journal: Journal) -> None:
        self._provider = provider
        self._settings = settings
        self._budget = Budget(settings, journal)
        self._stopped = threading.Event()
        self._not_before = 0.0
        self._num_unanswered = self._num_fruitless = 0
        self._room, self._most_room = settings.max_output_tokens, longest_answer(settings)
        self.is_proven = False
        self.unanswered: list[Outcome] = []

    def stop(self) -> None:
        self._stopped.set()
        self._budget.close()

    def collect(self, pending: set[Future[Outcome]], progress: Progress) -> set[Future[Outcome]]:
        """Wait for one of `pending`; those that are left."""
        done, left = wait(pending, return_when=FIRST_COMPLETED)
        for future in done:
            outcome = future.result()
            progress.update()
            progress.note(f"{self._budget.counted_usd:.4f} USD")
            self._count(outcome)
        return left

    def _count(self, outcome: Outcome) -> None:
        if outcome.kind == "unanswered":
            self.unanswered.append(outcome)
            self._num_unanswered += 1
        else:
            self._num_unanswered = 0
            self.is_proven |= outcome.kind == "captioned"
            self._num_fruitless += not self.is_proven
        if self._num_unanswered >= MAX_UNANSWERED:
            raise ServiceError(
                f"{self._settings.name} left {MAX_UNANSWERED} clips in a row without an answer, the last: {outcome.reason}",
                code="llm-no-answer",
                remedy="Look at what it says, and run again: all that was answered is kept",
            )
        if self._num_fruitless >= MAX_FRUITLESS:
            raise ServiceError(
                f"{self._settings.name} gave no captions for the first {MAX_FRUITLESS} clips, the last: {outcome.reason}",
                code="llm-no-captions",
                remedy="Look at caption.llm: the model, the prompt, thinking, max_output_tokens",
            )

    def caption(self, subject: Subject, request: Request) -> Outcome:
        """Ask until there is an answer, a verdict, or no sense in it."""
        num_failed = num_bad = 0
        room, cuts = self._room, list[str]()
        while True:
            self._wait_until(self._not_before)
            reserved = self._budget.reserve(subject, max_output_tokens=room)
            try:
                answer = self._provider.ask(replace(request, max_output_tokens=room))
            except Retry as failure:
                self._budget.release(reserved, may_be_paid=failure.may_be_paid)
                num_failed += 1
                if num_failed >= self._settings.attempts:
                    return Outcome(subject, "unanswered", f"{failure} ({num_failed} attempts)")
                self._back_off(failure, num_failed)
            except Skip as verdict:
                return self._skipped(reserved, verdict, cuts)
            except Stop:
                self._budget.release(reserved, may_be_paid=False)
                raise
            else:
                num_bad += 1
                if outcome := self._answered(reserved, answer, cuts, is_last=num_bad >= TRIES_FOR_AN_ANSWER):
                    return outcome
                room = self._most_room if cuts else room

    def _skipped(self, reserved: Reservation, verdict: Skip, cuts: list[str]) -> Outcome:
        if cuts and not verdict.is_judged:  # The same request was taken with less room: this server has no more.
            self._most_room = self._room
            return self._declined(
                reserved, None, f"{_cut_reason(cuts)}; a request for more was not taken: {verdict}", is_cut=True
            )
        if verdict.is_judged:
            return self._declined(reserved, verdict.usage, str(verdict))
        self._budget.release(reserved, may_be_paid=False)
        return Outcome(reserved.subject, "unanswered", str(verdict))

    def _declined(
        self, reserved: Reservation, usage: Usage | None, reason: str, *, is_cut: bool = False, answer: Answer | None = None
    ) -> Outcome:
        """Return a verdict that is kept: another run asks again only where it allows a longer answer than was any use here.
        """
        self._budget.settle(
            reserved, usage, captions=None, reason=reason, is_free=answer is None and usage is None,
            model=answer.model if answer else "", cut_at=longest_answer(self._settings) if is_cut else None,
        )
        return Outcome(reserved.subject, "declined", reason)

    def _answered(
        self, reserved: Reservation, answer: Answer, cuts: list[str], *, is_last: bool
    ) -> Outcome | None:
        """Return the result of an answer; None if it is unusable and not the last attempt. A cut answer is recorded in
        `cuts`.
        """
        try:
            captions = read_answer(answer.text)
        except BadAnswer as bad:
            if is_cut := _is_cut(answer, reserved.max_output_tokens):
                cuts.append(_cut_at(answer, reserved.max_output_tokens))
            reason = _cut_reason(cuts) if is_cut else f"the answer {bad}"
            if is_last or (is_cut and reserved.max_output_tokens >= self._most_room):
                return self._declined(reserved, answer.usage, reason, is_cut=is_cut, answer=answer)
            self._budget.settle(reserved, answer.usage, captions=None, reason="", model=answer.model)
            return None
        self._budget.settle(reserved, answer.usage, captions=captions, reason="", model=answer.model)
        if cuts:
            self._room = reserved.max_output_tokens  # The model needs it: the next clips are not paid for twice.
        return Outcome(reserved.subject, "captioned")

    def _back_off(self, failure: Retry, num_failed: int) -> None:
        """Wait before the next attempt: as long as the server asks, for all requests; else longer each time, with jitter."""
        if failure.after_seconds is None:
            longest = min(MAX_BACKOFF_SECONDS, BACKOFF_SECONDS * 2 ** (num_failed - 1))
            self._wait_until(time.monotonic() + longest * random.uniform(0.5, 1.0))
        elif failure.after_seconds > MAX_WAIT_SECONDS:
            raise Stop(ServiceError(
                f"{failure}; it asks to come back in {failure.after_seconds:.0f} s", code="llm-no-answer",
                remedy="Run again then: all that was answered is kept",
            ))
        else:
            self._not_before = max(self._not_before, time.monotonic() + failure.after_seconds)
            self._wait_until(self._not_before + random.uniform(0.0, BACKOFF_SECONDS))  # not all at once

    def _wait_until(self, moment: float) -> None:
        if self._stopped.wait(max(0.0, moment - time.monotonic())):
            raise Cancelled


def longest_answer(settings: LlmSettings) -> int:
    """Return the most tokens that an answer is ever given."""
    return settings.max_output_tokens * LONGER


def _is_cut(answer: Answer, max_output_tokens: int) -> bool:
    """Whether it ended at the longest that was allowed, by the server's word or by its count."""
    return answer.is_cut or (answer.usage is not None and answer.usage.tokens_out >= max_output_tokens)


def _cut_at(answer: Answer, max_output_tokens: int) -> str:
    thought = answer.usage.tokens_thought if answer.usage else 0
    return f"{max_output_tokens} tokens" + (f" ({thought} of them thoughts)" if thought else "")


def _cut_reason(cuts: list[str]) -> str:
    return f"the answer was cut off at {', and again at '.join(cuts)}"
