"""What the command and the service read from params.yaml: its sections `search` and `serve`."""

from __future__ import annotations

import ipaddress
import logging
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from vidseek_media.errors import ConfigError

PARAMS_FILE = "params.yaml"
log = logging.getLogger("vidseek.settings")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


Model = TypeVar("Model", bound=BaseModel)


class VectorWeights(_Section):
    """How much each vector of a clip counts, where a query does not say: one alone ranks by cosine, several by rank."""

    video: Annotated[float, Field(ge=0)] = 1.0
    caption: Annotated[float, Field(ge=0)] = 0.0
    words: Annotated[float, Field(ge=0)] = 0.0


class SearchSettings(_Section):
    """How a query is encoded and how its hits are merged."""

    provider: Literal["cpu", "cuda", "tensorrt"] = "cpu"
    variant: Literal["fp32", "fp16", "int8"] = "fp32"
    threads: Annotated[int, Field(ge=1)] | None = None
    """Of the encoder; by default as many as the process may use."""
    merge_margin_sd: Annotated[float, Field(ge=0)] = 0.12
    """How far below the best a neighbouring clip may score and still widen a moment, in standard deviations of the
    collection's scores."""
    merge_margin: Annotated[float, Field(ge=0)] | None = None
    """The same as a cosine: the key of earlier versions. It is read in this version and wins where it is given."""
    negative_weight: Annotated[float, Field(ge=0)] = 0.5
    """How much of "less of that" is taken from what is wanted."""
    weights: VectorWeights = VectorWeights()

    @model_validator(mode="after")
    def _names_the_new_key(self) -> SearchSettings:
        if self.merge_margin is not None:
            _warn_of_merge_margin(self.merge_margin)
        return self

    def margin(self, score_spread: float) -> float:
        """How far below the best a neighbouring clip may score, as a difference of scores of that standard deviation."""
        return self.merge_margin if self.merge_margin is not None else round(self.merge_margin_sd * score_spread, 6)


@lru_cache
def _warn_of_merge_margin(value: float) -> None:
    log.warning(
        "search.merge_margin: %s is a cosine, and the next version does not read it. Write search.merge_margin_sd, in "
        "standard deviations of the scores, in its place: 0.12 is what 0.02 was on the demo.", value,
    )


class PoolSettings(_Section):
    """A pool of worker processes that decode, and the queue before it."""

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

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 3000
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
    max_text_length: Annotated[int, Field(ge=1)] = 2000
    """In characters."""
    max_image_megapixels: Annotated[int, Field(ge=1)] = 50
    max_clip_seconds: Annotated[float, Field(gt=0)] = 600.0
    """Of an uploaded clip."""
    max_embed: Annotated[int, Field(ge=1)] = 64
    """Texts, pictures or clips of one request for vectors."""
    decode_timeout_seconds: Annotated[float, Field(gt=0)] = 20.0
    """For an uploaded clip, or a thumbnail of the archive."""
    decode: DecodeSettings = DecodeSettings()
    url_hosts: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]+(:[0-9]{1,5})?$")], ...], Field(strict=False)
    ] = ()
    """Hosts that pictures of a query may be fetched from, with `:port` where that is not the usual one. None by default."""
    url_timeout_seconds: Annotated[float, Field(gt=0)] = 10.0
    """For fetching one of them."""


class DriftGate(_Section):
    """What `vidseek drift` lets through."""

    max_psi: Annotated[float, Field(gt=0)] = 0.25
    """Of scores, confidences, queries and clips against those at publish; by the field's convention 0.25 is another kind."""


class Settings(BaseModel):
    """Both sections; what is not in the file has the default here."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    search: SearchSettings = SearchSettings()
    serve: ServeSettings = ServeSettings()


def load_settings(params: Path) -> Settings:
    """Read `params`; a missing file gives the defaults, so that a bundle and an index are enough to search.

    Raises:
        ConfigError: it is not YAML, or a key of its two sections is unknown or out of range.
    """
    content = read_params(params)
    sections = {name: content[name] for name in ("search", "serve") if content.get(name) is not None}
    return _checked(Settings, sections, params)


def load_drift_gate(params: Path) -> DriftGate:
    """`gates.drift` in `params`, or the defaults.

    Raises:
        ConfigError: it is wrong.
    """
    gates = read_params(params).get("gates")
    section = gates.get("drift") if isinstance(gates, dict) else None
    return _checked(DriftGate, section or {}, params, "gates", "drift")


def read_params(params: Path) -> dict[str, Any]:
    """The mapping in the file, or an empty one where there is no file.

    Raises:
        ConfigError: it is not a YAML mapping in UTF-8.
    """
    try:
        content = yaml.safe_load(params.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        said = " ".join(str(error).split())  # YAML's errors have several lines
        raise ConfigError(
            f"{params} cannot be read as YAML: {said}", code="params-unreadable", remedy="Mend the file",
        ) from error
    if not isinstance(content, dict):
        raise ConfigError(
            f"{params} holds {type(content).__name__}, wanted a mapping", code="params-unreadable", remedy="Mend the file",
        )
    return content


def _checked(kind: type[Model], content: Any, params: Path, *place: str) -> Model:
    """What lies at `place` in the file, as a model."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, (*place, *first["loc"])))
        raise ConfigError(
            f"{params}: {where}: {first['msg']}, got {first['input']!r}", code="invalid-settings", remedy="Mend the file",
        ) from error
