"""Converts the options of `vidseek search`: files to pixels, filters, weights; calls a running API; starts a player."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vidseek_media.errors import ConfigError, InputRejected
from vidseek_media.secret import secret

if TYPE_CHECKING:
    from vidseek.client import Api
    from vidseek_retrieval.settings import Weights

URL_VARIABLE = "VIDSEEK_URL"
DECODE_SECONDS = 60.0
"""For a picture or a clip of a query."""
_FILTER = re.compile(r"(?P<field>\w+)\s*(?P<sign>>=|<=|=|>|<)\s*(?P<value>.+)", re.DOTALL)
_BOUNDS = {">=": "gte", "<=": "lte", ">": "gt", "<": "lt"}
_PLAYERS: Mapping[str, Sequence[str]] = {
    "mpv": ("--start={seconds}", "--", "{file}"),
    "vlc": ("--start-time={seconds}", "--", "{file}"),
    "ffplay": ("-ss", "{seconds}", "-i", "{file}"),
}
"""What is looked for, in this order, and how each begins at a second."""


def read_image(file: Path) -> NDArray[np.uint8]:
    """Decode a picture in a confined process: uint8 RGB of shape (height, width, 3), upright.

    Raises:
        InputRejected: the file is missing, or not a picture.
    """
    from vidseek_media.decoding.pictures import read_query_picture

    return _decoded(read_query_picture, file, "a picture")


def read_clip(file: Path, *, num_frames: int, side_px: int) -> NDArray[np.uint8]:
    """Decode frames of a video in a confined process: uint8 RGB of shape (num_frames, height, width, 3), upright.

    Args:
        file: The video file.
        num_frames: Number of frames, taken at the centres of equal bins.
        side_px: Shorter side of the frames in pixels.

    Raises:
        InputRejected: the file is missing, or not a video.
    """
    from vidseek_media.decoding.frames import decode_uniform

    return _decoded(partial(decode_uniform, num_frames=num_frames, side_px=side_px), file, "a video")


def _decoded(decode: Callable[[Path], NDArray[np.uint8]], file: Path, what: str) -> NDArray[np.uint8]:
    from vidseek_media.decoding.worker_batch import run_one
    from vidseek_media.decoding.workers import Limits

    path = file.absolute()
    if not path.is_file():
        raise InputRejected(f"{file} is not there, or no file", code="file-missing", remedy="Look at its name")
    try:
        return run_one(decode, path, limits=Limits(DECODE_SECONDS))
    except InputRejected as error:
        raise InputRejected(
            f"{file} cannot be read as {what}: {error.message}", code=error.code, remedy=error.remedy,
        ) from error


def filters_of(
    conditions: Sequence[str], *, channels: Sequence[str], categories: Sequence[str], after: str | None, before: str | None
) -> dict[str, Any]:
    """Return filters for `parse_filters` from the options of the command.

    Args:
        conditions: `field=value` (several values separated by commas; one with a comma in double quotes),
            `field>=value`, or with `<=`, `<`, `>`.
        channels: Channels of which one must match.
        categories: Categories of which one must match.
        after: Earliest time of publication.
        before: Time before which the video was published.

    Raises:
        InputRejected: a condition has another form, or a field is named twice.
    """
    filters: dict[str, Any] = {}
    named = [("channel", list(channels)), ("category", list(categories))]
    filters.update({name: values for name, values in named if values})
    times = {name: value for name, value in (("gte", after), ("lt", before)) if value}
    if times:
        filters["published_at"] = times
    for condition in conditions:
        match = _FILTER.fullmatch(condition.strip())
        if match is None:
            raise InputRejected(
                f"the filter is {condition!r}", code="bad-filter", remedy="Write field=value, field>=value or field<value"
            )
        field, sign, value = match["field"], match["sign"], match["value"]
        new: Any = [_number(each) for each in _parts(value)] if sign == "=" else {_BOUNDS[sign]: _number(value)}
        old = filters.get(field)
        if old is not None and not (isinstance(old, dict) and isinstance(new, dict)):
            raise InputRejected(
                f"the field {field} is filtered twice", code="bad-filter", remedy="Put its values behind one =, with commas",
            )
        filters[field] = {**old, **new} if isinstance(old, dict) else new
    return filters


def weights_of(text: str) -> Weights:
    """Parse weights such as `video=1,words=0.5`; vectors that are not named get 0.

    Raises:
        InputRejected: the text has another form.
    """
    from vidseek_retrieval.settings import Weights
    from vidseek_retrieval.vectors.registry import vector_names

    remedy = f"Write them as video=1,words=0.5; the vectors are {', '.join(vector_names())}"
    try:
        given = {name.strip(): float(value) for name, value in (part.split("=") for part in text.split(","))}
    except ValueError as error:
        raise InputRejected(
            f"the weights are {text!r}, wanted numbers by the names of vectors", code="bad-query-weights", remedy=remedy,
        ) from error
    if unknown := sorted(set(given) - set(vector_names())):
        raise InputRejected(f"the weights name {', '.join(unknown)}, no vector", code="bad-query-weights", remedy=remedy)
    try:
        return Weights(**{**dict.fromkeys(vector_names(), 0.0), **given})
    except ConfigError as error:
        raise InputRejected(
            f"the weights {text} cannot be: {error.message}", code="bad-query-weights", remedy=remedy,
        ) from error


def ask_api(url: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Send POST /v1/search to a running API, with the key in VIDSEEK_API_KEY if it is set.

    Args:
        url: Where it listens.
        body: JSON of the request; values of bytes are sent as files.

    Raises:
        ConfigError: the URL is none, or the API wants another key.
        InputRejected: the API refuses the query.
        ServiceError: it does not answer, or cannot.
    """
    files = [(name, value) for name, value in body.items() if isinstance(value, bytes)]
    asked = {name: value for name, value in body.items() if not isinstance(value, bytes)}
    return _answer_of(url, lambda api: api.search(asked, files=files))


def ask_api_to_export(url: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Send POST /v1/export to a running API. Errors are those of `ask_api`.

    Args:
        url: Where it listens.
        body: JSON of the request.
    """
    return _answer_of(url, lambda api: api.export(body))


def _answer_of(url: str, ask: Callable[[Api], dict[str, Any]]) -> dict[str, Any]:
    from vidseek.client import Api, Problem
    from vidseek.service import KEY_VARIABLE

    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"the URL of the API is {url!r}", code="bad-url", remedy="It begins with http:// or https://")
    try:
        return ask(Api(url.rstrip("/"), key=secret(KEY_VARIABLE)))
    except Problem as error:
        if error.status in (401, 403):
            raise ConfigError(
                f"{url} does not let us in ({error.status}): {error.message}", code="api-key-refused", remedy=error.remedy,
            ) from error
        if error.status is not None and error.status < 500:
            raise InputRejected(
                f"{url} refuses the query ({error.status}): {error.message}", code=error.fault or "api-refuses",
                remedy=error.remedy,
            ) from error
        raise


def play(file: Path, *, start_ms: int) -> None:
    """Start a video player at a time, and leave it open.

    Args:
        file: The video file.
        start_ms: Time in milliseconds.

    Raises:
        ConfigError: the file or a player is missing.
    """
    if not file.is_file():
        raise ConfigError(
            f"{file} is not there", code="video-not-there", remedy="See that ingest.source in params.yaml is reachable",
        )
    for name, arguments in _PLAYERS.items():
        player = shutil.which(name)
        if player:
            filled = [each.format(seconds=f"{start_ms / 1000:.3f}", file=file) for each in arguments]
            subprocess.Popen(
                [player, *filled], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            return
    raise ConfigError(
        f"no player is installed, looked for {', '.join(_PLAYERS)}", code="no-player", remedy="Install one of them",
    )


def _parts(value: str) -> list[str]:
    """Split values at commas; a value with a comma stands in double quotes."""
    return next(csv.reader([value], skipinitialspace=True), [])


def _number(value: str) -> str | int:
    """Return a whole number as one; 007 is a word."""
    text = value.strip()
    return int(text) if re.fullmatch(r"-?(?:0|[1-9]\d*)", text, re.ASCII) else text
