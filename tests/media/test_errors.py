from __future__ import annotations

import ast
import pickle
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.raising import raises
from tests.syntax import nodes_of
from vidseek_media.decoding.pictures import TooManyPixels
from vidseek_media.decoding.worker_process import ERROR
from vidseek_media.decoding.workers import WorkerLost, _value_of
from vidseek_media.errors import ConfigError, InputRejected, VidseekError, foreign
from vidseek_media.records import UNNAMED
from vidseek_media.settings import Fault, SettingsRefused
from vidseek_media.sources.youtube.failures import Cause, SiteStopped

pytestmark = pytest.mark.usefixtures("syntax_trees")
ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("packages", "pipelines", "serving", "bench")
SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def nodes() -> dict[str, Sequence[ast.AST]]:
    """Of each file of ours, by its path."""
    files = (path for folder in SOURCES for path in sorted((ROOT / folder).rglob("*.py")))
    return {path.relative_to(ROOT).as_posix(): nodes_of(path.read_text(encoding="utf-8")) for path in files}


@dataclass(frozen=True)
class Kind:
    """A class of the family."""

    line: tuple[str, ...]
    """Its name, behind those of the classes above it."""
    codes: tuple[str, ...]
    """In its body (`code`, `codes`), or in that of the nearest class above it that has one."""


@cache
def family() -> dict[str, Kind]:
    found = {VidseekError.__name__: Kind((VidseekError.__name__,), ())}
    classes = [node for each in nodes().values() for node in each if isinstance(node, ast.ClassDef)]
    while True:
        more = [each for each in classes if each.name not in found and any(name_of(base) in found for base in each.bases)]
        if not more:
            return found
        for each in more:
            above = next(found[name] for base in each.bases if (name := name_of(base)) in found)
            found[each.name] = Kind((*above.line, each.name), own_codes(each) or above.codes)


def own_codes(node: ast.ClassDef) -> tuple[str, ...]:
    codes: list[str] = []
    for line in node.body:
        if isinstance(line, ast.Assign | ast.AnnAssign):
            name = name_of(line.targets[0] if isinstance(line, ast.Assign) else line.target)
            if name == "code" and isinstance(line.value, ast.Constant):
                codes.append(str(line.value.value))
            elif name == "codes" and isinstance(line.value, ast.Dict):
                codes += [str(each.value) for each in line.value.values if isinstance(each, ast.Constant)]
    return tuple(codes)


def name_of(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def given() -> Iterator[tuple[str, str, str]]:
    """Place, class and code wherever an error is made; the code is empty where there is none, `?` where it is another's."""
    for file, of_file in nodes().items():
        for node in of_file:
            if not isinstance(node, ast.Call):
                continue
            names = [name_of(node.func), *map(name_of, node.args[:1])]
            kind = next((name for name in names if name in family()), "")
            said = next((each.value for each in node.keywords if each.arg == "code"), None)
            if kind and (kind == name_of(node.func) or said):
                for code in ([*constants_of(said)] or ["?"]) if said else (family()[kind].codes or [""]):
                    yield f"{file}:{node.lineno}", kind, code


def constants_of(node: ast.AST) -> Iterator[str]:
    """The texts that an expression may be: `"a"`, `"a" if x else "b"`, `error.code or "a"`."""
    if isinstance(node, ast.Constant):
        yield str(node.value)
    parts = [node.body, node.orelse] if isinstance(node, ast.IfExp) else node.values if isinstance(node, ast.BoolOp) else []
    for each in parts:
        yield from constants_of(each)


@cache
def kinds_by_code() -> dict[str, str]:
    """Each code with its class: the one above all others that have it.

    Raises:
        AssertionError: there are two, and neither is above the other.
    """
    found: dict[str, str] = {}
    for place, kind, code in given():
        if code in ("", "?"):
            continue
        line, known = family()[kind].line, found.setdefault(code, kind)
        if known not in line:
            assert kind in family()[known].line, f"{code} of {kind} ({place}) is of {known} too"
            found[code] = kind
    return found


def test_code__is_given_wherever_an_error_is_made() -> None:
    without = [f"{place} {kind}" for place, kind, code in given() if not code]
    assert not without


def test_code__is_a_slug_and_of_one_class() -> None:
    assert [code for code in kinds_by_code() if not SLUG.fullmatch(code)] == []


def test_codes__are_those_of_the_documentation() -> None:
    written = (ROOT / "docs/errors.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| `([a-z0-9-]+)` \| ([A-Z]\w+) \| \S.* \|$", written, re.MULTILINE)
    assert told == sorted(set(told)), "sorted by code, each once"
    assert dict(told) == kinds_by_code()


def test_error__has_the_code_that_it_is_given_or_its_class_has() -> None:
    assert ConfigError("m", code="unknown-choice").code == "unknown-choice"
    assert TooManyPixels("m").code == "too-many-pixels"
    assert TooManyPixels("m", code="other").code == "other"
    assert (WorkerLost("m", fault="time").code, WorkerLost.category) == ("worker-lost", "worker_lost")


@pytest.mark.parametrize("error", [
    InputRejected("m", code="c", remedy="r"), WorkerLost("m", fault="killed", was_fresh=True),
    SettingsRefused("m", remedy="r", faults=(Fault("place.key", "unknown", "t"),)),
    SiteStopped("m", cause=Cause.BLOCKED, remedy="r"),
])
def test_error__is_the_same_from_another_process(error: VidseekError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error) and vars(again) == vars(error)
    if not isinstance(error, SiteStopped):  # workers, whose answers are read more strictly, download nothing
        with pytest.raises(type(error)) as of_a_worker:
            _value_of(ERROR, bytearray(pickle.dumps(error)))
        assert vars(of_a_worker.value) == vars(error)


class PanicException(BaseException):
    """As libraries in Rust have one."""


@pytest.mark.parametrize(
    ("errors", "raised", "said"),
    [
        (OSError, OSError(28, "No space left on device"), "it broke: No space left on device"),
        (OSError, OSError(28, "No space left on device", "/a/b"), "it broke: No space left on device: /a/b"),
        (OSError, OSError("no number"), "it broke: no number"),
        ((KeyError, ValueError), ValueError("bad"), "it broke: bad"),
        (Exception, RuntimeError(), "it broke: RuntimeError"),
        (Exception, PanicException("index out of bounds"), "it broke: index out of bounds"),
    ],
)
def test_foreign__is_an_error_of_ours(errors: type[Exception], raised: BaseException, said: str) -> None:
    said_to_be = raises(ConfigError, code="unknown-choice", naming=said)
    with said_to_be as caught, foreign(ConfigError, "it broke", code="unknown-choice", remedy="Mend it", errors=errors):
        raise raised
    assert caught.value.message == said
    assert caught.value.remedy == "Mend it"
    assert caught.value.__cause__ is raised


@pytest.mark.parametrize(
    ("errors", "raised"),
    [
        (Exception, InputRejected("ours", code="file-empty")), (Exception, KeyboardInterrupt()), (OSError, ValueError()),
        (OSError, PanicException()),
    ],
)
def test_foreign__lets_pass_what_is_ours_or_was_not_named(errors: type[Exception], raised: BaseException) -> None:
    with pytest.raises(type(raised)) as caught, foreign(ConfigError, "it broke", code="unknown-choice", errors=errors):
        raise raised
    assert caught.value is raised


def refusals() -> Iterator[tuple[str, str]]:
    """Place and code of each refusal that the source writes by itself; the empty code where it gives none."""
    for file, of_file in nodes().items():
        for node in of_file if file.startswith("packages/") else ():
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("Refusal", "Rejection", "reject_row"):
                codes = [*constants_of(said.value)] or ["?"] if (said := code_of(node)) else [""]
                yield from ((f"{file}:{node.lineno}", code) for code in codes)


def code_of(node: ast.Call) -> ast.keyword | None:
    return next((each for each in node.keywords if each.arg == "code"), None)


def test_rejection__has_a_code_wherever_one_is_made() -> None:
    assert [place for place, code in refusals() if not code] == []


def test_rejections__have_codes_of_the_documentation() -> None:
    written = (ROOT / "docs/errors.md").read_text(encoding="utf-8")
    own = re.findall(r"^\| `([a-z0-9-]+)` \| [a-z][a-z, ]* \| \S.* \|$", written, re.MULTILINE)
    assert own == sorted(set(own)) and not set(own) & set(kinds_by_code())
    assert {code for _, code in refusals()} - {"?"} - set(kinds_by_code()) == set(own) - {UNNAMED}
