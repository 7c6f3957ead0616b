"""From the bytes of a request to what it asks for: JSON, or parts of a form with files as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile

from vidseek_media.errors import InputRejected

Asked = TypeVar("Asked", bound=BaseModel)

QUERY = "query"
"""The part with the JSON."""


class NotUnderstood(InputRejected):
    """The request is not of the shape that the OpenAPI document shows."""

    code = "invalid_request"

    @classmethod
    def of(cls, error: ValidationError | RequestValidationError) -> NotUnderstood:
        """The first of the faults that were found."""
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        message = f"{place}: {first['msg']}" if place else str(first["msg"])
        return cls(message, remedy="/openapi.json shows what is taken")


class WrongType(InputRejected):
    """The body is of none of the types that are taken."""

    code = "unsupported_media_type"


async def read_body(request: Request, kind: type[Asked], *, files: Mapping[str, bool] | None = None) -> Asked:
    """What `request` asks for.

    Args:
        request: With JSON, or, where there are `files`, a form of these parts and the JSON in the part `query`.
        kind: What it should be.
        files: The fields of `kind` that may come as parts; True where the field is a list and the part may be repeated.

    Raises:
        NotUnderstood: it is something else.
        WrongType: the body is of another type.
    """
    content_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if content_type == "application/json":
        return _parsed(kind, await request.body())
    if content_type == "multipart/form-data" and files:
        return await _read_parts(request, kind, files)
    raise WrongType(
        f"the body is {content_type or 'of no named type'}",
        remedy=f"Send application/json{' or multipart/form-data' if files else ''}",
    )


async def _read_parts(request: Request, kind: type[Asked], files: Mapping[str, bool]) -> Asked:
    most = 1000 if any(files.values()) else len(files)
    async with request.form(max_files=most, max_fields=len(files) + 1) as form:
        if unknown := sorted({name for name, _ in form.multi_items()} - {QUERY, *files}):
            raise NotUnderstood(
                f"there are parts {', '.join(unknown)}", remedy=f"Name them {', '.join((QUERY, *files))}"
            )
        query = await _bytes_of(form[QUERY]) if QUERY in form else b"{}"
        parts: dict[str, Any] = {}
        for name, is_list in files.items():
            contents = [await _bytes_of(part) for part in form.getlist(name)]
            if contents:
                parts[name] = contents if is_list else contents[-1]
    return _parsed(kind, query, parts)


async def _bytes_of(part: UploadFile | str) -> bytes:
    return part.encode() if isinstance(part, str) else await part.read()


def _parsed(kind: type[Asked], content: bytes, parts: Mapping[str, Any] | None = None) -> Asked:
    try:
        if not parts:
            return kind.model_validate_json(content)
        # Fields that came as parts may be required: they are put beside what the JSON says before it is judged.
        said = _Said.model_validate_json(content).model_dump()
        if clash := sorted(said.keys() & parts.keys()):
            raise NotUnderstood(f"{clash[0]} is both in the query and a part", remedy="Send it once")
        return kind.model_validate({**said, **parts})
    except ValidationError as error:
        raise NotUnderstood.of(error) from error


class _Said(BaseModel, extra="allow"):
    """Any JSON object."""
