from __future__ import annotations

import ast
import pickle
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from vidseek_media.errors import ConfigError, InputRejected, VidseekError
from vidseek_media.pictures import TooManyPixels
from vidseek_media.workers import WorkerLost

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("packages", "pipelines", "serving", "bench")
SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
LATER = ("vidseek_media/youtube.py", "vidseek_training/llm/", "vidseek_training/backbones/",
         "vidseek_training/export.py")  # others are at work in these; then this goes


@cache
def trees() -> dict[str, ast.Module]:
    files = (path for folder in SOURCES for path in sorted((ROOT / folder).rglob("*.py")))
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in files}


@cache
def family() -> dict[str, str]:
    """Each class of the family by its name, with the code in its body or in that of a class above it; else empty."""
    found = {VidseekError.__name__: ""}
    classes = [node for tree in trees().values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    while True:
        more = [each for each in classes if each.name not in found and any(name_of(base) in found for base in each.bases)]
        if not more:
            return found
        for each in more:
            found[each.name] = own_code(each) or next(found[name] for base in each.bases if (name := name_of(base)) in found)


def own_code(node: ast.ClassDef) -> str:
    for line in node.body:
        if isinstance(line, ast.Assign) and name_of(line.targets[0]) == "code" and isinstance(line.value, ast.Constant):
            return str(line.value.value)
    return ""


def name_of(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def given() -> Iterator[tuple[str, str, str]]:
    """Place, class and code wherever an error is made; the code is empty where there is none, `?` where it is another's."""
    for file, tree in trees().items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            names = [name_of(node.func), *map(name_of, node.args[:1])]
            kind = next((name for name in names if name in family()), "")
            said = next((each.value for each in node.keywords if each.arg == "code"), None)
            if kind and (kind == name_of(node.func) or said):
                constants = [each.value for each in ast.walk(said) if isinstance(each, ast.Constant)] if said else []
                for code in constants or ["?" if said else family()[kind]]:
                    yield f"{file}:{node.lineno}", kind, str(code)


def test_code__is_given_wherever_an_error_is_made() -> None:
    without = [f"{place} {kind}" for place, kind, code in given() if not code and not any(each in place for each in LATER)]
    assert not without


def test_code__is_a_slug_and_of_one_class() -> None:
    kinds: dict[str, set[str]] = {}
    for _, kind, code in given():
        if code not in ("", "?"):
            assert SLUG.fullmatch(code), code
            kinds.setdefault(code, set()).add(kind)
    assert {code: found for code, found in kinds.items() if len(found) > 1} == {}


def test_codes__are_those_of_the_documentation() -> None:
    written = (ROOT / "docs/errors.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| `([a-z0-9-]+)` \| ([A-Z]\w+) \| \S.* \|$", written, re.MULTILINE)
    assert told == sorted(set(told)), "sorted by code, each once"
    assert set(told) == {(code, kind) for _, kind, code in given() if code not in ("", "?")}


def test_error__has_the_code_that_it_is_given_or_its_class_has() -> None:
    assert ConfigError("m", code="unknown-choice").code == "unknown-choice"
    assert TooManyPixels("m").code == "too-many-pixels"
    assert TooManyPixels("m", code="other").code == "other"
    assert (WorkerLost("m", fault="time").code, WorkerLost.category) == ("worker-lost", "worker_lost")


@pytest.mark.parametrize("error", [
    InputRejected("m", code="c", remedy="r"), WorkerLost("m", fault="killed", was_fresh=True),
])
def test_error__is_the_same_from_another_process(error: VidseekError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error) and vars(again) == vars(error)
