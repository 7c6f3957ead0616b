"""Chooses a backbone for a new archive from those that are on this machine, and says which one to fetch instead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vidseek.new_archive.machine import Machine
from vidseek_training.backbones.files.folder import resolve
from vidseek_training.hub import HubName, pinned
from vidseek_training.hub.cache import cached_commit, snapshot_folder
from vidseek_training.hub.files import missing_in

SHIPPED = "vidseek/viclip-tiny"
MULTILINGUAL = "google/siglip2-base-patch16-224"
ENGLISH = ("openai/clip-vit-base-patch32", "openai/clip-vit-base-patch16", "microsoft/xclip-base-patch32")
LARGE = ("openai/clip-vit-large-patch14-336", "openai/clip-vit-large-patch14")
LARGE_CORES, LARGE_MEMORY_GB = 16, 16.0
"""From which a machine without a GPU has a large backbone proposed."""
OTHER_LANGUAGES_SHARE = 0.2
"""Of captions, from which a backbone of many languages is proposed."""


@dataclass(frozen=True)
class BackboneChoice:
    """The backbone that is proposed."""

    name: str
    """For `backbone.name`."""
    reason: str
    fetch: str = ""
    """The hub's name of a better one that is not here; empty where there is none."""

    @property
    def is_shipped(self) -> bool:
        """Whether it knows the rendered world alone."""
        return self.name.startswith("vidseek/")


def choose_backbone(machine: Machine, languages: Mapping[str, float]) -> BackboneChoice:
    """Return the best backbone that is on this machine.

    Args:
        machine: The machine that encodes.
        languages: Of the captions, with their shares; empty where they are not known.
    """
    wanted = wanted_backbones(machine, languages)
    for name in wanted:
        if (here := fetched(name)) is not None:
            return BackboneChoice(here, f"fetched before; {_why(wanted, name, machine)}")
    return BackboneChoice(SHIPPED, "no model that has seen the world is on this machine", fetch=wanted[0])


def wanted_backbones(machine: Machine, languages: Mapping[str, float]) -> tuple[str, ...]:
    """Return names of the hub that fit machine and captions, the best first."""
    if languages and 1 - languages.get("en", 0.0) >= OTHER_LANGUAGES_SHARE:
        return (MULTILINGUAL,)
    is_strong = machine.has_gpu or (machine.cores >= LARGE_CORES and machine.memory_gb >= LARGE_MEMORY_GB)
    return (*LARGE, *ENGLISH, MULTILINGUAL) if is_strong else (*ENGLISH, MULTILINGUAL, *LARGE)


def named_backbone(text: str) -> BackboneChoice:
    """Return the backbone that a person names: a shipped one, a folder, or a model of the hub that was fetched.

    Raises:
        ConfigError: it is not here.
    """
    name = str(Path(text).expanduser().absolute()) if Path(text).expanduser().is_dir() else text
    if not Path(name).is_dir():
        name = pinned(name)
    resolve(name)
    return BackboneChoice(name, "as named")


def fetched(name: str) -> str | None:
    """Return a name of the hub with its commit, if the model is whole in the local cache."""
    parsed = HubName.parse(name)
    commit = cached_commit(parsed) if parsed is not None else None
    if parsed is None or commit is None or missing_in(snapshot_folder(parsed, commit)):
        return None
    return str(parsed.at(commit))


def _why(wanted: tuple[str, ...], name: str, machine: Machine) -> str:
    if name == MULTILINGUAL and wanted == (MULTILINGUAL,):
        return "captions are in several languages, or in another than English"
    where = "a GPU" if machine.has_gpu else f"{machine.cores} cores"
    return f"for {where}"


