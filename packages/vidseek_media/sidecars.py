"""Captions that lie beside the videos (CSV, Parquet, JSON lines): read, checked, and matched to the videos they name."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path, PurePosixPath
from typing import TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from vidseek_media.errors import ConfigError, InputRejected
from vidseek_media.ids import to_ms
from vidseek_media.records import Rejection

SIDECAR_NAME = "captions.csv"
REQUIRED = ("file", "caption")
FILE_ALIASES = ("image", "video", "uri", "path", "filename")
"""Columns that are taken for `file` where there is none."""
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
"""A picture is a video of one frame. It counts where a row names it: archives are full of thumbnails."""
TIMES = ("start", "end")
WISHES = ("split", "gallery", "contrast", "axis")
ABOUT_VIDEO = ("title", "channel", "category", "published_at")
SPLITS = ("train", "validation", "test")

csv.field_size_limit(2**24)

_Row: TypeAlias = "tuple[int, dict[str, str] | InputRejected]"
"""Line from 1, and its cells by column, or why it has none."""


@dataclass(frozen=True)
class SidecarCaption:
    """One row of a file of captions, checked but not yet matched to a video."""

    line: int
    """Of the file, from 1."""
    file: str
    text: str
    """Empty where the row only says something about the video."""
    start_ms: int | None = None
    """Null with `end_ms` where the row has no times: the caption is of the whole video."""
    end_ms: int | None = None
    clip_index: int | None = None
    """Where `file` names a clip of the video by its number."""
    split: str = ""
    gallery: str = ""
    contrast: str = ""
    axis: str = ""
    about: Mapping[str, str] = field(default_factory=dict)
    """Title, channel, category and published_at of the video, where given."""
    origin: str = SIDECAR_NAME
    """The name of the file of captions."""

    @property
    def place(self) -> str:
        """File and line: names the row in rejections."""
        return f"{self.origin}:{self.line}"


@dataclass(frozen=True)
class ClipNaming:
    """How names say that a file is a clip of a video; without a pattern none does."""

    pattern: re.Pattern[str] | None = None

    @classmethod
    def of(cls, pattern: str | None) -> ClipNaming:
        """As the params say it.

        Raises:
            ConfigError: it is no regular expression with the groups `stem` and `index`.
        """
        if pattern is None:
            return cls()
        try:
            compiled = re.compile(pattern)
        except re.error as error:
            raise ConfigError(
                f"ingest.clip_pattern is no regular expression: {error}", remedy="Mend it in params.yaml"
            ) from error
        if not {"stem", "index"} <= set(compiled.groupindex):
            raise ConfigError(
                f"ingest.clip_pattern {pattern!r} lacks one of the groups stem and index",
                remedy=r"Write one like (?P<stem>.+)_(?P<index>\d+)",
            )
        return cls(compiled)

    def clip_of(self, uri: str) -> tuple[str, int] | None:
        """The video that `uri` is a clip of, as a uri without suffix, and the clip's number; None where it is none."""
        path = PurePosixPath(uri)
        match = self.pattern.fullmatch(path.stem) if self.pattern else None
        if match is None or not match["index"].isdecimal():
            return None
        return (path.parent / match["stem"]).as_posix(), int(match["index"])


@dataclass(frozen=True)
class Sidecar:
    """All rows of a source's files of captions."""

    captions: tuple[SidecarCaption, ...] = ()
    rejections: tuple[Rejection, ...] = ()

    @property
    def num_rows(self) -> int:
        """Rows read: captions and rejections together."""
        return len(self.captions) + len(self.rejections)


def read_sidecar(source: Path) -> Sidecar:
    """The rows of the files of captions in the folder `source` (`READERS`), in order; none where there is no such file.

    A row that says nothing usable (no caption and no title, an end before its start) is a rejection. Further columns
    are ignored.

    Raises:
        ConfigError: a file is not of its kind, or lacks a column that is required.
    """
    captions: list[SidecarCaption] = []
    rejections: list[Rejection] = []
    seen: dict[tuple[object, ...], str] = {}
    for name, read in READERS.items():
        if not (source / name).exists():
            continue
        for line, row in read(source / name):
            try:
                caption = _caption_of(row, name, line)
                said = (caption.file, caption.start_ms, caption.end_ms, caption.text)
                same = seen.setdefault(said, caption.place)
                if same != caption.place:
                    raise InputRejected(f"says the same as {same}")
                captions.append(caption)
            except InputRejected as error:
                rejections.append(reject_row(f"{name}:{line}", error.message))
    return Sidecar(tuple(captions), tuple(rejections))


def reject_row(place: str, reason: str) -> Rejection:
    """The row at `place` (file and line), refused."""
    return Rejection(place, "ingest", reason)


def match_captions(
    captions: Iterable[SidecarCaption],
    videos: Mapping[str, str],
    rejected: Mapping[str, str],
    naming: ClipNaming | None = None,
) -> tuple[list[tuple[str, SidecarCaption]], list[Rejection]]:
    """Each caption with the id of the video that its `file` names, in order; and the captions that name none.

    Args:
        captions: What `read_sidecar` gave.
        videos: video_id by uri.
        rejected: Reason by uri, of the files that are no video.
        naming: How a caption may name a clip of a video; a file of that very name comes first.
    """
    ids = {same_name(uri): video_id for uri, video_id in videos.items()}
    reasons = {same_name(uri): reason for uri, reason in rejected.items()}
    stems = {PurePosixPath(uri).with_suffix("").as_posix(): video_id for uri, video_id in ids.items()}
    matched, refused = [], []
    for caption in captions:
        clip = (naming or ClipNaming()).clip_of(same_name(caption.file))
        there = [uri for uri in names_of(caption.file) if uri in ids]
        bad = [uri for uri in names_of(caption.file) if uri in reasons]
        if there:
            matched.append((ids[there[0]], caption))
        elif bad:
            reason = f"names {caption.file}, which was rejected: {reasons[bad[0]]}"
            refused.append(reject_row(caption.place, reason))
        elif clip is not None and clip[0] in stems and caption.start_ms is None:
            matched.append((stems[clip[0]], dataclasses.replace(caption, clip_index=clip[1])))
        else:
            reason = f"names {caption.file}, which is no video of this source (names are relative to it)"
            refused.append(reject_row(caption.place, reason))
    return matched, refused


def names_of(file: str) -> list[str]:
    """What a row that says `file` may mean, the likeliest first: as it stands, under `images/`, a picture by its stem."""
    uri = same_name(file)
    names = [uri, f"images/{uri}"]
    if PurePosixPath(uri).suffix.lower() not in PICTURE_SUFFIXES:
        names += [f"{uri}{suffix}" for suffix in PICTURE_SUFFIXES]
    return names


def same_name(uri: str) -> str:
    """One spelling of a path: macOS stores accents decomposed, Windows writes backslashes."""
    return PurePosixPath(unicodedata.normalize("NFC", uri.replace("\\", "/"))).as_posix()


def _text_of(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", remedy="Check the file and its rights") from error
    if not content.strip():
        raise ConfigError(
            f"{path} is empty, wanted a line with the columns {', '.join(REQUIRED)}",
            remedy="Write the captions into it, or remove the file",
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is not UTF-8: byte {error.start} is 0x{content[error.start]:02x}",
            remedy="Save it as UTF-8 (in a spreadsheet: CSV UTF-8)",
        ) from error
    if "\0" in text:
        raise ConfigError(f"{path} is no text: it holds null bytes", remedy="Save it as UTF-8 CSV")
    return text


def _rows_of_csv(path: Path) -> Iterator[_Row]:
    reader = csv.reader(io.StringIO(_text_of(path), newline=""), strict=True)
    try:
        names = _columns_of(next(reader, []), path)
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(names):
                yield reader.line_num, InputRejected(f"has {len(cells)} cells, the header has {len(names)}")
            else:
                yield reader.line_num, dict(zip(names, cells, strict=True))
    except csv.Error as error:
        raise ConfigError(
            f"{path}, line {reader.line_num}: not readable as CSV: {error}",
            remedy="Write it with commas, and texts that hold a comma or a quote in double quotes",
        ) from error


def _rows_of_parquet(path: Path) -> Iterator[_Row]:
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(f"{path} cannot be read as Parquet: {error}", remedy="Write it again, or remove it") from error
    names = _columns_of(table.column_names, path)
    number = 0
    for batch in table.rename_columns(names).to_batches(max_chunksize=10_000):
        for row in batch.to_pylist():
            number += 1
            yield number, {name: _cell(value) for name, value in row.items()}


def _rows_of_jsonl(path: Path) -> Iterator[_Row]:
    for number, line in enumerate(_text_of(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            yield number, InputRejected(f"is no JSON: {error}")
            continue
        if not isinstance(row, dict):
            yield number, InputRejected("is no JSON object with the columns as keys")
            continue
        names = _with_alias([str(name).strip().lower() for name in row])
        yield number, {name: _cell(value) for name, value in zip(names, row.values(), strict=True)}


def _rows_of_metadata(path: Path) -> Iterator[_Row]:
    """Of a folder of thumbnails: `Id, Title, Category, Channel`, the pictures in `images/<channel>/<Id>.jpg`."""
    rows = csv.reader(io.StringIO(_text_of(path), newline=""))
    names = [name.strip().lower() for name in next(rows, [])]
    if not {"id", "title"} <= set(names):
        return  # Metadata of another kind.
    for cells in rows:
        if not any(cell.strip() for cell in cells):
            continue
        row = dict(zip(names, cells, strict=False))
        if not row.get("id", "").strip():
            yield rows.line_num, InputRejected("has no Id")
            continue
        folder = row.get("channel", "").strip()
        file = f"images/{folder}/{row['id'].strip()}" if folder else f"images/{row['id'].strip()}"
        yield rows.line_num, {**{name: row.get(name, "") for name in ABOUT_VIDEO}, "file": file}


READERS: Mapping[str, Callable[[Path], Iterator[_Row]]] = {
    SIDECAR_NAME: _rows_of_csv, "captions.parquet": _rows_of_parquet, "captions.jsonl": _rows_of_jsonl,
    "metadata.csv": _rows_of_metadata,
}
"""The files of captions that a source may hold, each with its reader; a row's columns are named in lower case."""


def _cell(value: object) -> str:
    """A value of a typed table as the text that a CSV would hold."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return value.isoformat() if isinstance(value, datetime | date) else str(value)


def _with_alias(names: list[str]) -> list[str]:
    """`names` with the first name that means a file called `file`, if there is none of that name."""
    alias = next((name for name in FILE_ALIASES if name in names), None)
    return names if "file" in names else ["file" if name == alias else name for name in names]


def _columns_of(header: list[str], path: Path) -> list[str]:
    names = _with_alias([name.strip().lower() for name in header])
    missing = [] if "file" in names else ["file"]
    missing += [] if "caption" in names or "title" in names else ["caption"]
    twice = sorted({name for name in names if name and names.count(name) > 1})
    halves = [a for a, b in (TIMES, TIMES[::-1]) if b in names and a not in names]
    if missing or twice or halves:
        wrong = "; ".join(
            f"{what}: {', '.join(which)}"
            for what, which in (("missing", missing), ("twice", twice), ("missing beside the other", halves))
            if which
        )
        raise ConfigError(
            f"{path} has the columns {', '.join(header) or '(none)'} ({wrong})",
            remedy=f"Wanted, separated by commas: {', '.join(REQUIRED)}; optional: "
            f"{', '.join(TIMES + WISHES + ABOUT_VIDEO)}",
        )
    return names


def _caption_of(cells: Mapping[str, str] | InputRejected, origin: str, line: int) -> SidecarCaption:
    if isinstance(cells, InputRejected):
        raise cells
    row = {name: " ".join(cell.split()) for name, cell in cells.items()}
    if not row.get("file"):
        raise InputRejected("names no file")
    if not row.get("caption") and not row.get("title"):
        raise InputRejected(f"has no caption for {row['file']}")
    start_ms, end_ms = _span_of(row.get("start", ""), row.get("end", ""))
    split = row.get("split", "").lower()
    if split and split not in SPLITS:
        raise InputRejected(f"wants the split {split!r}, there are {', '.join(SPLITS)}")
    if bool(row.get("contrast")) != bool(row.get("axis")):
        raise InputRejected("has a contrast without its axis, or an axis without its contrast")
    about = {name: row[name] for name in ABOUT_VIDEO if row.get(name)}
    if "published_at" in about:
        about["published_at"] = _moment_of(about["published_at"])
    return SidecarCaption(
        line, cells["file"].strip(), row.get("caption", ""), start_ms, end_ms, split=split, about=about, origin=origin,
        gallery=row.get("gallery", ""), contrast=row.get("contrast", ""), axis=row.get("axis", ""),
    )


def _span_of(start: str, end: str) -> tuple[int | None, int | None]:
    if not start and not end:
        return None, None
    try:
        seconds = float(start), float(end)
    except ValueError:
        raise InputRejected(f"start and end are {start!r} and {end!r}, wanted both in seconds, or neither") from None
    if not all(math.isfinite(s) and 0 <= s < 1e9 for s in seconds) or to_ms(seconds[0]) >= to_ms(seconds[1]):
        raise InputRejected(f"[{start}, {end}) is not a span of seconds")
    return to_ms(seconds[0]), to_ms(seconds[1])


def _moment_of(text: str) -> str:
    """RFC 3339 in UTC; a time without a zone is taken as UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InputRejected(f"published_at is {text!r}, wanted one like 2026-03-01T12:00:00Z") from None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment.isoformat().replace("+00:00", "Z")
