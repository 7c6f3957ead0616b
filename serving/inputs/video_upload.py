"""Receives a video of a form straight into a file: in little memory, within its limit, whole or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.exceptions import HTTPException

from serving.http.bodies import NotUnderstood, WrongType
from serving.http.body_limit import BodyTooLarge
from vidseek_media.errors import InputRejected
from vidseek_media.files.folders import whole_file

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

PART = "file"
"""The part of the form."""
FORM_BYTES = 2**20
"""That a form may have beside the file."""
_WRITE_BYTES = 2**20
_MAX_NAME = 4096


async def receive_video(request: Request, path: Path, *, max_bytes: int, check_name: Callable[[str], None]) -> str:
    """Write the file of a form to `path`, and return the name that the client gave it.

    Args:
        request: A form with one part, `file`.
        path: Where it is written. If this raises, nothing is there.
        max_bytes: Of the file.
        check_name: Refuses a name before the file is read.

    Raises:
        WrongType: the body is no form.
        NotUnderstood: the form has other parts, or not one file.
        BodyTooLarge: the file has more bytes.
        InputRejected: `check_name` refuses its name.
        HTTPException: the form is broken, or ends early (400).
        OSError: the disk does not take it.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data" or b"boundary" not in options:
        raise WrongType(
            f"the body is {kind.decode('latin-1')[:64] or 'of no named type'}",
            remedy="Send multipart/form-data with the part `file`, or application/json with `url` or `path`",
        )
    if (encoding := request.headers.get("content-encoding", "identity").strip().lower()) not in ("", "identity"):
        raise WrongType(f"the body is encoded as {encoding[:32]!r}", remedy="Send it without Content-Encoding")
    part = _Part(max_bytes, check_name)
    try:
        parser = MultipartParser(options[b"boundary"], part.callbacks())
        with whole_file(path, sync=True) as beside, beside.open("wb") as file:
            async for chunk in request.stream():
                parser.write(chunk)
                if part.num_waiting >= _WRITE_BYTES:
                    await asyncio.to_thread(part.write_to, file)
            part.require_whole()
            await asyncio.to_thread(part.write_to, file)
    except FormParserError as error:
        raise HTTPException(400, f"the form is broken: {error}") from error
    return part.name


@dataclass
class _Part:
    """What the parser of the form says."""

    max_bytes: int
    check_name: Callable[[str], None]
    name: str = ""
    num_bytes: int = 0
    num_parts: int = 0
    is_whole: bool = False
    _headers: dict[str, str] = field(default_factory=dict)
    _field: bytearray = field(default_factory=bytearray)
    _value: bytearray = field(default_factory=bytearray)
    _waiting: list[bytes] = field(default_factory=list)
    num_waiting: int = 0

    def callbacks(self) -> MultipartCallbacks:
        """Return what the parser calls."""
        return {
            "on_part_begin": self._begin, "on_header_field": self._on_field, "on_header_value": self._on_value,
            "on_header_end": self._end_header, "on_headers_finished": self._begin_data, "on_part_data": self._on_data,
            "on_end": self._end,
        }

    def write_to(self, file: BinaryIO) -> None:
        """Write what has come. Raises OSError."""
        file.writelines(self._waiting)
        self._waiting, self.num_waiting = [], 0

    def require_whole(self) -> None:
        """Check that the form came to its end, and had a file.

        Raises:
            HTTPException: it ends early.
            NotUnderstood: it has no part.
            InputRejected: the file is empty.
        """
        if not self.is_whole:
            raise HTTPException(400, "the form ends before its last boundary")
        if not self.num_parts:
            raise NotUnderstood("the form has no file", remedy=f"Send the video as the part `{PART}`")
        if not self.num_bytes:
            raise InputRejected(f"{self.name} is empty", code="not-a-video", remedy="Send the whole file")

    def _begin(self) -> None:
        self.num_parts += 1
        self._headers = {}
        if self.num_parts > 1:
            raise NotUnderstood("the form has more than one part", remedy="Send each video by a request of its own")

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        self._headers[self._field.decode("latin-1").lower()] = self._value.decode("utf-8", "replace")
        self._field.clear()
        self._value.clear()

    def _begin_data(self) -> None:
        _, options = parse_options_header(self._headers.get("content-disposition", "").encode())
        if options.get(b"name") != PART.encode() or b"filename" not in options:
            raise NotUnderstood(
                f"the form has the part {options.get(b'name', b'').decode('utf-8', 'replace')[:64]!r}",
                remedy=f"Send the video as the part `{PART}`, with the name of the file",
            )
        self.name = options[b"filename"].decode("utf-8", "replace")[-_MAX_NAME:]
        self.check_name(self.name)

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        self.num_bytes += end - start
        if self.num_bytes > self.max_bytes:
            raise BodyTooLarge(
                f"the video has more than {self.max_bytes} bytes",
                remedy="Put it into the inbox or the source, or raise jobs.max_upload_mb",
            )
        self._waiting.append(data[start:end])
        self.num_waiting += end - start

    def _end(self) -> None:
        self.is_whole = True
