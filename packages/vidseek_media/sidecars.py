"""Captions that lie beside the videos in `captions.csv`: read, checked, and matched to the videos that they name."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from vidseek_media.errors import ConfigError, InputRejected
from vidseek_media.ids import to_ms
from vidseek_media.records import Rejection

SIDECAR_NAME = "captions.csv"
REQUIRED = ("file", "caption")
TIMES = ("start", "end")
WISHES = ("split", "gallery", "contrast", "axis")
ABOUT_VIDEO = ("title", "channel", "category", "published_at")
SPLITS = ("train", "validation", "test")

csv.field_size_limit(2**24)


@dataclass(frozen=True)
class SidecarCaption:
    """One row of `captions.csv`, checked but not yet matched to a video."""

    line: int
    """Of the file, from 1; names the row in rejections."""
    file: str
    text: str
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
    """All of a source's `captions.csv`."""

    captions: tuple[SidecarCaption, ...] = ()
    rejections: tuple[Rejection, ...] = ()

    @property
    def num_rows(self) -> int:
        """Rows read: captions and rejections together."""
        return len(self.captions) + len(self.rejections)


def read_sidecar(source: Path) -> Sidecar:
    """The rows of `<source>/captions.csv`, in order of the file; none where there is no such file.

    A row that says nothing usable (no caption, an end before its start) is a rejection. Further columns are ignored.

    Raises:
        ConfigError: the file is no UTF-8 CSV with the columns `file` and `caption`.
    """
    path = source / SIDECAR_NAME
    if not path.exists():
        return Sidecar()
    reader = csv.reader(io.StringIO(_text_of(path), newline=""), strict=True)
    try:
        columns = _columns_of(next(reader, []), path)
        captions, rejections = [], []
        seen: dict[tuple[object, ...], int] = {}
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            try:
                caption = _caption_of(cells, columns, reader.line_num)
                same = seen.setdefault((caption.file, caption.start_ms, caption.end_ms, caption.text), caption.line)
                if same != caption.line:
                    raise InputRejected(f"says the same as line {same}")
                captions.append(caption)
            except InputRejected as error:
                rejections.append(reject_line(reader.line_num, error.message))
    except csv.Error as error:
        raise ConfigError(
            f"{path}, line {reader.line_num}: not readable as CSV: {error}",
            remedy="Write it with commas, and texts that hold a comma or a quote in double quotes",
        ) from error
    return Sidecar(tuple(captions), tuple(rejections))


def reject_line(line: int, reason: str) -> Rejection:
    """The row at `line` of the sidecar, refused."""
    return Rejection(f"{SIDECAR_NAME}:{line}", "ingest", reason)


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
    ids = {_same(uri): video_id for uri, video_id in videos.items()}
    reasons = {_same(uri): reason for uri, reason in rejected.items()}
    stems = {PurePosixPath(uri).with_suffix("").as_posix(): video_id for uri, video_id in ids.items()}
    matched, refused = [], []
    for caption in captions:
        uri = _same(caption.file)
        clip = (naming or ClipNaming()).clip_of(uri)
        if uri in ids:
            matched.append((ids[uri], caption))
        elif uri in reasons:
            refused.append(reject_line(caption.line, f"names {caption.file}, which was rejected: {reasons[uri]}"))
        elif clip is not None and clip[0] in stems and caption.start_ms is None:
            matched.append((stems[clip[0]], dataclasses.replace(caption, clip_index=clip[1])))
        else:
            reason = f"names {caption.file}, which is no video of this source (names are relative to it)"
            refused.append(reject_line(caption.line, reason))
    return matched, refused


def _same(uri: str) -> str:
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


def _columns_of(header: list[str], path: Path) -> dict[str, int]:
    names = [name.strip().lower() for name in header]
    missing = [name for name in REQUIRED if name not in names]
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
    return {name: place for place, name in enumerate(names)}


def _caption_of(cells: list[str], columns: dict[str, int], line: int) -> SidecarCaption:
    if len(cells) != len(columns):
        raise InputRejected(f"has {len(cells)} cells, the header has {len(columns)}")
    row = {name: " ".join(cells[place].split()) for name, place in columns.items()}
    if not row["file"]:
        raise InputRejected("names no file")
    if not row["caption"]:
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
    file = cells[columns["file"]].strip()
    wishes = {name: row.get(name, "") for name in ("gallery", "contrast", "axis")}
    return SidecarCaption(line, file, row["caption"], start_ms, end_ms, None, split, about=about, **wishes)


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
