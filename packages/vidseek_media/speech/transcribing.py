"""Turns the speech of the videos of an archive into text, each once, into one table of segments."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from vidseek_media.decoding.worker_batch import Outcome, run_videos
from vidseek_media.errors import ArtifactError, ConfigError, ServiceError, foreign
from vidseek_media.records import Refusal, Rejection, Video
from vidseek_media.settings import SpeechSettings, longer_by_length
from vidseek_media.sources.ingest import read_videos
from vidseek_media.sources.opening import source_of
from vidseek_media.sources.originals import original
from vidseek_media.sources.source import Source
from vidseek_media.speech.engine import NoAnswer, SpeechEngine, Transcriber, Utterance
from vidseek_media.speech.registry import speech_engine
from vidseek_media.speech.sound import RATE, Samples, decode_sound, read_samples
from vidseek_media.speech.span_journal import SpanJournal, SpanKey, SpeechBudget
from vidseek_media.speech.voice_activity import require_model, speech_spans
from vidseek_media.text.segments import Segment, SegmentCache, segment_of, write_evidence

FORMAT = 1
"""Of what is kept of a video: raise it when the same settings hear something else."""
MAX_UNANSWERED = 3
"""Videos in a row of which no span was answered: then it is not the videos."""


@dataclass(frozen=True)
class SpeechReport:
    """Counts of a run."""

    num_in: int = 0
    """Videos."""
    num_known: int = 0
    """Of these, videos that an earlier run has heard."""
    num_with_speech: int = 0
    num_segments: int = 0
    num_rejected: int = 0
    speech_seconds: float = 0.0
    """Sound that the engine was given in this run."""
    spent_usd: float = 0.0
    """By all runs of the archive."""


@dataclass(frozen=True)
class VoiceSpans:
    """Where somebody speaks in a video; its samples lie in a file."""

    samples: str
    """Path of the file."""
    spans: list[SpanKey]


def transcribe_archive(
    ingest_dir: Path, *, out: Path, source: Path | Source, settings: SpeechSettings, memory: Path
) -> SpeechReport:
    """Turn the speech of all videos into text; write `segments.parquet` and `rejected.parquet`.

    What was heard is kept in `memory`, by video and, until a video is done, by span: another run asks for new ones only.

    Args:
        ingest_dir: Output of the stage `ingest`.
        out: The folder to write.
        source: Folder of the videos, or a source that gives each its file.
        settings: The section `speech`. Where it is not enabled, both tables are written without rows.
        memory: Folder of what is kept.

    Raises:
        ConfigError: the engine, its model or the voice activity model is missing; the budget is used up.
        ServiceError: an endpoint answers nothing any more.
        ArtifactError: a table is missing or broken, or the disk cannot hold the sound of a video.
    """
    if not settings.enabled:
        return _write(out, {}, [], SpeechReport())
    engine = speech_engine(settings.engine)
    require_model()
    identity = {"format": FORMAT, "fingerprint": engine.fingerprint(settings.model), **settings.identity()}
    cache, videos, source = SegmentCache(memory, identity), read_videos(ingest_dir), source_of(source)
    found = cache.recall_all(video.video_id for video in videos)
    todo = {(source.path_of(video.uris[0]), video.video_id): video for video in videos if video.video_id not in found}
    rejections: list[Rejection] = []
    report = SpeechReport(num_in=len(videos), num_known=len(found))
    if todo:
        with closing(_Run(engine, settings, memory, identity)) as run:
            for video_id, heard in run.hear(todo):
                if isinstance(heard, Refusal):
                    rejections.append(Rejection.of(video_id, "speech", heard))
                    continue
                cache.remember(video_id, heard)
                run.journal.forget(video_id)
                found[video_id] = heard
            report = dataclasses.replace(report, speech_seconds=run.seconds, spent_usd=run.budget.spent_usd)
    return _write(out, found, rejections, report)


def _write(
    out: Path, found: dict[str, list[Segment]], rejections: list[Rejection], report: SpeechReport
) -> SpeechReport:
    num_segments = write_evidence(out, found, rejections)
    with_speech = sum(bool(each) for each in found.values())
    return dataclasses.replace(
        report, num_with_speech=with_speech, num_segments=num_segments, num_rejected=len(rejections)
    )


class _Run:
    """One run over videos that are not known yet. The engine is opened when the first speech is found."""

    def __init__(
        self, engine: SpeechEngine, settings: SpeechSettings, memory: Path, identity: dict[str, object]
    ) -> None:
        if engine.is_paid and settings.usd_per_minute is None:
            raise ConfigError(
                f"speech.engine is {engine.name}, and speech.usd_per_minute is not said", code="setting-missing",
                remedy="Set it in params.yaml as your provider states it, 0 for a server of your own",
            )
        self._engine, self._settings, self._memory = engine, settings, memory
        self._source = engine.identity(settings.model)
        self._transcriber: Transcriber | None = None
        self._num_unanswered = 0
        self.journal = SpanJournal(memory, identity)
        self.budget = SpeechBudget(
            memory, usd_per_minute=(settings.usd_per_minute or 0.0) if engine.is_paid else 0.0,
            budget_usd=settings.budget_usd,
        )
        self.seconds = 0.0

    def close(self) -> None:
        if self._transcriber is not None:
            self._transcriber.close()

    def hear(self, todo: dict[tuple[Path, str], Video]) -> Iterator[tuple[str, list[Segment] | Refusal]]:
        """Yield each video_id with its segments, or why it has none, as they are done."""
        settings = self._settings
        # The engine is asked for first: a missing model is told before hours of sound are decoded.
        self._transcriber = self._engine.open(
            model=settings.model, language=settings.language, options=settings.options
        )
        seconds = {item: longer_by_length(settings.timeout_seconds, video.duration_ms) for item, video in todo.items()}
        with tempfile.TemporaryDirectory(dir=self._memory, prefix="sound-") as folder, run_videos(
            # Workers have a working directory of their own.
            partial(_voice_of_original, folder=Path(folder).resolve(), settings=settings), list(todo), label="speech",
            workers=settings.workers, timeout_seconds=seconds.__getitem__, timeout_setting="speech.timeout_seconds",
        ) as outcomes:
            for outcome in outcomes:
                yield outcome.item[1], self._heard(outcome)

    def _heard(self, outcome: Outcome[tuple[Path, str], VoiceSpans | None]) -> list[Segment] | Refusal:
        path, video_id = outcome.item
        if isinstance(outcome.error, ArtifactError | ConfigError):
            raise outcome.error
        if outcome.error is not None:
            return Refusal.of(outcome.error, f"{path.name}: its sound was not heard: ")
        if outcome.value is None or not outcome.value.spans:
            return []
        samples = read_samples(Path(outcome.value.samples))
        answers, failures = self._ask(video_id, samples, outcome.value.spans)
        Path(outcome.value.samples).unlink()
        if failures:
            self._count(answers, failures)
            said = f"{path.name}: {len(failures)} of {len(outcome.value.spans)} spans of speech got no answer: {failures[0]}"
            return Refusal(f"{said} (another run tries it again)", retryable=True, code="speech-no-answer")
        self._num_unanswered = 0
        return [segment for span in sorted(answers) for segment in _segments(span, answers[span], self._source)]

    def _ask(
        self, video_id: str, samples: Samples, spans: list[SpanKey]
    ) -> tuple[dict[SpanKey, list[Utterance]], list[str]]:
        """Return the answer to each span, by this run or an earlier one, and why others have none."""
        assert self._transcriber is not None
        known = self.journal.recall(video_id)
        answers = {span: known[span] for span in spans if span in known}
        left = [span for span in spans if span not in answers]
        failures: list[str] = []
        threads = self._settings.concurrency if self._transcriber.is_parallel else 1
        with ThreadPoolExecutor(min(threads, max(len(left), 1)), thread_name_prefix="speech") as pool:
            pending = [(span, pool.submit(self._ask_span, video_id, samples, span)) for span in left]
            try:
                for span, future in pending:
                    try:
                        answers[span] = future.result()
                    except NoAnswer as failure:
                        failures.append(str(failure))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return answers, failures

    def _ask_span(self, video_id: str, samples: Samples, span: SpanKey) -> list[Utterance]:
        assert self._transcriber is not None
        seconds = (span[1] - span[0]) / RATE
        number = self.budget.reserve(seconds)
        try:
            said = self._transcriber.transcribe(np.array(samples[slice(*span)]), language=self._settings.language)
        except NoAnswer as failure:
            if not failure.may_be_paid:
                self.budget.free(number)
            raise
        except Exception:
            self.budget.free(number)
            raise
        self.journal.remember(video_id, span, said)
        self.seconds += seconds
        return said

    def _count(self, answers: dict[SpanKey, list[Utterance]], failures: list[str]) -> None:
        self._num_unanswered = 0 if answers else self._num_unanswered + 1
        if self._num_unanswered >= MAX_UNANSWERED:
            raise ServiceError(
                f"{self._source} left {MAX_UNANSWERED} videos in a row without an answer, the last: {failures[0]}",
                code="speech-no-answer", remedy="Look at what it says, and run again: all that was answered is kept",
            )


def _segments(span: SpanKey, utterances: list[Utterance], source: str) -> Iterator[Segment]:
    """Yield the segments of a span in the video's time, cut to the span."""
    start_ms, end_ms = (sample * 1000 / RATE for sample in span)
    for each in utterances:
        segment = segment_of(
            start_ms + each.start_ms, min(start_ms + each.end_ms, end_ms), each.text, language=each.language, source=source,
            confidence=each.confidence,
        )
        if segment is not None:
            yield segment


def _voice_of_original(
    item: tuple[Path, str], *, folder: Path, settings: SpeechSettings
) -> VoiceSpans | None:
    """Return where somebody speaks in a video, with its samples in a file of `folder`; None where there is no sound."""
    path, video_id = item
    samples = folder / f"{video_id}.pcm"
    with original(path, video_id), foreign(
        ArtifactError, f"{samples} cannot be written", code="not-writable", remedy="Make room there", errors=OSError
    ):
        if not decode_sound(path, samples):
            return None
    spans = speech_spans(
        read_samples(samples), threshold=settings.voice_threshold, max_seconds=settings.max_span_seconds
    )
    if not spans:
        samples.unlink()
    return VoiceSpans(str(samples), spans)
