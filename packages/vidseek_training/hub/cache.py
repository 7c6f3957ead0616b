"""The hub's local cache: finds the folder of a model at a commit. Never uses the network."""

from __future__ import annotations

import re
from pathlib import Path

from vidseek_training.hub.faults import HubNotCached
from vidseek_training.hub.files import missing_in
from vidseek_training.hub.names import HubName

_COMMIT = re.compile(r"[0-9a-f]{40}")


def find_snapshot(name: HubName) -> Path:
    """Return the complete folder of a model in the local cache.

    Raises:
        HubNotCached: it is missing, or incomplete.
    """
    commit = cached_commit(name)
    if commit is None:
        here = ", ".join(str(name.at(each)) for each in cached_commits(name))
        raise HubNotCached(
            f"backbone {name} is not in the model hub's local cache ({_cache()})" + (f"; there is {here}" if here else ""),
            remedy=f"{_fetch(name)}{', or name one that is there' if here else ''}; or name a folder",
        )
    folder = snapshot_folder(name, commit)
    if lacking := missing_in(folder):
        raise HubNotCached(
            f"backbone {name} is not whole in the model hub's local cache: {', '.join(lacking)} missing in {folder}",
            remedy=f"{_fetch(name)}: it fetches what is missing, and keeps what is there",
        )
    return folder


def pinned(name: str) -> str:
    """Return a name with its commit in the local cache; a text that is not a hub id stays as it is.

    Raises:
        HubNotCached: the model is missing, or incomplete.
    """
    found = HubName.parse(name)
    if found is None or name.startswith("vidseek/") or Path(name).exists():
        return name
    return str(found.at(find_snapshot(found).name))


def cached_commit(name: HubName) -> str | None:
    """Return the commit of a name when it was fetched; None if it is not in the cache."""
    if name.is_pinned:
        return name.revision if snapshot_folder(name, name.revision).is_dir() else None
    try:
        commit = (repository_folder(name) / "refs" / name.branch).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    return commit if _COMMIT.fullmatch(commit) and snapshot_folder(name, commit).is_dir() else None


def cached_commits(name: HubName) -> list[str]:
    """Return all commits of a model in the cache, complete or not."""
    try:
        return sorted(path.name for path in (repository_folder(name) / "snapshots").iterdir())
    except OSError:
        return []


def repository_folder(name: HubName) -> Path:
    """Return the folder of a model in the cache."""
    return _cache() / f"models--{name.repository.replace('/', '--')}"


def snapshot_folder(name: HubName, commit: str) -> Path:
    """Return the folder of a model's files at a commit in the cache."""
    return repository_folder(name) / "snapshots" / commit


def _cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).expanduser()


def _fetch(name: HubName) -> str:
    return f"Fetch it where there is a network: `vidseek backbone fetch {name}`; in a checkout, `make hub MODEL={name}`"
