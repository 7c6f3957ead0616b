"""Docstrings: what `Args:` lists are arguments of the function or class; first lines begin with a verb."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.syntax import nodes_of

pytestmark = pytest.mark.usefixtures("syntax_trees")
ROOT = Path(__file__).resolve().parents[1]
FILES = [path for folder in ("packages", "serving", "bench", "pipelines") for path in sorted((ROOT / folder).rglob("*.py"))]
NO_VERB = re.compile(r"(The|An?|What|How|Which|Where|When|Why|Who|Whose|Of|All|Some|Every|Each|Those|One|See|As)\b")
"""Words that a first line which says what a function does never begins with."""
ENTRY = re.compile(r"    (\*{0,2}\w+(?:, \w+)*): ")


def functions(path: Path) -> list[tuple[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, str]]:
    """Functions and classes with a docstring, and it."""
    return [
        (node, text) for node in nodes_of(path.read_text(encoding="utf-8"))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and (text := ast.get_docstring(node))
    ]


def documented(text: str) -> list[str]:
    """The names in the section `Args:`."""
    section = re.search(r"^Args:\n((?:    .*\n?|\n)+)", text, re.M)
    entries = [ENTRY.match(line) for line in section.group(1).splitlines()] if section else []
    return [name for entry in entries if entry for name in entry.group(1).split(", ")]


def arguments(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> set[str]:
    """The names that a function takes, or a class to make one of it."""
    if not isinstance(node, ast.ClassDef):
        return {each.arg for each in ast.walk(node.args) if isinstance(each, ast.arg)}
    inits = [each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"]
    fields = {each.target.id for each in node.body if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)}
    return fields.union(*map(arguments, inits))


def test_args__are_arguments() -> None:
    wrong = {
        f"{path.relative_to(ROOT)} {node.name}: {name}"
        for path in FILES for node, text in functions(path) for name in set(documented(text)) - arguments(node)
    }
    assert wrong == set()


def test_first_lines__say_what_a_public_function_does() -> None:
    wrong = {
        f"{path.relative_to(ROOT)} {node.name}: {text.splitlines()[0]}"
        for path in FILES if path.parts[len(ROOT.parts)] in ("packages", "serving")
        for node, text in functions(path) if not isinstance(node, ast.ClassDef)
        if not node.name.startswith("_") and not is_property(node) and NO_VERB.match(text)
    }
    assert wrong == set()


def is_property(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether it is read like a field, and so named like one."""
    return any(ast.unparse(each).endswith("property") for each in node.decorator_list)
