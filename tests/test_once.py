"""A default of a setting stands in one place."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.syntax import nodes_of

pytestmark = pytest.mark.usefixtures("syntax_trees")
ROOT = Path(__file__).parents[1]
ROOMS = ("packages", "serving", "pipelines")
COMMON = ("None", "True", "False", "0", "1", "()", "''")
"""Too common to say that one default repeats another."""
OTHER_MEANING = {
    ("packages/vidseek/commands/benchmarking.py", "workers"), ("packages/vidseek/commands/running.py", "host"),
    ("packages/vidseek_retrieval/index/publish.py", "cut"),
}
"""Options that are called as a setting is and are not that setting, by file and name."""


@cache
def sources() -> dict[str, str]:
    paths = [path for folder in ROOMS for path in sorted((ROOT / folder).rglob("*.py"))]
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def settings_defaults(source: str) -> Iterator[tuple[str, str]]:
    """Names and literal defaults of the fields of a module's records."""
    for record in nodes_of(source):
        for field in record.body if isinstance(record, ast.ClassDef) else ():
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and field.value:
                value = field.value
                if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "Field":
                    value = value.args[0] if value.args else ast.Constant(None)
                yield field.target.id, ast.unparse(value)


def argument_defaults(source: str) -> Iterator[tuple[str, str, int]]:
    """Names and literal defaults of all functions' arguments, with the line."""
    for function in nodes_of(source):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            found = function.args
            places = [*found.posonlyargs, *found.args]
            given = [*zip(places[len(places) - len(found.defaults) :], found.defaults, strict=True)]
            given += [(name, value) for name, value in zip(found.kwonlyargs, found.kw_defaults, strict=True) if value]
            for argument, value in given:
                if not isinstance(value, ast.Name) and ast.unparse(value) not in COMMON:
                    yield argument.arg, ast.unparse(value), function.lineno


def test_defaults__of_settings_stand_in_one_place() -> None:
    records = [source for path, source in sources().items() if Path(path).name in ("settings.py", "thresholds.py")]
    settings = {pair for source in records for pair in settings_defaults(source)}
    assert ("resamples", "2000") in settings
    twice = [
        f"{path}:{line} {name}={value}" for path, source in sources().items()
        for name, value, line in argument_defaults(source) if (name, value) in settings and (path, name) not in OTHER_MEANING
    ]
    assert twice == [], "give the default a name beside the record, and use it in both"


def test_defaults__one_that_is_repeated_is_found() -> None:
    [(name, value, _)] = argument_defaults("def f(a, *, resamples: int = 2000, seed=0): ...")
    assert (name, value) == ("resamples", "2000")
