"""The builder's lock on a Qdrant server: a point that only one client can insert, with an expiry that its holder extends."""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Mapping
from typing import Any

from qdrant_client import QdrantClient, models

from vidseek_media.errors import ServiceError
from vidseek_retrieval.index.qdrant.requests import ServerRefused, request

LEASE_SECONDS = 600.0
"""A builder that was killed holds the lock no longer than this; one that lives renews it with each batch."""
RENEWAL_SECONDS = 30.0
"""From one renewal to the next: with each batch it would be two requests more."""
REPLICAS = 3
"""Of the collection with the lock; a cluster of fewer nodes has one on each."""
MAJORITY = 2
"""Replicas that must have taken a write of the lock; where there are fewer, all of them."""
NAMESPACE = uuid.UUID("3b1d3f6e-58a5-5d0a-9d5c-7d7a8c1b2e90")
LOCK_ID = str(uuid.uuid5(NAMESPACE, "lock"))
_TOKEN_FIELD = "token"
_LEADER_FIRST = models.WriteOrdering.STRONG
"""All writes of the lock go by one replica, so that two builders cannot both be first."""


class BuilderLock:
    """The lock in the collection `state`, which `prepare` makes."""

    def __init__(self, client: QdrantClient, state: str) -> None:
        self._client = client
        self._state = state
        self._token = ""
        self._renewed_at = 0.0

    @property
    def is_held(self) -> bool:
        """Whether it is ours."""
        return bool(self._token)

    def prepare(self, info: models.CollectionInfo | None, *, replicas: int) -> None:
        """Make the collection where `info` is None, and the index that `release` filters by where it has none."""
        if info is None:
            try:
                request(
                    self._client.create_collection, self._state, vectors_config={}, shard_number=1,
                    replication_factor=max(replicas, REPLICAS), write_consistency_factor=MAJORITY,
                )
            except ServerRefused as error:
                if error.status != 409:  # another builder was faster, or the answer to our own request was lost
                    raise
        if info is None or _TOKEN_FIELD not in info.payload_schema:
            request(
                self._client.create_payload_index, self._state, _TOKEN_FIELD,
                field_schema=models.PayloadSchemaType.KEYWORD, wait=True,
            )

    def take(self) -> None:
        """Take the lock.

        Raises:
            ServiceError: another one holds it.
        """
        token = uuid.uuid4().hex
        held: Mapping[str, Any] = {}
        for _ in range(2):
            self._insert(token)
            held = self._read_or_drop(token)
            if held.get("token") == token:
                self._token, self._renewed_at = token, time.time()
                return
            if held.get("until", 0.0) > time.time() and not is_dead(held):
                break
            self._drop(str(held.get("token", "")))  # its holder was killed
        left = max(0.0, float(held.get("until", 0.0)) - time.time())
        raise ServiceError(
            f"another publish (process {held.get('process', 'unknown')}) is writing to the server",
            code="publish-running",
            remedy=f"Wait for it to end, then publish again; if it was killed, its lock ends in {left:.0f} s",
        )

    def renew(self, *, at_once: bool = False) -> None:
        """Put off the lock's end, where we hold one and the last renewal (or `at_once`, any) is some time ago.

        Raises:
            ServiceError: it is not ours any more.
        """
        if not self._token or (time.time() - self._renewed_at < RENEWAL_SECONDS and not at_once):
            return
        until = {"until": time.time() + LEASE_SECONDS}
        request(
            self._client.set_payload, self._state, until, points=_with_token(self._token), wait=True,
            ordering=_LEADER_FIRST,
        )
        if self.read(LOCK_ID).get("token") != self._token:
            raise ServiceError(
                "the lock was taken by another publish", code="lock-lost", remedy="Wait for it to end, then publish again"
            )
        self._renewed_at = time.time()

    def release(self) -> bool:
        """Give the lock back. False where the server does not take it back: it then ends by itself."""
        token, self._token = self._token, ""
        try:
            self._drop(token)
        except ServiceError:
            return False
        return True

    def read(self, point_id: str) -> dict[str, Any]:
        """Return the payload of a point of the collection; empty where there is none."""
        records = request(
            self._client.retrieve, self._state, [point_id], with_payload=True,
            consistency=models.ReadConsistencyType.MAJORITY,
        )
        return dict(records[0].payload or {}) if records else {}

    def _read_or_drop(self, token: str) -> dict[str, Any]:
        """Who holds the lock. Where that is not told, `token` is taken away: nobody would release it."""
        try:
            return self.read(LOCK_ID)
        except ServiceError:
            self._token = token
            self.release()
            raise

    def _insert(self, token: str) -> None:
        payload = {"kind": "lock", "token": token, "until": time.time() + LEASE_SECONDS,
                   "process": f"{os.getpid()} on {socket.gethostname()}", "pid": os.getpid(), "machine": this_machine()}
        point = models.PointStruct(id=LOCK_ID, vector={}, payload=payload)
        request(
            self._client.upsert, self._state, [point], wait=True, update_mode=models.UpdateMode.INSERT_ONLY,
            ordering=_LEADER_FIRST,
        )

    def _drop(self, token: str) -> None:
        """Remove the lock where it has this token: in one step, or, where the server refuses a filter, in two."""
        try:
            selected: Any = models.FilterSelector(filter=_with_token(token))
            request(self._client.delete, self._state, selected, wait=True, ordering=_LEADER_FIRST)
        except ServerRefused:
            if self.read(LOCK_ID).get("token") == token:
                selected = models.PointIdsList(points=[LOCK_ID])
                request(self._client.delete, self._state, selected, wait=True, ordering=_LEADER_FIRST)


def this_machine() -> str:
    """Return a name for this machine and its process namespace: process ids of two containers on one machine differ."""
    try:
        space = os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - it is no path
    except OSError:
        space = ""
    return f"{socket.gethostname()} {space}" if space else ""


def is_dead(held: Mapping[str, Any]) -> bool:
    """Whether the holder of a lock was a process of this machine, and is no more."""
    machine, pid = this_machine(), held.get("pid")
    if not machine or held.get("machine") != machine or not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False


def _with_token(token: str) -> models.Filter:
    return models.Filter(must=[models.FieldCondition(key=_TOKEN_FIELD, match=models.MatchValue(value=token))])
