"""Many questions to a model: a bounded number at once, each retried, skipped, or the whole stopped, as the failure asks."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from tqdm import tqdm

from vidseek_media.errors import ServiceError
from vidseek_training.llm.journal import Journal
from vidseek_training.llm.prompt import BadAnswer, read_answer
from vidseek_training.llm.provider import Provider, Request, Retry, Skip, Stop
from vidseek_training.llm.purse import Cancelled, Purse, Subject
from vidseek_training.llm.settings import LlmSettings

BACKOFF_SECONDS = 1.0
"""Before the second attempt; twice as long before each further one."""
MAX_BACKOFF_SECONDS = 60.0
MAX_WAIT_SECONDS = 300.0
"""A server that asks for more is not waited for."""
MAX_IN_A_ROW = 3
"""Clips that stay without an answer, none between them answered: then it is not the clips."""
TRIES_FOR_AN_ANSWER = 2
"""An answer that holds no captions is asked for once more."""


@dataclass(frozen=True)
class Unanswered:
    """A clip that another run may ask about again."""

    subject: Subject
    reason: str


def ask_all(
    jobs: Iterable[tuple[Subject, Request]], *, num_jobs: int, provider: Provider, settings: LlmSettings, journal: Journal
) -> list[Unanswered]:
    """Ask about each of `jobs`, at most `settings.concurrency` at once; answers are in `journal` as soon as they come.

    Until a first clip is answered they go one by one: a wrong key costs one request, and what that answer cost
    corrects the reservations of all others. Jobs are drawn only as they are sent.

    Returns:
        What was left without an answer.

    Raises:
        VidseekError: nothing more can be asked (`provider.Stop` holds it), or `MAX_IN_A_ROW` clips stayed without an
            answer. Requests under way are waited for and kept first, as on an interrupt.
    """
    run = _Run(provider, settings, journal)
    bar = tqdm(total=num_jobs, desc="caption", unit="clip", disable=None)
    pending: set[Future[Unanswered | None]] = set()
    try:
        with ThreadPoolExecutor(settings.concurrency, thread_name_prefix="caption") as pool:
            try:
                for subject, request in jobs:
                    while len(pending) >= (settings.concurrency if run.is_proven else 1):
                        pending = run.collect(pending, bar)
                    pending.add(pool.submit(run.caption, subject, request))
                while pending:
                    pending = run.collect(pending, bar)
            except BaseException:
                run.stop()  # The pool is then left when those under way are answered.
                raise
    except Stop as stop:
        raise stop.error from stop
    finally:
        bar.close()
    return run.unanswered


class _Run:
    def __init__(self, provider: Provider, settings: LlmSettings, journal: Journal) -> None:
        self._provider = provider
        self._settings = settings
        self._journal = journal
        self._purse = Purse(settings, journal)
        self._stopped = threading.Event()
        self._not_before = 0.0
        self._num_in_a_row = 0
        self.is_proven = False
        self.unanswered: list[Unanswered] = []

    def stop(self) -> None:
        self._stopped.set()
        self._purse.close()

    def collect(self, pending: set[Future[Unanswered | None]], bar: tqdm[None]) -> set[Future[Unanswered | None]]:
        """Wait for one of `pending`; those that are left."""
        done, left = wait(pending, return_when=FIRST_COMPLETED)
        for future in done:
            lost = future.result()
            bar.update()
            bar.set_postfix_str(f"{self._purse.counted_usd:.4f} USD", refresh=False)
            if lost is None:
                self.is_proven, self._num_in_a_row = True, 0
                continue
            self.unanswered.append(lost)
            self._num_in_a_row += 1
            if self._num_in_a_row >= MAX_IN_A_ROW:
                raise ServiceError(
                    f"{self._settings.name} left {MAX_IN_A_ROW} clips in a row without an answer, the last: {lost.reason}",
                    remedy="Look at what it says, and run again: all that was answered is kept",
                )
        return left

    def caption(self, subject: Subject, request: Request) -> Unanswered | None:
        """Ask until there is an answer, a verdict, or no sense in it."""
        num_failed = num_bad = 0
        while True:
            self._wait_until(self._not_before)
            reserved = self._purse.reserve(subject)
            try:
                answer = self._provider.ask(request)
            except Retry as failure:
                self._purse.release(reserved, may_be_paid=failure.may_be_paid)
                num_failed += 1
                if num_failed >= self._settings.attempts:
                    return Unanswered(subject, f"{failure} ({num_failed} attempts)")
                self._back_off(failure, num_failed)
            except Skip as verdict:
                if not verdict.is_judged:
                    self._purse.release(reserved, may_be_paid=False)
                    return Unanswered(subject, str(verdict))
                self._purse.settle(reserved, verdict.usage, captions=None, reason=str(verdict), is_free=True)
                return None
            except Stop:
                self._purse.release(reserved, may_be_paid=False)
                raise
            else:
                try:
                    captions, fault = read_answer(answer.text), ""
                except BadAnswer as bad:
                    captions, fault, num_bad = None, f"the answer {bad}", num_bad + 1
                is_last = num_bad >= TRIES_FOR_AN_ANSWER
                self._purse.settle(reserved, answer.usage, captions=captions, reason=fault if is_last else "")
                if captions is not None or is_last:
                    return None

    def _back_off(self, failure: Retry, num_failed: int) -> None:
        """What the server asks for counts for all; else a wait of this request alone, longer each time, with jitter."""
        if failure.after_seconds is None:
            longest = min(MAX_BACKOFF_SECONDS, BACKOFF_SECONDS * 2 ** (num_failed - 1))
            self._wait_until(time.monotonic() + longest * random.uniform(0.5, 1.0))
        elif failure.after_seconds > MAX_WAIT_SECONDS:
            raise Stop(ServiceError(
                f"{failure}; it asks to come back in {failure.after_seconds:.0f} s",
                remedy="Run again then: all that was answered is kept",
            ))
        else:
            self._not_before = max(self._not_before, time.monotonic() + failure.after_seconds)

    def _wait_until(self, moment: float) -> None:
        if self._stopped.wait(max(0.0, moment - time.monotonic())):
            raise Cancelled
