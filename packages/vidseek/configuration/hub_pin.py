"""Writes the backbone's name with its commit into params.yaml; nothing else of the file changes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidseek.configuration.yaml_file import parsed
from vidseek_media.files.folders import whole_file

_SECTION = re.compile(r"^backbone:[^\S\n]*(?:#[^\n]*)?\n", re.MULTILINE)
_NAME = re.compile(
    r"(?P<head>[^\S\n]+name:[^\S\n]+)(?:'[^'\n]*'|\"[^\"\n]*\"|[^\s#][^\n]*?)(?P<tail>[^\S\n]+#[^\n]*)?[^\S\n]*\n"
)


@dataclass(frozen=True)
class Pin:
    """What became of params.yaml."""

    is_named: bool
    """It names the backbone now."""
    was_there: bool
    """It did so before."""


def pin_backbone(params: Path, name: str, *, replace_other: bool) -> Pin:
    """Set `backbone.name` in `params` to `name`, where it names the same model, or where `replace_other`.

    Comments and all other lines stay as they are. A file whose section is written in another way is left alone.

    Args:
        params: params.yaml.
        name: `owner/name@commit`.
        replace_other: Whether the name of another backbone is replaced too.

    Raises:
        ConfigError: the file is no YAML.
        OSError: it cannot be read or written.
    """
    text = params.read_text(encoding="utf-8")
    _, before = parsed(text, params)
    now = _name_of(before)
    if now == name:
        return Pin(True, True)
    is_same_model = isinstance(now, str) and now.split("@")[0] == name.split("@")[0]
    changed = _changed(text, name)
    if not (is_same_model or replace_other) or changed is None or not isinstance(before, dict):
        return Pin(False, False)
    if parsed(changed, params)[1] != {**before, "backbone": {**before["backbone"], "name": name}}:
        return Pin(False, False)
    with whole_file(params) as beside:
        beside.write_text(changed, encoding="utf-8")
        beside.chmod(params.stat().st_mode & 0o777)
    return Pin(True, False)


def _changed(text: str, name: str) -> str | None:
    """Return the text with another name; None where the section is not of one key a line."""
    section = _SECTION.search(text)
    if section is None:
        return None
    at = section.end()
    while at < len(text):
        end = text.find("\n", at) + 1 or len(text)
        line = text[at:end]
        if line.strip() and not line.lstrip().startswith("#") and not line[0].isspace():
            return None
        if (found := _NAME.fullmatch(line if line.endswith("\n") else f"{line}\n")) is not None:
            return f"{text[:at]}{found['head']}{name}{found['tail'] or ''}\n{text[end:]}"
        at = end
    return None


def _name_of(content: Any) -> Any:
    section = content.get("backbone") if isinstance(content, dict) else None
    return section.get("name") if isinstance(section, dict) else None
