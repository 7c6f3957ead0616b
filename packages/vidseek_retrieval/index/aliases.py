"""Move aliases between collections, and remove the collections that no alias needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vidseek_media.errors import ArtifactError
from vidseek_retrieval.index.backend import PUBLISH_REMEDY, USE_REMEDY, Alias, IndexBackend
from vidseek_retrieval.index.collection_metadata import CollectionMetadata
from vidseek_retrieval.index.edge.backend import EdgeBackend
from vidseek_retrieval.index.open_backend import Index, as_backend
from vidseek_retrieval.index.verification import Verification, verify_collection
from vidseek_retrieval.settings import MIN_RECALL


@dataclass(frozen=True)
class CollectionStatus:
    """A finished collection and the aliases that need it."""

    metadata: CollectionMetadata
    live_as: tuple[str, ...]
    """The aliases that point to it."""
    kept_for: tuple[str, ...]
    """The aliases that may be rolled back to it."""


def list_collections(index: Index) -> list[CollectionStatus]:
    """Return the finished collections, oldest first.

    Args:
        index: The folder of the embedded index, or an index backend.
    """
    backend = as_backend(index)
    aliases = backend.aliases()
    return [
        CollectionStatus(
            metadata,
            live_as=tuple(sorted(name for name, alias in aliases.items() if alias.collection == metadata.name)),
            kept_for=tuple(sorted(name for name, alias in aliases.items() if metadata.name in alias.previous)),
        )
        for metadata in backend.collections()
    ]


def rollback(index: Index, *, alias: str = "clips") -> str:
    """Point an alias to the collection that it pointed to before, and return its name.

    The live collection becomes the oldest of the previous ones, so that with one previous collection a second rollback
    undoes the first.

    Args:
        index: The folder of the embedded index, or an index backend.
        alias: Its name.

    Raises:
        ArtifactError: nothing was published, the alias table is broken or names a missing collection, or there is no
            earlier collection that opens.
        ServiceError: a publish runs.

    Examples:
        >>> from pathlib import Path
        >>> from vidseek_retrieval.index.publish import publish
        >>> from vidseek_retrieval.settings import PublishSettings
        >>> folders = {name: Path(f"data/{name}") for name in ("embed", "cut", "ingest")}
        >>> shots = PublishSettings(cut="shots")
        >>> report = publish(folders["embed"], folders["cut"], folders["ingest"], index=Path("index"), settings=shots)
        >>> report.num_points, len(report.previous)
        (2, 1)
        >>> rollback(Path("index")) == report.previous[0]
        True
    """
    backend = as_backend(index)
    require_published(backend, alias)
    with backend.building():
        current = require_published(backend, alias)
        require_alias_table(backend, alias=alias)
        if not current.previous:
            raise ArtifactError(
                f"{alias!r} has no earlier collection", code="no-earlier-collection", remedy="Publish what you want live",
            )
        back, *earlier = current.previous
        backend.open(back).close()
        backend.move_alias(alias, Alias(back, (*earlier, current.collection)))
        return back


def use_collection(index: Index, name: str, *, alias: str = "clips") -> Verification:
    """Verify a stored collection and then point an alias to it. Nothing is removed.

    Previous collections that no longer exist are dropped from the alias.

    Args:
        index: The folder of the embedded index, or an index backend.
        name: Of the collection.
        alias: Its name.

    Raises:
        ArtifactError: it does not exist, or does not verify.
        ServiceError: a publish runs.
    """
    backend = as_backend(index)
    backend.open(name).close()  # before the lock, which creates the folder
    with backend.building():
        verification = verify_collection(backend, name, min_recall=MIN_RECALL)
        if not verification.passed:
            raise ArtifactError(
                f"{name} does not verify ({'; '.join(verification.problems)}); what is live stays",
                code="collection-not-verified",
                remedy="Use another one, or publish",
            )
        current = backend.aliases().get(alias)
        earlier = (current.collection, *current.previous) if current else ()
        there = set(backend.stored())
        backend.move_alias(alias, Alias(name, tuple(each for each in earlier if each != name and each in there)))
        return verification


def prune(index: Index) -> list[str]:
    """Remove collections that no alias points to or keeps for a rollback, and the remains of killed builds.

    Args:
        index: The folder of the embedded index, or an index backend.

    Returns:
        What was removed.

    Raises:
        ArtifactError: the alias table is missing, empty or broken, or names a missing collection. Nothing is removed.
        ServiceError: a publish runs, or a file cannot be deleted.
    """
    backend = as_backend(index)
    if isinstance(backend, EdgeBackend) and not backend.root.is_dir():
        return []  # taking the lock would create the folder
    with backend.building():
        require_alias_table(backend)
        needed = named_by(backend.aliases())
        removed = backend.remove_unfinished(needed=needed) + remove_unneeded(backend)
        return removed + backend.remove_unfinished(needed=needed)  # what the dropped ones shared with those that stay


def retract(index: Index, *, alias: str) -> list[str]:
    """Remove an alias and the collections that no other alias needs, and return their names.

    Args:
        index: The folder of the embedded index, or an index backend.
        alias: Its name; nothing happens if it does not exist.

    Raises:
        ServiceError: a publish runs, or a file cannot be deleted.
    """
    backend = as_backend(index)
    if alias not in backend.aliases():
        return []
    with backend.building():
        aliases = backend.aliases()
        mine = named_by({alias: aliases.pop(alias)})
        backend.drop_alias(alias)
        gone = sorted((mine - named_by(aliases)) & set(backend.stored()))
        for name in gone:
            backend.drop(name)
        return gone


def verify(index: Index, *, alias: str = "clips", collection: str | None = None) -> Verification:
    """Check every file of a collection, count its points, and compare approximate with exact searches.

    Args:
        index: The folder of the embedded index, or an index backend.
        alias: Its live collection is checked.
        collection: The name of another collection to check; None for the live one.

    Raises:
        ArtifactError: it does not exist, or does not open.
    """
    backend = as_backend(index)
    name = collection or require_published(backend, alias).collection
    return verify_collection(backend, name, min_recall=MIN_RECALL)


def require_published(backend: IndexBackend, alias: str) -> Alias:
    """Return where an alias points.

    Args:
        backend: The index.
        alias: Its name.

    Raises:
        ArtifactError: the alias does not exist, or the alias table is broken.
    """
    current = backend.aliases().get(alias)
    if current is None and (stored := backend.stored()):
        raise ArtifactError(
            f"no alias {alias!r} names any of the {len(stored)} collections", code="not-published", remedy=USE_REMEDY,
        )
    if current is None:
        raise ArtifactError(f"nothing was published as {alias!r}", code="not-published", remedy=PUBLISH_REMEDY)
    return current


def require_alias_table(index: Index, *, alias: str | None = None) -> None:
    """Check that the alias table tells which collections are needed, if there are any collections.

    Args:
        index: The folder of the embedded index, or an index backend.
        alias: Check only this alias; None for all.

    Raises:
        ArtifactError: the table is missing, empty or broken, or names a missing collection.
        ServiceError: the Qdrant server does not answer.
    """
    if wrong := alias_problems(as_backend(index), alias=alias):
        raise _table_not_right(wrong)


def alias_problems(backend: IndexBackend, *, alias: str | None = None) -> list[str]:
    """Return why the alias table does not tell which collections are needed; empty if it does.

    Args:
        backend: The index.
        alias: Check only this alias; None for all.

    Raises:
        ArtifactError: the table is broken.
    """
    aliases, stored = backend.aliases(), set(backend.stored())
    wrong = [f"no alias names any of the {len(stored)} collections"] if stored and not aliases else []
    wrong += [
        f"the alias {name!r} names {each}, which is not there"
        for name, of in sorted(aliases.items()) if alias in (None, name)
        for each in (of.collection, *of.previous) if each not in stored
    ]
    return wrong + backend.lost_aliases()


def move_to(backend: IndexBackend, alias: str, name: str, *, keep_previous: int) -> bool:
    """Point an alias to a collection, and keep those before it for a rollback.

    Args:
        backend: The index; its lock is held.
        alias: Its name.
        name: Of the collection.
        keep_previous: Collections to keep for a rollback, at least 0.

    Returns:
        False if the alias points there already.
    """
    current = backend.aliases().get(alias)
    if current is not None and current.collection == name:
        return False
    earlier = (current.collection, *current.previous) if current else ()
    there = set(backend.stored())
    kept = tuple(each for each in earlier if each != name and each in there)[:keep_previous]
    backend.move_alias(alias, Alias(name, kept))
    return True


def remove_unneeded(backend: IndexBackend) -> list[str]:
    """Remove the collections that no alias names, and return their names.

    Args:
        backend: The index; its lock is held.
    """
    unneeded = sorted(set(backend.stored()) - named_by(backend.aliases()))
    for name in unneeded:
        backend.drop(name)
    return unneeded


def named_by(aliases: Mapping[str, Alias]) -> set[str]:
    """Return the collections that aliases point to or keep for a rollback.

    Args:
        aliases: By name.
    """
    return {name for alias in aliases.values() for name in (alias.collection, *alias.previous)}


def _table_not_right(wrong: Sequence[str]) -> ArtifactError:
    return ArtifactError(
        f"{'; '.join(wrong)}. Nothing was removed or moved", code="aliases-broken", remedy=f"Remove nothing: {USE_REMEDY}",
    )
