"""Fetches a backbone from the hub into the local cache: listed first, one set of weights, pinned, verified by hashes."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from vidseek_media.errors import ArtifactError, VidseekError
from vidseek_media.files.folders import write_text
from vidseek_training.hub.cache import cached_commit, find_snapshot, repository_folder, snapshot_folder
from vidseek_training.hub.faults import AGAIN, HubBusy, HubCutOff, HubFailed, HubNotFound, fault_of, offline
from vidseek_training.hub.files import (
    INDEX,
    choose_small,
    choose_weights,
    is_pickled,
    known_configs,
    known_weights,
    left_out,
    missing_in,
    parts_of,
)
from vidseek_training.hub.kinds import require_backbone_files, weights_of_family, wrong_kind
from vidseek_training.hub.names import HubName

if TYPE_CHECKING:
    from huggingface_hub import HfApi

Value = TypeVar("Value")

_TRIES = 3
_LONGEST_WAIT_SECONDS = 60
_ANSWER_SECONDS = 30.0
_MOST_SMALL_BYTES = 64 * 2**20
"""Of one config or tokenizer file; the largest published vocabularies have 35 MB."""
_SPARE_BYTES = 64 * 2**20
_CHUNK = 2**20
_XET_SETTINGS = {"HF_XET_TELEMETRY_ENABLED": "false", "HF_XET_CLIENT_RETRY_MAX_ATTEMPTS": "2"}
"""Of the client of the storage behind the hub: no reports, and not minutes of tries where it cannot be reached."""


@dataclass(frozen=True)
class Fetched:
    """The fetched model in the cache."""

    name: str
    """`owner/name@commit`: what `backbone.name` is set to."""
    folder: Path
    files: tuple[str, ...]
    num_bytes: int
    num_fetched: int
    """Of the files: those that were not here, or were damaged."""
    left_out: tuple[str, ...]
    """Of the repository: what no backbone needs."""
    is_pickled: bool
    """The weights are torch's older kind: read as weights only."""


@dataclass(frozen=True)
class _Listed:
    """A file as the hub lists it."""

    size: int | None
    sha256: str
    """Of large files; empty for others."""
    blob_id: str
    """git's name for the content; empty where it is not told."""


@dataclass(frozen=True)
class _Listing:
    name: HubName
    """At its commit."""
    files: Mapping[str, _Listed]
    task: str | None
    library: str | None


def fetch(text: str, *, say: Callable[[str], None] = lambda _: None, endpoint: str | None = None) -> Fetched:
    """Fetch a backbone completely into the local cache, and return its pinned name. Cached files are not fetched again.

    Args:
        text: `owner/name`, `owner/name@revision`, or the URL of a model's page.
        say: Receives lines for the user.
        endpoint: URL of the hub; None takes HF_ENDPOINT, else the public one.

    Raises:
        ConfigError: one of the reasons in the tree of `vidseek_training.hub.faults`.
        ServiceError: the hub is unreachable, breaks off, or is busy; another attempt continues from the cached files.
        ArtifactError: the disk is full, or the cache cannot be written.
    """
    from huggingface_hub import HfApi, constants

    asked = HubName.asked(text)
    for name, value in _XET_SETTINGS.items():
        os.environ.setdefault(name, value)
    if constants.is_offline_mode():
        if asked.is_pinned and cached_commit(asked) is not None and not missing_in(snapshot_folder(asked, asked.revision)):
            return _as_cached(asked)
        raise offline(str(asked))
    api = HfApi(endpoint=endpoint, library_name="vidseek")
    try:
        return _Fetch(api, asked, say).run()
    except VidseekError:
        raise
    except OSError as error:  # a blob that cannot be read, a ref that cannot be written
        raise fault_of(error, str(asked)) from error


def _as_cached(name: HubName) -> Fetched:
    folder = find_snapshot(name)
    files = sorted(path for path in folder.iterdir() if path.is_file())
    names = tuple(path.name for path in files)
    is_older = is_pickled(choose_weights(names, known_weights()) or "")
    return Fetched(str(name), folder, names, sum(path.stat().st_size for path in files), 0, (), is_older)


class _Fetch:
    """One fetching: from the listing to the whole folder."""

    def __init__(self, api: HfApi, asked: HubName, say: Callable[[str], None]) -> None:
        self._api, self._asked, self._say = api, asked, say
        self._token = _has_token()
        self._num_fetched = 0

    def run(self) -> Fetched:
        listing = self._list()
        name, files = listing.name, listing.files
        require_backbone_files(str(self._asked), files, task=listing.task, library=listing.library)
        configs = [each for each in known_configs() if each in files]
        self._bring_small(listing, configs)
        known = weights_of_family(str(self._asked), snapshot_folder(name, name.revision), task=listing.task)
        weights = choose_weights(files, known)
        if weights is None:
            raise wrong_kind(str(self._asked), f"a model without {' or '.join(known)}")
        small = [*choose_small(files), *([weights] if weights.endswith(INDEX) else [])]
        self._bring_small(listing, [each for each in small if each not in configs])
        large = self._parts(listing, weights) if weights.endswith(INDEX) else [weights]
        self._require_room(listing, large)
        taken = [*small, *large]
        others = left_out(files, taken)
        said = f"{', '.join(others[:6]) or 'nothing'}{f' and {len(others) - 6} more' if len(others) > 6 else ''}"
        self._say(f"{name}: {len(taken)} files, {_megabytes(files, taken)}; left out: {said}")
        for each in large:
            self._bring(name, each, files[each])
        self._remember(name)
        folder = find_snapshot(name)
        sizes = sum((folder / each).stat().st_size for each in taken)
        return Fetched(str(name), folder, tuple(taken), sizes, self._num_fetched, tuple(others), is_pickled(weights))

    def _list(self) -> _Listing:
        """Return the files at the commit that the revision has now."""
        asked = self._asked
        ask = partial(
            self._api.model_info, asked.repository, revision=asked.revision or None, files_metadata=True,
            timeout=_ANSWER_SECONDS,
        )
        try:
            info = self._patiently(ask)
        except HubNotFound as error:
            raise self._other_kind() or error from error.__cause__
        if not info.sha or not HubName(info.id, info.sha).is_pinned:
            raise HubFailed(f"{asked}: the hub names no commit ({info.sha!r})", remedy="Look at HF_ENDPOINT")
        name = HubName.parse(f"{info.id}@{info.sha}") or asked.at(info.sha)
        if name.repository.lower() != asked.repository.lower():
            self._say(f"{asked.repository} is called {name.repository} now")
        files = {each.rfilename: _listed(each) for each in info.siblings or ()}
        return _Listing(name, files, info.pipeline_tag, info.library_name)

    def _patiently(self, ask: Callable[[], Value]) -> Value:
        """Call `ask`, and repeat it after a pause if the hub is busy or broken for a moment."""
        for number in range(1, _TRIES + 1):
            try:
                return self._translated(ask)
            except (HubBusy, HubFailed, HubCutOff) as error:
                wait = error.wait_seconds if isinstance(error, HubBusy) else None
                pause = wait if wait is not None else 2 ** (number - 1)
                is_final = isinstance(error, HubFailed) and not error.is_passing
                if number == _TRIES or pause > _LONGEST_WAIT_SECONDS or is_final:
                    raise
                self._say(f"{error.message}; waiting {pause} s")
                time.sleep(pause)
        raise AssertionError("unreachable")

    def _translated(self, ask: Callable[[], Value], *, file: str = "") -> Value:
        """Call `ask`, and convert errors of the hub's client."""
        try:
            return ask()
        except Exception as error:
            raise fault_of(error, str(self._asked), file=file, has_token=self._token) from error

    def _other_kind(self) -> VidseekError | None:
        """Whether the name that no model has is one of a data set or a space."""
        for kind, words in (("dataset", "a data set"), ("space", "a space (a web page with a program)")):
            try:
                self._api.repo_info(self._asked.repository, repo_type=kind, timeout=_ANSWER_SECONDS)
            except Exception:  # noqa: BLE001 - this is only asked for a better message
                continue
            return wrong_kind(str(self._asked), words)
        return None

    def _bring(self, name: HubName, file: str, listed: _Listed) -> None:
        """Ensure that `file` is in the cache with the listed content."""
        path = snapshot_folder(name, name.revision) / file
        if path.is_file() and _is_as_listed(path, listed):
            return
        damaged = path.exists()
        download = partial(
            self._api.hf_hub_download, name.repository, file, revision=name.revision, force_download=damaged
        )
        self._num_fetched += 1
        got = Path(self._transferred(download, file))
        if not _is_as_listed(got, listed):
            _forget(got)
            raise HubCutOff(f"{self._asked}, {file}: its content is not what the hub lists", remedy=AGAIN)

    def _transferred(self, download: Callable[[], Any], file: str) -> str:
        """Download a file, and return its path. The client itself retries a broken transfer or busy hub five times."""
        try:
            return str(self._translated(download, file=file))
        except HubCutOff as error:
            if not error.is_of_xet:
                raise
            self._say(f"{error.message}; taking it from the hub itself")
        with _without_xet():
            return str(self._translated(download, file=file))

    def _parts(self, listing: _Listing, index: str) -> list[str]:
        folder = snapshot_folder(listing.name, listing.name.revision)
        try:
            parts = parts_of(folder / index)
        except (OSError, ValueError) as error:
            raise wrong_kind(str(self._asked), f"a model whose {index} cannot be read: {error}") from error
        if lacking := [part for part in parts if part not in listing.files]:
            raise wrong_kind(str(self._asked), f"a model whose part {lacking[0]} is not in its repository")
        return parts

    def _bring_small(self, listing: _Listing, files: Sequence[str]) -> None:
        for file in files:
            self._require_small(file, listing.files[file])
            self._bring(listing.name, file, listing.files[file])

    def _require_small(self, file: str, listed: _Listed) -> None:
        if listed.size is not None and listed.size > _MOST_SMALL_BYTES:
            raise wrong_kind(str(self._asked), f"a model whose {file} has {listed.size // 2**20} MiB")

    def _require_room(self, listing: _Listing, files: Sequence[str]) -> None:
        """Look whether the disk takes what is to come, before an hour of it."""
        folder = snapshot_folder(listing.name, listing.name.revision)
        needed = sum(listing.files[file].size or 0 for file in files if not (folder / file).is_file())
        free = shutil.disk_usage(folder).free
        if needed + _SPARE_BYTES > free and needed:
            raise ArtifactError(
                f"{self._asked} needs {needed / 1e9:.1f} GB, the disk of {repository_folder(listing.name)} has "
                f"{free / 1e9:.1f} GB free",
                code="not-writable", remedy="Make room, or set HF_HOME to a folder on another disk; then run it again",
            )

    def _remember(self, name: HubName) -> None:
        """Note the commit of the branch or tag that was asked for: only now, when all of it is here."""
        if self._asked.is_pinned:
            return
        write_text(repository_folder(name) / "refs" / self._asked.branch, name.revision)


@contextmanager
def _without_xet() -> Iterator[None]:
    """Within the block, files come over plain HTTP."""
    from huggingface_hub import constants

    before, constants.HF_HUB_DISABLE_XET = constants.HF_HUB_DISABLE_XET, True
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_XET = before


def _has_token() -> bool:
    from huggingface_hub import get_token

    return bool(get_token())


def _listed(sibling: Any) -> _Listed:
    lfs = sibling.lfs
    sha256 = (lfs.get("sha256") if isinstance(lfs, Mapping) else getattr(lfs, "sha256", None)) if lfs is not None else None
    return _Listed(sibling.size, sha256 or "", "" if lfs is not None else sibling.blob_id or "")


def _is_as_listed(path: Path, listed: _Listed) -> bool:
    """Whether a file has the size and the hash that the hub lists, as far as it lists them."""
    size = path.stat().st_size
    if listed.size is not None and size != listed.size:
        return False
    if listed.sha256:
        return _digest(path, hashlib.sha256()) == listed.sha256
    if len(listed.blob_id) == 40:
        return _digest(path, hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)) == listed.blob_id
    return True


def _digest(path: Path, digest: Any) -> str:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return str(digest.hexdigest())


def _forget(pointer: Path) -> None:
    """Remove a file of the cache and the content that it points to."""
    content = pointer.resolve()
    pointer.unlink(missing_ok=True)
    content.unlink(missing_ok=True)


def _megabytes(files: Mapping[str, _Listed], names: Sequence[str]) -> str:
    return f"{sum(files[name].size or 0 for name in names) / 1e6:,.1f} MB"
