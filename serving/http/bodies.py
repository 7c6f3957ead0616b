"""Parses request bodies: JSON, or a form with files.

JSON is read in two steps: into plain objects with limits on numbers, depth and sizes, and then into a record whose lists
stop
at their first error. Bodies of more than a few KB are parsed in a thread.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.datastructures import UploadFile

from serving.http.body_limit import BodyTooLarge
from vidseek_media.errors import InputRejected

Body = TypeVar("Body", bound=BaseModel)

QUERY = "query"
"""The part with the JSON."""
MAX_FILES = 64
"""Parts with files in one form."""
MAX_DEPTH = 6
"""Objects and lists within each other."""
MAX_KEYS = 64
"""Of one object."""
MAX_VALUES = 25_000
"""In one JSON text, with those of inner lists and objects: 20,000 decisions fit."""
MAX_INTEGER = 2**63 - 1
INLINE_BYTES = 8 * 1024
"""JSON up to this size is read at once: a thread would take longer."""

_parsing = ThreadPoolExecutor(1, thread_name_prefix="parse")
"""One, since a parser keeps the interpreter's lock: several would only take it from the event loop in turns."""


class NotUnderstood(InputRejected):
    """The request is not of the shape that the OpenAPI document shows."""

    category = "invalid_request"
    code = "invalid-request"

    @classmethod
    def of(cls, error: ValidationError | RequestValidationError) -> NotUnderstood:
        """Return the first of the faults that were found."""
        if isinstance(error, ValidationError):
            first: Mapping[str, Any] = error.errors(include_url=False, include_context=False, include_input=False)[0]
        else:
            first = error.errors()[0]
        return cls.at(".".join(str(part)[:64] for part in first["loc"]), str(first["msg"]))

    @classmethod
    def at(cls, place: str, message: str) -> NotUnderstood:
        """Return a fault at a place of the JSON.

        Args:
            place: Dotted path; empty for the whole document.
            message: The fault.
        """
        return cls(f"{place}: {message}" if place else message, remedy="/openapi.json shows what is taken")


class WrongType(InputRejected):
    """The body is of none of the types that are taken."""

    category = "unsupported_media_type"
    code = "unsupported-media-type"


async def read_body(
    request: Request, kind: type[Body], *, files: Mapping[str, bool] | None = None, max_json_bytes: int = 2**20
) -> Body:
    """Read and validate the body of a request.

    Args:
        request: The request: JSON, or, if `files` are given, a form with these parts and the JSON in the part `query`.
        kind: The record to read it into.
        files: Fields of `kind` that may come as parts; True if the field is a list and the part may be repeated.
        max_json_bytes: Largest size of the part `query` in bytes. `BodyLimit` limits the whole body.

    Raises:
        NotUnderstood: the content is invalid.
        WrongType: the body has another content type.
        BodyTooLarge: the part `query` is larger.
    """
    content_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if (encoding := request.headers.get("content-encoding", "identity").strip().lower()) not in ("", "identity"):
        raise WrongType(f"the body is encoded as {encoding[:32]!r}", remedy="Send it without Content-Encoding")
    if content_type == "application/json":
        content = await request.body()
        return await _away(len(content), lambda: _parsed(kind, content))
    if content_type == "multipart/form-data" and files:
        return await _read_parts(request, kind, files, max_json_bytes)
    raise WrongType(
        f"the body is {content_type[:64] or 'of no named type'}",
        remedy=f"Send application/json{' or multipart/form-data' if files else ''}",
    )


async def _read_parts(request: Request, kind: type[Body], files: Mapping[str, bool], max_json_bytes: int) -> Body:
    most = MAX_FILES if any(files.values()) else len(files)
    async with request.form(max_files=most + 1, max_fields=len(files) + 1, max_part_size=max_json_bytes) as form:
        if unknown := sorted({name for name, _ in form.multi_items()} - {QUERY, *files}):
            raise NotUnderstood(
                f"there are parts {', '.join(unknown)[:200]}", remedy=f"Name them {', '.join((QUERY, *files))}"
            )
        query = await _bytes_of(form[QUERY]) if QUERY in form else b"{}"
        if len(query) > max_json_bytes:
            raise BodyTooLarge(f"the part {QUERY} has more than {max_json_bytes} bytes", remedy="Send files as parts")
        parts: dict[str, Any] = {}
        for name, is_list in files.items():
            contents = [await _bytes_of(part) for part in form.getlist(name)]
            if contents:
                parts[name] = contents if is_list else contents[-1]
    return await _away(len(query), lambda: _parsed(kind, query, parts))


async def _bytes_of(part: UploadFile | str) -> bytes:
    return part.encode() if isinstance(part, str) else await part.read()


async def _away(num_bytes: int, work: Callable[[], Body]) -> Body:
    if num_bytes <= INLINE_BYTES:
        return work()
    return await asyncio.get_running_loop().run_in_executor(_parsing, work)


def _parsed(kind: type[Body], content: bytes, parts: Mapping[str, Any] | None = None) -> Body:
    said = read_json(content)
    if not isinstance(said, dict):
        raise NotUnderstood.at("", f"the JSON is a {type(said).__name__}, wanted an object")
    # Fields that came as parts may be required: they are put beside what the JSON says before it is judged.
    if clash := sorted(said.keys() & (parts or {}).keys()):
        raise NotUnderstood(f"{clash[0]} is both in the query and a part", remedy="Send it once")
    try:
        return kind.model_validate({**said, **(parts or {})})
    except ValidationError as error:
        raise NotUnderstood.of(error) from error


def read_json(content: bytes) -> Any:
    """Return the JSON in `content` as plain objects, none of them larger than any request needs.

    Raises:
        NotUnderstood: it is no JSON, or is too deep, has too many values or keys, or a number that 64 bits do not hold.
    """
    # A list costs more to make than to count, and the garbage collector looks at each.
    if content.count(b"[") + content.count(b"{") > MAX_VALUES:
        raise NotUnderstood.at("", f"the JSON has more than {MAX_VALUES} brackets")
    try:
        said = from_json(content, allow_inf_nan=False, cache_strings=False)
    except ValueError as error:
        raise NotUnderstood.at("", f"Invalid JSON: {error}") from error
    waiting: list[tuple[str, Any, int]] = [("", said, 1)]
    num_values = 0
    while waiting:
        place, value, depth = waiting.pop()
        _check_value(place, value, depth)
        inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        num_values += len(value) if isinstance(value, dict | list) else 0
        if num_values > MAX_VALUES:
            raise NotUnderstood.at("", f"the JSON has more than {MAX_VALUES} values")
        waiting += [(f"{place}.{str(name)[:64]}".lstrip("."), each, depth + 1) for name, each in inner]
    return said


def _check_value(place: str, value: Any, depth: int) -> None:
    if isinstance(value, dict | list):
        if depth > MAX_DEPTH:
            raise NotUnderstood.at(place, f"objects and lists lie within each other more than {MAX_DEPTH} deep")
        if isinstance(value, dict) and len(value) > MAX_KEYS:
            raise NotUnderstood.at(place, f"the object has {len(value)} keys, at most {MAX_KEYS} are taken")
    elif isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            raise NotUnderstood.at(place, "the number does not fit in 64 bits")
    elif isinstance(value, float) and not math.isfinite(value):
        raise NotUnderstood.at(place, "the number is too large for a float")
