"""The aliases of a Qdrant server, with their history.

Aliases are Qdrant's own, so that any other client of the server finds the live collection too. The history of `clips` is
stored as aliases as well: `clips~0` is where vidseek pointed it last, `clips~1`, `clips~2`, ... are the collections before,
newest first. Where a collection on the server has several builds, an alias cannot say which is meant, so the entry's own
name does: `clips~0~<build>~<number>`. All of them move in one request, one request reads them, and a cluster keeps them by
consensus.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from qdrant_client import QdrantClient, models

from vidseek_retrieval.index.backend import Alias
from vidseek_retrieval.index.collection_metadata import COLLECTION_NAME, collection_name
from vidseek_retrieval.index.qdrant.builds import FIRST
from vidseek_retrieval.index.qdrant.limits import Limits
from vidseek_retrieval.index.qdrant.lock import NAMESPACE
from vidseek_retrieval.index.qdrant.requests import request

LIVE_SECONDS = 1.0
"""How long `live` uses a table that was read before."""

_ENTRY = re.compile(r"(?P<alias>[^~]+)~(?P<place>[0-9]+)(?:~(?P<build>[0-9a-f]{12})~(?P<number>[0-9]{1,15}))?")
"""An entry of the history. No alias name contains `~`."""


class Entry(NamedTuple):
    """One collection in the history of an alias."""

    name: str
    """Of the entry."""
    alias: str
    place: int
    """0 for where the alias points."""
    stored_as: str
    """The collection on the server."""
    number: int
    """Of the build in it."""
    collection: str
    """Our collection: that build."""

    @staticmethod
    def of(name: str, stored_as: str) -> Entry | None:
        """Parse the name of an alias on the server; None if it is no entry."""
        found = _ENTRY.fullmatch(name)
        if found is None:
            return None
        _, encoder_version, _ = stored_as.split("-")
        collection = collection_name(encoder_version, found["build"]) if found["build"] else stored_as
        return Entry(name, found["alias"], int(found["place"]), stored_as, int(found["number"] or FIRST), collection)


@dataclass(frozen=True)
class Table:
    """The aliases on the server at one moment."""

    targets: Mapping[str, str]
    """The collection on the server by alias, with the entries of the history."""

    @cached_property
    def entries(self) -> Mapping[str, Mapping[int, Entry]]:
        """By alias and place."""
        found: dict[str, dict[int, Entry]] = {}
        every = [entry for name, stored_as in self.targets.items() if (entry := Entry.of(name, stored_as)) is not None]
        for entry in sorted(every, key=lambda each: each.number):  # a server that died in a move may have two of a place
            found.setdefault(entry.alias, {})[entry.place] = entry
        return found

    @cached_property
    def live(self) -> Mapping[str, str]:
        """Our collection by alias."""
        return {name: self._live(name, stored_as) for name, stored_as in self.targets.items() if "~" not in name}

    @cached_property
    def named(self) -> frozenset[str]:
        """Our collections that an alias points to or keeps for a rollback."""
        history = {entry.collection for entries in self.entries.values() for entry in entries.values()}
        return frozenset(history.union(self.live.values()))

    def previous(self, alias: str) -> tuple[str, ...]:
        """Return the collections before the live one, newest first; none if another program moved the alias."""
        entries = self.entries.get(alias, {})
        if 0 not in entries or entries[0].stored_as != self.targets.get(alias):
            return ()
        return tuple(entries[place].collection for place in sorted(entries) if place)

    def names_of(self, alias: str) -> list[str]:
        """Return the names on the server of an alias and its history."""
        return [name for name in self.targets if name == alias or name.startswith(f"{alias}~")]

    def _live(self, alias: str, stored_as: str) -> str:
        entry = self.entries.get(alias, {}).get(0)
        return stored_as if entry is None or entry.stored_as != stored_as else entry.collection


class AliasTable:
    """The aliases of one archive's collections on a server.

    Args:
        client: Of the server.
        prefix: Before the names of the archive's collections and aliases.
    """

    def __init__(self, client: QdrantClient, *, prefix: str) -> None:
        self._client = client
        self._prefix = prefix
        self._recent: tuple[float, Table] | None = None

    def aliases(self) -> dict[str, Alias]:
        """Return all aliases by name; empty if nothing was published."""
        table = self._read()
        return {name: Alias(live, table.previous(name)) for name, live in table.live.items()}

    def live(self, alias: str) -> str | None:
        """Return the collection that an alias points to, None if nowhere; up to a second old if another process moved it.

        Args:
            alias: Its name.
        """
        return self._read_recently().live.get(alias)

    def names(self, collection: str) -> bool:
        """Return whether an alias points to a collection or keeps it for a rollback; up to a second old, as `live` is.

        Args:
            collection: Its name.
        """
        return collection in self._read_recently().named

    def targets(self) -> set[str]:
        """Return the collections on the server, without the prefix, that any alias or history names."""
        return set(self._read().targets.values())

    def forget(self) -> None:
        """Make the next `live` ask the server."""
        self._recent = None

    def lost(self) -> list[str]:
        """Describe aliases that vidseek set and that are missing or were moved by another program."""
        table = self._read()
        lost = []
        for name, entries in sorted(table.entries.items()):
            live = table.targets.get(name)
            if live is None:
                lost.append(f"the alias {name!r} is noted (as {entries[min(entries)].name}), and is not on the server")
            elif 0 not in entries or live != entries[0].stored_as:
                lost.append(f"the alias {name!r} names {live}, and {name}~0 has noted otherwise")
        return lost

    def move(self, alias: str, to: Alias, places: Mapping[str, tuple[str, int]]) -> None:
        """Point an alias and its history elsewhere, in one request.

        Args:
            alias: Its name.
            to: The collection, and those before it.
            places: By collection, where it is: the collection on the server, and the number of the build.
        """
        wanted: dict[str, str] = {}
        for place, name in enumerate((to.collection, *to.previous)):
            stored_as, number = places.get(name, (name, FIRST))
            wanted.setdefault(alias, stored_as)
            is_alone = (stored_as, number) == (name, FIRST)
            wanted[f"{alias}~{place}" if is_alone else f"{alias}~{place}~{name.rpartition('-')[2]}~{number}"] = stored_as
        # Creations come first: if the server rejects one of them, nothing was deleted.
        operations: list[Any] = [self._creation(name, collection) for name, collection in wanted.items()]
        operations += [self._deletion(name) for name in self._read().names_of(alias) if name not in wanted]
        self._change(operations)

    def drop(self, alias: str) -> None:
        """Remove an alias and its history, if it exists.

        Args:
            alias: Its name.
        """
        table = self._read()
        if alias in table.targets:
            self._change([self._deletion(name) for name in table.names_of(alias)])

    def take_over_notes(
        self, state_name: str, limits: Limits, *, stored: Callable[[], Sequence[str]], move: Callable[[str, Alias], None]
    ) -> None:
        """Turn histories that earlier versions stored as points into aliases.

        Args:
            state_name: The collection of the state, as the server names it.
            limits: Of that collection.
            stored: Gives the names of the finished collections.
            move: Points an alias elsewhere while the lock is held.
        """
        records: list[models.Record] = []
        offset: Any = None
        while True:
            found, offset = request(
                self._client.scroll, state_name, limit=limits.page(100), offset=offset, with_payload=True
            )
            records += found
            if offset is None:
                break
        for note in (dict(each.payload or {}) for each in records):
            if note.get("kind") == "alias":
                self._take_over_note(str(note.get("alias", "")), note, set(stored()), move)
                selected = models.PointIdsList(points=[note_id(str(note.get("alias", "")))])
                request(self._client.delete, state_name, selected, wait=True)

    def _take_over_note(
        self, alias: str, note: Mapping[str, Any], there: set[str], move: Callable[[str, Alias], None]
    ) -> None:
        table = self._read()
        live, is_noted = table.targets.get(alias), 0 in table.entries.get(alias, {})
        histories = _histories_in_note(note, live)
        if live in histories and not is_noted:
            move(alias, Alias(live, tuple(name for name in histories[live] if name in there)))
        elif not is_noted and (known := sorted(there & set(histories))):
            # The alias is missing, or another program moved it. This entry lets `lost` report it.
            self._change([self._creation(f"{alias}~0", known[0])])

    def _read_recently(self) -> Table:
        known = self._recent
        if known is None or time.monotonic() - known[0] > LIVE_SECONDS:
            known = self._recent = (time.monotonic(), self._read())
        return known[1]

    def _read(self) -> Table:
        """Ask the server for the aliases of the archive."""
        found = request(self._client.get_aliases).aliases
        pointers = {
            each.alias_name.removeprefix(self._prefix): each.collection_name.removeprefix(self._prefix)
            for each in found
            if each.alias_name.startswith(self._prefix) and each.collection_name.startswith(self._prefix)
        }
        return Table({alias: name for alias, name in pointers.items() if COLLECTION_NAME.fullmatch(name)})

    def _change(self, operations: Sequence[Any]) -> None:
        self.forget()
        request(self._client.update_collection_aliases, operations)

    def _creation(self, alias: str, collection: str) -> models.CreateAliasOperation:
        return models.CreateAliasOperation(create_alias=models.CreateAlias(
            collection_name=f"{self._prefix}{collection}", alias_name=f"{self._prefix}{alias}"
        ))

    def _deletion(self, alias: str) -> models.DeleteAliasOperation:
        return models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=f"{self._prefix}{alias}"))


def note_id(alias: str) -> str:
    """Return the point id of the note that earlier versions stored for an alias.

    Args:
        alias: Its name.
    """
    return str(uuid.uuid5(NAMESPACE, f"alias:{alias}"))


def _histories_in_note(note: Mapping[str, Any], live: str | None) -> dict[str, tuple[str, ...]]:
    """Return the collections before a collection, by its name, from a note of an earlier version."""
    histories, previous = note.get("history"), note.get("previous")
    if not isinstance(histories, dict):  # still earlier versions noted only the collection that the alias would move to
        histories = {note["of"]: previous} if isinstance(note.get("of"), str) else {}
        if live and isinstance(previous, list) and live in previous and live not in histories:  # killed before the move
            histories = {live: previous[previous.index(live) + 1 :]}
    return {
        str(of): tuple(str(name) for name in names if COLLECTION_NAME.fullmatch(str(name)))
        for of, names in histories.items() if isinstance(names, list)
    }
