"""What is in the archive: ingest, probe, dedup, feedback."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from vidseek import printing
from vidseek_media.errors import ConfigError, InputRejected


def ingest(
    source: Annotated[Path | None, typer.Argument(help="A folder of videos; by default ingest.source of "
                                                       "params.yaml.")] = None,
    as_json: printing.AsJson = False,
) -> None:
    """List the videos of a folder, and read what is new: as the stage `ingest` does."""
    from vidseek.archive import Archive
    from vidseek.settings import read_params
    from vidseek_media.ingest import ingest as ingest_folder

    archive = Archive.here()
    section = dict(read_params(archive.params).get("ingest") or {})
    if source is None and section.get("source"):
        source = archive.root / str(section["source"])
    if source is None:
        raise ConfigError("no source was named", remedy="Name a folder, or set ingest.source in params.yaml")
    report = ingest_folder(
        source,
        out=archive.root / "data" / "ingest",
        ledger=archive.state / "ledger",
        timeout_seconds=float(section.get("timeout_seconds", 60)),
        workers=int(section.get("workers", len(os.sched_getaffinity(0)))),
        clip_pattern=section.get("clip_pattern"),
    )
    printing.report(report, as_json=as_json)


def probe(
    file: Annotated[Path, typer.Argument(help="A video file.")],
    as_json: printing.AsJson = False,
) -> None:
    """Measure one video file, and decode a frame of it: what `ingest` would say of it."""
    from vidseek_media.probe import probe as probe_file

    try:
        report = probe_file(file)
    except InputRejected as error:
        raise InputRejected(f"{file}: {error.message}", remedy=error.remedy) from error
    printing.report(report, as_json=as_json)


def dedup(
    precision: Annotated[float, typer.Option(min=0.5, max=0.999, help="Of what is called a duplicate, the share that "
                                             "shall be one, on copies made of the archive.")] = 0.95,
    report: Annotated[Path | None, typer.Option(help="Write a page with both sides of each.")] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Decide so: write data/decisions/duplicates.parquet.")] = False,
    as_json: printing.AsJson = False,
) -> None:
    """Look for near-duplicate videos of the published archive. No file is ever deleted."""
    from vidseek.archive import ALIAS, Archive
    from vidseek_retrieval.decisions import ACCEPTED_TABLE, read_decisions, without_refused
    from vidseek_retrieval.dedup import find_duplicates, write_page
    from vidseek_retrieval.duplicates import write_duplicates
    from vidseek_retrieval.publish import require_published

    archive = Archive.here()
    home, data = archive.home(), archive.root / "data"
    collection = home.open(require_published(home, ALIAS).collection)
    found = find_duplicates(collection, data / "frames", data / "ingest", precision=precision)
    if report:
        write_page(report, found, data / "frames")
    if apply:
        decided = data / "decisions"
        write_duplicates(decided / ACCEPTED_TABLE, without_refused(found.duplicates, read_decisions(decided)))
    if as_json:
        printing.print_json(found.to_json())
        return
    clock, escape = printing.clock, printing.escape
    printing.show(printing.table(
        ["duplicate", "of", "", "likeness"],
        [(f"{escape(found.uris[row.video_id])}\n{clock(row.start_ms)} – {clock(row.end_ms)}",
          f"{escape(found.uris[row.duplicate_of])}\n{clock(row.of_start_ms)} – {clock(row.of_end_ms)}", row.kind,
          f"{row.score:.3f}") for row in found.duplicates],
    ), nothing="No near-duplicates.")
    chosen = found.threshold
    typer.echo(
        f"Likeness from {chosen.value:.3f}: precision {chosen.precision:.3f}, recall {chosen.recall:.3f} on "
        f"{chosen.num_copies} made copies and {chosen.num_different} pairs of different videos."
    )
    typer.echo("Decided. Run `dvc repro --force --single-item publish`, and searches fold them." if apply
               else "Nothing was decided: look at --report, then --apply.")


def feedback_freeze(as_json: printing.AsJson = False) -> None:
    """Write what was said so far to data/decisions/feedback.parquet: what was said last of a query and a clip."""
    from vidseek.archive import Archive
    from vidseek.feedback import TABLE, freeze

    archive = Archive.here()
    printing.report(freeze(archive.feedback, archive.decisions / TABLE), as_json=as_json)
