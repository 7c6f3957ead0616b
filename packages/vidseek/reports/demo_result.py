"""Shows the result of the demo: base against adapted model, four searches, and the next commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from vidseek.archive import Archive, load_encoder, open_searcher
from vidseek.reports.report import cautions
from vidseek_media.errors import ArtifactError
from vidseek_media.files.json_files import read_json
from vidseek_media.tables import CLIPS, PAIRS, read_table
from vidseek_retrieval.search.query import Hit
from vidseek_training.evaluation.proof_ledger import lines_of

_NUM_QUERIES = 4

_NEXT = """[bold]What to type next[/] (first: [cyan]source .venv/bin/activate[/])
  [cyan]vidseek search "little banded tepid quadcopter inbound above the treeline"[/]   search the demo archive
  [cyan]vidseek ui[/]                         a page to search with; [cyan]reports/report.html[/] says what came of it
  [cyan]vidseek serve[/]                      the same over HTTP: POST /v1/search on port 3000
  [cyan]vidseek mlflow[/]                     the runs, with curves and pictures
  [cyan]dvc metrics show[/]                   every figure; [cyan]dvc plots show[/] draws the curves
  your own videos: set [cyan]ingest.source[/] in params.yaml to their folder, then [cyan]dvc repro[/]
  (README, "Quickstart")"""


def show() -> None:
    """Print the demo's result to the terminal.

    Raises:
        ArtifactError: the pipeline has not run.
    """
    archive, console = Archive.here(), Console()
    figures = _read_json(archive.reports / "evaluate" / "metrics.json")
    console.print()
    for caution in cautions(archive):
        console.print(f"[bold red]{escape(caution)}.[/]")
    console.print(_recalls(figures))
    found = _read_json(archive.reports / "calibrate" / "metrics.json").get("moments") or {}
    for line in [*_facts(figures), *_moments(found)]:
        console.print(line)
    for line in lines_of(_read_json(archive.selected)):
        console.print(f"Proof: {escape(line)}", highlight=False)
    console.print()
    _searches(archive, console)
    console.print(_NEXT)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = read_json(path)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}", code="json-unreadable", remedy="Run `make demo`") from error
    return content


def _recalls(figures: dict[str, Any]) -> Table:
    title = "Held-out queries of the domain, text to clip, in % (95 % interval)"
    table = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    for heading in ("gallery", "", "R@1", "R@5", "R@10"):
        table.add_column(heading, no_wrap=True)
    for gallery, entry in figures["galleries"].items():
        for model in ("base", "adapted"):
            cells = [_interval(entry[model][f"r{k}_interval"]) for k in (1, 5, 10)]
            table.add_row(f"{gallery} ({entry['num_queries']})" if model == "base" else "", model, *cells)
        gains = [_interval(entry["gain"][f"r{k}"], signed=True) for k in (1, 5, 10)]
        table.add_row("", "[green]gain[/]", *gains, end_section=True)
    return table


def _interval(of: dict[str, Any], *, signed: bool = False) -> str:
    """In per cent; narrow enough for three columns in a terminal of 80."""
    if of["low"] is None:
        return f"{100 * of['value']:{'+' if signed else ''}.1f} [dim](?)[/]"
    return f"{100 * of['value']:{'+' if signed else ''}.1f} [dim]({100 * of['low']:.0f}, {100 * of['high']:.0f})[/]"


def _facts(figures: dict[str, Any]) -> list[str]:
    lines = [
        f"Gallery {gallery}: {entry['num_queries']} queries of {entry['num_groups']} groups of videos"
        + (f"; {note}" if (note := entry["gain"]["r1"].get("note")) else "")
        for gallery, entry in figures["galleries"].items()
    ]
    for gallery, entry in figures.get("both_sides", {}).get("without", {}).items():
        if entry["num_queries"] < figures["galleries"][gallery]["num_queries"] and entry["num_queries"]:
            lines.append(
                f"Gallery {gallery} without what training or the general world has too: {entry['num_queries']} queries, R@1 "
                f"{entry['base']['r1']:.3f} → {entry['adapted']['r1']:.3f}"
            )
    shares = figures["two_way"]["adapted"]
    if shares:
        base = figures["two_way"]["base"]
        told = ", ".join(f"{axis} {base[axis]:.2f} → {share:.2f}" for axis, share in shares.items())
        lines.append(f"Direction, right of two choices, base → adapted: {told}")
    if isinstance(figures["retention"], dict):
        kept = figures["retention"]
        change = _interval(kept["change"]["r1"], signed=True)
        before, after = kept["base"]["r1"], kept["adapted"]["r1"]
        lines.append(f"General world, R@1: {before:.3f} → {after:.3f}; change in points {change}")
    else:
        lines.append(f"General world: retention {figures['retention']}")
    return lines


def _moments(found: dict[str, Any]) -> list[str]:
    return [
        f"Moments in whole videos ({gallery}), in %: the first is right {_interval(entry['r1_interval'])}, one of five "
        f"{_interval(entry['r5_interval'])}"
        for gallery, entry in found.items()
    ]


def _searches(archive: Archive, console: Console) -> None:
    settings = archive.settings().search
    searcher = open_searcher(archive, settings, load_encoder(archive, settings, text_only=True))
    for query in test_queries(archive, count=_NUM_QUERIES):
        answer = searcher.search_text(query["caption"], limit=3)
        console.print(f"[bold]vidseek search[/] [cyan]{query['caption']!r}[/]")
        for hit in answer.hits:
            mark = "[green]✓[/]" if is_right(hit, query) else " "
            span = f"{hit.start_ms / 1000:6.1f} – {hit.end_ms / 1000:6.1f} s"
            console.print(f"  {mark} {hit.score:.3f}  {span}  {hit.uri}")
    console.print("[dim]✓ marks a hit that overlaps the scene that the query was written for[/]\n")


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
    settings = archive.settings().search
    searcher = open_searcher(archive, settings, load_encoder(archive, settings, text_only=True))
    return {
        "cautions": list(cautions(archive)), "evaluate": figures, "moments": calibrated.get("moments") or {},
        "proof": list(lines_of(_read_json(archive.selected))),
        "searches": [
            {"query": query["caption"], "hits": [
                {"uri": hit.uri, "start_ms": hit.start_ms, "end_ms": hit.end_ms, "score": hit.score,
                 "is_right": is_right(hit, query)}
                for hit in searcher.search_text(query["caption"], limit=3).hits
            ]} for query in test_queries(archive, count=_NUM_QUERIES)
        ],
    }
