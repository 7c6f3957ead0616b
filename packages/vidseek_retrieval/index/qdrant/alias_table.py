"""The aliases of a Qdrant server, with their history.

Aliases are Qdrant's own, so that any other client of the server finds the live collection too. The history of `clips` is
stored as aliases as well: `clips~0` is where vidseek pointed it last, `clips~1`, `clips~2`, ... are the collections before,
newest first. All of them move in one request, one request reads them, and a cluster keeps them by consensus.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from qdrant_client import QdrantClient, models

from vidseek_media.errors import ConfigError
from vidseek_retrieval.index.backend import Alias, alias_name
from vidseek_retrieval.index.collection_metadata import COLLECTION_NAME
from vidseek_retrieval.index.qdrant.limits import Limits
from vidseek_retrieval.index.qdrant.lock import NAMESPACE
from vidseek_retrieval.index.qdrant.requests import request

LIVE_SECONDS = 1.0
"""How long `live` uses a table that was read before."""

_HISTORY = re.compile(r"(?P<alias>.+)~(?P<place>[0-9]+)")
"""An entry of the history. No alias name contains `~`."""


class AliasTable:
    """The aliases of one archive's collections on a server.

    Args:
        client: Of the server.
        prefix: Before the names of the archive's collections and aliases.
    """

    def __init__(self, client: QdrantClient, *, prefix: str) -> None:
        self._client = client
        self._prefix = prefix
        self._live: tuple[float, dict[str, str]] | None = None

    def aliases(self) -> dict[str, Alias]:
        """Return all aliases by name; empty if nothing was published."""
        table = self._read()
        return {name: Alias(live, _history(table, name, live)) for name, live in table.items() if "~" not in name}

    def live(self, alias: str) -> str | None:
        """Return the collection that an alias points to, None if nowhere; up to a second old if another process moved it.

        Args:
            alias: Its name.
        """
        known = self._live
        if known is None or time.monotonic() - known[0] > LIVE_SECONDS:
            known = self._live = (time.monotonic(), self._read())
        return known[1].get(alias)

    def forget(self) -> None:
        """Make the next `live` ask the server."""
        self._live = None

    def lost(self) -> list[str]:
        """Describe aliases that vidseek set and that are missing or were moved by another program."""
        table = self._read()
        lost = []
        for name in sorted({found["alias"] for each in table if (found := _HISTORY.fullmatch(each))}):
            live, noted = table.get(name), table.get(f"{name}~0")
            if live is None:
                lost.append(f"the alias {name!r} is noted (as {name}~0), and is not on the server")
            elif live != noted:
                lost.append(f"the alias {name!r} names {live}, and {name}~0 has noted otherwise")
        return lost

    def move(self, alias: str, to: Alias) -> None:
        """Point an alias and its history elsewhere, in one request.

        Args:
            alias: Its name.
            to: The collection, and those before it.
        """
        wanted = {alias: to.collection, f"{alias}~0": to.collection}
        wanted |= {f"{alias}~{place}": name for place, name in enumerate(to.previous, start=1)}
        # Creations come first: if the server rejects one of them, nothing was deleted.
        operations: list[Any] = [self._creation(name, collection) for name, collection in wanted.items()]
        operations += [self._deletion(name) for name in _entries(self._read(), alias) if name not in wanted]
        self._change(operations)

    def drop(self, alias: str) -> None:
        """Remove an alias and its history, if it exists.

        Args:
            alias: Its name.
        """
        table = self._read()
        if alias in table:
            self._change([self._deletion(name) for name in _entries(table, alias)])

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
        live, histories = table.get(alias), _histories_in_note(note, table.get(alias))
        if live in histories and f"{alias}~0" not in table:
            move(alias, Alias(live, tuple(name for name in histories[live] if name in there)))
        elif f"{alias}~0" not in table and (known := sorted(there & set(histories))):
            # The alias is missing, or another program moved it. This entry lets `lost` report it.
            self._change([self._creation(f"{alias}~0", known[0])])

    def _read(self) -> dict[str, str]:
        """Ask the server for collections of the archive by alias, with the entries of the history."""
        found = request(self._client.get_aliases).aliases
        pointers = {
            each.alias_name.removeprefix(self._prefix): each.collection_name.removeprefix(self._prefix)
            for each in found
            if each.alias_name.startswith(self._prefix) and each.collection_name.startswith(self._prefix)
        }
        return {alias: name for alias, name in pointers.items() if COLLECTION_NAME.fullmatch(name)}

    def _change(self, operations: Sequence[Any]) -> None:
        self.forget()
        request(self._client.update_collection_aliases, operations)

    def _creation(self, alias: str, collection: str) -> models.CreateAliasOperation:
        return models.CreateAliasOperation(create_alias=models.CreateAlias(
            collection_name=f"{self._prefix}{collection}", alias_name=f"{self._prefix}{alias}"
        ))

    def _deletion(self, alias: str) -> models.DeleteAliasOperation:
        return models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=f"{self._prefix}{alias}"))


def require_alias_name(alias: str) -> None:
    """Check the name of an alias.

    Args:
        alias: As the user gave it.

    Raises:
        ConfigError: it is not a plain name.
    """
    try:
        alias_name(alias)
    except ValueError as error:
        raise ConfigError(str(error), code="bad-alias", remedy="Choose another name for the alias") from error


def note_id(alias: str) -> str:
    """Return the point id of the note that earlier versions stored for an alias.

    Args:
        alias: Its name.
    """
    return str(uuid.uuid5(NAMESPACE, f"alias:{alias}"))


def _entries(table: Mapping[str, str], alias: str) -> list[str]:
    """Return the names in `table` of an alias and its history."""
    return [
        name for name in table
        if name == alias or ((found := _HISTORY.fullmatch(name)) is not None and found["alias"] == alias)
    ]


def _history(table: Mapping[str, str], alias: str, live: str) -> tuple[str, ...]:
    """Return the collections before `live`, newest first; none if another program moved the alias."""
    if table.get(f"{alias}~0") != live:
        return ()
    places = sorted(int(name.rpartition("~")[2]) for name in _entries(table, alias) if name != alias)
    return tuple(table[f"{alias}~{place}"] for place in places if place)


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
