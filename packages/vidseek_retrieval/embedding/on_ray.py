"""Embeds on many machines with Ray: each actor holds a session and writes whole parts, as a single machine would.

Frame shards, bundle and parts lie in a folder that all machines mount under the same path. The actor that embeds a part
writes it whole or not at all, so resuming and checking work as in `embed_clips`.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from vidseek_encoder.encoder import Encoder
from vidseek_media.errors import ArtifactError, ConfigError, ServiceError, foreign
from vidseek_media.frame_store.stored_clips import StoredClip
from vidseek_media.installing import install_command
from vidseek_retrieval.embedding.embed_clips import Executor, embed_pieces
from vidseek_retrieval.embedding.embedding_parts import is_whole
from vidseek_retrieval.settings import RaySettings

ADDRESS_VARIABLE = "RAY_ADDRESS"
"""Names the cluster; without it Ray is started on this machine alone, and ended with the stage."""
RETRIES = 3
"""Times that an actor, and a part, is begun again where its process or machine dies."""
CONNECT_SECONDS = 10.0
VISIBLE_SECONDS = 60.0
"""A shared file system may show a new file late."""

_SHARE_REMEDY = "Share the archive's folder with every machine of the cluster, under the same path (docs/operations.md)"


def executor_on_ray(bundle: Path, *, variant: str, settings: RaySettings) -> Executor:
    """Return an executor for `embed_archive` that runs on a Ray cluster.

    Args:
        bundle: The encoder's folder; each actor opens its vision tower.
        variant: Precision: `fp32`, `fp16` or `int8`.
        settings: Number and resources of the actors.

    Raises:
        ConfigError: Ray is not installed. While it runs: the cluster lacks resources for the actors.
        ArtifactError: while it runs, as `embed_archive` raises it, or a folder is not shared.
        ServiceError: while it runs, the cluster does not answer, or actors die repeatedly.
    """
    if find_spec("ray") is None:
        raise ConfigError(
            "embed.executor is ray, and ray is not installed", code="not-installed",
            remedy=f"Run `{install_command('ray')}`, or set embed.executor to local",
        )
    return partial(_embed_on_ray, bundle=bundle.absolute(), variant=variant, settings=settings)


class Embedder:
    """The actor that embeds clips."""

    def __init__(self, bundle: Path, variant: str, settings: RaySettings) -> None:
        self._bundle = bundle
        self._variant = variant
        self._settings = settings

    def embed(self, part: Path, frames: Path, clips: Sequence[StoredClip], batch: int) -> Path:
        """Write one part, and return its path.

        Args:
            part: The part to write.
            frames: Output of the stage `frames`.
            clips: The clips to embed.
            batch: Most clips in one run of the encoder on a GPU, at least 1.
        """
        for path in (self._bundle, *(frames / clip.shard for clip in clips[:1])):
            if not path.exists():
                raise ArtifactError(f"{path} is not on {socket.gethostname()}", code="not-shared-disk", remedy=_SHARE_REMEDY)
        embed_pieces(frames, {part: clips}, self._encoder, batch=batch)
        return part

    @cached_property
    def _encoder(self) -> Encoder:
        # Not when the actor is made: Ray would tell an error there as an actor that died.
        return Encoder.load(
            self._bundle, provider="cuda" if self._settings.gpus_per_actor else "cpu", variant=self._variant,
            threads=1, lanes=self._settings.cpus_per_actor, towers=("video",),
        )


def _embed_on_ray(
    frames: Path, pieces: Mapping[Path, Sequence[StoredClip]], *, batch: int, progress: Callable[[int], object],
    bundle: Path, variant: str, settings: RaySettings,
) -> None:
    import ray
    from ray.util import ActorPool

    with _connected() as nodes, _our_errors():
        _require_room(nodes, settings)
        maker = ray.remote(Embedder).options(
            num_cpus=settings.cpus_per_actor, num_gpus=settings.gpus_per_actor, max_restarts=RETRIES,
            max_task_retries=RETRIES,
        )
        actors = [maker.remote(bundle, variant, settings) for _ in range(min(settings.actors, len(pieces)))]
        works = [(part.absolute(), frames.absolute(), list(clips)) for part, clips in pieces.items()]
        try:
            for part in ActorPool(actors).map_unordered(lambda actor, work: actor.embed.remote(*work, batch), works):
                _require_here(part)
                progress(pq.read_metadata(part).num_rows)
        finally:
            for actor in actors:  # a cluster lives on, and so would they
                ray.kill(actor)


@contextmanager
def _connected() -> Iterator[list[Mapping[str, Any]]]:
    """Connect to the Ray cluster and yield its machines; an existing connection stays open."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    if ray.is_initialized():
        yield ray.nodes()
        return
    address = os.environ.get(ADDRESS_VARIABLE, "")
    fault = f"Ray does not answer at {address or 'this machine'} ({ADDRESS_VARIABLE})"
    remedy = "Start the cluster, or set embed.executor to local"
    with foreign(ServiceError, fault, code="ray-no-answer", remedy=remedy, errors=(OSError, RuntimeError, ValueError)):
        _knock(address)
        ray.init(
            address=address or "local", log_to_driver=False, logging_level="ERROR",
            **({} if address else {"include_dashboard": False}),
        )
    try:
        yield ray.nodes()
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Ray itself tries for more than two minutes where nobody listens."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()


def _require_room(nodes: list[Mapping[str, Any]], settings: RaySettings) -> None:
    """Ray would wait for ever for what no machine has."""
    have = [(each["Resources"].get("CPU", 0), each["Resources"].get("GPU", 0)) for each in nodes if each["Alive"]]
    fitting = sum(
        int(min(cpus // settings.cpus_per_actor, gpus // settings.gpus_per_actor if settings.gpus_per_actor else cpus))
        for cpus, gpus in have
    )
    if fitting < settings.actors:
        machines = ", ".join(f"{cpus:g} CPUs and {gpus:g} GPUs" for cpus, gpus in have)
        raise ConfigError(
            f"embed.ray asks for {settings.actors} actors of {settings.cpus_per_actor} CPUs and "
            f"{settings.gpus_per_actor} GPUs; {fitting} fit on the machines, which have {machines}", code="ray-too-small",
            remedy="Ask for fewer, or add machines to the cluster",
        )


@contextmanager
def _our_errors() -> Iterator[None]:
    """Re-raise errors of an actor as they were, and errors of Ray itself as ServiceError."""
    import ray

    try:
        yield
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:
        raise ServiceError(
            f"Ray failed: {error}",
            code="ray-failed", remedy="See that the machines have memory for a session each; whole parts are kept"
        ) from error


def _require_here(part: Path) -> None:
    """Whether a part that an actor wrote lies on this machine too."""
    until = time.monotonic() + VISIBLE_SECONDS
    while not is_whole(part):
        if time.monotonic() > until:
            raise ArtifactError(
                f"{part} was written by an actor, and is not on this machine", code="not-shared-disk", remedy=_SHARE_REMEDY,
            )
        time.sleep(0.5)
