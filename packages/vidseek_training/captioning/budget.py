"""The budget: every request is reserved at the most that it may cost before it goes out, and settled when it is answered."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from vidseek_media.errors import ConfigError
from vidseek_training.captioning.journal import Journal, Tally
from vidseek_training.captioning.prompt import prompt_hash
from vidseek_training.captioning.provider import Stop, Usage
from vidseek_training.captioning.settings import LlmSettings

_ROUNDING_USD = 1e-12


class Cancelled(Exception):
    """Another request found that nothing more shall be asked."""


@dataclass(frozen=True)
class Subject:
    """What a request is about: what the journal remembers of it."""

    key: str
    video_id: str
    guessed_in: int
    """Tokens of the request, before a model has said how it counts."""


@dataclass(frozen=True)
class Reservation:
    """Leave to send one request."""

    number: str
    subject: Subject
    most_usd: float
    max_output_tokens: int
    """That the answer may have."""


def basis_of(settings: LlmSettings) -> str:
    """What the model's counts are comparable within: the model, the prompt, and what the guesses rest on."""
    guess = settings.tokens_per_picture if settings.send == "frames" else settings.tokens_per_second
    return f"{settings.name} {prompt_hash(settings)} {'counted' if guess is None else guess}"


def most_usd(settings: LlmSettings, tally: Tally, guessed_in: int, max_output_tokens: int | None = None) -> float:
    """The most that a request may cost: the guess, or more where the model counted more, and the longest answer.

    Args:
        settings: With prices.
        tally: What the model counted so far.
        guessed_in: Tokens of the request.
        max_output_tokens: That the answer may have; None: as the settings say.
    """
    tokens_in = guessed_in * max(1.0, tally.max_ratio_in)
    return settings.cost_usd(tokens_in, max(max_output_tokens or settings.max_output_tokens, tally.max_tokens_out))


class Budget:
    """What is spent, and what may be. Safe to be used by several threads."""

    def __init__(self, settings: LlmSettings, journal: Journal) -> None:
        self._settings = settings
        self._journal = journal
        self._basis = basis_of(settings)
        self._under_way: set[str] = set()
        self._is_closed = False
        self._changed = threading.Condition()

    def reserve(self, subject: Subject, *, max_output_tokens: int | None = None) -> Reservation:
        """Leave for one request; waits where only those under way stand in the way.

        Args:
            subject: What it is about.
            max_output_tokens: That the answer may have; None: as the settings say.

        Raises:
            Stop: the budget does not allow it.
            Cancelled: the purse was closed.
        """
        longest = max_output_tokens or self._settings.max_output_tokens
        with self._changed:
            while True:
                if self._is_closed:
                    raise Cancelled
                most = most_usd(self._settings, self._journal.tallies[self._basis], subject.guessed_in, longest)
                if self.counted_usd + most <= self._settings.budget_usd + _ROUNDING_USD:
                    number = self._journal.ask(
                        key=subject.key, basis=self._basis, video_id=subject.video_id, reserved_usd=most
                    )
                    self._under_way.add(number)
                    return Reservation(number, subject, most, longest)
                if not self._under_way:
                    raise Stop(self._spent(most))
                self._changed.wait()

    def settle(
        self, reserved: Reservation, usage: Usage | None, *, captions: dict[str, str] | None, reason: str,
        is_free: bool = False, model: str = "", cut_at: int | None = None,
    ) -> None:
        """The request was answered: what the answer cost counts, or all that was reserved where `usage` is not said.

        Args:
            reserved: Its leave.
            usage: Tokens, where the provider said.
            captions: By grain; None where there are none.
            reason: Why there are none; empty where another request follows.
            is_free: It cost nothing where `usage` is not said.
            model: That answered.
            cut_at: Tokens at which the answer was cut off: it is asked for again where a longer one is allowed.
        """
        if usage is None:
            cost = 0.0 if is_free else reserved.most_usd
        else:
            cost = self._settings.cost_usd(usage.tokens_in, usage.tokens_out)
        with self._changed:
            self._journal.answer(
                reserved.number, captions=captions, reason=reason,
                tokens=None if usage is None else (usage.tokens_in, usage.tokens_out),
                guessed_in=reserved.subject.guessed_in, cost_usd=cost, cut_at=cut_at, model=model,
            )
            self._done(reserved)

    def release(self, reserved: Reservation, *, may_be_paid: bool) -> None:
        """The request was not answered. Where it may be paid all the same, what was reserved stays counted."""
        with self._changed:
            if not may_be_paid:
                self._journal.free(reserved.number)
            self._done(reserved)

    def close(self) -> None:
        """Let nobody reserve any more; those under way may settle."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    @property
    def counted_usd(self) -> float:
        """Spent by all runs, and reserved."""
        return self._journal.settled_usd + self._journal.unsettled_usd

    def _done(self, reserved: Reservation) -> None:
        self._under_way.discard(reserved.number)
        self._changed.notify_all()

    def _spent(self, most: float) -> ConfigError:
        unseen = self._journal.unsettled_usd
        maybe = f", {unseen:.4f} of them for requests whose answer was never seen" if unseen else ""
        return ConfigError(
            f"the budget of {self._settings.budget_usd:g} USD is used up: {self.counted_usd:.4f} are spent{maybe}, and one "
            f"more request may cost {most:.4f}", code="budget-used-up",
            remedy="Raise caption.llm.budget_usd, or set max_clips; all that was answered is kept and not asked again",
        )
