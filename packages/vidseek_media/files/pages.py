"""Writes HTML pages from Jinja2 templates, each in one file that loads nothing from elsewhere."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from vidseek_media.files.folders import write_text

if TYPE_CHECKING:
    from jinja2 import Environment


def write_page(path: Path, room: str, template: str, **content: object) -> None:
    """Write a page, whole or not at all. Every value is escaped.

    Args:
        path: Of the page.
        room: The package whose folder `templates` has the template.
        template: Its file name.
        content: What the template names.

    Raises:
        OSError: the disk does not take it.
        jinja2.UndefinedError: the template names what is not in `content`.
    """
    write_text(path, _templates(room).get_template(template).render(content))


@functools.cache
def _templates(room: str) -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined  # when a page is written: commands start without it

    return Environment(
        loader=PackageLoader(room), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )
