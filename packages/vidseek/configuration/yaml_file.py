"""Reads params.yaml once: its content, the line of each key, and one error for all faults."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import ValidationError

from vidseek_media.errors import ConfigError
from vidseek_media.settings import Fault, Section, SettingsRefused, faults_of

PARAMS_FILE = "params.yaml"
Model = TypeVar("Model", bound=Section)


@dataclass(frozen=True)
class ParamsFile:
    """The content of a params.yaml."""

    path: Path
    content: Mapping[str, Any]
    lines: Mapping[str, int] = field(default_factory=dict)
    """Where each key stands, by its dotted name; the first line is 1."""

    @classmethod
    def read(cls, path: Path) -> ParamsFile:
        """Read `path`; a missing file is empty.

        Raises:
            ConfigError: it is not a YAML mapping in UTF-8, or repeats a key in a mapping.
        """
        try:
            lines, content = parsed(path.read_text(encoding="utf-8"), path)
        except FileNotFoundError:
            return cls(path, {})
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} cannot be read: {error}", code="params-unreadable", remedy="Mend the file") from error
        if not isinstance(content, dict):
            raise ConfigError(
                f"{path} holds {type(content).__name__}, wanted a mapping", code="params-unreadable", remedy="Mend the file",
            )
        return cls(path, content, lines)

    def section(self, kind: type[Model], *, others: Iterable[Fault] = ()) -> Model:
        """Return the section at `kind.place` as a record; a missing one gives the defaults.

        Args:
            kind: The record of the section.
            others: Faults that were found already; they are reported too.

        Raises:
            ConfigError: a key is unknown or out of range; every fault is named.
        """
        return self.checked(kind, self._at(kind.place), place=kind.place, others=others)

    def checked(self, kind: type[Model], content: Any, *, place: str = "", others: Iterable[Fault] = ()) -> Model:
        """Validate part of the file as a record.

        Args:
            kind: The record.
            content: A mapping of its keys.
            place: Dotted name of the section; empty for the whole file.
            others: Faults that were found already; they are reported too.

        Raises:
            ConfigError: there is a fault; every one is named with its line.
        """
        faults = list(others)
        try:
            record = kind.model_validate(content)
        except ValidationError as error:
            found = faults_of(error, place)
            faults += [fault for fault in found if not any(_within(fault.key, known.key) for known in others)]
        if faults:
            known = [key for key, *_ in keys_of(kind, f"{place}." if place else "")]
            raise SettingsRefused(
                f"{self.path}: {'; '.join(self._told(fault, known) for fault in faults)}",
                remedy="Mend the keys named", faults=tuple(faults),
            )
        return record

    def _at(self, place: str) -> Any:
        content: Any = self.content
        for name in place.split("."):
            content = content.get(name) if isinstance(content, dict) else content
            if content is None:
                return {}
        return content

    def _told(self, fault: Fault, known: Sequence[str]) -> str:
        line = self.lines.get(fault.key)
        hint = _nearest(fault.key, known) if fault.kind == "unknown" else ""
        return f"{fault.text}{hint}{f' (line {line})' if line else ''}"


def parsed(text: str, path: Path) -> tuple[dict[str, int], Any]:
    """Parse the `text` of the YAML file `path`: the line of each key, and the content.

    Raises:
        ConfigError: it is not YAML, or repeats a key in a mapping.
    """
    try:
        return lines_of(text), yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        said = " ".join(str(error).split())  # YAML's errors have several lines
        raise ConfigError(
            f"{path} cannot be read as YAML: {said}", code="params-unreadable", remedy="Mend the file",
        ) from error


def lines_of(text: str) -> dict[str, int]:
    """Return the line of every key of a YAML document, from 1, by dotted name.

    Raises:
        yaml.YAMLError: it is not YAML, or a mapping repeats a key.
    """
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    return dict(_lines(node, seen=set())) if node is not None else {}


def keys_of(kind: type[Section], place: str = "") -> Iterator[tuple[str, type[Section], str]]:
    """Yield every key below `kind`, sections too: its dotted name (`*` where the name is free), its record, and its name
    there.
    """
    for name, info in kind.model_fields.items():
        key = f"{place}{name}"
        yield key, kind, name
        for record in records_in(info.annotation):
            yield from keys_of(record, f"{key}.*." if get_origin(info.annotation) is dict else f"{key}.")


def records_in(annotation: Any) -> list[type[Section]]:
    """Return the records that a type names: `ShotSettings`, `ShotSettings | None`, `dict[str, TrainSettings]`."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [record for each in get_args(annotation) for record in records_in(each)]


def _nearest(key: str, known: Iterable[str]) -> str:
    """Return the key that was probably meant: the most similar one of the same section, else one of the same name
    elsewhere.
    """
    *section, name = key.split(".")
    names = {each.rpartition(".")[2]: each for each in known if fnmatchcase(".".join(section), each.rpartition(".")[0])}
    if near := get_close_matches(name, names, n=1):
        return f"; the nearest is {'.'.join([*section, *near])}"
    elsewhere = [each for each in known if each.rpartition(".")[2] == name]
    return f"; there is {' and '.join(elsewhere)}" if elsewhere else ""


def _within(key: str, other: str) -> bool:
    return key == other or key.startswith(f"{other}.")


def _lines(node: yaml.Node, place: str = "", *, seen: set[int]) -> Iterator[tuple[str, int]]:
    """Yield the line of every key below `node`; what an anchor names is looked at once.

    Raises:
        yaml.YAMLError: a mapping has a key twice. A key that overrides a merged one (`<<`) is no such case.
    """
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _lines(item, f"{place}{index}.", seen=seen)
    elif isinstance(node, yaml.MappingNode):
        lines: dict[tuple[str, str], int] = {}
        for key, value in node.value:
            name, line = key.value if isinstance(key, yaml.ScalarNode) else "?", key.start_mark.line + 1
            if (key.tag, name) in lines:
                raise yaml.YAMLError(f"{place}{name} stands twice, in line {lines[key.tag, name]} and in line {line}")
            lines[key.tag, name] = line
            yield f"{place}{name}", line
            yield from _lines(value, f"{place}{name}.", seen=seen)
