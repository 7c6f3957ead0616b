"""Videos below a URL of fsspec (s3, gs, https, ...): which files are there, and which of them are videos."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from vidseek_media.errors import ConfigError
from vidseek_media.records import Refusal
from vidseek_media.sources.downloads import (
    Downloads,
    RemoteFile,
    answers,
    digest_of,
    files_at,
    open_fs,
    plain_name,
    split_url,
    state_of,
)
from vidseek_media.sources.local import path_inside
from vidseek_media.sources.registry import Place, SourceKind, register
from vidseek_media.sources.source import FORGOTTEN, VIDEO_SUFFIXES, Listing, Source
from vidseek_media.text.sidecars import FILES, PICTURE_SUFFIXES, names_of, read_sidecar, same_name
from vidseek_media.text.subtitle_files import SUFFIXES as TRANSCRIPT_SUFFIXES
from vidseek_media.text.subtitle_files import may_belong
from vidseek_media.urls import bare_url, is_url

MAX_NAME_BYTES = 200
"""Of one part of a path: what is put around the name while it is loaded must fit as well."""


class Remote:
    """The videos under one fsspec URL: a prefix with all below it, or one file. Files of captions and transcripts too."""

    def __init__(self, url: str, *, downloads: Path) -> None:
        self._url = url
        where = split_url(url)
        shown = plain_name((where.hostname or "") + where.path)  # no password in a name
        self._root = downloads.absolute() / f"{shown}-{digest_of(bare_url(url))}"
        self._is_file = PurePosixPath(where.path).suffix.lower() in VIDEO_SUFFIXES

    @property
    def name(self) -> str:
        """The URL, without secrets."""
        return bare_url(self._url)

    def list_videos(self, *, forgotten: Collection[str] = ()) -> Listing:
        """Implement `Source.list_videos`."""
        fs, root = open_fs(self._url)
        with answers(self._url):
            names, rejected = self._names(fs, root)
        downloads = Downloads(self._root)
        texts = [name for name in names if name in FILES or name.lower().endswith(TRANSCRIPT_SUFFIXES)]
        self._drop_stale(texts)
        downloads.fetch(fs, [self._file(names[name], name) for name in texts if name in FILES], url=self._url)
        sidecar = read_sidecar(self._root)
        pictures = {name for file in {each.file for each in sidecar.captions} for name in names_of(file)}
        videos = [name for name in names if _is_video(name, pictures)]
        rejected = {name: reason for name, reason in rejected.items() if _is_video(name, pictures)}
        rejected |= {name: FORGOTTEN for name in videos if self.address_of(name) in forgotten}
        stems = {PurePosixPath(name).with_suffix("").as_posix() for name in videos}
        wanted = [name for name in texts if name not in FILES and may_belong(name, stems)] + videos
        todo = [self._file(names[name], name) for name in wanted if name not in rejected]
        refused = downloads.fetch(fs, todo, url=self._url)
        rejected |= {name: refused[self._root / name] for name in videos if self._root / name in refused}
        paths = {name: self._root / name for name in sorted(videos) if name not in rejected}
        return Listing(paths, rejected, sidecar)

    def path_of(self, uri: str) -> Path:
        """Return the path inside the folder of downloads; implements `Source.path_of`."""
        return path_inside(self._root, uri)

    def address_of(self, uri: str) -> str:
        """Return the URL of the file, without secrets."""
        own = bare_url(self._url)
        return own if self._is_file else f"{own.rstrip('/')}/{uri}"

    def downloads_of(self, uri: str) -> list[Path]:
        """Implement `Source.downloads_of`."""
        return files_at(path_inside(self._root, uri))

    def _names(self, fs: Any, root: str) -> tuple[dict[str, dict[str, Any]], dict[str, Refusal]]:
        """Return fsspec's info of each file, by name relative to the URL, and the names that are refused."""
        if self._is_file and fs.isfile(root):
            return {PurePosixPath(unquote(split_url(root).path)).name: fs.info(root)}, {}
        if _is_web(fs) and (kind := fs.info(root).get("mimetype") or "text/html") != "text/html":
            raise ConfigError(
                f"{self._url} is one file of {kind}, and its name says no kind of video",
                code="source-unreadable", remedy="Name it in a manifest"
            )
        fs.invalidate_cache()  # of listings: a process may live longer than they hold
        found = fs.find(root, detail=True)
        if not found:
            raise ConfigError(
                f"{self._url} holds no file", code="source-empty",
                remedy="Name a folder or prefix with videos, or one video",
            )
        base = root.rstrip("/") + "/"
        names: dict[str, dict[str, Any]] = {}
        rejected: dict[str, Refusal] = {}
        for path, info in found.items():
            name = unquote(str(path).removeprefix(base)) if _is_web(fs) else str(path).removeprefix(base)
            parts = name.split("/")
            if any(part.startswith(".") and part != ".." for part in parts):
                continue
            if name == path or any(part in ("", "..") for part in parts) or "\0" in name:
                rejected[name] = Refusal("its name leads out of the source", code="outside-source")
            elif any(len(part.encode()) > MAX_NAME_BYTES for part in parts):
                rejected[name] = Refusal(f"its name is longer than {MAX_NAME_BYTES} bytes", code="name-too-long")
            else:
                names[name] = {**info, "name": path}
        return dict(sorted(names.items())), rejected

    def _file(self, info: Mapping[str, Any], name: str) -> RemoteFile:
        return RemoteFile(str(info["name"]), self._root / name, state_of(info))

    def _drop_stale(self, wanted: Collection[str]) -> None:
        """Remove files of captions and transcripts that are gone there; videos stay, for they are not read unlisted."""
        texts = [self._root / name for name in FILES]
        texts += [path for path in self._root.rglob("*") if path.suffix.lower() in TRANSCRIPT_SUFFIXES]
        for path in texts:
            if path.relative_to(self._root).as_posix() not in wanted:
                for each in files_at(path):
                    each.unlink(missing_ok=True)


@register
class RemoteKind(SourceKind):
    """A URL that fsspec reads; `file://` is a path."""

    name = "remote"
    rank = 20

    def reads(self, place: Place) -> bool:
        """Whether it is a URL of another machine."""
        return is_url(place.text) and not place.text.lower().startswith("file://")

    def open(self, place: Place, settings: None) -> Source:
        """Return a `Remote`."""
        return Remote(place.text, downloads=place.downloads)


def _is_video(name: str, pictures: Collection[str]) -> bool:
    suffix = PurePosixPath(name).suffix.lower()
    return suffix in VIDEO_SUFFIXES or (suffix in PICTURE_SUFFIXES and same_name(name) in pictures)


def _is_web(fs: Any) -> bool:
    return "http" in (fs.protocol if isinstance(fs.protocol, tuple | list) else (fs.protocol,))
