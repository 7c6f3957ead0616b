"""Writes the tables of docs/growth.md from bench/growth.json: today's archive beside that of before.

    python -m bench.growing.table           (prints them)
    python -m bench.growing.table --write   (puts them into docs/growth.md)
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.growing.archive import REPOSITORY, STAGES
from bench.growing.counting import CLIPS, DELETED, FILES, WRITTEN
from bench.growing.growth import OUT, STEPS

PAGE = REPOSITORY / "docs" / "growth.md"
BEGIN, END = "<!-- figures: python -m bench.growing.table --write -->", "<!-- end of figures -->"
LABELS = ("before", "after")
_COLUMNS = {
    "files decoded": ("frames", FILES), "clips embedded": ("embed", CLIPS), "points written": ("publish", WRITTEN),
    "points deleted": ("publish", DELETED), "MB written": ("", "bytes_written"), "CPU seconds": ("", "cpu_seconds"),
}
_FRACTIONS = {"bytes_written": 1e-6, "cpu_seconds": 1, "seconds": 1}


def tables(content: dict[str, Any]) -> str:
    """Return the Markdown of all tables."""
    return "\n\n".join(["\n".join(lines) for lines in _tables(content)])


def put_into(page: str, text: str) -> str:
    """Return a page with `text` between its marks."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{text}\n\n{END}{tail}"


def _tables(content: dict[str, Any]) -> Iterator[list[str]]:
    archives = {label: content.get(label, {}).get("archives", {}) for label in LABELS}
    sizes = sorted({int(size) for entry in archives.values() for size in entry})
    for size in sizes:
        yield [f"**{size:,} clips**: before → after"]
        yield list(_counts_table({label: entry.get(str(size), {}) for label, entry in archives.items()}))
    if sizes:
        yield ["**Adding one video**, by stage: CPU seconds (before → after)"]
        yield list(_stages_table(archives, sizes))
    vectors = {label: content.get(label, {}).get("vectors", {}) for label in LABELS}
    if any(vectors.values()):
        yield ["**Publishing alone**, vectors of 512: before → after"]
        yield list(_vectors_table(vectors))


def _counts_table(of: dict[str, Any]) -> Iterator[str]:
    yield _row("", *_COLUMNS)
    yield _row("---", *["---:"] * len(_COLUMNS))
    for step in (each for each in STEPS if any(each in steps for steps in of.values())):
        yield _row(step, *(_arrow([_total(of[label].get(step), *_COLUMNS[name]) for label in LABELS]) for name in _COLUMNS))


def _stages_table(archives: dict[str, Any], sizes: list[int]) -> Iterator[str]:
    yield _row("", *(f"{size:,} clips" for size in sizes))
    yield _row("---", *["---:"] * len(sizes))
    for stage in STAGES:
        steps = [[archives[label].get(str(size), {}).get("1 added") for label in LABELS] for size in sizes]
        yield _row(stage, *(_arrow([_total(step, stage, "cpu_seconds") for step in both]) for both in steps))


def _vectors_table(vectors: dict[str, Any]) -> Iterator[str]:
    steps = list(dict.fromkeys(
        (int(size), step) for entry in vectors.values() for size, of_size in entry.items() for step in of_size["steps"]
    ))
    yield _row("", "points written", "points deleted", "MB written", "seconds")
    yield _row("---", *["---:"] * 4)
    for size, step in sorted(steps, key=lambda each: each[0]):
        rows = [vectors[label].get(str(size), {}).get("steps", {}).get(step) for label in LABELS]
        keys = (WRITTEN, DELETED, "bytes_written", "seconds")
        yield _row(f"{size:,} clips, {step}", *(_arrow([_figure(row, key) for row in rows]) for key in keys))


def _total(step: dict[str, Any] | None, stage: str, key: str) -> str:
    """Return the figure of one stage of a step, or of all; a dash if it was not measured."""
    if step is None or (stage and stage not in step["stages"]):
        return "-"
    rows = [step["stages"][stage]] if stage else list(step["stages"].values())
    return _figure({key: sum(row.get(key, 0) for row in rows)}, key)


def _figure(row: dict[str, Any] | None, key: str) -> str:
    if row is None:
        return "-"
    value = row.get(key, 0)
    return f"{value * _FRACTIONS[key]:.1f}" if key in _FRACTIONS else f"{int(value):,}"


def _arrow(figures: list[str]) -> str:
    return " → ".join(figures)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the tables, or write them into the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--figures", type=Path, default=OUT)
    parser.add_argument("--write", action="store_true", help=f"Into {PAGE.relative_to(REPOSITORY)}.")
    arguments = parser.parse_args()
    text = tables(json.loads(arguments.figures.read_text(encoding="utf-8")))
    if arguments.write:
        PAGE.write_text(put_into(PAGE.read_text(encoding="utf-8"), text), encoding="utf-8")
    else:
        sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    main()
