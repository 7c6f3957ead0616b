"""Searches, and lets a language model look at the first hits where that is wanted. It never makes a search fail."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from vidseek.archive import Archive
from vidseek_media.errors import VidseekError
from vidseek_retrieval.settings import VISUAL, RerankSettings

if TYPE_CHECKING:
    from vidseek_retrieval.search.query import Answer, Hit, SearchOptions
    from vidseek_training.captioning.relevance import Looked, RelevanceJudge

AT_ONCE = 4
"""Searches that are looked at at once; others keep their first ranking."""
MAX_REQUESTS = 256
"""Under way at once, of all searches."""
MAX_OUTPUT_TOKENS = 512
"""Of an answer, which is a number; thoughts included."""
LATE_SECONDS = 30.0
"""So long an answer may take that comes too late for its search: it is paid for, and kept for the next one."""
NO_WORDS = "a second look wants a query in words"
NO_PICTURES = "a second look sees pictures, and this search is for texts alone"
NO_MODEL = "search.rerank in params.yaml names no model, or not what it costs"
BUSY = "others are being looked at"


class SecondLook:
    """The second look of an archive. Safe to be used by several threads; opened on first use.

    Args:
        archive: Its frames, and where the journal lies.
        settings: The section `search.rerank`.
    """

    def __init__(self, archive: Archive, settings: RerankSettings) -> None:
        self._archive, self._settings = archive, settings
        self._judge: RelevanceJudge | None = None
        self._lock, self._free = threading.Lock(), threading.BoundedSemaphore(AT_ONCE)

    def search(
        self, find: Callable[[SearchOptions], Answer], options: SearchOptions, *, texts: Sequence[str], wanted: bool | None
    ) -> Answer:
        """Return the page that a search asks for, after a second look where that is wanted and possible.

        Args:
            find: The search, by its options.
            options: Of the page.
            texts: The words of the query.
            wanted: Whether the search wants a second look; None: as `search.rerank.enabled` says.

        Raises:
            VidseekError: those of `find`.
        """
        from vidseek.actions.hit_order import options_of_first, page_of, reranked
        from vidseek_retrieval.search.query import RerankReport

        settings = self._settings
        if not self.is_wanted(options, wanted=wanted):
            return find(options)
        answer = find(options_of_first(options, settings.num_hits))
        first = answer.hits[: settings.num_hits]
        looked = NO_PICTURES if options.fields and VISUAL not in options.fields else self._look(" ".join(texts), first)
        if isinstance(looked, str):
            report = RerankReport(False, looked, self._name, 0, 0, 0.0, 0.0)
            return page_of(answer, options, hits=answer.hits, report=report)
        scored = {hit.best_clip_id: own for hit in first if (own := looked.scores.keys() & set(self._clips_of(hit)))}
        scores = {best: max(looked.scores[clip_id] for clip_id in own) for best, own in scored.items()}
        is_done = looked.is_in_time and bool(scores)
        report = RerankReport(
            is_done, looked.reason, self._name, len(scores), sum(own <= looked.cached for own in scored.values()),
            round(looked.cost_usd, 6), looked.seconds,
        )
        hits = (*reranked(first, scores), *answer.hits[settings.num_hits :]) if is_done else answer.hits
        return page_of(answer, options, hits=hits, report=report)

    def is_wanted(self, options: SearchOptions, *, wanted: bool | None) -> bool:
        """Return whether hits of a page are looked at.

        Args:
            options: Of the page.
            wanted: As `search` takes it.
        """
        return (self._settings.enabled if wanted is None else wanted) and options.offset < self._settings.num_hits

    def close(self) -> None:
        """Wait for what is under way, and close connections and journal."""
        with self._lock:
            if self._judge is not None:
                self._judge.close()
                self._judge = None

    def __enter__(self) -> SecondLook:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def _name(self) -> str:
        return f"{self._settings.provider}/{self._settings.model}" if self._settings.model else ""

    def _look(self, query: str, hits: Sequence[Hit]) -> Looked | str:
        """Return what came of the second look, or why there was none."""
        settings = self._settings
        if not query.strip():
            return NO_WORDS
        if None in (settings.model, settings.usd_per_million_tokens_in, settings.usd_per_million_tokens_out):
            return NO_MODEL
        if not self._free.acquire(blocking=False):
            return BUSY
        try:
            texts = {
                clip_id: [f"{each.field}: {each.text}" for each in hit.evidence]
                for hit in hits for clip_id in self._clips_of(hit)
            }
            return self._opened().look(query, list(texts), timeout_seconds=settings.timeout_seconds, texts=texts)
        except VidseekError as error:  # the first ranking is there: it must not be lost for a second one
            return error.message
        finally:
            self._free.release()

    def _clips_of(self, hit: Hit) -> list[str]:
        """Return the clips of a hit that are looked at, its best one first."""
        others = [clip_id for clip_id in hit.clip_ids if clip_id != hit.best_clip_id]
        return [hit.best_clip_id, *others[: self._settings.num_clips - 1]]

    def _opened(self) -> RelevanceJudge:
        from vidseek_training.captioning.relevance import RelevanceJudge
        from vidseek_training.captioning.settings import LlmSettings

        settings = self._settings
        with self._lock:
            if self._judge is None:
                names = (
                    "provider", "model", "usd_per_million_tokens_in", "usd_per_million_tokens_out", "budget_usd",
                    "num_frames",
                )
                llm = LlmSettings.of({
                    **{name: getattr(settings, name) for name in names},
                    "concurrency": min(MAX_REQUESTS, AT_ONCE * settings.num_hits * settings.num_clips),
                    "max_output_tokens": MAX_OUTPUT_TOKENS,
                    "timeout_seconds": max(settings.timeout_seconds, LATE_SECONDS),
                })
                self._judge = RelevanceJudge(llm, self._archive.frames, self._archive.relevance_journal)
            return self._judge
