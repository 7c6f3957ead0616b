"""Tests assert class, code and facts of an error (`tests/raising.py`), not its sentences: those may be reworded."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.media.test_errors import constants_of, family, name_of
from tests.syntax import nodes_of

pytestmark = pytest.mark.usefixtures("syntax_trees")
TESTS = Path(__file__).resolve().parent
MOST_WORDS = 3
"""Of a fact: `'opencv'`, `dvc repro calibrate`."""
TOLD = frozenset({"message", "remedy", "stderr", "err"})
WORDING = frozenset({
    "vidseek/test_cli.py: no such thing\n  → Leave it",  # how a message and its remedy are laid out
    "vidseek/reports/test_doctor.py: pip install -c constraints.txt -e .",
    "media/test_output.py: temporary files go to",  # which of the two folders is full
    "media/decoding/test_worker_batch.py: took longer than 0.1 s, see a.timeout_seconds in params.yaml",
    "retrieval/confidence/test_calibration.py: dvc repro calibrate publish",
    "retrieval/search/test_searcher.py: dvc repro calibrate publish",
    "training/captioning/test_providers.py: pip install -c constraints.txt -e '.[llm]'",
    "training/evaluation/test_select.py: Run `dvc repro select`",
})
"""Commands that a person is told to run, and the few tests of the wording itself."""


def test_sentences__are_not_what_tests_hold_on_to() -> None:
    found = {f"{path.relative_to(TESTS)}: {text}" for path in files() for text in sentences(path)}
    assert found - WORDING == set()
    assert WORDING - found == set(), "these are no longer there"


def test_errors_of_ours__are_asserted_with_their_code() -> None:
    bare = [f"{path.relative_to(TESTS)}:{node.lineno}" for path in files() for node in calls(path) if is_bare(node)]
    assert bare == []


def files() -> Iterator[Path]:
    yield from (path for path in sorted(TESTS.rglob("test_*.py")))


def nodes(path: Path) -> Sequence[ast.AST]:
    return nodes_of(path.read_text(encoding="utf-8"))


def calls(path: Path) -> Iterator[ast.Call]:
    yield from (node for node in nodes(path) if isinstance(node, ast.Call))


def is_bare(node: ast.Call) -> bool:
    """`pytest.raises` of a class of ours."""
    if name_of(node.func) != "raises" or ast.unparse(node.func) != "pytest.raises":
        return False
    return any(name_of(each) in family() for each in node.args[:1])


def sentences(path: Path) -> Iterator[str]:
    """Texts of more than `MOST_WORDS` words that errors are compared with."""
    for node in nodes(path):
        if isinstance(node, ast.Call) and name_of(node.func) == "raises":
            given = [each.value for each in node.keywords if each.arg in ("match", "naming", "remedy")]
        elif isinstance(node, ast.Compare) and any(is_told(each) for each in (node.left, *node.comparators)):
            given = [node.left, *node.comparators]
        else:
            continue
        for each in given:
            for part in each.elts if isinstance(each, ast.Tuple | ast.List) else [each]:
                yield from (text for text in constants_of(part) if len(text.split()) > MOST_WORDS)


def is_told(node: ast.AST) -> bool:
    """What an error says: `caught.value.message`, `done.stderr`, `str(caught.value)`, `outcome.error`."""
    if isinstance(node, ast.Call) and name_of(node.func) == "str" and node.args:
        return "caught" in ast.unparse(node) or "error" in ast.unparse(node) or "raised" in ast.unparse(node)
    return isinstance(node, ast.Attribute) and node.attr in TOLD
