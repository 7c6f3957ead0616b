"""Reads files of captions beside the videos (CSV, Parquet, JSON lines), checks them, and matches them to videos."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath

from vidseek_media.errors import ConfigError, InputRejected
from vidseek_media.guards import moment_of, text_of
from vidseek_media.ids import to_ms
from vidseek_media.records import Refusal, Rejection
from vidseek_media.text.rows import READERS, Row
from vidseek_media.text.rows import text_of as file_text_of
from vidseek_media.urls import bare_url

SIDECAR_NAME = "captions.csv"
FILE_ALIASES = ("image", "video", "uri", "path", "filename")
"""Columns that are taken for `file` where there is none."""
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
"""A picture is a video of one frame. It counts where a row names it: archives are full of thumbnails."""
_REMEMBERED = 2**14
"""Names whose spelling is worked out once: a video has many captions."""
_bare = lru_cache(_REMEMBERED)(bare_url)
TIMES = ("start", "end")
WISHES = ("split", "gallery", "contrast", "axis")
ABOUT_VIDEO = ("title", "channel", "category", "published_at")
SPLITS = ("train", "validation", "test")
MAX_SECONDS = 1e9
"""A later time, 32 years, is none of a video."""
COLUMNS = ("file", "caption", *TIMES, *WISHES, *ABOUT_VIDEO)
_KNOWN = frozenset(COLUMNS)
_OF_VIDEO = frozenset(ABOUT_VIDEO)


@dataclass(slots=True)
class SidecarCaption:
    """One row of a file of captions, checked but not yet matched to a video. It is not changed; that it could be makes a
    hundred thousand of them in half the time.
    """

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
    annotations: Mapping[str, str] = field(default_factory=dict)
    """Title, channel, category and published_at of the video, where given."""
    origin: str = SIDECAR_NAME
    """The name of the file of captions."""
    others: Mapping[str, str] = field(default_factory=dict, compare=False)
    """The cells of all other columns, by column, empty ones too: those of fields of one's own, and unknown ones."""
    writer: str = ""
    """As SIDECAR has it; empty of a file of captions."""
    lists_videos: bool = field(default=False, compare=False)
    """Whether the file is a manifest, so that a row need not say anything of its video."""

    @property
    def place(self) -> str:
        """File and line: names the row in rejections."""
        return f"{self.origin}:{self.line}"

    @property
    def has_caption(self) -> bool:
        """Whether it has a caption, or a title, which is one."""
        return bool(self.text or self.annotations.get("title"))

    @property
    def says_something(self) -> bool:
        """Whether it has a caption, a title, or a cell of a column that may be a field."""
        return self.has_caption or any(cell.strip() for cell in self.others.values())


@dataclass(frozen=True)
class ClipNaming:
    """How names say that a file is a clip of a video; without a pattern none does."""

    pattern: re.Pattern[str] | None = None

    @classmethod
    def of(cls, pattern: str | None) -> ClipNaming:
        """Compile the pattern of clip names; None never matches.

        Raises:
            ConfigError: it is not a regular expression with the groups `stem` and `index`.
        """
        if pattern is None:
            return cls()
        try:
            compiled = re.compile(pattern)
        except re.error as error:
            raise ConfigError(
                f"ingest.clip_pattern is no regular expression: {error}", code="bad-pattern", remedy="Mend it in params.yaml"
            ) from error
        if not {"stem", "index"} <= set(compiled.groupindex):
            raise ConfigError(
                f"ingest.clip_pattern {pattern!r} lacks one of the groups stem and index", code="bad-pattern",
                remedy=r"Write one like (?P<stem>.+)_(?P<index>\d+)",
            )
        return cls(compiled)

    def clip_of(self, uri: str) -> tuple[str, int] | None:
        """Return the video (a uri without suffix) and the clip number that a file name states; None if it is not a
        clip's.
        """
        if self.pattern is None:
            return None
        path = PurePosixPath(uri)
        match = self.pattern.fullmatch(path.stem)
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

    def joined(self, other: Sidecar) -> Sidecar:
        """Return the rows of both."""
        return Sidecar((*self.captions, *other.captions), (*self.rejections, *other.rejections))


def read_sidecar(source: Path, *, but: str = "") -> Sidecar:
    """Read the files of captions (`FILES`) in a folder, in order.

    A row without usable content (no caption, no title and no other cell, an end before its start) is a rejection.

    Args:
        source: The folder; it may hold no such file.
        but: Name of a file that is not a file of captions here.

    Raises:
        ConfigError: a file has another format, or lacks a required column.
    """
    files = [(source / name, read) for name, read in FILES.items() if name != but and (source / name).exists()]
    return _read_files(files)


def read_captions(path: Path) -> Sidecar:
    """Read one file of captions, wherever it lies and whatever it is called: CSV, Parquet or JSON lines by its suffix.

    Args:
        path: The file.

    Raises:
        ConfigError: it is missing, or has another format or columns.
    """
    if not path.is_file() or path.suffix.lower() not in READERS:
        what = "is of no such kind" if path.is_file() else "is a folder" if path.is_dir() else "does not exist"
        raise ConfigError(
            f"{path} {what}: wanted a file of captions ({', '.join(READERS)})", code="captions-unreadable",
            remedy="Name one with the columns file and caption (docs/own-videos.md)",
        )
    return _read_files([(path, lambda path: READERS[path.suffix.lower()](path, _columns_of, COLUMNS))])


def _read_files(files: Iterable[tuple[Path, Callable[[Path], Iterator[Row]]]]) -> Sidecar:
    captions: list[SidecarCaption] = []
    rejections: list[Rejection] = []
    seen: dict[tuple[object, ...], SidecarCaption] = {}
    for path, read in files:
        for line, row in read(path):
            try:
                caption = caption_of(row, path.name, line)
                if (file := _bare(caption.file)) != caption.file:
                    caption = dataclasses.replace(caption, file=file)  # as the source names its videos
                if not caption.says_something:
                    raise without_caption(caption)
                refuse_repeated(caption, seen)
                captions.append(caption)
            except InputRejected as error:
                rejections.append(reject_row(f"{path.name}:{line}", error.message, code=error.code))
    return Sidecar(tuple(captions), tuple(rejections))


def without_caption(caption: SidecarCaption) -> InputRejected:
    """Return the error of a row of a file of captions that has no caption, no title, and no value of a field.

    Args:
        caption: The row.
    """
    return InputRejected(f"has no caption for {caption.file}", code="row-without-caption")


def refuse_repeated(caption: SidecarCaption, seen: dict[tuple[object, ...], SidecarCaption]) -> None:
    """Record a caption, and refuse it if an earlier row is equal.

    Args:
        caption: The caption.
        seen: The recorded captions; it is changed.

    Raises:
        InputRejected: an earlier row is equal.
    """
    same = seen.setdefault((caption.file, caption.start_ms, caption.end_ms, caption.text), caption)
    if same is not caption:
        raise InputRejected(f"says the same as {same.place}", code="row-repeated")


def reject_row(place: str, reason: str, *, code: str, kind: str = "caption") -> Rejection:
    """Return the rejection of a row.

    Args:
        place: File and line of the row.
        reason: Why it is rejected.
        code: The kind of fault.
        kind: Kind of the rejection; `file` for a row of a manifest.
    """
    return Rejection(place, "ingest", reason, kind, code=code)


def match_captions(
    captions: Iterable[SidecarCaption],
    videos: Mapping[str, str],
    rejected: Mapping[str, Refusal],
    naming: ClipNaming | None = None,
) -> tuple[list[tuple[str, SidecarCaption]], list[Rejection]]:
    """Match each caption to the video that its `file` names; return captions with video ids, in order, and rejections.

    Args:
        captions: Captions from `read_sidecar`.
        videos: video_id by uri.
        rejected: Reasons by uri of the files that are not videos.
        naming: How a caption may name a clip of a video; a file with exactly that name takes precedence.
    """
    ids = {same_name(uri): video_id for uri, video_id in videos.items()}
    reasons = {same_name(uri): why for uri, why in rejected.items()}
    stems: Mapping[str, str] | None = None
    matched, refused = [], []
    for caption in captions:
        video_id = ids.get(same_name(caption.file))  # as most are named
        names = () if video_id is not None else names_of(caption.file)
        video_id = video_id or next((ids[name] for name in names if name in ids), None)
        if video_id is not None:
            matched.append((video_id, caption))
            continue
        if stems is None:  # most archives need them for no row
            stems = {PurePosixPath(uri).with_suffix("").as_posix(): video_id for uri, video_id in ids.items()}
        clip = (naming or ClipNaming()).clip_of(same_name(caption.file))
        bad = [uri for uri in names if uri in reasons]
        if bad:
            reason = f"names {caption.file}, which was rejected: {reasons[bad[0]].reason}"
            refused.append(reject_row(caption.place, reason, code=reasons[bad[0]].code))
        elif clip is not None and clip[0] in stems and caption.start_ms is None:
            matched.append((stems[clip[0]], dataclasses.replace(caption, clip_index=clip[1])))
        else:
            reason = f"names {caption.file}, which is no video of this source (names are relative to it)"
            refused.append(reject_row(caption.place, reason, code="not-in-source"))
    return matched, refused


@lru_cache(_REMEMBERED)
def names_of(file: str) -> tuple[str, ...]:
    """Return the uris that a row's `file` may mean, most likely first: as given, under `images/`, an image by its stem."""
    uri = same_name(file)
    if PurePosixPath(uri).suffix.lower() in PICTURE_SUFFIXES:
        return uri, f"images/{uri}"
    return uri, f"images/{uri}", *(f"{uri}{suffix}" for suffix in PICTURE_SUFFIXES)


@lru_cache(_REMEMBERED)
def same_name(uri: str) -> str:
    """Normalise the spelling of a path: macOS decomposes accents, Windows writes backslashes."""
    return PurePosixPath(unicodedata.normalize("NFC", uri.replace("\\", "/"))).as_posix()


def _rows_of_metadata(path: Path) -> Iterator[Row]:
    """Yield rows of a folder of thumbnails: `Id, Title, Category, Channel`, with images in `images/<channel>/<Id>.jpg`."""
    rows = csv.reader(io.StringIO(file_text_of(path), newline=""))
    names = [name.strip().lower() for name in next(rows, [])]
    if not {"id", "title"} <= set(names):
        return  # Metadata of another kind.
    for cells in rows:
        if not any(cell.strip() for cell in cells):
            continue
        row = dict(zip(names, cells, strict=False))
        if not row.get("id", "").strip():
            yield rows.line_num, InputRejected("has no Id", code="row-malformed")
            continue
        folder = row.get("channel", "").strip()
        file = f"images/{folder}/{row['id'].strip()}" if folder else f"images/{row['id'].strip()}"
        yield rows.line_num, {**{name: row.get(name, "") for name in ABOUT_VIDEO}, "file": file}


def _rows_of_captions(path: Path) -> Iterator[Row]:
    return READERS[path.suffix](path, _columns_of, COLUMNS)


FILES: Mapping[str, Callable[[Path], Iterator[Row]]] = {
    SIDECAR_NAME: _rows_of_captions, "captions.parquet": _rows_of_captions, "captions.jsonl": _rows_of_captions,
    "metadata.csv": _rows_of_metadata,
}
"""The files of captions that a source may hold, each with its reader; a row's columns are named in lower case."""


def _with_alias(names: list[str]) -> list[str]:
    """`names` with the first name that means a file called `file`, if there is none of that name."""
    alias = next((name for name in FILE_ALIASES if name in names), None)
    return names if "file" in names else ["file" if name == alias else name for name in names]


def _columns_of(header: list[str], path: Path) -> list[str]:
    if path.suffix == ".jsonl":  # each object has its own
        return names_of_columns(header)
    return require_columns(names_of_columns(header), header, path, required=("file", "caption|title"))


def names_of_columns(header: Iterable[str]) -> list[str]:
    """Return the columns in lower case; the first one that means a file is called `file`."""
    return _with_alias([name.strip().lower() for name in header])


def require_columns(names: list[str], header: Sequence[str], path: Path, *, required: Sequence[str]) -> list[str]:
    """Return the column names if all required ones exist.

    Args:
        names: Names from `names_of_columns`.
        header: Names as the file has them.
        path: The file, for messages.
        required: Names that must exist; `a|b` means one of two.

    Raises:
        ConfigError: a column is missing, or occurs twice.
    """
    missing = [each.split("|")[0] for each in required if not set(each.split("|")) & set(names)]
    twice = sorted({name for name in names if name and names.count(name) > 1})
    halves = [a for a, b in (TIMES, TIMES[::-1]) if b in names and a not in names]
    if missing or twice or halves:
        wrong = "; ".join(
            f"{what}: {', '.join(which)}"
            for what, which in (("missing", missing), ("twice", twice), ("missing beside the other", halves))
            if which
        )
        wanted = [each.split("|")[0] for each in required]
        raise ConfigError(
            f"{path} has the columns {', '.join(header) or '(none)'} ({wrong})", code="unknown-columns",
            remedy=f"Wanted, separated by commas: {', '.join(wanted)}; optional: "
            f"{', '.join(name for name in COLUMNS if name not in wanted)}",
        )
    return names


def caption_of(
    cells: Mapping[str, str] | InputRejected, origin: str, line: int, *, lists_videos: bool = False
) -> SidecarCaption:
    """Check a row, and return it as a caption; caption and title may both be empty.

    Args:
        cells: The row's cells by column, or why it cannot be read.
        origin: Name of the file.
        line: Line of the row, from 1.
        lists_videos: Whether the file is a manifest.

    Raises:
        InputRejected: the row names no file, or has an impossible value.
    """
    if isinstance(cells, InputRejected):
        raise cells
    row = {name: text_of(cell, name) if cell != "" else "" for name, cell in cells.items() if name in _KNOWN}
    if not row.get("file"):
        raise InputRejected("names no file", code="row-names-no-file")
    start_ms, end_ms = _span_of(row.get("start", ""), row.get("end", ""))
    split = row.get("split", "").lower()
    if split and split not in SPLITS:
        raise InputRejected(f"wants the split {split!r}, there are {', '.join(SPLITS)}", code="unknown-split")
    if bool(row.get("contrast")) != bool(row.get("axis")):
        raise InputRejected("has a contrast without its axis, or an axis without its contrast", code="row-malformed")
    annotations = {} if _OF_VIDEO.isdisjoint(row) else {name: row[name] for name in ABOUT_VIDEO if row.get(name)}
    if "published_at" in annotations:
        annotations["published_at"] = moment_of(annotations["published_at"], "published_at")
    return SidecarCaption(
        line,
        cells["file"].strip(),
        row.get("caption", ""),
        start_ms,
        end_ms,
        split=split,
        annotations=annotations,
        origin=origin,
        gallery=row.get("gallery", ""),
        contrast=row.get("contrast", ""),
        axis=row.get("axis", ""),
        others={name: cell for name, cell in cells.items() if name and name not in _KNOWN} if len(row) < len(cells) else {},
        lists_videos=lists_videos,
    )


def _span_of(start: str, end: str) -> tuple[int | None, int | None]:
    if not start and not end:
        return None, None
    try:
        seconds = float(start), float(end)
    except ValueError:
        raise InputRejected(
            f"start and end are {start!r} and {end!r}, wanted both in seconds, or neither", code="bad-span",
        ) from None
    if not (0 <= seconds[0] <= MAX_SECONDS and 0 <= seconds[1] <= MAX_SECONDS):
        raise InputRejected(f"[{start}, {end}) is not a span of seconds", code="bad-span")
    span = to_ms(seconds[0]), to_ms(seconds[1])
    if span[0] >= span[1]:
        raise InputRejected(f"[{start}, {end}) is not a span of seconds", code="bad-span")
    return span
