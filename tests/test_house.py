"""The walls of the house: which room may import which, and where a heavy library lives, read off the syntax trees."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.syntax import nodes_of

pytestmark = pytest.mark.usefixtures("syntax_trees")
ROOT = Path(__file__).parents[1]
PACKAGES = ROOT / "packages"

MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "vidseek_media": (),
    "vidseek_quality": ("vidseek_media",),
    "vidseek_encoder": ("vidseek_media.errors", "vidseek_media.files.folders", "vidseek_media.records", "vidseek_media.ids",
                        "vidseek_media.names", "vidseek_media.files.json_files"),
    "vidseek_training": ("vidseek_media", "vidseek_quality", "vidseek_encoder"),
    "vidseek_retrieval": ("vidseek_media", "vidseek_quality", "vidseek_encoder"),
    "vidseek_demo": ("vidseek_media", "vidseek_quality", "vidseek_encoder", "vidseek_training", "vidseek_retrieval"),
}
"""The rooms, as ARCHITECTURE.md has them. What is not in it (vidseek, pipelines, serving) may import all and is imported by
none of these; `vidseek` alone imports the demo."""

PRIVATE_TO_THE_TOP = ("vidseek", "vidseek_demo", "pipelines", "serving")

HOMES: dict[str, tuple[str, ...]] = {
    "torch": ("packages/vidseek_training/*", "packages/vidseek_demo/train*"),
    "transformers": ("packages/vidseek_training/*", "packages/vidseek_demo/train*"),
    "peft": ("packages/vidseek_training/*", "packages/vidseek_demo/train*"),
    "mteb": ("packages/vidseek_training/benchmarks/mteb_model.py",),
    "datasets": ("packages/vidseek_training/benchmarks/mteb_model.py",),
    "timm": ("packages/vidseek_training/backbones/modules/timm_tower.py",),
    "mlflow": ("packages/vidseek_training/*", "packages/vidseek_demo/train*"),
    "onnxruntime": ("packages/vidseek_encoder/*", "packages/vidseek_media/speech/voice_activity.py",
                    "packages/vidseek_media/cutting/transnetv2.py"),
    "qdrant_edge": ("packages/vidseek_retrieval/*",),
    "ray": ("packages/vidseek_retrieval/embedding/on_ray.py",),
    "qdrant_client": ("packages/vidseek_retrieval/*",),
    "great_expectations": ("packages/vidseek_quality/*",),
    "scipy": ("packages/vidseek_quality/intervals.py",),
    "py3langid": ("packages/vidseek_quality/languages.py",),
    # The demo and excerpts encode with av; only containers.py opens a video, only frame_walk.py decodes.
    "av": ("packages/vidseek_media/decoding/containers.py", "packages/vidseek_media/decoding/frame_walk.py",
           "packages/vidseek_media/decoding/rgb_conversion.py", "packages/vidseek_media/decoding/excerpt.py",
           "packages/vidseek_media/text/text_streams.py", "packages/vidseek_media/speech/sound.py",
           "packages/vidseek_media/editing/moment_file.py",
           "packages/vidseek_demo/world.py"),
    "decord": ("packages/vidseek_media/decoding/frames.py",),
    "scenedetect": ("packages/vidseek_media/cutting/content_changes.py",),
    "rapidocr": ("packages/vidseek_media/ocr/text_reader.py",),
    "cv2": ("packages/vidseek_media/ocr/text_reader.py",),
    "faster_whisper": ("packages/vidseek_media/speech/engines/faster_whisper.py",),
    "pocketsphinx": ("packages/vidseek_media/speech/engines/pocketsphinx.py",),
    "fsspec": ("packages/vidseek_media/sources/downloads.py",),
    "yt_dlp": ("packages/vidseek_media/sources/youtube/downloader.py", "packages/vidseek_media/sources/youtube/failures.py",
               "packages/vidseek_media/sources/youtube/javascript.py"),
    "google": ("packages/vidseek_training/captioning/gemini.py",),
    "openai": ("packages/vidseek_training/captioning/openai_endpoint.py",),
    "bentoml": ("serving/*",),
    "fastapi": ("serving/*",),
    "streamlit": ("serving/page/*",),
    "mcp": ("packages/vidseek/actions/agents.py",),
    "opentimelineio": ("packages/vidseek/edit/*",),
}


def imports_of(source: str) -> Iterator[tuple[int, str]]:
    """Every module that `source` imports, wherever it stands, with its line; `from a import b` gives `a.b`."""
    for node in nodes_of(source):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=str(module), names=names, level=0):
                yield from ((node.lineno, f"{module}.{alias.name}") for alias in names)
            case ast.ImportFrom(level=level) if level > 0:
                yield node.lineno, "." * level  # relative imports would hide from this test
            case ast.Call(func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__"),
                          args=[ast.Constant(value=str(module)), *_]):
                yield node.lineno, module


def within(module: str, wall: str) -> bool:
    """Whether `module` is `wall` or lies in it."""
    return module == wall or module.startswith(f"{wall}.")


def breaches(path: str, source: str) -> list[str]:
    """What the file at `path` (relative to the root) imports and may not."""
    parts = Path(path).parts
    room = parts[1] if parts[0] == "packages" else parts[0]
    found = []
    for line, module in imports_of(source):
        top = module.split(".")[0]
        if module.startswith("."):
            found.append(f"{path}:{line} has a relative import; name the room")
        elif room in MAY_IMPORT and top in (*MAY_IMPORT, *PRIVATE_TO_THE_TOP) and top != room:
            if not any(within(module, allowed) for allowed in MAY_IMPORT[room]):
                found.append(f"{path}:{line} imports {module}; {room} may import {MAY_IMPORT[room] or 'no room'}")
        elif top in HOMES and not any(fnmatch(path, home) for home in HOMES[top]):
            found.append(f"{path}:{line} imports {module}; its home is {HOMES[top]}")
    return found


def sources() -> list[Path]:
    return [path for folder in ("packages", "pipelines", "serving") for path in sorted((ROOT / folder).rglob("*.py"))]


def test_rooms__import_one_way_and_heavy_libraries_stay_home() -> None:
    found = [
        line for path in sources()
        for line in breaches(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


def test_rooms__all_are_in_the_table() -> None:
    rooms = {path.name for path in PACKAGES.iterdir() if (path / "__init__.py").exists()}
    assert rooms == {*MAY_IMPORT, "vidseek"}


@pytest.mark.parametrize(("path", "source"), [
    ("packages/vidseek_media/cutting/cut.py", "import vidseek_encoder"),
    ("packages/vidseek_encoder/encoder.py", "from vidseek_media.decoding.frames import decode_at"),
    ("packages/vidseek_encoder/encoder.py", "from vidseek_media import frames"),
    ("packages/vidseek_training/fitting/train.py", "def f():\n    from vidseek_retrieval import search"),
    ("packages/vidseek_retrieval/search/searcher.py", "import vidseek_training.export.onnx_export"),
    ("packages/vidseek_retrieval/search/searcher.py", "from serving import app"),
    ("packages/vidseek_training/fitting/train.py", "import vidseek_demo.world"),
    ("packages/vidseek_demo/world.py", "from vidseek.archive import Archive"),
    ("packages/vidseek_quality/gates.py", "from vidseek.cli import main"),
    ("packages/vidseek_encoder/encoder.py", "import torch.nn"),
    ("packages/vidseek_retrieval/search/searcher.py", "if True:\n    import onnxruntime as ort"),
    ("packages/vidseek/cli.py", "import importlib\nimportlib.import_module('mlflow')"),
    ("packages/vidseek_demo/scenes.py", "import torch"),
    ("packages/vidseek_media/decoding/probe.py", "import av"),
    ("packages/vidseek_media/sources/ingest.py", "import fsspec"),
    ("packages/vidseek/commands/archive.py", "import yt_dlp"),
    ("packages/vidseek_retrieval/embedding/embed_clips.py", "import ray"),
    ("pipelines/check_pairs.py", "import great_expectations as gx"),
    ("serving/app.py", "from qdrant_client import QdrantClient"),
    ("packages/vidseek_media/cutting/cut.py", "from . import frames"),
    ("serving/app.py", "import streamlit as st"),
])
def test_breaches__names_what_breaks_a_wall(path: str, source: str) -> None:
    assert len(breaches(path, source)) == 1


@pytest.mark.parametrize(("path", "source"), [
    ("packages/vidseek_encoder/encoder.py", "from vidseek_media.errors import DeviceError\nimport onnxruntime"),
    ("packages/vidseek_encoder/bundle.py", "from vidseek_media import errors, ids"),
    ("packages/vidseek_media/decoding/probe.py", "from vidseek_media.decoding.containers import open_video"),
    ("packages/vidseek_retrieval/embedding/embed_clips.py", "from vidseek_encoder.encoder import Encoder"),
    ("packages/vidseek/cli.py", "from vidseek_demo.world import render_world"),
    ("packages/vidseek_demo/train_backbones.py", "import torch\nfrom vidseek_training.fitting.losses import clip_loss"),
])
def test_breaches__lets_the_design_through(path: str, source: str) -> None:
    assert breaches(path, source) == []


PROSE = ("reason", "message", "remedy")
"""Attributes that are for people."""
READS = ("endswith", "startswith", "find", "index", "partition", "split", "removesuffix", "removeprefix", "search", "match",
         "fullmatch", "findall")


def prose_read(path: str, source: str) -> list[str]:
    """Where the file looks into a sentence that is meant for people."""
    found = []
    for node in nodes_of(source):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Attribute(attr=said), attr=verb)) if said in PROSE and verb in READS:
                found.append(node.lineno)
            case ast.Call(func=ast.Attribute(attr=verb), args=args) if verb in READS:
                found += [node.lineno for each in args if isinstance(each, ast.Attribute) and each.attr in PROSE]
            case ast.Compare(comparators=[ast.Attribute(attr=said)], ops=[ast.In() | ast.NotIn()]) if said in PROSE:
                found.append(node.lineno)
    return [f"{path}:{line} reads a sentence; ask for a class, a code, a kind" for line in found]


def test_control_flow__never_reads_prose() -> None:
    found = [
        line for path in sources()
        for line in prose_read(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("source", [
    "if rejection.reason.endswith('again'): pass", "re.search('x', error.message)", "'again' in row.reason",
    "known = _AGAIN.fullmatch(error.message)",
])
def test_prose_read__finds_it(source: str) -> None:
    assert len(prose_read("a.py", source)) == 1


def modules_of(room: str) -> list[str]:
    files = sorted((PACKAGES / room).rglob("*.py"))
    return [".".join(file.relative_to(PACKAGES).with_suffix("").parts).removesuffix(".__init__") for file in files]


@pytest.mark.parametrize("room", ["vidseek_encoder", "vidseek_retrieval"])
def test_import__needs_no_torch(room: str) -> None:
    """Every module of the room imports where the training libraries are not installed."""
    blocked = ("torch", "transformers", "peft", "mlflow")
    code = f"import sys\nfor one in {blocked!r}: sys.modules[one] = None\n"
    code += "".join(f"import {module}\n" for module in modules_of(room))
    run = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(PACKAGES)}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


MOST_MODULES = 14
"""In a folder, `__init__.py` not counted."""


def test_folders__have_few_modules() -> None:
    folders = {path.parent for path in sources() if path.parts[-2] != "pipelines"}  # pipelines: one script for each stage
    full = {str(folder.relative_to(ROOT)): num for folder in folders
            if (num := len([path for path in folder.glob("*.py") if path.name != "__init__.py"])) > MOST_MODULES}
    assert full == {}


def test_cores__are_counted_where_the_limit_of_a_container_is_known() -> None:
    counting = {path.relative_to(PACKAGES).as_posix() for path in PACKAGES.rglob("*.py")
                if re.search(r"\b(cpu_count|sched_getaffinity)\(", path.read_text(encoding="utf-8"))}
    assert counting == {"vidseek_encoder/choices.py", "vidseek_demo/duration.py"}  # which asks for threads of one core


def test_modules__import_each_other_in_no_circle() -> None:
    files = {".".join(path.relative_to(PACKAGES if path.is_relative_to(PACKAGES) else ROOT).with_suffix("").parts)
             .removesuffix(".__init__"): path for path in [*sources(), *(ROOT / "bench").rglob("*.py")]}

    def module_of(name: str) -> str:
        while name and name not in files:
            name = name.rpartition(".")[0]
        return name

    graph = {
        # A package around a module is no other module.
        name: {wanted for _, each in imports_of(path.read_text(encoding="utf-8"))
               if (wanted := module_of(each)) and not f"{name}.".startswith(f"{wanted}.")}
        for name, path in files.items()
    }
    TopologicalSorter(graph).prepare()  # CycleError names the circle
