"""Videos on this machine: a folder with its subfolders, or the files that a pattern matches."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Collection, Iterator, Set
from functools import cache
from itertools import accumulate
from pathlib import Path

from vidseek_media.errors import ConfigError, InputRejected
from vidseek_media.records import Refusal
from vidseek_media.sources.registry import Place, SourceKind, register
from vidseek_media.sources.source import VIDEO_SUFFIXES, Listing, Source
from vidseek_media.text.sidecars import PICTURE_SUFFIXES, names_of, read_sidecar, same_name

SOURCE_REMEDY = (
    "Set ingest.source (or general.source) in params.yaml to a folder of videos, a pattern, a manifest or a URL "
    "(docs/own-videos.md)"
)

_ANY_FOLDERS = "(?:.*/)?"
_SUFFIXES = frozenset((*VIDEO_SUFFIXES, *PICTURE_SUFFIXES))


class Folder:
    """All videos in a folder, by suffix. Hidden files are skipped, links that lead out of the folder are refused."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def name(self) -> str:
        """The folder."""
        return str(self.root)

    def list_videos(self, *, forgotten: Collection[str] = ()) -> Listing:
        """List the videos of the folder; `forgotten` is ignored, since local files are known by their bytes."""
        require_folder(self.root)
        root = self.root.resolve()
        sidecar = read_sidecar(root)
        pictures = cache(lambda: {name for file in {each.file for each in sidecar.captions} for name in names_of(file)})
        paths: dict[str, Path] = {}
        rejected: dict[str, Refusal] = {}
        unlisted: dict[str, Path] = {}
        for uri, path, why in self._walk(root, pictures, unlisted):
            if why:
                rejected[uri] = why
            else:
                paths[uri] = path
        return Listing(dict(sorted(paths.items())), rejected, sidecar, unlisted=unlisted)

    def path_of(self, uri: str) -> Path:
        """Return the path inside the folder; a link that leads out is refused. Implements `Source.path_of`."""
        return path_inside(self.root, uri)

    def address_of(self, uri: str) -> str:
        """Return "": the file is local."""
        return ""

    def downloads_of(self, uri: str) -> list[Path]:
        """Return no files: nothing is downloaded."""
        return []

    def _walk(
        self, root: Path, pictures: Callable[[], Set[str]], unlisted: dict[str, Path]
    ) -> Iterator[tuple[str, Path, Refusal | None]]:
        """Yield uri, path, and why it is refused, of everything that counts as a video; `pictures` do where they are named.

        `pictures` is called where there is a picture. `unlisted` receives the folders that cannot be listed.
        """
        refused: list[tuple[Path, Refusal]] = []

        def note(error: OSError) -> None:
            unlisted[uri_of(Path(error.filename), root)] = Path(error.filename)
            why = Refusal(f"cannot be listed: {error.strerror}", retryable=True, code="file-unreadable")
            refused.append((Path(error.filename), why))

        for folder, folders, files in os.walk(root, onerror=note):
            for name in [name for name in folders if (Path(folder) / name).is_symlink()]:
                if not (Path(folder) / name).resolve().is_relative_to(root):
                    why = Refusal("is a link to a folder outside the source", code="outside-source")
                    refused.append((Path(folder) / name, why))
            folders[:] = sorted(each for each in folders if not each.startswith(".") and self._enters(root, folder, each))
            here = Path(folder)
            below = "" if here == root else f"{uri_of(here, root)}/"
            for name in files:
                _, dot, end = name.rpartition(".")
                suffix = dot + end.lower()
                if name.startswith(".") or suffix not in _SUFFIXES:
                    continue
                path = here / name
                uri = f"{below}{name}" if name.isascii() else uri_of(path, root)
                is_listed = suffix in VIDEO_SUFFIXES or same_name(uri) in pictures()
                if is_listed and self.takes(uri):
                    yield uri, path, _why_not(path, root)
        for path, refusal in refused:
            yield uri_of(path, root), path, refusal

    def takes(self, uri: str) -> bool:
        """Return whether a file of this name is one of the source."""
        return True

    def _enters(self, root: Path, folder: str, name: str) -> bool:
        return True


class Pattern(Folder):
    """The videos that a pattern names: `*` and `?` stay within one name, `**` stands for any number of folders.

    Uris are relative to the part before the first wildcard, and files of captions are looked for there.
    """

    def __init__(self, pattern: Path, *, is_literal: bool = False) -> None:
        """`is_literal`: its signs stand for themselves, since it is the name of one file."""
        parts = pattern.parts
        is_wild = [not is_literal and is_pattern(part) for part in parts]
        num_fixed = is_wild.index(True) if True in is_wild else len(parts) - 1
        super().__init__(Path(*parts[:num_fixed]))
        self._pattern = pattern
        wild = (*parts[num_fixed:], "*") if parts[-1] == "**" else parts[num_fixed:]
        regex = "/".join(map(re.escape if is_literal else _regex_of, wild))
        self._wanted = re.compile(regex.replace(f"{_ANY_FOLDERS}/", _ANY_FOLDERS))
        self._depth = None if "**" in parts else len(parts) - num_fixed

    @property
    def name(self) -> str:
        """The pattern."""
        return str(self._pattern)

    def takes(self, uri: str) -> bool:
        """Return whether the pattern matches."""
        return self._wanted.fullmatch(uri) is not None

    def _enters(self, root: Path, folder: str, name: str) -> bool:
        depth = len((Path(folder) / name).relative_to(root).parts)
        return self._depth is None or depth < self._depth


@register
class LocalKind(SourceKind):
    """A folder, a pattern or one video file. It is asked last: whatever is no URL is a path."""

    name = "local"
    rank = 40

    def reads(self, place: Place) -> bool:
        """Anything that nobody else reads."""
        return True

    def open(self, place: Place, settings: None) -> Source:
        """Return a `Folder` or a `Pattern`."""
        path = place.path
        if path.is_dir():
            return Folder(path)
        if path.suffix.lower() in VIDEO_SUFFIXES:
            return Pattern(path, is_literal=path.is_file())  # of a file, brackets in its name are no wildcards
        return Pattern(path) if is_pattern(place.text) else Folder(path)


def is_pattern(text: str) -> bool:
    """Whether there is a wildcard in it."""
    return any(char in text for char in "*?[")


def require_folder(path: Path) -> None:
    """Raise ConfigError where there is no folder at `path`."""
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise ConfigError(f"{path} {what}", code="source-unreadable", remedy=SOURCE_REMEDY)


def path_inside(root: Path, uri: str) -> Path:
    """Return the absolute path of `uri` under `root`.

    Args:
        root: The folder.
        uri: A relative path.

    Raises:
        InputRejected: it leads out of the folder, by `..`, as an absolute path, or by a link.
    """
    base = os.path.realpath(root)
    path = Path(base) / uri
    if _is_plain(uri, base):
        return path
    if os.path.commonpath((os.path.realpath(path), base)) != base:
        raise InputRejected(f"{uri} leads out of {root}", code="outside-source")
    return path


def _is_plain(uri: str, base: str) -> bool:
    """Return whether a uri names something below a folder by plain names, none of them a link: it lies where it says."""
    names = uri.split("/")
    if "\0" in uri or not {"", ".", ".."}.isdisjoint(names):
        return False
    return not any(map(os.path.islink, accumulate(names, "{}/{}".format, initial=base)))


def uri_of(path: Path, root: Path) -> str:
    r"""Return a path relative to the source root; bytes that are not UTF-8 are written as \xNN.

    Args:
        path: The file.
        root: Root of the source.
    """
    return os.fsencode(path.relative_to(root).as_posix()).decode("utf-8", "backslashreplace")


def _regex_of(part: str) -> str:
    """Return the regular expression of one part of a pattern; that of `**` includes its slash, since it may match
    nothing.
    """
    if part == "**":
        return _ANY_FOLDERS
    text = ""
    for piece in re.split(r"(\*+|\?|\[!?[^\]/]+\])", part):
        if piece.startswith("*") and set(piece) == {"*"}:
            text += "[^/]*"
        elif piece == "?":
            text += "[^/]"
        elif piece.startswith("[") and piece.endswith("]"):
            inner = piece[1:-1].replace("\\", r"\\").replace("[", r"\[")
            text += f"[^{inner[1:]}]" if inner.startswith("!") else f"[{inner}]"
        else:
            text += re.escape(piece)
    return text


def _why_not(path: Path, root: Path) -> Refusal | None:
    try:
        _ = str(path).isascii() or path.relative_to(root).as_posix().encode("utf-8")
    except UnicodeEncodeError:
        return Refusal("its name is not UTF-8; rename it", code="name-not-utf8")
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return Refusal("is no regular file", code="not-a-file")
    if stat.S_ISREG(mode):
        return None
    if stat.S_ISLNK(mode):  # no folder above it is a link: none is entered
        if not path.exists():
            return Refusal("is a link to nothing", code="broken-link")
        if not path.resolve().is_relative_to(root):
            return Refusal("is a link to a file outside the source", code="outside-source")
    return None if path.is_file() else Refusal("is no regular file", code="not-a-file")

