"""Exports of moments: timelines by OpenTimelineIO, and tables."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from vidseek.edit.edl import edl_text
from vidseek.edit.events import Event
from vidseek.edit.fcpxml import fcpxml_text
from vidseek.edit.timeline import otio_text
from vidseek_media.editing.frame_rates import rate_text
from vidseek_media.errors import ConfigError, InputRejected, foreign
from vidseek_media.files.folders import write_text

COLUMNS = (
    "number", "reel", "name", "file", "rate", "drop_frame", "variable_rate", "source_in", "source_out", "first_frame",
    "end_frame", "num_frames", "handle_before", "handle_after", "start_ms", "end_ms", "video_id", "clip_id", "score",
    "confidence",
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula."""


@dataclass(frozen=True)
class ExportFormat:
    """A kind of file that moments are written to."""

    write: Callable[[Sequence[Event], str], str]
    """Takes the events and the name of the timeline."""
    media_type: str


def _fields_of(events: Sequence[Event]) -> list[str]:
    """Return the names of the declared fields that an event has a value of, sorted."""
    return sorted({name for event in events for name in event.moment.fields})


def _rows(events: Sequence[Event]) -> list[dict[str, Any]]:
    rows = []
    for number, event in enumerate(events, start=1):
        moment, times = event.moment, event.times
        values = (
            number, event.reel, event.name, event.url, rate_text(times.rate), times.is_drop, times.is_variable,
            event.source_in, event.source_out, event.first, event.end, event.num_frames, event.handle_before,
            event.handle_after, moment.start_ms, moment.end_ms, moment.video_id, moment.clip_id, moment.score,
            moment.confidence,
        )
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def csv_text(events: Sequence[Event], name: str) -> str:
    """Return a table with a row for each event, in UTF-8 with line ends CR LF (RFC 4180).

    Args:
        events: What is exported.
        name: Of the timeline; the table does not hold it.
    """
    file = io.StringIO()
    writer = csv.writer(file)
    names = _fields_of(events)
    writer.writerow([*COLUMNS, *(f"field_{name}" if name in COLUMNS else name for name in names)])
    for row, event in zip(_rows(events), events, strict=True):
        own = [joined_cell(event.moment.fields.get(name, "")) for name in names]
        writer.writerow([_cell(value) for value in (*row.values(), *own)])
    return file.getvalue()


def joined_cell(value: object) -> object:
    """Return a value of a declared field as a cell: a list with semicolons, as a manifest has it, or as JSON where a value
    holds one or a comma.
    """
    if not isinstance(value, list):
        return value
    texts = [str(each) for each in value]
    is_plain = all(not set(text) & set(";,") and not text.startswith("[") for text in texts)
    return "; ".join(texts) if is_plain else json.dumps(value, ensure_ascii=False)


def _cell(value: object) -> object:
    """Return a value; a text that a spreadsheet would compute gets an apostrophe before it."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def json_text(events: Sequence[Event], name: str) -> str:
    """Return a JSON document with the events, each with its declared fields under `fields`.

    Args:
        events: What is exported.
        name: Of the timeline.
    """
    rows = [
        {**row, **({"fields": dict(event.moment.fields)} if event.moment.fields else {})}
        for row, event in zip(_rows(events), events, strict=True)
    ]
    return json.dumps({"name": name, "events": rows}, indent=2, ensure_ascii=False) + "\n"


FORMATS: Mapping[str, ExportFormat] = {
    "otio": ExportFormat(otio_text, "application/json"), "edl": ExportFormat(edl_text, "text/plain"),
    "fcpxml": ExportFormat(fcpxml_text, "application/xml"), "csv": ExportFormat(csv_text, "text/csv"),
    "json": ExportFormat(json_text, "application/json"),
}
"""By the suffix of the file, without its dot."""


def format_of(file: PurePath) -> str:
    """Return the format that the suffix of a file names, a key of `FORMATS`.

    Raises:
        ConfigError: it names none.
    """
    name = file.suffix.lower().removeprefix(".")
    if name not in FORMATS:
        raise ConfigError(
            f"{file} cannot be exported: its suffix is {file.suffix or 'missing'}", code="unknown-export",
            remedy=f"Name a file that ends in {', '.join(f'.{each}' for each in FORMATS)}",
        )
    return name


def export_text(events: Sequence[Event], format_name: str, name: str) -> str:
    """Return the moments in a format.

    Args:
        events: What is exported.
        format_name: A key of `FORMATS`.
        name: Of the timeline.

    Raises:
        InputRejected: there are no events, or the format does not hold these.
        ConfigError: a library is not installed.
    """
    if not events:
        raise InputRejected(
            "there is no moment to export", code="nothing-to-export",
            remedy="Search for something else, or with fewer filters",
        )
    return FORMATS[format_name].write(events, " ".join(name.split()) or "vidseek")


def write_export(path: Path, text: str) -> None:
    """Write an export, whole or not at all.

    Raises:
        ConfigError: the file cannot be written.
    """
    with foreign(
        ConfigError, f"{path} cannot be written", code="export-not-written", remedy="Name a folder that you may write to",
    ):
        write_text(path, text)
