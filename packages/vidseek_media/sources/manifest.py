"""A manifest: a table that lists the videos of an archive, local or remote, with facts about them."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from pathlib import Path
from urllib.parse import unquote

from vidseek_media.errors import ConfigError, InputRejected, foreign
from vidseek_media.records import Refusal, Rejection
from vidseek_media.sources.downloads import Downloads, split_url
from vidseek_media.sources.local import SOURCE_REMEDY, is_pattern, path_inside
from vidseek_media.sources.registry import Place, SourceKind, register
from vidseek_media.sources.source import FORGOTTEN, Listing, Source
from vidseek_media.text.rows import READERS
from vidseek_media.text.sidecars import (
    COLUMNS,
    Sidecar,
    SidecarCaption,
    caption_of,
    names_of_columns,
    read_sidecar,
    refuse_repeated,
    reject_row,
    require_columns,
    same_name,
)
from vidseek_media.urls import bare_url, is_url


class Manifest:
    """The videos in the column `uri` of a CSV, Parquet or JSON lines file.

    A uri is a path relative to the manifest's folder, which may not lead out of it; an absolute path, which may point
    anywhere;
    or a URL, whose file is downloaded. Files of captions beside the manifest are read as well.

    Secrets of a URL (user, password, parameters) stay in the manifest, which is read again to download. Uris in tables have
    none.
    """

    def __init__(self, path: Path, *, downloads: Path) -> None:
        self._path = path
        self._downloads = Downloads(downloads / "files")
        self._named: tuple[tuple[int, int], frozenset[str]] | None = None

    @property
    def name(self) -> str:
        """The manifest."""
        return str(self._path)

    def list_videos(self, *, forgotten: Collection[str] = ()) -> Listing:
        """Implement `Source.list_videos`."""
        addresses: dict[str, str] = {}
        rows, rejections = read_manifest(self._path, addresses)
        root = self._path.parent.resolve()
        paths: dict[str, Path] = {}
        rejected: dict[str, Refusal] = {}
        unlisted: dict[str, Path] = {}
        urls: list[str] = []
        for uri in dict.fromkeys(row.file for row in rows):
            try:
                if uri in forgotten:
                    rejected[uri] = FORGOTTEN
                elif _is_elsewhere(uri):
                    urls.append(addresses[uri])
                else:
                    paths[uri] = _local_path(root, uri)
            except InputRejected as error:
                rejected[uri] = Refusal.of(error)
                if error.code == "file-missing":
                    unlisted[uri] = root / _path_in(uri)
        loaded, refused = self._downloads.fetch_urls(urls)
        beside = read_sidecar(root, but=self._path.name)
        said = tuple(row for row in rows if row.says_something or row.annotations)
        return Listing(
            dict(sorted((paths | loaded).items())), rejected | refused,
            Sidecar((*said, *beside.captions), (*rejections, *beside.rejections)), unlisted=unlisted,
        )

    def path_of(self, uri: str) -> Path:
        """Return a path in the manifest's folder, a download, or a path that the manifest names now. Implements
        `Source.path_of`.
        """
        if _is_elsewhere(uri):
            return self._downloads.path_of_url(uri)
        path = _path_in(uri)
        if path.is_absolute():
            if uri not in self._absolute_paths():
                raise InputRejected(f"{uri} is not named by {self._path}", code="not-in-source")
            return path
        return path_inside(self._path.parent, uri)

    def address_of(self, uri: str) -> str:
        """Return the URL without secrets; empty for a path."""
        return bare_url(uri) if _is_elsewhere(uri) else ""

    def downloads_of(self, uri: str) -> list[Path]:
        """Implement `Source.downloads_of`."""
        return self._downloads.files_of_url(uri) if _is_elsewhere(uri) else []

    def _absolute_paths(self) -> frozenset[str]:
        """Return those that the manifest names, read again when it has changed."""
        with foreign(InputRejected, f"{self._path} cannot be read", code="file-unreadable"):
            stat = self._path.stat()
        state = (stat.st_mtime_ns, stat.st_size)
        if self._named is None or self._named[0] != state:
            rows, _ = read_manifest(self._path)
            self._named = state, frozenset(row.file for row in rows if _path_in(row.file).is_absolute())
        return self._named[1]


@register
class ManifestKind(SourceKind):
    """A file by its suffix: CSV, Parquet or JSON lines."""

    name = "manifest"
    rank = 30

    def reads(self, place: Place) -> bool:
        """Whether the suffix is one of a table, and the text no pattern of files."""
        path = place.path
        return path.suffix.lower() in READERS and not path.is_dir() and (path.is_file() or not is_pattern(place.text))

    def open(self, place: Place, settings: None) -> Source:
        """Return a `Manifest`."""
        return Manifest(place.path, downloads=place.downloads)


def read_manifest(
    path: Path, addresses: dict[str, str] | None = None
) -> tuple[list[SidecarCaption], list[Rejection]]:
    """Read the rows of a manifest, with the uri as their `file`, and the rows that cannot be used.

    A video may have several rows if each has its own caption or span. The uri of a URL has no secrets (`bare_url`).

    Args:
        path: The manifest.
        addresses: Receives the complete URL of each such uri; of several signatures, the first.

    Raises:
        ConfigError: the file is missing, has another format, or lacks the column `uri`.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise ConfigError(f"{path} {what}, wanted a manifest", code="source-unreadable", remedy=SOURCE_REMEDY)
    rows: list[SidecarCaption] = []
    rejections: list[Rejection] = []
    seen: dict[tuple[object, ...], SidecarCaption] = {}
    first: dict[str, str] = {}
    spelled: dict[str, str] = {}
    for line, cells in READERS[path.suffix.lower()](path, _columns_of, COLUMNS):
        try:
            row = _with_bare_uri(caption_of(_with_uri(cells), path.name, line, lists_videos=True), addresses)
            refuse_repeated(row, seen)
            same = first.setdefault(same_name(row.file), row.place)
            if same != row.place and (not row.text or spelled[same_name(row.file)] != row.file):
                raise InputRejected(
                    f"names {row.file} again, as {same} does, and brings no caption of its own", code="row-repeated",
                )
            spelled.setdefault(same_name(row.file), row.file)
            rows.append(row)
        except InputRejected as error:
            rejections.append(reject_row(f"{path.name}:{line}", error.message, code=error.code, kind="file"))
    if not rows and not rejections:
        raise ConfigError(f"{path} has no rows", code="source-empty", remedy="Name a video in each, in the column uri")
    return rows, rejections


def _columns_of(header: list[str], path: Path) -> list[str]:
    names = names_of_columns(header)
    if path.suffix.lower() == ".jsonl":  # each object has its own
        return names
    plain = [name.strip().lower() for name in header]
    if "file" not in names:  # say it by the name that a manifest's column has
        require_columns(plain, header, path, required=("uri",))
    return require_columns(names, header, path, required=("file",))


def _with_uri(cells: Mapping[str, str] | InputRejected) -> Mapping[str, str] | InputRejected:
    if isinstance(cells, Mapping) and not cells.get("file", "").strip():
        return InputRejected("names no uri", code="row-names-no-file")
    return cells


def _with_bare_uri(row: SidecarCaption, addresses: dict[str, str] | None) -> SidecarCaption:
    if not _is_elsewhere(row.file):
        return row
    uri = bare_url(row.file)
    if addresses is not None:
        addresses.setdefault(uri, row.file)
    return dataclasses.replace(row, file=uri)


def _is_elsewhere(uri: str) -> bool:
    return is_url(uri) and not uri.lower().startswith("file://")


def _path_in(uri: str) -> Path:
    """Return the path that a uri of this machine is, or that its `file://` URL means."""
    return Path(unquote(split_url(uri).path)) if is_url(uri) else Path(uri)


def _local_path(root: Path, uri: str) -> Path:
    """Return the path of the file.

    Raises:
        InputRejected: it is not there, or a relative path leads out of the manifest's folder.
    """
    path = _path_in(uri)
    try:
        if not path.is_absolute():
            if not (root / path).resolve().is_relative_to(root):
                raise InputRejected(
                    f"leads out of the manifest's folder {root}; name it by its absolute path", code="outside-source",
                )
            path = root / path
        if not path.exists():
            raise InputRejected("is a link to nothing" if path.is_symlink() else "is not there", code="file-missing")
        if not path.is_file():
            raise InputRejected("is no regular file", code="file-missing")
    except (OSError, RuntimeError) as error:  # a name too long, a loop of links
        raise InputRejected(
            f"cannot be looked at: {getattr(error, 'strerror', None) or error}", code="file-unreadable",
        ) from error
    return path
