"""`vidseek export-dataset`: clips as a data set for another program."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from vidseek import printing
from vidseek.dataset_export import CUT_WORKERS, SHARD_MIB, FormatName

MAX_NAMED = 5
"""Clips that were left out, which are named."""


def export_dataset(
    format_name: Annotated[FormatName, typer.Argument(metavar="FORMAT", help=(
        "webdataset (tar files), hf (Parquet for `datasets`), fiftyone, or csv."))],
    out: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to write.")],
    channel: Annotated[list[str] | None, typer.Option(help="Only of this channel; again for one of several.")] = None,
    category: Annotated[list[str] | None, typer.Option(help="Only of this category.")] = None,
    after: Annotated[str | None, typer.Option(help="Published then or later: 2024-05-01.")] = None,
    before: Annotated[str | None, typer.Option(help="Published before then.")] = None,
    condition: Annotated[list[str] | None, typer.Option("--filter", help="As of a search: camera=B, take>=3.")] = None,
    cut: Annotated[str, typer.Option(help="Only clips of this cut mode: captions, windows or shots.")] = "",
    splits: Annotated[list[str] | None, typer.Option("--split", help="Only of this split: train, validation, test or "
                                                     "unassigned; again for several.")] = None,
    captioned: Annotated[bool, typer.Option("--captioned", help="Only clips that have a caption of their own.")] = False,
    media: Annotated[bool, typer.Option("--media", help="Cut each clip out of its video too, exact to the frame.")] = False,
    no_frames: Annotated[bool, typer.Option("--no-frames", help="Leave the frames out.")] = False,
    no_embeddings: Annotated[bool, typer.Option("--no-embeddings", help="Leave the embeddings out.")] = False,
    shard_mib: Annotated[int, typer.Option(min=1, help="Size from which a file takes no more clips, in MiB.")] = SHARD_MIB,
    workers: Annotated[int, typer.Option(min=1, help="Processes that cut.")] = CUT_WORKERS,
    force: Annotated[bool, typer.Option("--force", help="Replace a data set that is there.")] = False,
    as_json: printing.AsJson = False,
) -> None:
    """Write clips with frames, captions, splits, fields and embeddings as a data set, whole or not at all."""
    from vidseek.actions.queries import filters_of
    from vidseek.archive import Archive
    from vidseek.dataset_export.clips import Selection
    from vidseek.dataset_export.export import Contents
    from vidseek.dataset_export.export import export_dataset as export

    filters = filters_of(
        condition or [], channels=channel or [], categories=category or [], after=after, before=before
    )
    done = export(
        Archive.here(), out, format_name, Selection(filters, cut, tuple(splits or ()), captioned),
        Contents(not no_frames, not no_embeddings, media, shard_mib, workers), force=force,
    )
    if as_json:
        printing.print_json({"folder": str(out), **asdict(done)})
        return
    parts = ", ".join(f"{num} {name}" for name, num in done.splits.items())
    printing.say(f"{out}: clips: {done.num_clips} ({parts}); videos: {done.num_videos}; captions: {done.num_captions}")
    for each in done.left_out[:MAX_NAMED]:
        printing.say(f"  left out: {each.uri}: {each.reason}")
    if len(done.left_out) > MAX_NAMED:
        printing.say(f"  and {len(done.left_out) - MAX_NAMED} more: {out / 'dataset.json'}")
