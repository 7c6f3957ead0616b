"""Metrics for Prometheus: requests, queues, batches, encoding, searching, and scores of the best hits."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from vidseek_retrieval.confidence.query_stats import QueryDrift

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
CONFIDENCES = tuple(round(0.1 * step, 1) for step in range(11))
SCORES = tuple(round(0.05 * step, 2) for step in range(-4, 21))


class Metrics:
    """The figures of one engine, in a registry of their own: BentoML's is shared by whatever runs in the process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "vidseek_requests", "Answers by route and status.", ["route", "status"], registry=self.registry
        )
        self.request_seconds = Histogram(
            "vidseek_request_seconds", "From the first byte of a request to the last of its answer.", ["route"],
            buckets=SECONDS, registry=self.registry,
        )
        self.batch_size = Histogram(
            "vidseek_batch_size", "Items of one run.", ["work"], buckets=BATCH_SIZES, registry=self.registry
        )
        self.work_seconds = Histogram(
            "vidseek_work_seconds", "One run of an encoder or a decoder.", ["work"], buckets=SECONDS,
            registry=self.registry,
        )
        self.workers_lost = Counter(
            "vidseek_workers_lost", "Decoders that died or were ended at a limit: crash, time, killed, stopped.",
            ["work", "fault"], registry=self.registry,
        )
        self.search_seconds = Histogram(
            "vidseek_search_seconds", "Looking a vector up and forming moments.", buckets=SECONDS,
            registry=self.registry,
        )
        self.best_score = Histogram(
            "vidseek_best_score", "Cosine of the best hit of first pages.", buckets=SCORES, registry=self.registry
        )
        self.best_confidence = Histogram(
            "vidseek_best_confidence", "Confidence of the best hit of first pages, where there is one.",
            buckets=CONFIDENCES, registry=self.registry,
        )
        self.empty_answers = Counter(
            "vidseek_empty_answers", "First pages on which nothing fits.", registry=self.registry
        )
        self.feedback = Counter(
            "vidseek_feedback", "What people said of hits: right or wrong.", ["said"], registry=self.registry
        )
        self.ready = Gauge("vidseek_ready", "1 where a search would be answered now, else 0.", registry=self.registry)
        self.index_points = Gauge(
            "vidseek_index_points", "Clips of the live collection; not there while nothing can be searched.",
            ["collection"], registry=self.registry,
        )
        self.drift_psi = Gauge(
            "vidseek_drift_psi", "How far the last queries are from those at publish: 0.1 watch, 0.25 act; not there for "
            "too few.", ["of"], registry=self.registry,
        )
        self.drift_queries = Gauge(
            "vidseek_drift_queries", "The last queries by one text, of which drift is told.", registry=self.registry
        )
        self.connections = Gauge("vidseek_connections", "Connections that are open.", registry=self.registry)
        self.connections_ended = Counter(
            "vidseek_connections_ended", "Connections that a limit ended, by reason.", ["reason"], registry=self.registry
        )
        self.upload_bytes = Gauge(
            "vidseek_upload_bytes", "Bytes of the bodies of requests that are read or answered.", registry=self.registry
        )
        self.waiting = Gauge(
            "vidseek_waiting", "Items that wait for a run.", ["work"], registry=self.registry
        )

    def note_ended(self, reason: str, status: int) -> None:
        """Count a connection that a limit ended, and the answer that it had, if any."""
        self.connections_ended.labels(reason).inc()
        if status:
            self.requests.labels("none", str(status)).inc()

    def watch_connections(self, count: Callable[[], int]) -> None:
        """Read the number of open connections from `count` at each scrape."""
        self.connections.set_function(count)

    def watch_uploads(self, num_bytes: Callable[[], int]) -> None:
        """Read the bytes of bodies in memory from `num_bytes` at each scrape."""
        self.upload_bytes.set_function(num_bytes)

    def note_index(self, collection: str | None, num_points: int = 0) -> None:
        """Record the live collection and its number of points; None if nothing can be searched."""
        self.index_points.clear()
        self.ready.set(0 if collection is None else 1)
        if collection is not None:
            self.index_points.labels(collection).set(num_points)

    def note_drift(self, drift: QueryDrift | None) -> None:
        """Record the drift of queries; None if there is no reference."""
        self.drift_psi.clear()
        self.drift_queries.set(drift.num_observed if drift else 0)
        for name, value in (drift.psi if drift else {}).items():
            self.drift_psi.labels(name).set(value)

    def observe_run(self, work: str, size: int, seconds: float) -> None:
        """Record one run of an encoder or a decoder, of `size` items."""
        self.batch_size.labels(work).observe(size)
        self.work_seconds.labels(work).observe(seconds)

    def watch_queue(self, work: str, length: Callable[[], int]) -> None:
        """Read the length of a queue at each scrape.

        Args:
            work: Label of the queue.
            length: Returns the number of waiting items.
        """
        self.waiting.labels(work).set_function(length)

    def page(self) -> bytes:
        """Return the figures in Prometheus' text format."""
        return generate_latest(self.registry)
