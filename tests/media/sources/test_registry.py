"""A kind of source that another package brings: found by its entry point, opened with its settings, ingested."""

from __future__ import annotations

import os
import subprocess
import sys
from ast import literal_eval
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from tests.raising import raises
from vidseek_media.errors import ConfigError
from vidseek_media.sources import registry as source_registry
from vidseek_media.sources.registry import ENTRY_POINTS, Place, SourceKind, kinds, register

MakeVideo = Callable[..., Path]
ROOT = Path(__file__).parents[3]

PACKAGE = """
from typing import Annotated
from pydantic import Field
from vidseek_media.sources.source import Annotations, Listing
from vidseek_media.sources.local import path_inside
from vidseek_media.settings import Section
from vidseek_media.sources.registry import SourceKind, register


class ShelfSettings(Section):
    most: Annotated[int, Field(ge=1)] = 9


class Shelf:
    def __init__(self, folder, settings):
        self._folder, self._settings = folder, settings

    @property
    def name(self):
        return f"shelf:{self._folder}"

    def list_videos(self, *, forgotten=()):
        found = sorted(path for path in self._folder.iterdir() if path.suffix == ".mp4")[: self._settings.most]
        titles = {path.name: Annotations(title=path.stem) for path in found}
        return Listing({path.name: path for path in found}, annotations=titles)

    def path_of(self, uri):
        return path_inside(self._folder, uri)

    def address_of(self, uri):
        return ""

    def downloads_of(self, uri):
        return []


@register
class ShelfKind(SourceKind):
    name = "shelf"
    settings = ShelfSettings

    def reads(self, place):
        return place.text.startswith("shelf:")

    def open(self, place, settings):
        return Shelf(place.base / place.text.removeprefix("shelf:"), settings)
"""

SCRIPT = """
import sys
from pathlib import Path
from vidseek_media.sources.ingest import ingest, read_videos
from vidseek_media.settings import IngestSettings
from vidseek_media.sources.opening import open_source

root = Path(sys.argv[1])
settings = IngestSettings.of({"source": "shelf:videos", "sources": {"shelf": {"most": int(sys.argv[2])}}})
source = open_source(settings.source, base=root, downloads=root / "downloads", settings=settings)
ingest(source, out=root / "ingest", ledger=root / "ledger", timeout_seconds=60, workers=1)
print(source.name.partition(":")[0], [video.title for video in read_videos(root / "ingest")])
"""


@pytest.mark.slow
def test_kinds__one_that_another_package_brings_is_ingested(tmp_path: Path, make_video: MakeVideo) -> None:
    for number, name in enumerate("abc"):
        make_video(tmp_path / "videos" / f"{name}.mp4", num_frames=3 + number)
    install(tmp_path / "site", "shelf", PACKAGE)
    said = run(tmp_path, "2")
    assert said.stdout.split(" ", 1)[0] == "shelf", said.stderr
    assert sorted(literal_eval(said.stdout.split(" ", 1)[1])) == ["a", "b"]
    refused = run(tmp_path, "0")
    assert refused.returncode != 0 and "most" in refused.stderr


def install(site: Path, name: str, source: str) -> None:
    """As pip leaves a package: its module, and a folder that says which entry points it has."""
    annotations = site / f"{name}-1.0.dist-info"
    annotations.mkdir(parents=True)
    (site / f"{name}.py").write_text(source)
    (annotations / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (annotations / "entry_points.txt").write_text(f"[{ENTRY_POINTS}]\n{name} = {name}:{name.capitalize()}Kind\n")


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(folder / "site"), str(ROOT / "packages")])
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder), *arguments], env={**os.environ, "PYTHONPATH": path},
        capture_output=True, text=True, check=False,
    )


def test_kinds__come_in_order_and_each_has_a_line_in_the_documentation() -> None:
    names = [kind.name for kind in kinds()]
    assert names == ["youtube", "remote", "manifest", "local"]
    written = (ROOT / "docs" / "own-videos.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in written for name in names)


def test_register__refuses_two_of_one_name() -> None:
    class Other(SourceKind):
        name = "local"

        def reads(self, place: Place) -> bool:
            return True

        def open(self, place: Place, settings: None) -> None:  # type: ignore[override]
            raise NotImplementedError

    kinds()
    with raises(ConfigError, code="plugin-broken"):
        register(Other)


@pytest.mark.parametrize("value", ["no_such_module:Kind", "pathlib:Path", "pathlib:no_such_name"])
def test_load_point__that_is_no_kind_names_itself(value: str) -> None:
    with raises(ConfigError, code="plugin-broken", naming=value):
        source_registry.REGISTRY.load_point(EntryPoint("bad", value, ENTRY_POINTS))
