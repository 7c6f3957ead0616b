"""The registry of kinds of source: each kind is one file that registers name, settings and factory.

The kinds of vidseek are in `BUILT_IN`. Another package adds a kind by an entry point of the group `vidseek.sources` that
names a `SourceKind` class.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

from vidseek_media.errors import ConfigError, InputRejected
from vidseek_media.plugins import Registry
from vidseek_media.settings import IngestSettings, Section
from vidseek_media.sources.source import Source

ENTRY_POINTS = "vidseek.sources"
BUILT_IN = (
    "vidseek_media.sources.youtube.source", "vidseek_media.sources.remote", "vidseek_media.sources.manifest",
    "vidseek_media.sources.local",
)
"""Modules that register a kind. None of them imports its library before a source lists its videos."""


@dataclass(frozen=True)
class Place:
    """The source as the user wrote it."""

    text: str
    """As `ingest.source` has it; of `env:NAME`, what the variable has."""
    base: Path
    """What relative paths are relative to."""
    downloads: Path
    """Where files from elsewhere are kept."""

    @property
    def path(self) -> Path:
        """The path that the text names, if it is one; a `file://` URL is a path.

        Raises:
            InputRejected: it looks like a URL but is not a valid one.
        """
        return self.base / Path(self._plain).expanduser()

    @property
    def _plain(self) -> str:
        if not self.text.lower().startswith("file://"):
            return self.text
        try:
            return unquote(urlsplit(self.text).path)
        except ValueError as error:
            raise InputRejected(f"{self.text} is no URL: {error}", code="url-unreadable") from error


class SourceKind(abc.ABC):
    """A kind of source. Creating a source uses neither disk nor network.

    Attributes:
        name: Name in messages, and key of its settings in `ingest` of params.yaml (`ingest.sources` for other packages).
        settings: Record of its settings, or None. Every key has a default, and none may change the result of `path_of`,
            since
            the stages after `ingest` open a source without settings.
        rank: Kinds are asked in this order, then by name. By default those of other packages come first.
    """

    name: ClassVar[str]
    settings: ClassVar[type[Section] | None] = None
    rank: ClassVar[int] = 0

    @abc.abstractmethod
    def reads(self, place: Place) -> bool:
        """Whether `place` is of this kind. The disk may be used, the network not."""

    @abc.abstractmethod
    def open(self, place: Place, settings: Any) -> Source:
        """Open the source.

        Args:
            place: The source as the user wrote it, of this kind.
            settings: A record of the class `settings`; None if that is None.
        """

    def settings_in(self, ingest: IngestSettings) -> Section | None:
        """Return the settings of this kind from the section `ingest` of params.yaml.

        Raises:
            ConfigError: a key is unknown or out of range.
        """
        if self.settings is None:
            return None
        own = getattr(ingest, self.name, None)
        return own if isinstance(own, self.settings) else self.settings.of(ingest.sources.get(self.name, {}))


REGISTRY: Registry[SourceKind] = Registry(
    SourceKind, what="the source", group=ENTRY_POINTS, modules=lambda: BUILT_IN,  # type: ignore[type-abstract]
    broken=partial(ConfigError, code="plugin-broken"), twice=partial(ConfigError, code="plugin-broken"),
)
register = REGISTRY.register


def kinds() -> tuple[SourceKind, ...]:
    """Return all kinds in the order in which they are asked.

    Raises:
        ConfigError: an installed package registers an unusable kind.
    """
    return tuple(sorted(REGISTRY.load().values(), key=lambda kind: (kind.rank, kind.name)))
