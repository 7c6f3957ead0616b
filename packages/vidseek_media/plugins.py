"""Classes that register themselves under a name: those of vidseek, and those that other packages bring by entry points."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import ClassVar, Generic, Protocol, TypeVar

from vidseek_media.errors import ConfigError


class Named(Protocol):
    """What can be registered."""

    name: ClassVar[str]


Kind = TypeVar("Kind", bound=Named)


def modules_in(package: str) -> list[str]:
    """Return the full names of the modules and sub-packages directly in `package`, which is imported."""
    found = importlib.import_module(package)
    return [f"{package}.{module.name}" for module in pkgutil.iter_modules(found.__path__)]


class Registry(Generic[Kind]):
    """One instance of each class that was registered.

    Args:
        kind: Class from which all that register are derived.
        what: What errors call one of them, e.g. `the source`.
        group: Group of entry points in which other packages name their classes.
        modules: Returns the names of vidseek's modules that register one. They are imported when `load` is first called.
        broken: Makes the error of an entry point that cannot be used; takes a message and a `remedy`.
        twice: Makes the error of two classes with one name; the same arguments.

    Attributes:
        registered: The instances by name.
        loaded: Whether `load` was called with success.
    """

    def __init__(
        self, kind: type[Kind], *, what: str, group: str, modules: Callable[[], Iterable[str]],
        broken: Callable[..., ConfigError], twice: Callable[..., ConfigError],
    ) -> None:
        self.registered: dict[str, Kind] = {}
        self.loaded = False
        self._kind, self._what, self._group, self._modules = kind, what, group, modules
        self._broken, self._twice = broken, twice

    def register(self, kind: type[Kind]) -> type[Kind]:
        """Make a class known; its decorator.

        Raises:
            ConfigError: another class is registered under this name.
        """
        known = self.registered.get(kind.name)
        if known is not None and _origin(type(known)) != _origin(kind):
            raise self._twice(
                f"{self._what} {kind.name!r} comes from {_origin(kind)} and from {_origin(type(known))}",
                remedy="Give one of them another name, or uninstall its package",
            )
        self.registered[kind.name] = kind()
        return kind

    def load(self) -> dict[str, Kind]:
        """Import vidseek's modules and what other packages bring, once; return the instances by name.

        Raises:
            ConfigError: an installed package brings what cannot be used.
        """
        if not self.loaded:
            for module in self._modules():
                importlib.import_module(module)
            for point in entry_points(group=self._group):
                self.load_point(point)
            self.loaded = True
        return self.registered

    def load_point(self, point: EntryPoint) -> None:
        """Register the class that an entry point names.

        Raises:
            ConfigError: it cannot be loaded, is no class of this kind, or has the name of another one.
        """
        where = f"the entry point {point.name!r} of {self._group} ({point.value})"
        remedy = "Fix or uninstall the package that brings it"
        try:
            found = point.load()
        except Exception as error:  # another package's code may raise anything
            raise self._broken(f"{where} cannot be loaded: {error!r}", remedy=remedy) from error
        if not (isinstance(found, type) and issubclass(found, self._kind)):
            raise self._broken(f"{where} is {found!r}, wanted a class derived from {self._kind.__name__}", remedy=remedy)
        self.register(found)


def _origin(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
