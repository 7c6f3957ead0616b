"""Reads the on-screen text of the videos of an archive, each once, into one table of segments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vidseek_media.decoding.frames import frames_at
from vidseek_media.decoding.packets import read_plan
from vidseek_media.decoding.worker_batch import run_videos
from vidseek_media.ids import to_ms
from vidseek_media.ocr.frame_scanner import FrameScanner
from vidseek_media.ocr.text_reader import rapid_reader, require_reader
from vidseek_media.ocr.text_tracks import ScannedFrame, text_runs
from vidseek_media.records import Refusal, Rejection, Video
from vidseek_media.settings import OcrSettings, longer_by_length
from vidseek_media.sources.ingest import read_videos
from vidseek_media.sources.opening import source_of
from vidseek_media.sources.originals import original
from vidseek_media.sources.source import Source
from vidseek_media.text.segments import Segment, SegmentCache, segment_of, write_evidence

FORMAT = 1
"""Of what is kept of a video: raise it when the same settings find other text."""

_OF_TEXT = {"interval_seconds", "side_px", "detect_side_px"}
"""Settings that change what is found."""


@dataclass(frozen=True)
class ScreenText:
    """What was read in one video."""

    segments: list[Segment]
    num_frames: int
    """Frames that were sampled."""
    num_passed_over: int
    """Of these, frames that equal the one before and were not looked at."""


@dataclass(frozen=True)
class OcrReport:
    """Counts of a run."""

    num_in: int
    """Videos."""
    num_known: int
    """Of these, videos that an earlier run has read."""
    num_with_text: int
    num_segments: int
    num_rejected: int
    num_frames: int
    """Frames that were sampled in this run."""
    num_passed_over: int
    """Of these, frames that were not looked at."""


def read_archive_text(
    ingest_dir: Path, *, out: Path, source: Path | Source, settings: OcrSettings, memory: Path
) -> OcrReport:
    """Read the on-screen text of all videos; write `segments.parquet` and `rejected.parquet`.

    What was read is kept in `memory`, so that another run reads new videos only.

    Args:
        ingest_dir: Output of the stage `ingest`.
        out: The folder to write.
        source: Folder of the videos, or a source that gives each its file.
        settings: The section `ocr`. Where it is not enabled, both tables are written without rows.
        memory: Folder of the kept results.

    Raises:
        ConfigError: RapidOCR is not installed.
        ArtifactError: a table is missing or broken.
    """
    videos, source = read_videos(ingest_dir) if settings.enabled else [], source_of(source)
    cache = SegmentCache(memory, {"format": FORMAT, "reader": require_reader() if settings.enabled else "",
                                  **settings.model_dump(include=_OF_TEXT)})
    found = cache.recall_all(video.video_id for video in videos)
    num_known, frames, passed_over, rejections = len(found), 0, 0, []
    todo = [(source.path_of(video.uris[0]), video) for video in videos if video.video_id not in found]
    for video, text in _read_each(todo, settings):
        if isinstance(text, Refusal):
            rejections.append(Rejection.of(video.video_id, "ocr", text))
            continue
        found[video.video_id] = text.segments
        cache.remember(video.video_id, text.segments)
        frames, passed_over = frames + text.num_frames, passed_over + text.num_passed_over
    num_segments = write_evidence(out, found, rejections)
    return OcrReport(
        num_in=len(videos), num_known=num_known, num_with_text=sum(bool(each) for each in found.values()),
        num_segments=num_segments, num_rejected=len(rejections), num_frames=frames, num_passed_over=passed_over,
    )


def read_screen_text(path: Path, *, settings: OcrSettings, name: str) -> ScreenText:
    """Read the on-screen text of one video.

    Args:
        path: The file.
        settings: The section `ocr`.
        name: Of the reader, for `Segment.source`.

    Raises:
        InputRejected: the file cannot be decoded.
    """
    plan = read_plan(path)
    duration_ms = max(plan.duration_ms, 1)
    spans = list(_bins(duration_ms, to_ms(settings.interval_seconds)))
    scanner = FrameScanner(rapid_reader(), detect_side_px=settings.detect_side_px)
    frames = frames_at(path, [(start + end) // 2 for start, end in spans], side_px=settings.side_px, plan=plan)
    scanned = (ScannedFrame(*span, scanner.scan(frame.pixels)) for span, frame in zip(spans, frames, strict=True))
    segments = [
        segment for run in text_runs(scanned)
        if (segment := segment_of(run.start_ms, run.end_ms, run.best.text, source=name, confidence=run.best.score))
    ]
    return ScreenText(segments, scanner.num_seen, scanner.num_passed_over)


def _bins(duration_ms: int, length_ms: int) -> Iterator[tuple[int, int]]:
    """Yield the spans that one frame each stands for; a rest of less than half a span belongs to the last."""
    count = max((2 * duration_ms + length_ms) // (2 * length_ms), 1)
    for number in range(count):
        yield number * length_ms, (number + 1) * length_ms if number + 1 < count else duration_ms


def _read_each(
    todo: list[tuple[Path, Video]], settings: OcrSettings
) -> Iterator[tuple[Video, ScreenText | Refusal]]:
    """Yield each video with its text, or why it has none, as they are done."""
    if not todo:
        return
    videos = {(path, video.video_id): video for path, video in todo}
    seconds = {item: longer_by_length(settings.timeout_seconds, video.duration_ms) for item, video in videos.items()}
    with run_videos(
        partial(_text_of_original, settings=settings, name=require_reader()), list(videos), label="ocr",
        workers=settings.workers, timeout_seconds=seconds.__getitem__, timeout_setting="ocr.timeout_seconds",
    ) as outcomes:
        for outcome in outcomes:
            video = videos[outcome.item]
            if outcome.error is not None:
                yield video, Refusal.of(outcome.error, f"{outcome.item[0].name}: its text was not read: ")
            elif outcome.value is not None:
                yield video, outcome.value


def _text_of_original(item: tuple[Path, str], *, settings: OcrSettings, name: str) -> ScreenText:
    path, video_id = item
    with original(path, video_id):
        return read_screen_text(path, settings=settings, name=name)
