"""What is in the archive: ingest, probe, tag, dedup, feedback."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidseek import printing
from vidseek_media.errors import ConfigError, InputRejected

if TYPE_CHECKING:
    from vidseek_retrieval.dedup.find import DedupReport


def ingest(
    source: Annotated[str | None, typer.Argument(help="A folder, a pattern, a manifest, a URL or a page of YouTube; by "
                                                      "default ingest.source of params.yaml.")] = None,
    as_json: printing.AsJson = False,
) -> None:
    """List the videos of a source, download what lies elsewhere, and read what is new: as the stage `ingest` does."""
    from vidseek.archive import Archive
    from vidseek_media.fields.statements import undeclared_told
    from vidseek_media.forgotten import read_forgotten
    from vidseek_media.output import printable
    from vidseek_media.settings import FieldSettings, IngestSettings
    from vidseek_media.sources.ingest import FieldsOut
    from vidseek_media.sources.ingest import ingest as ingest_source
    from vidseek_media.sources.opening import open_source
    from vidseek_media.tables import first_rejected

    archive = Archive.here()
    settings = archive.section(IngestSettings)
    wanted = source or settings.source
    if not wanted:
        raise ConfigError(
            "no source was named", code="source-not-set", remedy="Name a folder, or set ingest.source in params.yaml",
        )
    opened = open_source(
        wanted, base=Path() if source else archive.root, downloads=archive.downloads,
        settings=settings,
    )
    report = ingest_source(
        opened,
        out=archive.ingest,
        ledger=archive.ledger,
        timeout_seconds=settings.timeout_seconds,
        workers=settings.workers,
        captions=None if source or not settings.captions else archive.root / settings.captions,
        clip_pattern=settings.clip_pattern,
        forgotten=read_forgotten(archive.decisions),
        fields=FieldsOut(archive.section(FieldSettings).declared, archive.fields, archive.decisions),
    )
    printing.report(report, as_json=as_json)
    if not as_json and (rejected := first_rejected(archive.ingest)):
        typer.echo(printable(rejected))
    if not as_json:
        for line in undeclared_told(report.undeclared):
            typer.echo(printable(line))


def probe(
    file: Annotated[Path, typer.Argument(help="A video file.")],
    decoder: Annotated[str | None, typer.Option(help="As frames.decoder of params.yaml: auto (the default), pyav or decord.")
                       ] = None,
    as_json: printing.AsJson = False,
) -> None:
    """Measure one video file, and decode a frame of it: what `ingest` would say of it, and who would decode it."""
    from vidseek_media.decoding.frames import DECODERS
    from vidseek_media.decoding.probe import examine
    from vidseek_media.settings import DECODER

    if decoder not in (None, *DECODERS):
        raise typer.BadParameter(f"--decoder is {decoder!r}, wanted one of {', '.join(DECODERS)}")
    try:
        found = asdict(examine(file, decoder=decoder or DECODER))
    except InputRejected as error:
        raise InputRejected(f"{file}: {error.message}", code=error.code, remedy=error.remedy) from error
    printing.report({**found.pop("probe"), **found}, as_json=as_json)


def dedup(
    precision: Annotated[float, typer.Option(min=0.5, max=0.999, help="Of what is called a duplicate, the share that "
                                             "shall be one.")] = 0.95,
    report: Annotated[Path | None, typer.Option(help="Write a page with both sides of each.")] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Decide so: into duplicates.parquet of data/decisions.")] = False,
    as_json: printing.AsJson = False,
) -> None:
    """Look for near-duplicate videos of the published archive. No file is ever deleted."""
    from vidseek.archive import ALIAS, Archive
    from vidseek_retrieval.dedup.decisions import ACCEPTED_TABLE, deciding, read_decisions, without_refused
    from vidseek_retrieval.dedup.find import find_duplicates, write_duplicates_page
    from vidseek_retrieval.dedup.video_matches import write_duplicates
    from vidseek_retrieval.index.aliases import require_published

    archive = Archive.here()
    backend = archive.backend()
    collection = backend.open(require_published(backend, ALIAS).collection)
    found = find_duplicates(collection, archive.frames, archive.ingest, precision=precision, cache=archive.dedup_cache)
    if report:
        write_duplicates_page(report, found, archive.frames)
    if apply:
        decided = archive.decisions
        with deciding(decided):
            write_duplicates(decided / ACCEPTED_TABLE, without_refused(found.duplicates, read_decisions(decided)))
    if as_json:
        printing.print_json(found.to_json())
        return
    _show_duplicates(found)
    printing.say("Decided. Run `dvc repro` (or, to fold them at once, `dvc repro --single-item publish`)." if apply
               else "Nothing was decided: look at --report, then --apply.")


def _show_duplicates(found: DedupReport) -> None:
    from vidseek_retrieval.dedup.decisions import key_of

    clock, escape = printing.clock, printing.escape
    rows = []
    for row in found.duplicates:
        why = found.reasons.get(key_of(row))
        rows.append((
            f"{escape(found.uris[row.video_id])}\n  {clock(row.start_ms)} – {clock(row.end_ms)}\n"
            f"{escape(found.uris[row.duplicate_of])}\n  {clock(row.of_start_ms)} – {clock(row.of_end_ms)}", row.kind,
            f"{row.score:.3f}", "through a third video" if why is None else
            f"{why.speed:.2f} x, {why.offset_ms / 1000:+z.1f} s\n{escape('; '.join(why.differences))}",
        ))
    printing.show(
        printing.table(["duplicate, and of what", "", "likeness", "aligned; what differs"], rows),
        nothing="No near-duplicates.",
    )
    chosen = found.threshold
    printing.say(
        f"Likeness from {chosen.limit:.4f}: expected precision {chosen.precision:.3f} ({chosen.precision_between[0]:.3f} to "
        f"{chosen.precision_between[1]:.3f}) among {chosen.num_pairs} pairs, recall {chosen.recall:.2f} "
        f"({chosen.recall_between[0]:.2f} to {chosen.recall_between[1]:.2f}) of made copies."
    )
    others = ", ".join(f"{each.precision:g}: {each.num_found}" for each in chosen.curve)
    printing.say(f"Pairs found here by precision: {others}.")
    if found.num_left_out:
        printing.say(f"Of {found.num_candidates + found.num_left_out} pairs with similar frames {found.num_candidates} were "
                     f"compared frame by frame; {found.num_missed:.0f} copies are expected among the others.")
    if chosen.remark:
        printing.say(f"{chosen.remark[0].upper()}{chosen.remark[1:]}.")


def feedback_freeze(as_json: printing.AsJson = False) -> None:
    """Write what was said so far to data/decisions/feedback.parquet: what was said last of a query and a clip."""
    from vidseek.actions.feedback import TABLE, freeze
    from vidseek.archive import Archive

    archive = Archive.here()
    printing.report(freeze(archive.feedback, archive.decisions / TABLE), as_json=as_json)


def feedback_say(
    query: Annotated[str, typer.Argument(help="What was looked for, in words.")],
    clip: Annotated[str, typer.Option("--clip-id", help="The best_clip_id of a hit.")],
    relevant: Annotated[bool, typer.Option("--right/--wrong", help="Whether the clip shows it.")],
    as_json: printing.AsJson = False,
) -> None:
    """Say whether a hit is what a query looked for, as Right and Wrong on the page do."""
    from vidseek.actions import feedback
    from vidseek.archive import Archive

    said = feedback.say(Archive.here(), query, clip, relevant=relevant)
    words = f"Written down: {said.clip_id} is {'right' if relevant else 'wrong'} for: {said.query}"
    printing.tell(asdict(said), words, as_json=as_json)


def tag(
    tags: Annotated[list[str] | None, typer.Argument(metavar="[TAG]...", help="Words, each a tag of its own.")] = None,
    clip: Annotated[str | None, typer.Option("--clip-id", help="The best_clip_id of a hit: its span is tagged.")] = None,
    video: Annotated[str | None, typer.Option(help="A video_id, its first digits, or a uri: the whole video.")] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take the tags away.")] = False,
    who: Annotated[str, typer.Option(envvar="USER", help="Whose word it is.")] = "",
    list_all: Annotated[bool, typer.Option("--list", help="Say what was decided, of all or of one clip or video.")] = False,
    as_json: printing.AsJson = False,
) -> None:
    """Tag a clip or a video; searches filter by `tags` after the next `dvc repro`."""
    from vidseek.actions import tags as tagging
    from vidseek.archive import Archive

    here = Archive.here()
    if (clip and video) or (not list_all and not (tags and (clip or video))):
        raise typer.BadParameter("say which tags, and --clip-id or --video")
    target = tagging.target_of_clip(here, clip) if clip else tagging.target_of_video(here, video) if video else None
    if list_all or target is None:
        decided = tagging.list_tags(here, target)
    else:
        decided = tagging.decide_tags(here, target, tags or (), has_tag=not remove, who=who)
    content = [asdict(each) for each in decided]
    automatic = tagging.count_auto_tags(here) if list_all and target is None else {}
    if as_json:
        printing.print_json({"decided": content, "by_prompts": automatic, "next": [] if list_all else ["dvc repro"]})
        return
    names = ("tag", "has_tag", "video_id", "start_ms", "end_ms", "who", "decided_at")
    rows = [tuple(printing.escape("" if each[name] is None else str(each[name])) for name in names) for each in content]
    printing.show(printing.table(list(names), rows), nothing="No tags by people." if automatic else "No tags.")
    if automatic:
        counts = [(printing.escape(tag), str(num)) for tag, num in automatic.items()]
        printing.show(printing.table(["tag by prompts", "clips"], counts), nothing="")
    if not list_all:
        typer.echo("Written down. `dvc repro` (or `vidseek watch`) publishes it.")
