"""The index on a Qdrant server or cluster.

A collection on the server holds one or more collections of ours, its builds (`builds.py`). It carries their metadata,
written last: a collection without them is the remains of a killed build. `alias_table.py` keeps aliases and their history,
`lock.py` the builder's lock in the collection `vidseek-state`.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator, Set
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from qdrant_client import QdrantClient, models

from vidseek_media.errors import ArtifactError, ServiceError, VidseekError
from vidseek_media.names import shown
from vidseek_retrieval.index.backend import Alias, Point, require_alias_name
from vidseek_retrieval.index.collection_metadata import (
    BUILD_DIGITS,
    COLLECTION_NAME,
    CollectionMetadata,
    collection_name,
    require_facts,
)
from vidseek_retrieval.index.qdrant.alias_table import AliasTable
from vidseek_retrieval.index.qdrant.build_reader import BuildReader
from vidseek_retrieval.index.qdrant.building import ServerBuilder, info_of, struct_of
from vidseek_retrieval.index.qdrant.builds import BUILDS_KEY, FACTS_KEY, FIRST, Build, Builds
from vidseek_retrieval.index.qdrant.collection import QdrantCollection
from vidseek_retrieval.index.qdrant.growth import Growth, QdrantRecord, first_structs
from vidseek_retrieval.index.qdrant.limits import Limits
from vidseek_retrieval.index.qdrant.lock import LEASE_SECONDS, BuilderLock
from vidseek_retrieval.index.qdrant.requests import (
    BUILDER_PATIENCE_SECONDS,
    patience,
    request,
    require_version,
)
from vidseek_retrieval.index.qdrant.video_rows import row_structs, rows_hash, rows_of
from vidseek_retrieval.settings import ServerSettings

STATE = "vidseek-state"
CHECK_TIMEOUT_SECONDS = 60.0
"""How long `check` waits while the server optimises a collection."""
BUILDS_FROM_VERSION = (1, 19)
"""The first server that counts how rare a word is over some of the points, as a collection of several builds needs it."""

_LOCK_STAYS = (
    f"the server did not take the lock back: a publish from another machine waits for it, {LEASE_SECONDS / 60:.0f} minutes "
    "at most"
)

log = logging.getLogger("vidseek.index")


class Held(NamedTuple):
    """A finished collection on the server."""

    builds: Builds
    limits: Limits


class QdrantBackend:
    """The collections of a Qdrant server.

    Args:
        client: Of the server.
        settings: Of new collections.
        prefix: Before the names of all collections and aliases, so that several archives can share a server.
    """

    def __init__(self, client: QdrantClient, settings: ServerSettings | None = None, *, prefix: str = "") -> None:
        self._client = client
        self._settings = settings or ServerSettings()
        self._prefix = prefix
        self._state_name = f"{prefix}{STATE}"
        self._lock = BuilderLock(client, self._state_name)
        self._builder = ServerBuilder(client, self._lock, self._settings)
        self._version: tuple[int, ...] | None = None
        self._version_is_known = False
        self._aliases = AliasTable(client, prefix=prefix)

    @classmethod
    def connect(
        cls, url: str, *, api_key: str | None = None, settings: ServerSettings | None = None, prefix: str = ""
    ) -> QdrantBackend:
        """Return the backend of a server. No request is sent yet.

        Args:
            url: Of the server, with its port.
            api_key: None for a server without one.
            settings: Of new collections; None for the defaults.
            prefix: Before the names of all collections and aliases.
        """
        client = QdrantClient(url=url, api_key=api_key, timeout=60, check_compatibility=False)
        return cls(client, settings, prefix=prefix)

    def aliases(self) -> dict[str, Alias]:
        """Implement `IndexBackend.aliases`."""
        return self._aliases.aliases()

    def live(self, alias: str) -> str | None:
        """Implement `IndexBackend.live`."""
        return self._aliases.live(alias)

    def lost_aliases(self) -> list[str]:
        """Implement `IndexBackend.lost_aliases`."""
        return self._aliases.lost()

    def collections(self) -> list[CollectionMetadata]:
        """Implement `IndexBackend.collections`."""
        every = [held.builds for held in self._held()]
        metadata = [found for builds in every for name in builds.builds if (found := builds.metadata(name)) is not None]
        return sorted(metadata, key=lambda each: (each.created_at, each.name))

    def stored(self) -> list[str]:
        """Implement `IndexBackend.stored`; includes collections whose metadata another version wrote."""
        return sorted(name for held in self._held() for name in held.builds.builds)

    def open(self, name: str) -> QdrantCollection:
        """Implement `IndexBackend.open`. Raises ConfigError: the server is too old; ServiceError: it does not answer."""
        self._require_version()
        held = self._find(name)
        metadata = held.builds.metadata(name) if held else None
        if held is None or metadata is None:
            self._aliases.forget()  # a remembered alias may have led here
            raise ArtifactError(
                f"there is no collection {name} on the server", code="collection-absent", remedy="Publish, or import it"
            )
        return QdrantCollection(self._points(held, name), metadata)

    @contextmanager
    def building(self) -> Iterator[None]:
        """Hold the builder's lock: a point that only one process can insert, with an expiry that is renewed.

        The lock is released at once when the work ends, also by an error.

        Raises:
            ConfigError: the server is too old.
            ServiceError: another process holds it.
        """
        with patience(BUILDER_PATIENCE_SECONDS):
            self._require_version()
            state = info_of(self._client, self._state_name)
            self._lock.prepare(state, replicas=self._settings.replicas)
            self._lock.take()
            try:
                if state is not None:
                    self._aliases.take_over_notes(
                        self._state_name, Limits.of(state), stored=self.stored, move=self.move_alias
                    )
                yield
            except BaseException as error:
                if not self._lock.release():
                    _say_more(error, _LOCK_STAYS)
                raise
            if not self._lock.release():
                log.warning("what was written is whole, but %s", _LOCK_STAYS)

    def record(self, name: str) -> QdrantRecord | None:
        """Implement `IndexBackend.record`; only that of the newest build of a collection on the server can grow."""
        held = self._find(name)
        if held is None or not held.builds.is_numbered or not self._adds_builds:
            return None
        return self._growth(held).record(held.builds, name, self._points(held, name))

    def build(
        self, metadata: CollectionMetadata, points: Iterable[Point], videos: NDArray[np.void] | None = None
    ) -> None:
        """Build a collection: payload indexes, points with indexing deferred, optimisation, and last its metadata.

        Args:
            metadata: Of the collection.
            points: As many as `metadata` says.
            videos: Rows of `VIDEO_ROW`; None if the points are from elsewhere, then no publish adds a build.

        Raises:
            ArtifactError: the metadata are not valid. Nothing was changed.
            ServiceError: a finished collection has that name, or the server cannot store it. Nothing of it is left.
        """
        self._require_version()
        if self._find(require_facts(metadata).name) is not None:
            raise ServiceError(
                f"the server has a finished collection {metadata.name} already", code="collection-there",
                remedy="Drop it, or search that one",
            )
        name = self._free_name(metadata)
        try:
            self._build(name, metadata, points, videos)
        except BaseException as error:
            if not self._builder.try_to_delete(self._on_server(name)):
                _say_more(error, f"what was built of {metadata.name} stays on the server until the next publish")
            raise

    def _build(
        self, name: str, metadata: CollectionMetadata, points: Iterable[Point], videos: NDArray[np.void] | None
    ) -> None:
        builder, stored_as = self._builder, self._on_server(name)
        limits, is_numbered = builder.create(stored_as, metadata, numbered=videos is not None and self._adds_builds)
        structs = first_structs(points, metadata.settings.vectors) if is_numbered else map(struct_of, points)
        builder.load(stored_as, structs, limits)
        rows = ""
        if videos is not None and is_numbered:
            builder.create_rows(stored_as)
            builder.load(rows_of(stored_as), row_structs(videos, FIRST), limits)
            rows = rows_hash(videos)
        builder.optimise(stored_as)
        builds = Builds(name, {metadata.name: Build(FIRST, metadata.to_json(), rows)}, is_numbered=is_numbered)
        is_alone = not is_numbered and metadata.name == name
        builder.note(
            stored_as, {FACTS_KEY: metadata.to_json(), **({} if is_alone else {BUILDS_KEY: builds.to_json()})}
        )

    def check(self, name: str) -> list[str]:
        """Implement `IndexBackend.check`; waits up to a minute for a running optimisation."""
        held = self._find(name)
        stored_as = self._on_server(held.builds.stored_as if held else name)
        problem = self._builder.unsettled(stored_as, seconds=CHECK_TIMEOUT_SECONDS)
        return [problem] if problem else []

    def move_alias(self, alias: str, to: Alias) -> None:
        """Implement `IndexBackend.move_alias`; the history moves in the same request."""
        require_alias_name(alias)
        self._lock.renew(at_once=True)
        every = [held.builds for held in self._held()]
        places = {name: (each.stored_as, build.number) for each in every for name, build in each.builds.items()}
        self._aliases.move(alias, to, places)

    def drop_alias(self, alias: str) -> None:
        """Implement `IndexBackend.drop_alias`."""
        self._aliases.drop(alias)

    def drop(self, name: str) -> None:
        """Implement `IndexBackend.drop`. The points of one of several builds go with the next `remove_unfinished`."""
        if not COLLECTION_NAME.fullmatch(name):  # the server may hold collections of other programs
            raise ArtifactError(f"{shown(name)} is no name of a collection", code="bad-collection-name")
        self._aliases.forget()
        held = self._find(name)
        if held is not None and len(held.builds.builds) > 1:
            self._growth(held).drop(held.builds, name)
        elif held is not None:
            self._builder.delete(self._on_server(held.builds.stored_as))
        elif Builds.of(self._info(name), name) is None:
            self._builder.delete(self._on_server(name))

    def remove_unfinished(self, *, needed: Set[str] = frozenset()) -> list[str]:
        """Implement `IndexBackend.remove_unfinished`; also removes the points of dropped builds."""
        every = self._held()
        finished = {held.builds.stored_as for held in every}
        unfinished = sorted(set(self._names()) - finished - needed - self._aliases.targets())
        for name in unfinished:
            self._builder.delete(self._on_server(name))
        for held in every:
            if held.builds.unfinished or held.builds.dropped_at:
                self._growth(held).sweep(held.builds)
                unfinished += [held.builds.unfinished] if held.builds.unfinished else []
        return unfinished

    @property
    def _adds_builds(self) -> bool:
        """Whether publishes write into collections that are there; `_require_version` was called."""
        return self._settings.by_difference and self._version is not None and self._version >= BUILDS_FROM_VERSION

    def _on_server(self, name: str) -> str:
        return f"{self._prefix}{name}"

    def _require_version(self) -> None:
        if not self._version_is_known:
            self._version = require_version(self._client)
            self._version_is_known = True

    def _names(self) -> list[str]:
        found = request(self._client.get_collections).collections
        ours = [each.name.removeprefix(self._prefix) for each in found if each.name.startswith(self._prefix)]
        return sorted(name for name in ours if COLLECTION_NAME.fullmatch(name))

    def _info(self, name: str) -> models.CollectionInfo | None:
        return info_of(self._client, self._on_server(name))

    def _held(self) -> list[Held]:
        """Return the finished collections on the server."""
        return [held for name in self._names() if (held := self._held_as(name)) is not None]

    def _held_as(self, name: str) -> Held | None:
        info = self._info(name)
        builds = Builds.of(info, name)
        return None if builds is None or info is None else Held(builds, Limits.of(info))

    def _find(self, name: str) -> Held | None:
        """Return the collection on the server that holds one of ours; None if there is none."""
        if not COLLECTION_NAME.fullmatch(name):
            return None
        held = self._held_as(name)  # most have one build, and its name
        if held is not None and name in held.builds.builds:
            return held
        others = (self._held_as(each) for each in self._names() if each != name)
        return next((each for each in others if each is not None and name in each.builds.builds), None)

    def _free_name(self, metadata: CollectionMetadata) -> str:
        """Return a name for a new collection on the server: that of ours, unless it is taken by a later build of it."""
        for number in count():
            named = hashlib.sha256(f"{metadata.name}:{number}".encode()).hexdigest()[:BUILD_DIGITS]
            name = collection_name(metadata.encoder_version, named) if number else metadata.name
            if self._held_as(name) is None:
                return name
        raise AssertionError("there is always a next number")

    def _points(self, held: Held, name: str) -> BuildReader:
        builds = held.builds
        return BuildReader(
            self._client, self._on_server(builds.stored_as), name, builds.number(name), held.limits,
            partial(self._is_kept, name, builds.stored_as),
        )

    def _is_kept(self, name: str, stored_as: str) -> bool:
        """Whether nobody has dropped a build: an alias names it, or we build, or the server has it still."""
        if self._lock.is_held or self._aliases.names(name):
            return True
        builds = Builds.of(self._info(stored_as), stored_as)
        return builds is not None and name in builds.builds

    def _growth(self, held: Held) -> Growth:
        stored_as = self._on_server(held.builds.stored_as)
        return Growth(self._client, self._builder, self._lock, stored_as, held.limits)


def _say_more(error: BaseException, what: str) -> None:
    """Append `what` to the remedy of an error of ours; log it for another error."""
    if isinstance(error, VidseekError):
        error.remedy = f"{error.remedy}; {what}" if error.remedy else what
    else:
        log.warning("%s", what)
