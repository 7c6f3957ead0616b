"""Reads published retrieval benchmarks in their own formats: which captions belong to which video or image."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidseek_media.errors import ArtifactError, InputRejected
from vidseek_media.files.csv_files import write_csv
from vidseek_media.files.json_files import parse_json

_VIDEO_KEYS = ("video_id", "video", "file", "vid", "image")
_CAPTION_KEYS = ("sentence", "caption", "description", "query", "text")
_START_KEYS, _END_KEYS = ("start", "start_seconds"), ("end", "end_seconds")


@dataclass(frozen=True)
class Query:
    """One caption of one video, or of a span of it."""

    video: str
    """Or picture, as the benchmark names it, with or without a folder and a suffix."""
    caption: str
    start_seconds: float | None = None
    end_seconds: float | None = None


def read_benchmark(path: Path, *, video: str | None = None, caption: str | None = None) -> list[Query]:
    """Read all captions of a benchmark's file, in order.

    Supported formats: MSR-VTT 1k-A (CSV with video_id and sentence); MSVD and others (JSON, videos with a caption or a list
    of
    captions); DiDeMo (JSON with video, description and times in units of 5 s); JSON lines; and any CSV with a column of
    videos
    and one of captions, separated by comma, semicolon or tab. DiDeMo's descriptions of a video are joined into one
    paragraph, as
    in CLIP4Clip.

    Args:
        path: The file.
        video: Column with the video or image, if it is none of the known ones.
        caption: Column with the caption, if it is none of the known ones.

    Raises:
        ArtifactError: the file is missing or has another format.
        InputRejected: it has no captions, or a row without one.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = _rows_of(text, path.suffix.lower())
    except (OSError, ValueError, csv.Error) as error:
        raise ArtifactError(f"benchmark {path} cannot be read: {error}", code="benchmark-unreadable") from error
    if not rows:
        raise InputRejected(f"benchmark {path} has no row", code="benchmark-malformed")
    if "description" in rows[0] and "times" in rows[0]:
        rows = _paragraphs(rows)
    video_keys, caption_keys = (video,) if video else _VIDEO_KEYS, (caption,) if caption else _CAPTION_KEYS
    return [
        query for number, row in enumerate(rows, 1)
        for query in _queries_of(row, f"{path}, row {number}", video_keys, caption_keys)
    ]


def write_captions(queries: Iterable[Query], videos: Path, out: Path, *, split: str = "test") -> int:
    """Write a captions.csv, which `ingest` reads, for the videos or images in a folder.

    Args:
        queries: The benchmark's captions.
        videos: Folder of the videos or images. A file is found by its path in the folder, else by the benchmark's name
            without
            folder, with or without a suffix.
        out: The file to write; it belongs into `videos`.
        split: `test`, `validation` or `train` for all of them; empty assigns splits by a hash of each video.

    Returns:
        The number of captions.

    Raises:
        InputRejected: videos are missing; the message names some.
    """
    queries = list(queries)
    paths = find_videos(queries, videos)
    missing = sorted(video for video, path in paths.items() if path is None)
    if missing:
        raise InputRejected(
            f"{len(missing)} of {len(paths)} videos of the benchmark are not in {videos}: {', '.join(missing[:5])}",
            code="benchmark-videos-missing",
            remedy="Fetch them, or leave their rows out of the benchmark's file",
        )
    rows = []
    for query in queries:
        path = paths[query.video]
        assert path is not None
        times = ["" if each is None else f"{each:g}" for each in (query.start_seconds, query.end_seconds)]
        rows.append([path.relative_to(videos).as_posix(), query.caption, *times, split])
    write_csv(out, ["file", "caption", "start", "end", "split"], rows)
    return len(queries)


def find_videos(
    queries: Iterable[Query], videos: Path, *, suffixes: Collection[str] | None = None
) -> dict[str, Path | None]:
    """Find the file of each video or image; None if it is missing.

    Args:
        queries: The benchmark's captions.
        videos: A folder. A file is found by its path in it, else by the benchmark's name without folder, with or without a
            suffix.
        suffixes: Suffixes of files that count, in lower case; None takes all files.
    """
    files = [
        path for path in sorted(videos.rglob("*"))
        if path.is_file() and (suffixes is None or path.suffix.lower() in suffixes)
    ]
    found = {path.stem: path for path in files} | {path.relative_to(videos).as_posix(): path for path in files}
    return {query.video: found.get(query.video) or found.get(Path(query.video).stem) for query in queries}


def _rows_of(text: str, suffix: str) -> list[dict[str, Any]]:
    if suffix == ".json":
        content = parse_json(text)
        if isinstance(content, Mapping):  # video to its captions
            content = [{"video": video, "caption": captions} for video, captions in content.items()]
        if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
            raise ValueError("wanted a list of records, or captions by video")
        return content
    if suffix == ".jsonl":
        return [parse_json(line) for line in text.splitlines() if line.strip()]
    first = text.partition("\n")[0]
    separator = max(",;\t", key=first.count)
    return list(csv.DictReader(io.StringIO(text), delimiter=separator))


def _queries_of(
    row: Mapping[str, Any], where: str, video_keys: Sequence[str], caption_keys: Sequence[str]
) -> list[Query]:
    video, captions = _first(row, video_keys), _first(row, caption_keys)
    if isinstance(captions, str):
        captions = [captions]
    if not isinstance(video, str) or not isinstance(captions, Sequence) or not captions:
        raise InputRejected(
            f"{where} has the columns {', '.join(map(str, row))}", code="benchmark-malformed",
            remedy=f"Name the video one of {', '.join(video_keys)}, the caption one of {', '.join(caption_keys)}",
        )
    if not all(isinstance(caption, str) and caption.strip() for caption in captions):
        raise InputRejected(f"{where}: a caption of {video} is empty", code="benchmark-malformed")
    start, end = (_seconds(_first(row, keys), where) for keys in (_START_KEYS, _END_KEYS))
    return [Query(video, " ".join(caption.split()), start, end) for caption in captions]


def _first(row: Mapping[str, Any], keys: Sequence[str]) -> Any:
    return next((row[key] for key in keys if row.get(key) not in (None, "")), None)


def _seconds(value: Any, where: str) -> float | None:
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError) as error:
        raise InputRejected(f"{where}: {value!r} is no number of seconds", code="benchmark-malformed") from error


def _paragraphs(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return all descriptions of one video as one caption."""
    said: dict[str, list[str]] = {}
    for row in rows:
        said.setdefault(str(row["video"]), []).append(str(row["description"]).strip())
    return [{"video": video, "caption": ". ".join(text.rstrip(".") for text in texts)} for video, texts in said.items()]
