"""The budget: each request is reserved at its highest possible cost before it is sent, and settled when it is answered."""

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
    """The subject of a request, as the journal remembers it."""

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
    """Return a key under which token counts are comparable: the model, the prompt, and the basis of estimates."""
    guess = settings.tokens_per_picture if settings.send == "frames" else settings.tokens_per_second
    return f"{settings.name} {prompt_hash(settings)} {'counted' if guess is None else guess}"


def most_usd(settings: LlmSettings, tally: Tally, guessed_in: int, max_output_tokens: int | None = None) -> float:
    """Return the highest possible cost of a request: the estimate, or more if the model counted more, and the longest
    answer.

    Args:
        settings: The section `caption.llm`, with prices.
        tally: Tokens that the model counted so far.
        guessed_in: Estimated tokens of the request.
        max_output_tokens: Most tokens of the answer; None takes the settings'.
    """
    tokens_in = guessed_in * max(1.0, tally.max_ratio_in)
    return settings.cost_usd(tokens_in, max(max_output_tokens or settings.max_output_tokens, tally.max_tokens_out))


class Budget:
    """The money spent and the limit. Safe to share between threads."""

    def __init__(self, settings: LlmSettings, journal: Journal) -> None:
        self._settings = settings
        self._journal = journal
        self._basis = basis_of(settings)
        self._under_way: set[str] = set()
        self._is_closed = False
        self._changed = threading.Condition()

    def reserve(self, subject: Subject, *, max_output_tokens: int | None = None) -> Reservation:
        """Reserve the cost of one request; wait if only pending requests exceed the limit.

        Args:
            subject: Subject of the request.
            max_output_tokens: Most tokens of the answer; None takes the settings'.

        Raises:
            Stop: the budget does not allow it.
            Cancelled: the budget was closed.
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
        """Record the answer to a request with its cost, or with the whole reservation if `usage` is unknown.

        Args:
            reserved: The reservation.
            usage: Tokens that the provider counted; None if it did not.
            captions: Captions by level of detail; None if there are none.
            reason: Why there are none; empty if another request follows.
            is_free: Whether the answer cost nothing if `usage` is None.
            model: Name of the model that answered.
            cut_at: Tokens at which the answer was cut off; it is requested again if a longer answer is allowed.
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
        """Release the reservation of a request without an answer.

        Args:
            reserved: The reservation.
            may_be_paid: Whether the provider may charge it anyway; it then stays counted.
        """
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
