"""The findings of a gate: a JSON result that is equal for equal data, and an HTML page that needs no network."""

from __future__ import annotations

import html
from dataclasses import asdict, dataclass
from pathlib import Path

from vidseek_media.files.json_files import write_json
from vidseek_media.output import printable

NUM_IDS_NAMED = 10
"""Number of offending ids that a failure names; a complete list would be too long to read."""

Number = int | float


@dataclass(frozen=True)
class Failure:
    """One expectation that the data did not meet."""

    table: str
    rule: str
    """The expectation in words, with its threshold."""
    num_offending: int
    """Number of rows that break the rule; 1 for a rule about the whole table."""
    observed: Number | str | None
    """The measured number, for a rule about the whole table."""
    ids: tuple[str, ...]
    """The first offending ids in the table's order; empty for a rule about the whole table."""

    @property
    def found(self) -> str:
        """The finding in words: how many rows and which, or the number."""
        if self.observed is not None:
            return str(self.observed)
        if not self.ids:
            return "nothing to judge by"
        more = ", …" if self.num_offending > len(self.ids) else ""
        return f"{self.num_offending} rows do not: {', '.join(self.ids)}{more}"


@dataclass(frozen=True)
class GateResult:
    """The findings of a gate. They contain no time and no path, so equal data gives an equal file."""

    gate: str
    failures: tuple[Failure, ...]
    num_expectations: int
    statistics: dict[str, Number | None]
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every expectation was met."""
        return not self.failures


def table_of(failures: tuple[Failure, ...]) -> str:
    """Format failures as a table of three columns for a terminal, one line each, whatever names of the archive hold."""
    cells = [(one.table, printable(one.rule), printable(one.found)) for one in failures]
    rows = [("table", "wanted", "found"), *cells]
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    return "\n".join(f"  {a:<{first}}  {b:<{second}}  {c}" for a, b, c in rows)


def write_result(result: GateResult, path: Path) -> None:
    """Write `result` to `path` as JSON with sorted keys."""
    record = {"passed": result.passed, **asdict(result)}
    write_json(path, record, sort_keys=True, ensure_ascii=False)


def write_page(result: GateResult, path: Path) -> None:
    """Write one self-contained HTML page to `path`, with a link to the Data Docs (which load their style from public
    servers).
    """
    verdict = "passed" if result.passed else f"failed: {len(result.failures)} of {result.num_expectations} expectations"
    rows = "".join(
        f"<tr><td>{html.escape(failure.table)}<td>{html.escape(failure.rule)}<td>{failure.num_offending}"
        f"<td>{html.escape(str(failure.observed if failure.observed is not None else ''))}"
        f"<td><code>{'<br>'.join(html.escape(one) for one in failure.ids)}</code>"
        for failure in result.failures
    )
    found = f"<table><tr><th>table<th>wanted<th>offending<th>found<th>first ids{rows}</table>" if rows else ""
    facts = "".join(f"<tr><td>{html.escape(name)}<td>{value}" for name, value in sorted(result.statistics.items()))
    notes = "".join(f"<p>{html.escape(note)}" for note in result.notes)
    path.write_text(
        f"<!doctype html><html lang=en><meta charset=utf-8><title>gate {html.escape(result.gate)}: {verdict}</title>"
        "<style>body{font:16px/1.5 sans-serif;max-width:70em;margin:2em auto}td,th{padding:.3em 1em;text-align:left;"
        "vertical-align:top;border-top:1px solid #ccc}</style>"
        f"<h1>{html.escape(result.gate)}: {verdict}</h1>{notes}{found}<h2>Statistics</h2><table>{facts}</table>"
        "<p><a href=docs/index.html>Great Expectations Data Docs</a></html>\n",
        encoding="utf-8",
    )
