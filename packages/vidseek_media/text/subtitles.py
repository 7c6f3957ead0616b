"""Collects the subtitles of an archive as segments: files beside the videos, and text streams in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vidseek_media.decoding.worker_batch import run_videos
from vidseek_media.errors import InputRejected
from vidseek_media.records import Refusal, Rejection, Video
from vidseek_media.settings import SubtitleSettings
from vidseek_media.sources.ingest import read_videos
from vidseek_media.sources.opening import source_of
from vidseek_media.sources.originals import original
from vidseek_media.sources.source import Source
from vidseek_media.text.languages import is_language, tag_of_words, words_of_name
from vidseek_media.text.segments import Segment, SegmentCache, segment_of, write_evidence
from vidseek_media.text.subtitle_files import find_subtitles
from vidseek_media.text.text_streams import TextCue, read_text_streams
from vidseek_media.text.transcripts import plain_lines, read_transcript

FORMAT = 3
"""Of what is kept of a video: raise it when the same file gives other segments."""
FILE, AUTOMATIC_FILE, EMBEDDED = "file", "file/automatic", "embedded"
"""Sources of segments; automatic are those that a machine made from speech."""
_NO_LANGUAGE = ("und", "zxx", "mis")
"""What streams say of which the language is unknown, or that have none."""


@dataclass(frozen=True)
class SubtitleReport:
    """Counts of a run."""

    num_in: int
    """Videos."""
    num_known: int
    """Of these, videos whose streams an earlier run has read."""
    num_with_subtitles: int
    num_segments: int
    num_rejected: int


def read_archive_subtitles(
    ingest_dir: Path, *, out: Path, source: Path | Source, settings: SubtitleSettings, memory: Path
) -> SubtitleReport:
    """Write `segments.parquet` and `rejected.parquet`: the subtitles of all videos, in all their languages.

    Files are read by each run. Streams are read once for each video, and kept in `memory`.

    Args:
        ingest_dir: Output of the stage `ingest`.
        out: The folder to write.
        source: Folder of the videos, or a source that gives each its file.
        settings: The section `subtitles`.
        memory: Folder of what is kept.

    Raises:
        ArtifactError: a table is missing or broken.
    """
    videos, source = read_videos(ingest_dir), source_of(source)
    paths = {video.uris[0]: source.path_of(video.uris[0]) for video in videos}
    found, rejections = _from_files(videos, paths)
    cache = SegmentCache(memory, {"format": FORMAT})
    embedded, refused, num_known = _from_streams(videos, paths, settings, cache) if settings.embedded else ({}, [], 0)
    for video_id, segments in embedded.items():
        found.setdefault(video_id, []).extend(segments)
    rejections += refused
    num_segments = write_evidence(out, found, rejections)
    return SubtitleReport(len(videos), num_known, sum(map(bool, found.values())), num_segments, len(rejections))


def _from_files(
    videos: Sequence[Video], paths: Mapping[str, Path]
) -> tuple[dict[str, list[Segment]], list[Rejection]]:
    found: dict[str, list[Segment]] = {}
    files = find_subtitles(paths)
    folders = {path.parent: PurePosixPath(uri).parent for uri, path in paths.items()}
    refused = [
        Rejection(
            (folders[each.path.parent] / each.path.name).as_posix(), "subtitles", each.reason, code="subtitles-passed-over"
        ) for each in files.passed_over
    ]
    for video in videos:
        for file in files.beside[video.uris[0]]:
            try:
                cues, _ = read_transcript(file.path)
            except InputRejected as error:
                name = PurePosixPath(video.uris[0]).with_name(file.path.name).as_posix()
                refused.append(Rejection(name, "subtitles", error.message, code=error.code))
                continue
            kind = AUTOMATIC_FILE if file.is_automatic else FILE
            segments = (
                segment_of(cue.start_ms, cue.end_ms, " ".join(cue.lines), language=file.language, source=kind)
                for cue in cues
            )
            found.setdefault(video.video_id, []).extend(filter(None, segments))
    return found, refused


def _from_streams(
    videos: Sequence[Video], paths: Mapping[str, Path], settings: SubtitleSettings, cache: SegmentCache
) -> tuple[dict[str, list[Segment]], list[Rejection], int]:
    known = cache.recall_all(video.video_id for video in videos)
    num_known, refused = len(known), []
    todo = [(paths[video.uris[0]], video.video_id) for video in videos if video.video_id not in known]
    with run_videos(
        _cues_of_original, todo, label="subtitles", workers=settings.workers, timeout_seconds=settings.timeout_seconds,
        timeout_setting="subtitles.timeout_seconds",
    ) as outcomes:
        for outcome in outcomes:
            path, video_id = outcome.item
            if outcome.error is not None:
                why = Refusal.of(outcome.error, f"{path.name}: its subtitles were not read: ")
                refused.append(Rejection.of(video_id, "subtitles", why))
                continue
            known[video_id] = list(_segments(map(TextCue._make, outcome.value or [])))
            cache.remember(video_id, known[video_id])
    return known, refused, num_known


def _cues_of_original(item: tuple[Path, str]) -> list[tuple[int, int, str, str]]:
    path, video_id = item
    with original(path, video_id):
        # Plain values: nothing else leaves a worker.
        return [(cue.start_ms, cue.end_ms, cue.text, cue.language) for cue in read_text_streams(path)]


def _segments(cues: Iterable[TextCue]) -> Iterator[Segment]:
    for cue in cues:
        text = " ".join(plain_lines(cue.text.replace("\\N", "\n").replace("\\n", "\n").split("\n")))
        language = _language_of_stream(cue.language)
        if (segment := segment_of(cue.start_ms, cue.end_ms, text, language=language, source=EMBEDDED)) is not None:
            yield segment


def _language_of_stream(said: str) -> str:
    """Return the tag of what a stream says of its language; empty if it is none, or says that there is none."""
    if said in _NO_LANGUAGE:
        return ""
    return said if is_language(said) else tag_of_words(words_of_name(said))
