"""Published retrieval benchmarks as they were published: which captions belong to which video."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidseek_media.errors import ArtifactError, InputRejected
from vidseek_media.folders import whole_file

_VIDEO_KEYS = ("video_id", "video", "file", "vid")
_CAPTION_KEYS = ("sentence", "caption", "description", "query", "text")
_START_KEYS, _END_KEYS = ("start", "start_seconds"), ("end", "end_seconds")


@dataclass(frozen=True)
class Query:
    """One caption of one video, or of a span of it."""

    video: str
    """As the benchmark names it, with or without a suffix."""
    caption: str
    start_seconds: float | None = None
    end_seconds: float | None = None


def read_benchmark(path: Path) -> list[Query]:
    """All captions of a benchmark's file, in its order.

    Known are: MSR-VTT's 1k-A (a CSV with video_id and sentence); MSVD and others (JSON, a list of a video with a caption
    or a list of them); DiDeMo (JSON with video, description and times in pieces of 5 s); JSON lines; and any CSV with a
    column for videos and one for captions, separated by a comma, a semicolon or a tab. DiDeMo's descriptions of one video
    are one paragraph, as in CLIP4Clip.

    Raises:
        ArtifactError: the file is missing or of none of these forms.
        InputRejected: it has no caption, or a row without one.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = _rows_of(text, path.suffix.lower())
    except (OSError, ValueError, csv.Error) as error:
        raise ArtifactError(f"benchmark {path} cannot be read: {error}") from error
    if not rows:
        raise InputRejected(f"benchmark {path} has no row")
    if "description" in rows[0] and "times" in rows[0]:
        rows = _paragraphs(rows)
    queries = [query for number, row in enumerate(rows, 1) for query in _queries_of(row, f"{path}, row {number}")]
    return queries


def write_captions(queries: Iterable[Query], videos: Path, out: Path) -> int:
    """Write captions.csv of `queries` for the films in `videos`, all of them for testing: what `ingest` reads.

    Args:
        queries: Of a benchmark.
        videos: The folder of its films; one is found by the benchmark's name, with or without a suffix.
        out: The file to write; it belongs into `videos`.

    Returns:
        How many captions were written.

    Raises:
        InputRejected: films are missing; some are named.
    """
    queries = list(queries)
    found = {path.stem: path for path in sorted(videos.rglob("*")) if path.is_file()}
    films = {query.video: found.get(query.video) or found.get(Path(query.video).stem) for query in queries}
    missing = sorted(video for video, path in films.items() if path is None)
    if missing:
        raise InputRejected(
            f"{len(missing)} of {len(films)} films of the benchmark are not in {videos}: {', '.join(missing[:5])}",
            remedy="Fetch them, or leave their rows out of the benchmark's file",
        )
    with whole_file(out) as beside, beside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "caption", "start", "end", "split"])
        for query in queries:
            film = films[query.video]
            assert film is not None
            times = ["" if each is None else f"{each:g}" for each in (query.start_seconds, query.end_seconds)]
            writer.writerow([film.relative_to(videos).as_posix(), query.caption, *times, "test"])
    return len(queries)


def _rows_of(text: str, suffix: str) -> list[dict[str, Any]]:
    if suffix == ".json":
        content = json.loads(text)
        if isinstance(content, Mapping):  # video to its captions
            content = [{"video": video, "caption": captions} for video, captions in content.items()]
        if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
            raise ValueError("wanted a list of records, or captions by video")
        return content
    if suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    first = text.partition("\n")[0]
    separator = max(",;\t", key=first.count)
    return list(csv.DictReader(io.StringIO(text), delimiter=separator))


def _queries_of(row: Mapping[str, Any], where: str) -> list[Query]:
    video, captions = _first(row, _VIDEO_KEYS), _first(row, _CAPTION_KEYS)
    if isinstance(captions, str):
        captions = [captions]
    if not isinstance(video, str) or not isinstance(captions, Sequence) or not captions:
        raise InputRejected(
            f"{where} has the columns {', '.join(map(str, row))}",
            remedy=f"Name the video one of {', '.join(_VIDEO_KEYS)}, the caption one of {', '.join(_CAPTION_KEYS)}",
        )
    if not all(isinstance(caption, str) and caption.strip() for caption in captions):
        raise InputRejected(f"{where}: a caption of {video} is empty")
    start, end = (_seconds(_first(row, keys), where) for keys in (_START_KEYS, _END_KEYS))
    return [Query(video, " ".join(caption.split()), start, end) for caption in captions]


def _first(row: Mapping[str, Any], keys: Sequence[str]) -> Any:
    return next((row[key] for key in keys if row.get(key) not in (None, "")), None)


def _seconds(value: Any, where: str) -> float | None:
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError) as error:
        raise InputRejected(f"{where}: {value!r} is no number of seconds") from error


def _paragraphs(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """All descriptions of one video as one caption."""
    said: dict[str, list[str]] = {}
    for row in rows:
        said.setdefault(str(row["video"]), []).append(str(row["description"]).strip())
    return [{"video": video, "caption": ". ".join(text.rstrip(".") for text in texts)} for video, texts in said.items()]
