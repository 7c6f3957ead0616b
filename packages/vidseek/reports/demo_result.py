"""Shows the result of the demo: a brief in words, base against taught model, four searches, and the next commands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from vidseek.archive import Archive, open_text_searcher
from vidseek.reports.brief import brief_of, percent, percent_interval, points_interval
from vidseek.reports.report import cautions
from vidseek_media.errors import ArtifactError
from vidseek_media.files.json_files import read_json
from vidseek_media.tables import CLIPS, PAIRS, read_table
from vidseek_retrieval.search.query import Hit
from vidseek_training.evaluation.proof_ledger import lines_of

_NUM_QUERIES = 4
_NUM_HITS = 3

_NEXT = """[bold]What to type next[/] (first: [cyan]source .venv/bin/activate[/])
  [cyan]vidseek search "little banded tepid quadcopter inbound above the treeline"[/]
  [cyan]vidseek ui[/]           a page to search with
  [cyan]vidseek serve[/]        the same over HTTP: POST /v1/search on port 3000
  [cyan]vidseek mlflow[/]       the runs, with curves and pictures
  [cyan]dvc metrics show[/]     every figure; [cyan]dvc plots show[/] draws the curves
All of this with right and wrong answers in pictures: [cyan]reports/report.html[/]
Your own videos: [cyan]vidseek init[/] (README, "Quickstart")"""


def show() -> None:
    """Print the demo's result to the terminal.

    Raises:
        ArtifactError: the pipeline has not run.
    """
    archive, console = Archive.here(), Console()
    figures = _read_json(archive.reports / "evaluate" / "metrics.json")
    console.print()
    brief = brief_of(archive)
    for paragraph in (brief.holds, brief.taught, brief.better):
        console.print(f"{escape(paragraph)}\n", highlight=False)
    for caution in cautions(archive):
        console.print(f"[bold red]{escape(caution)}.[/]")
    console.print(_recalls(figures))
    found = _read_json(archive.reports / "calibrate" / "metrics.json").get("moments") or {}
    for line in [*_facts(figures), *_moments(found)]:
        console.print(escape(line), highlight=False)
    for line in lines_of(_read_json(archive.selected)):
        console.print(f"Proof: {escape(line)}", highlight=False)
    console.print()
    _show_searches(archive, console)
    console.print(_NEXT)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = read_json(path)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}", code="json-unreadable", remedy="Run `make demo`") from error
    return content


def _recalls(figures: dict[str, Any]) -> Table:
    title = ("How often a test caption's clip is the first that is found (R@1), or among\nthe first 5 or 10, in % "
             "(95 % interval)")
    table = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    for heading in ("captions", "model", "R@1", "R@5", "R@10"):
        table.add_column(heading, no_wrap=True)
    for gallery, entry in figures["galleries"].items():
        for model, told in (("base", "as it came"), ("adapted", "taught")):
            cells = [_interval(entry[model][f"r{k}_interval"]) for k in (1, 5, 10)]
            table.add_row(f"{gallery} ({entry['num_queries']})" if model == "base" else "", told, *cells)
        gains = [_interval(entry["gain"][f"r{k}"], signed=True) for k in (1, 5, 10)]
        table.add_row("", "[green]gain, points[/]", *gains, end_section=True)
    return table


def _interval(of: dict[str, Any], *, signed: bool = False) -> str:
    """In per cent; narrow enough for three columns in a terminal of 80."""
    if of["low"] is None:
        return f"{100 * of['value']:{'+' if signed else ''}.1f} [dim](?)[/]"
    return f"{100 * of['value']:{'+' if signed else ''}.1f} [dim]({100 * of['low']:.0f}, {100 * of['high']:.0f})[/]"


def _facts(figures: dict[str, Any]) -> list[str]:
    lines = [
        f"The {gallery} captions are of {entry['num_groups']} groups of videos that differ"
        + (f"; {note}" if (note := entry["gain"]["r1"].get("note")) else "")
        for gallery, entry in figures["galleries"].items()
    ]
    for gallery, entry in figures.get("both_sides", {}).get("without", {}).items():
        if entry["num_queries"] < figures["galleries"][gallery]["num_queries"] and entry["num_queries"]:
            lines.append(
                f"{entry['num_queries']} of the {gallery} captions have nothing alike in training or in the general world: "
                f"first for {percent(entry['base']['r1'])} of them before, {percent(entry['adapted']['r1'])} after"
            )
    shares = figures["two_way"]["adapted"]
    if shares:
        base = figures["two_way"]["base"]
        told = ", ".join(f"{axis} {percent(base[axis])} → {percent(share)}" for axis, share in shares.items())
        lines.append(f"Directions, right of two choices, as it came → taught: {told}")
    if isinstance(figures["retention"], dict):
        kept = figures["retention"]
        before, after = percent(kept["base"]["r1"]), percent(kept["adapted"]["r1"])
        change = points_interval(kept["change"]["r1"])
        lines.append(f"The general world, right clip first: {before} → {after}; change {change}")
    else:
        lines.append(f"The general world: retention {figures['retention']}")
    return lines


def _moments(found: dict[str, Any]) -> list[str]:
    return [
        f"Moments in whole videos ({gallery}): the first is right for {percent_interval(entry['r1_interval'])}, one of five "
        f"for {percent_interval(entry['r5_interval'])}"
        for gallery, entry in found.items()
    ]


def _searches(archive: Archive) -> Iterator[tuple[dict[str, Any], Sequence[Hit]]]:
    """Search for some test captions; each with its first hits."""
    searcher = open_text_searcher(archive)
    for query in test_queries(archive, count=_NUM_QUERIES):
        yield query, searcher.search_text(query["caption"], limit=_NUM_HITS).hits


def _show_searches(archive: Archive, console: Console) -> None:
    for query, hits in _searches(archive):
        console.print(f"[bold]vidseek search[/] [cyan]{escape(repr(query['caption']))}[/]")
        for hit in hits:
            mark = "[green]✓[/]" if is_right(hit, query) else "[red]✗[/]"
            span = f"{hit.start_ms / 1000:6.1f} – {hit.end_ms / 1000:6.1f} s"
            console.print(f"  {mark} score {hit.score:.3f}  {span}  {escape(hit.uri)}", highlight=False)
    console.print("[dim]✓ marks a hit that overlaps the scene that the caption was written for; ✗ is another[/]\n")


def is_right(hit: Hit, query: dict[str, Any]) -> bool:
    """Whether `hit` overlaps the scene that the query was written for."""
    overlaps = hit.start_ms < query["end_ms"] and hit.end_ms > query["start_ms"]
    return bool(hit.video_id == query["video_id"] and overlaps)


def test_queries(archive: Archive, *, count: int) -> list[dict[str, Any]]:
    """Test captions, spread over the table so that they differ, with where they are true."""
    pairs = read_table(archive.pairs_table, PAIRS)
    clips = read_table(archive.cut / "clips.parquet", CLIPS)[["clip_id", "start_ms", "end_ms"]]
    test: pd.DataFrame = pairs[pairs.split == "test"].merge(clips, on="clip_id").sort_values("clip_id")
    step = max(1, len(test) // count)
    rows: list[dict[str, Any]] = test.iloc[::step].head(count).to_dict("records")
    return rows


def result() -> dict[str, Any]:
    """Return what `show` prints, for a program.

    Raises:
        ArtifactError: the pipeline has not run.
    """
    archive = Archive.here()
    figures = _read_json(archive.reports / "evaluate" / "metrics.json")
    calibrated = _read_json(archive.reports / "calibrate" / "metrics.json")
    return {
        "cautions": list(cautions(archive)), "evaluate": figures, "moments": calibrated.get("moments") or {},
        "proof": list(lines_of(_read_json(archive.selected))),
        "searches": [
            {"query": query["caption"], "hits": [
                {"uri": hit.uri, "start_ms": hit.start_ms, "end_ms": hit.end_ms, "score": hit.score,
                 "is_right": is_right(hit, query)}
                for hit in hits
            ]} for query, hits in _searches(archive)
        ],
    }
