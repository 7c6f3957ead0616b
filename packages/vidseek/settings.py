"""Settings of the service and of jobs: the sections `serve` and `jobs` of params.yaml, which the command reads too."""

from __future__ import annotations

import ipaddress
from typing import Annotated

from pydantic import ConfigDict, Field, field_validator

from vidseek_media.settings import Section


class _Section(Section):
    model_config = ConfigDict(strict=True)

    unstated = ("*",)


class PoolSettings(_Section):
    """A pool of worker processes that decode, and the queue before it."""

    place = "serve.decode.*"

    workers: Annotated[int, Field(ge=1)] = 2
    """Inputs that are decoded at once."""
    slow_workers: Annotated[int, Field(ge=0)] = 2
    """Inputs that have computed for longer than `quick_seconds` give their worker's place to the next, and so many of them
    go on beside, at the lowest priority. One more is cut off (503)."""
    quick_seconds: Annotated[float, Field(gt=0)] = 0.5
    """Computing time."""
    cpu_seconds: Annotated[float, Field(gt=0)] = 5.0
    """Computing time of one input, in whole seconds; longer is 422."""
    memory_mb: Annotated[int, Field(ge=64)] = 1024
    """Of one worker."""
    max_waiting: Annotated[int, Field(ge=1)] = 64
    """Inputs that wait for a worker; one more is told to come back (503)."""
    max_share: Annotated[int, Field(ge=1)] = 16
    """Inputs of one client (its address) that wait or are decoded; one more is told to come back (503). A single request
    may have more, where its client has nothing else under way."""


class DecodeSettings(_Section):
    """Three pools, so that none of these waits for another."""

    place = "serve.decode"

    pictures: PoolSettings = PoolSettings()
    """Uploaded and fetched."""
    clips: PoolSettings = PoolSettings(
        slow_workers=1, quick_seconds=4.0, cpu_seconds=20.0, memory_mb=2048, max_waiting=16, max_share=4
    )
    """Uploaded."""
    archive: PoolSettings = PoolSettings(
        slow_workers=1, quick_seconds=4.0, cpu_seconds=20.0, memory_mb=4096, max_waiting=64, max_share=32
    )
    """Thumbnails, strips and stills of the archive's own videos."""
    picture_timeout_seconds: Annotated[float, Field(gt=0)] = 10.0
    """For one picture, whatever it computes (422). For clips and the archive it is `decode_timeout_seconds`."""
    max_output_mb: Annotated[int, Field(ge=1)] = 128
    """Pixels that one input may become."""


class ConnectionLimits(_Section):
    """What one connection, one client and all clients together may hold before and while a request is read."""

    place = "serve.connections"

    max_header_kb: Annotated[int, Field(ge=1, le=1024)] = 32
    """Of a request line and its headers together (431)."""
    header_seconds: Annotated[float, Field(gt=0)] = 10.0
    """From the first byte of a request, or from the start of a connection, to the end of the headers (408). Bytes that
    arrive in between do not extend it."""
    body_seconds: Annotated[float, Field(gt=0)] = 10.0
    """How long the service waits for the next bytes of a body, and for all of them together (408)."""
    min_body_kb_per_second: Annotated[int, Field(ge=1)] = 128
    """Each so many KB that have arrived allow one more second for the whole body."""
    idle_seconds: Annotated[float, Field(gt=0)] = 15.0
    """Between two requests of one connection; then it is closed."""
    send_seconds: Annotated[float, Field(gt=0)] = 60.0
    """How long a client may read nothing of an answer; then its connection is cut."""
    max_connections: Annotated[int, Field(ge=1)] = 512
    """Of all clients together."""
    max_per_client: Annotated[int, Field(ge=1)] = 256
    """Connections of one address. Of a trusted proxy: requests at once of one address that it forwards."""
    max_uploads_mb: Annotated[int, Field(ge=1)] = 256
    """Of the bodies of all requests that are being read or answered."""
    trusted_proxies: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Addresses or networks (`10.0.0.0/8`) of reverse proxies. Their connections have no limit per client, and their
    X-Forwarded-For is believed."""

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(ipaddress.ip_network(each)) for each in given)


class ServeSettings(_Section):
    """Where the service listens, what it takes, and how much of it at once."""

    place = "serve"

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    """IP address to listen at."""
    port: Annotated[int, Field(ge=1, le=65535)] = 3000
    """Port to listen at."""
    max_batch: Annotated[int, Field(ge=1)] = 32
    """Texts, or clips, that go through the encoder together."""
    max_queue: Annotated[int, Field(ge=1)] = 256
    """Queries that may wait for the encoder; one more is told to come back (503)."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 30.0
    """For a whole request (504)."""
    max_body_mb: Annotated[int, Field(ge=1)] = 64
    """Of a form with files."""
    max_json_mb: Annotated[int, Field(ge=1, le=16)] = 1
    """Of a JSON body, and of the part `query` of a form."""
    connections: ConnectionLimits = ConnectionLimits()
    """What connections and clients may hold."""
    max_text_length: Annotated[int, Field(ge=1)] = 2000
    """In characters."""
    max_image_megapixels: Annotated[int, Field(ge=1)] = 50
    """Of an uploaded picture."""
    max_clip_seconds: Annotated[float, Field(gt=0)] = 600.0
    """Of an uploaded clip."""
    max_embed: Annotated[int, Field(ge=1)] = 64
    """Texts, pictures or clips of one request for vectors."""
    decode_timeout_seconds: Annotated[float, Field(gt=0)] = 20.0
    """For an uploaded clip, or a thumbnail of the archive."""
    max_moments: Annotated[int, Field(ge=1)] = 200
    """Of one export for an editor."""
    max_moment_seconds: Annotated[float, Field(gt=0)] = 60.0
    """Of a moment that is given as a video file."""
    decode: DecodeSettings = DecodeSettings()
    """The pools of processes that decode."""
    url_hosts: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]+(:[0-9]{1,5})?$")], ...], Field(strict=False)
    ] = ()
    """Hosts that pictures of a query and videos to add may be fetched from, with `:port` where that is not the usual one.
    None by default."""
    url_timeout_seconds: Annotated[float, Field(gt=0)] = 10.0
    """For fetching one of them."""


class JobSettings(_Section):
    """How videos are added to the archive by `vidseek add`, `vidseek watch` and POST /v1/videos."""

    place = "jobs"

    inbox: Annotated[str, Field(min_length=1)] = "inbox"
    """Folder that `vidseek watch` empties: videos that are put here are moved into the source."""
    folder: Annotated[str, Field(pattern=r"^[^/.~\x00-\x1f][^~\x00-\x1f]*$|^$")] = ""
    """Of the source, into which added videos are put; empty: the source itself."""
    settle_seconds: Annotated[float, Field(ge=0, le=3600)] = 5.0
    """A file that has not changed for so long is complete, and is taken."""
    poll_seconds: Annotated[float, Field(gt=0, le=3600)] = 2.0
    """From one look at the inbox and the queue to the next."""
    source_seconds: Annotated[float, Field(gt=0)] = 60.0
    """From one look at the source to the next."""
    max_upload_mb: Annotated[int, Field(ge=1)] = 2048
    """Of a video that is uploaded or fetched (413)."""
    max_uploads: Annotated[int, Field(ge=1)] = 4
    """Uploads that the service receives at once; one more is told to come back (503)."""
    max_waiting: Annotated[int, Field(ge=1)] = 10_000
    """Jobs that may wait; one more is told to come back (503)."""
    max_batch: Annotated[int, Field(ge=1)] = 1000
    """Jobs that one run of the stages takes together."""
    fetch_seconds: Annotated[float, Field(gt=0)] = 3600.0
    """For fetching one video from its URL."""
    keep: Annotated[int, Field(ge=0)] = 1000
    """Jobs that have ended and are still listed."""


class SavedSettings(_Section):
    """Saved searches: what is new for them after a publish, and who is told."""

    place = "saved"

    min_confidence: Annotated[float, Field(ge=0, le=1)] = 0.5
    """From which a moment counts, where a saved search says nothing else."""
    max_searches: Annotated[int, Field(ge=1, le=10_000)] = 100
    """One more is refused."""
    max_moments: Annotated[int, Field(ge=1, le=1000)] = 20
    """New moments of a saved search that one publish sends to its webhook, the best ones; the others are in the feed."""
    keep: Annotated[int, Field(ge=1, le=10_000)] = 200
    """Moments of a saved search that are listed and in its feed."""
    webhook_hosts: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]+(:[0-9]{1,5})?$")], ...], Field(strict=False)
    ] = ()
    """Hosts that new moments may be sent to, with `:port` where that is not the usual one. None by default."""
    webhook_seconds: Annotated[float, Field(gt=0, le=120)] = 10.0
    """For sending one moment."""
    webhook_attempts: Annotated[int, Field(ge=1, le=50)] = 8
    """How often a moment is sent that its receiver refuses for now; the wait doubles from 10 s to an hour."""
