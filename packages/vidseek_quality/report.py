"""The findings of a gate: a JSON result that is equal for equal data, and an HTML page that needs no network."""

from __future__ import annotations

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
