"""Writes the comments of params.yaml from the docs of the records: `python -m vidseek.configuration.comments [--write]
[FILE]`.

Without `--write` it prints the lines that differ, and exits with 1.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from textwrap import dedent

from vidseek.configuration.yaml_file import PARAMS_FILE, keys_of, lines_of
from vidseek.params import Params
from vidseek_media.files.folders import write_text
from vidseek_media.settings import Section

_FIRST_SENTENCE = re.compile(r"\.\s+(?=[A-Z])")
COLUMN = 34
"""Where comments begin; after a longer line, two spaces behind it."""


def commented(text: str) -> str:
    """`text` with the comment of each known key behind it, and no other comment in such a line.

    Lines that are comments alone stay, and so do all values.

    Raises:
        yaml.YAMLError: it is no YAML, or has a key twice.
    """
    summaries = dict(_summaries())
    lines = text.splitlines()
    seen: set[int] = set()
    for key, number in lines_of(text).items():
        summary = summaries.get(_pattern(key, summaries))
        if number not in seen and summary is not None:  # a line of several keys ({a: 1, b: 2}) has the first one's
            lines[number - 1] = _with_comment(lines[number - 1], summary)
        seen.add(number)
    return "\n".join(lines) + "\n"


@lru_cache
def docs_of(record: type[Section]) -> Mapping[str, str]:
    """Return the docstring of each key of `record`, in one line."""
    found: dict[str, str] = {}
    for kind in reversed(record.__mro__):
        if issubclass(kind, Section) and kind is not Section:
            body = ast.parse(dedent(inspect.getsource(kind))).body[0]
            assert isinstance(body, ast.ClassDef)
            found |= dict(_docstrings(body.body))
    return found


def _docstrings(body: Sequence[ast.stmt]) -> Iterator[tuple[str, str]]:
    for statement, following in pairwise(body):
        match statement, following:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                yield name, " ".join(text.split())


def _summaries() -> Iterator[tuple[str, str]]:
    for key, record, name in keys_of(Params):
        doc = docs_of(record).get(name, "")
        summary = _FIRST_SENTENCE.split(doc)[0].removesuffix(".")
        if summary:
            yield key, summary


def _pattern(key: str, known: Mapping[str, str]) -> str:
    """`train.settings.*.rank` for `train.settings.lora.rank`."""
    if key in known:
        return key
    parts = key.split(".")
    return next(
        (each for n in range(len(parts)) if (each := ".".join([*parts[:n], "*", *parts[n + 1:]])) in known), key
    )


def _with_comment(line: str, summary: str) -> str:
    """Return the line with `summary` as its comment. A comment begins at a `#` after a space and outside quotes."""
    quote = ""
    for place, letter in enumerate(line):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter == "#" and line[place - 1: place].isspace():
            line = line[:place]
            break
    return f"{line.rstrip():<{COLUMN - 2}}  # {summary}"


def main(arguments: Sequence[str]) -> int:
    """Write the comments with `--write`, else compare. Gives 1 where lines differ."""
    path = Path(next((each for each in arguments if not each.startswith("-")), PARAMS_FILE))
    before = path.read_text(encoding="utf-8")
    after = commented(before)
    lines = enumerate(zip(before.splitlines(), after.splitlines(), strict=True), 1)
    differ = {number: new for number, (old, new) in lines if old != new}
    if "--write" in arguments:
        write_text(path, after)
        sys.stdout.write(f"{path}: {len(differ)} comments written\n")
        return 0
    for number, line in differ.items():
        sys.stdout.write(f"{path}:{number}: wanted {line}\n")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
