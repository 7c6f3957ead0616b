"""Downloads files once, from whatever fsspec reads (s3, gs, https, ...). The only module that uses fsspec.

Beside a download lies a stamp, `.<name>.stamp`, with the state of the remote file. A file is written whole or not at all and
then stamped, so a killed run downloads it again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from vidseek_media.errors import ArtifactError, ConfigError, InputRejected, ServiceError, VidseekError
from vidseek_media.files.folders import whole_file, write_text
from vidseek_media.installing import install_command
from vidseek_media.records import Refusal
from vidseek_media.terminal.progress import counted
from vidseek_media.urls import bare_url, without_secrets

EXTRAS: Mapping[str, str] = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "http": "http", "https": "http"}
"""The extra of vidseek that reads a protocol."""

TRIES = 4
FIRST_WAIT_SECONDS = 1.0
"""Doubled after each try."""
THREADS = 4

_STATE_FIELDS = ("size", "ETag", "etag", "md5Hash", "crc32c", "Content-MD5", "Last-Modified", "LastModified", "mtime",
                 "updated", "created")


@dataclass(frozen=True)
class RemoteFile:
    """A remote file, and where it belongs on this machine."""

    path: str
    """As its file system names it."""
    target: Path
    state: str
    """Changes when the remote file does; empty where it is still to be asked for."""


class Downloads:
    """A folder of downloaded files."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()

    def fetch(self, fs: Any, files: Iterable[RemoteFile], *, url: str = "") -> dict[Path, Refusal]:
        """Download files that are missing or have changed; return the reasons, by target, of those that failed.

        Args:
            fs: The file system of fsspec.
            files: The files.
            url: URL of the place with its secrets, which never appear in a message.

        Raises:
            ServiceError: the other side does not answer after several attempts. Completed downloads stay.
            ArtifactError: the disk cannot hold them.
        """
        return self._run([(file.target, _Job(fs, file, url)) for file in files if not _is_here(file)])

    def fetch_urls(self, urls: Iterable[str]) -> tuple[dict[str, Path], dict[str, Refusal]]:
        """Download files; return paths by URL without secrets, and the reasons of those that failed.

        Raises:
            ServiceError: the other side does not answer after several attempts. Completed downloads stay.
            ArtifactError: the disk cannot hold them.
        """
        targets: dict[str, Path] = {}
        jobs: list[tuple[Path, _Job]] = []
        refused: dict[str, Refusal] = {}
        for url in urls:
            try:
                target, (fs, path) = self.path_of_url(url), open_fs(url)
            except InputRejected as error:
                refused[bare_url(url)] = Refusal.of(error)
            else:
                targets[bare_url(url)] = target
                jobs.append((target, _Job(fs, RemoteFile(path, target, ""), url)))
        failed = self._run(jobs)
        refused |= {url: failed[target] for url, target in targets.items() if target in failed}
        return {url: target for url, target in targets.items() if target not in failed}, refused

    def path_of_url(self, url: str) -> Path:
        """Return the local path of a URL, equal for every manifest that names it and for every signature.

        Raises:
            InputRejected: it is not a URL.
        """
        name = PurePosixPath(unquote(split_url(url).path)).name
        return self._root / digest_of(bare_url(url)) / (plain_name(name) or "video")

    def files_of_url(self, url: str) -> list[Path]:
        """Return the files that were downloaded for a URL."""
        return files_at(self.path_of_url(url))

    def _run(self, jobs: list[tuple[Path, _Job]]) -> dict[Path, Refusal]:
        refused: dict[Path, Refusal] = {}
        stop = threading.Event()
        with ThreadPoolExecutor(THREADS) as pool:
            futures = [(target, pool.submit(job.run, stop)) for target, job in jobs]
            try:
                for target, future in counted(futures, "download", unit="file"):
                    try:
                        future.result()
                    except InputRejected as error:
                        refused[target] = Refusal.of(error)
            except BaseException:
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return refused


@dataclass(frozen=True)
class _Job:
    fs: Any
    file: RemoteFile
    url: str = ""
    """As it was named, with what is secret of it: never in a message."""

    def run(self, stop: threading.Event) -> None:
        file = self.file
        if not file.state:
            info = _try(lambda: self.fs.info(file.path), file.path, self.url)
            file = RemoteFile(file.path, file.target, state_of(info) or "{}")
            if _is_here(file):
                return
        try:
            with whole_file(file.target) as beside:
                _try(lambda: _load(self.fs, file.path, beside, stop), file.path, self.url)
                if stop.is_set():
                    raise _Stopped
                size = json.loads(file.state).get("size")
                if size is not None and beside.stat().st_size != size:
                    raise CutShort(f"is {beside.stat().st_size} bytes when downloaded, {size} were announced")
            write_text(_stamp_of(file.target), file.state)
        except _Stopped:
            return
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise InputRejected("is a file and a folder at once: rename one of them", code="name-taken-twice") from error
        except (_DiskFull, OSError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise ArtifactError(
                f"{file.target} cannot be written: {why}", code="not-writable", remedy="Make room, then run it again",
            ) from error


class CutShort(InputRejected):
    """A download ended early, or the file changed meanwhile."""

    code = "download-incomplete"
    retryable = True


class _Stopped(Exception):
    """The run ends before the download does."""


class _DiskFull(Exception):
    """This machine's disk does not take it: not the other side's fault."""


def _load(fs: Any, path: str, beside: Path, stop: threading.Event) -> None:
    with fs.open(path, "rb") as source:
        try:
            target = beside.open("wb")
        except OSError as error:
            raise _DiskFull(error.strerror) from error
        with target:
            while not stop.is_set() and (block := source.read(2**20)):
                try:
                    target.write(block)
                except OSError as error:
                    raise _DiskFull(error.strerror) from error


def split_url(url: str) -> SplitResult:
    """Split a URL into its parts.

    Raises:
        InputRejected: it is not a URL.
    """
    try:
        return urlsplit(url)
    except ValueError as error:
        raise InputRejected(f"{url} is no URL: {error}", code="url-unreadable") from error


def open_fs(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a URL, and the path in it.

    Raises:
        ConfigError: the extra that reads it is not installed.
        InputRejected: the protocol is unknown.
    """
    import fsspec

    protocol = url.split("://", 1)[0].lower()
    try:
        fs, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        extra = EXTRAS.get(protocol)
        how = f"Run `{install_command(extra)}`" if extra else f"Install what fsspec wants: {error}"
        raise ConfigError(
            f"{url} needs a library that is not installed: {error}", code="not-installed", remedy=how,
        ) from error
    except ValueError as error:
        raise InputRejected(
            f"{url} cannot be read: {error}", code="url-unreadable",
            remedy="Name a path, or a URL of a protocol that fsspec has",
        ) \
            from error
    return fs, str(path)


def _try(ask: Any, path: str, url: str) -> Any:
    """Call `ask`, and repeat it a few times if the other side does not answer."""
    for wait in [*(FIRST_WAIT_SECONDS * 2**number for number in range(TRIES - 1)), None]:
        try:
            return ask()
        except (_DiskFull, VidseekError):
            raise
        except Exception as error:  # each file system raises what its library does
            if _is_final(error):
                raise InputRejected(f"cannot be downloaded: {_say(error, url or path)}", code="not-downloaded") from error
            if wait is None:
                raise _no_answer(path, error, url or path) from error
        time.sleep(wait)
    raise AssertionError("the last try returns or raises")


@contextlib.contextmanager
def answers(url: str) -> Iterator[None]:
    """Within the block, errors of a file system that is listed become errors of ours."""
    try:
        yield
    except VidseekError:
        raise
    except Exception as error:
        if isinstance(error, FileNotFoundError) and _is_final(error):
            raise ConfigError(
                f"{url} does not exist", code="source-unreadable", remedy="Set ingest.source to a URL that is there",
            ) from error
        raise _no_answer(url, error, url) from error


def _is_final(error: BaseException) -> bool:
    """Whether asking again would bring the same: the file is not there, or not for us.

    fsspec's HTTP says FileNotFoundError of everything, also of a server that is down: what it came from tells.
    """
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return 400 <= status < 500 and status not in (408, 429)
    if isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        return _is_final(error.__cause__)
    return isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError)


def _no_answer(path: str, error: Exception, url: str) -> ServiceError:
    return ServiceError(
        f"{path} does not answer as wanted: {_say(error, url)}", code="source-no-answer",
        remedy="See that it is reachable and that you may read it, then run it again: what is downloaded is kept",
    )


def _say(error: Exception, url: str) -> str:
    """In one line, without what is secret of the URL that was asked for: cut off only then, or half a secret stays."""
    said = without_secrets(str(error) or type(error).__name__, of=[url])
    return " ".join(said.split())[:200]


def state_of(info: Mapping[str, Any]) -> str:
    """Return what changes when a file does, of fsspec's info of it; empty if that says nothing of the kind."""
    state = {name: info[name] for name in _STATE_FIELDS if info.get(name) is not None}
    return json.dumps(state, default=str) if state else ""


def _is_here(file: RemoteFile) -> bool:
    if not file.state or not file.target.is_file():
        return False
    try:
        return _stamp_of(file.target).read_text(encoding="utf-8") == file.state
    except (OSError, UnicodeDecodeError):
        return False


def _stamp_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.stamp")


def files_at(target: Path) -> list[Path]:
    """Return a download and its stamp, as far as they are there."""
    return [path for path in (target, _stamp_of(target)) if path.exists()]


def digest_of(text: str) -> str:
    """Return 12 hex digits that stand for a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def plain_name(name: str) -> str:
    """Return the letters, digits and dots of a name, for people to recognise."""
    return re.sub(r"[^\w.]+", "_", name)[-80:].lstrip("._")
