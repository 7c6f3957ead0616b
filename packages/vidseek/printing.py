"""Output of the commands: tables for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidseek.matches import split_at_matches

if TYPE_CHECKING:
    from rich.table import Table

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program instead of text for a person.")]


def report(report: Any, *, as_json: bool) -> None:
    """Print a record of numbers and texts.

    Args:
        report: A dataclass.
        as_json: Whether to print JSON.
    """
    content = asdict(report) if is_dataclass(report) and not isinstance(report, type) else dict(report)
    if as_json:
        print_json(content)
    else:
        rows = {name.removeprefix("num_"): "none" if value in ([], ()) else str(value) for name, value in content.items()}
        show(table(["", ""], [(name, escape(value)) for name, value in rows.items()]))


def show_hits(hits: list[dict[str, Any]]) -> None:
    """Print hits as a table, or below each other where names of files would be broken at the terminal's width."""
    from rich.console import Console
    from rich.padding import Padding

    console, table = Console(), _hits_table(hits)
    # A measurement is never wider than the width that it is asked for.
    if console.measure(table, options=console.options.update(max_width=WIDEST)).minimum <= console.width:
        show(table, nothing="Nothing fits.")
        return
    for rank, hit in enumerate(hits, start=1):
        span, score = f"{clock(hit['start_ms'])} – {clock(hit['end_ms'])}", f"{hit['score']:.3f}"
        facts = [str(rank), span, escape(hit["uri"]), f"score {score}"]
        if hit["confidence"] is not None:
            facts.append(f"confidence {hit['confidence']:.2f}")
        facts.append(moment_name(hit))
        console.print("  ".join(facts), soft_wrap=True)
        own = "  ".join(f"{escape(name)}: {_values(hit, name)}" for name in hit.get("fields") or {})
        details = [escape(hit["title"]), own, marked(hit.get("evidence") or []), escape(hit["thumbnail_url"] or "")]
        console.print(Padding("\n".join(filter(None, details)), (0, 0, 0, 3)))


def _hits_table(hits: list[dict[str, Any]]) -> Table:
    """Columns of which no hit has a value are left out, and titles that are only the names of the files."""
    titles = [hit["title"] for hit in hits]
    columns = {
        "": [str(rank) for rank in range(1, len(hits) + 1)],
        "score": [f"{hit['score']:.3f}" for hit in hits],
        "confidence": ["" if hit["confidence"] is None else f"{hit['confidence']:.2f}" for hit in hits],
        "from – to": [f"{clock(hit['start_ms'])} – {clock(hit['end_ms'])}" for hit in hits],
        "video": [escape(hit["uri"]) for hit in hits],
        "moment": [moment_name(hit) for hit in hits],
        "title": [] if titles == [PurePosixPath(hit["uri"]).stem for hit in hits] else [escape(title) for title in titles],
        **{name: [_values(hit, name) for hit in hits] for name in _own_fields(hits)},
        "found for": [marked(hit.get("evidence") or []) for hit in hits],
        "thumbnail": [escape(hit["thumbnail_url"] or "") for hit in hits],
    }
    kept = {name: values for name, values in columns.items() if any(values)}
    whole = ("score", "confidence", "from – to", "video", "moment")
    return table(list(kept), list(zip(*kept.values(), strict=True)), whole=whole)


ID_DIGITS = 12
"""Of a video_id that are printed: among a million videos, two share them once in 500 archives."""


def moment_name(hit: Mapping[str, Any]) -> str:
    """Return how `vidseek clip` names the moment of a hit: `1f2e3d4c5b6a:12000-15500`."""
    return f"{str(hit['video_id'])[:ID_DIGITS]}:{hit['start_ms']}-{hit['end_ms']}"


def _own_fields(hits: list[dict[str, Any]]) -> list[str]:
    """Return the names of the declared fields that a hit has a value of."""
    return list(dict.fromkeys(name for hit in hits for name in hit.get("fields") or {}))


def _values(hit: dict[str, Any], name: str) -> str:
    value = (hit.get("fields") or {}).get(name, "")
    return escape(", ".join(map(str, value)) if isinstance(value, list) else str(value))


MAX_MARKED = 2
"""Texts of a hit that are printed."""


def marked(evidence: list[dict[str, Any]]) -> str:
    """Return the first texts of a hit as rich markup, with the words that matched in bold; the texts are escaped."""
    lines = []
    for each in evidence[:MAX_MARKED]:
        parts = split_at_matches(each["text"], each["matches"])
        text = "".join(f"[bold]{escape(part)}[/bold]" if is_match else escape(part) for part, is_match in parts)
        lines.append(f"{each['field']} {clock(each['start_ms'])}: {text}")
    return "\n".join(lines)


def clock(time_ms: int) -> str:
    """Format a time in ms as minutes, seconds and tenths (rounded down), with hours if needed: `1:02.3`, `1:00:00.0`.

    Examples:
        >>> clock(62_345)
        '1:02.3'
    """
    tenths = time_ms // 100
    minutes, seconds = divmod(tenths // 10, 60)
    hours, minutes = divmod(minutes, 60)
    head = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{head}:{seconds:02d}.{tenths % 10}"


WIDEST = 100_000
LEAST_WIDTH = 16
"""Characters of a column whose texts may be broken, beside one whose texts are not."""


def table(columns: list[str], rows: Sequence[tuple[str, ...]], *, whole: Sequence[str] = ()) -> Table:
    """Create a table of texts; columns without names have no header.

    Args:
        columns: Names of the columns.
        rows: A text for each column.
        whole: Columns whose texts are never broken: the table's least width holds them.
    """
    from rich import box
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_header=any(columns), pad_edge=False)
    for number, column in enumerate(columns):
        least = None
        if whole:
            longest = max(cell_len(Text.from_markup(text).plain) for text in (column, *(row[number] for row in rows)))
            least = longest if column in whole else min(longest, LEAST_WIDTH)
        table.add_column(column, overflow="fold", no_wrap=number == 0 or column in whole, min_width=least)
    for row in rows:
        table.add_row(*row)
    return table


def show(table: Table, *, nothing: str = "Nothing was found.") -> None:
    """Print a table, or a sentence if it is empty.

    Args:
        table: The table.
        nothing: The sentence.
    """
    from rich.console import Console

    console = Console()
    if table.row_count:
        console.print(table)
    else:
        console.print(nothing)


def escape(text: str) -> str:
    """Escape a text, so that names from the archive are never rich markup or terminal commands."""
    from rich.markup import escape

    from vidseek_media.output import printable

    return escape(printable(text))


def say(text: str, *, err: bool = False) -> None:
    """Print lines that may contain names from the archive.

    Args:
        text: The lines.
        err: Whether to print to stderr.
    """
    from vidseek_media.output import printable

    typer.echo(printable(text, keep="\n"), err=err)


def tell(content: object, text: str, *, as_json: bool) -> None:
    """Print what came of a command: a JSON document, or lines.

    Args:
        content: What the document holds.
        text: The lines.
        as_json: Whether to print the document.
    """
    if as_json:
        print_json(content)
    else:
        say(text)


def say_wrapped(text: str, *, mark: str = "") -> None:
    """Print a paragraph, broken between words to fit the terminal; names and paths are never broken.

    Args:
        text: The paragraph.
        mark: What its first line begins with; the others are indented by as much.
    """
    import shutil
    import textwrap

    width = max(40, shutil.get_terminal_size().columns)
    say(textwrap.fill(text, width, initial_indent=mark, subsequent_indent=" " * len(mark), break_long_words=False,
                      break_on_hyphens=False))


has_printed_json = False
"""Whether standard output has its document: an error that follows is told on standard error alone."""


def print_json(content: object) -> None:
    """Print one JSON document, indented."""
    from vidseek_media.output import printable

    global has_printed_json
    has_printed_json = True

    text = json.dumps(content, indent=2, ensure_ascii=False)
    # JSON itself escapes control bytes up to 0x1f; those after, and changes of direction, are in strings alone.
    typer.echo("".join(char if char == "\n" or printable(char) == char else json.dumps(char)[1:-1] for char in text))
