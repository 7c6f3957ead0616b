"""`vidseek search`: here or by the API."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vidseek import printing
from vidseek.matches import chance_if_unlikely
from vidseek_media.errors import ArtifactError, InputRejected

if TYPE_CHECKING:
    from vidseek_retrieval.search.query import SearchOptions


def search(
    texts: Annotated[list[str] | None, typer.Argument(metavar="[TEXT]...", help="What to look for, in words; several "
                                                                              "are looked for together.")] = None,
    image: Annotated[list[Path] | None, typer.Option(help="A picture that moments shall look like.")] = None,
    clip: Annotated[list[Path] | None, typer.Option(help="A short video file that they shall look like.")] = None,
    clip_ids: Annotated[list[str] | None, typer.Option("--clip-id", "--like",
                                                       help="The best_clip_id of a hit: more of this.")] = None,
    negative_texts: Annotated[list[str] | None, typer.Option("--negative", "--not", help="What they shall not show, "
                                                             "in words.")] = None,
    negative_images: Annotated[list[Path] | None, typer.Option("--negative-image", help="A picture of that.")] = None,
    negative_ids: Annotated[list[str] | None, typer.Option("--negative-clip-id",
                                                           help="A best_clip_id: less of this.")] = None,
    not_images: Annotated[list[Path] | None, typer.Option("--not-image", hidden=True)] = None,
    not_like: Annotated[list[str] | None, typer.Option("--not-like", hidden=True)] = None,
    channel: Annotated[list[str] | None, typer.Option(help="Only of this channel; again for one of several.")] = None,
    category: Annotated[list[str] | None, typer.Option(help="Only of this category.")] = None,
    after: Annotated[str | None, typer.Option(help="Published then or later: 2024-05-01.")] = None,
    before: Annotated[str | None, typer.Option(help="Published before then.")] = None,
    condition: Annotated[list[str] | None, typer.Option("--filter", help="field=value, field>=value, field<value: "
                                                        "duration_ms<60000.")] = None,
    fields: Annotated[str | None, typer.Option("--in", help="What is looked at: some of visual, captions, speech, ocr, with "
                                               "commas. Words in double quotes must stand there as they are.")] = None,
    weights: Annotated[str | None, typer.Option(help="Single vectors, fused by rank: video=1,words=0.5.")] = None,
    diversity: Annotated[float, typer.Option(min=0, max=1, help="0 to 1: how different the moments shall be.")] = 0.0,
    min_confidence: Annotated[float, typer.Option(min=0, max=1, help="Leave out what is less likely right: "
                                                  "metrics.json in reports/calibrate says what keeps 95 %.")] = 0.0,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many moments, at most.")] = 10,
    offset: Annotated[int, typer.Option(min=0, help="Moments to skip: next_offset of the page before.")] = 0,
    collection: Annotated[str | None, typer.Option(help="Stay on the index of the page before.")] = None,
    model: Annotated[Literal["vidseek", "base"], typer.Option(help="Which model looks: the live one, or the base that "
                                                              "`vidseek base` published.")] = "vidseek",
    rerank: Annotated[bool | None, typer.Option("--rerank/--no-rerank", help="Let a language model that sees look at the "
                                                "first moments again; by default as search.rerank says.")] = None,
    open_best: Annotated[bool, typer.Option("--open", help="Play the first one, at its second.")] = False,
    export: Annotated[Path | None, typer.Option(help="Write the moments for an editor: a file that ends in .otio, .edl, "
                                                ".fcpxml, .csv or .json.")] = None,
    handles: Annotated[str, typer.Option(help="With --export, what is kept before and behind each moment: 12f or 0.5s.")
                       ] = "0f",
    relative: Annotated[bool, typer.Option("--relative", help="With --export, name the videos as from the file's folder.")
                        ] = False,
    media_root: Annotated[str, typer.Option(help="With --export, the source's folder on the editor's machine.")] = "",
    url: Annotated[str | None, typer.Option(envvar="VIDSEEK_URL", help="Ask the API that runs there.")] = None,
    as_json: printing.AsJson = False,
) -> None:
    """Find moments of the archive: by words, pictures, clips, or several of them at once."""
    from vidseek.actions import queries

    negative_images = [*(negative_images or []), *(not_images or [])]  # the names of an earlier version
    negative_ids = [*(negative_ids or []), *(not_like or [])]
    if not any((texts, image, clip, clip_ids)):
        raise typer.BadParameter("say what to look for: TEXT, --image, --clip or --clip-id")
    if any(not text.strip() for text in (*(texts or []), *(negative_texts or []))):
        raise InputRejected("the query is blank", code="empty-query", remedy="Say in a few words what to look for")
    exporter = _exporter(export, handles, relative=relative, media_root=media_root, url=url) if export else None
    filters = queries.filters_of(
        condition or [], channels=channel or [], categories=category or [], after=after, before=before
    )
    if url:
        wanted: dict[str, Any] = {
            "text": _only("TEXT", texts), "image": _bytes_of(_only("--image", image)),
            "clip": _bytes_of(_only("--clip", clip)), "clip_id": _only("--clip-id", clip_ids),
            "negative_text": negative_texts, "negative_image": _bytes_of(_only("--negative-image", negative_images)),
            "negative_clip_id": negative_ids, "filters": filters,
            "in": _fields(fields), "weights": weights, "diversity": diversity, "min_confidence": min_confidence,
            "offset": offset, "collection": collection, "model": None if model == "vidseek" else model,
        }
        body = {"limit": limit, **{name: value for name, value in wanted.items() if value}}
        answer = queries.ask_api(url, body if rerank is None else body | {"rerank": rerank})
    else:
        from vidseek_retrieval.search.query import SearchOptions

        options = SearchOptions(
            limit, offset, collection, filters, queries.weights_of(weights) if weights else None, diversity,
            min_confidence, _fields(fields),
        )
        answer = _search_here(
            options, model, rerank=rerank, texts=texts, images=image, clips=clip, clip_ids=clip_ids,
            negative_texts=negative_texts, negative_images=negative_images, negative_ids=negative_ids,
        )
    exported = exporter(answer["hits"], " ".join(texts or ())) if exporter else None
    if as_json:
        printing.print_json({**answer, "export": exported} if exported else answer)
    else:
        printing.show_hits(answer["hits"])
        _tell_second_look(answer.get("rerank"))
        _tell_exported(exported)
        chance = chance_if_unlikely(answer["hits"])
        if chance is not None:
            typer.echo(f"Probably none of these fits: the chance that one does is {chance:.0%}.")
    if open_best and answer["hits"]:
        from vidseek.archive import Archive

        best, archive = answer["hits"][0], Archive.here()
        queries.play(archive.require_source().path_of(best["uri"]), start_ms=best["start_ms"])


def clip(
    moment: Annotated[str, typer.Argument(metavar="HIT", help="The moment of a hit, as the list of hits has it: "
                                          "VIDEO:START-END, with the video's id, its first digits or its uri, and "
                                          "milliseconds. Or a clip_id.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write: .mp4, .mov or .mkv.")],
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the encoder.")] = 2,
    as_json: printing.AsJson = False,
) -> None:
    """Write a moment as a video file, exact to the frame, with its sound."""
    from vidseek.archive import Archive
    from vidseek.edit.archive_sources import cut_moment, find_moment

    archive = Archive.here()
    written = cut_moment(archive, find_moment(archive, moment), out, force=force, threads=threads)
    if as_json:
        printing.print_json({"file": str(out), **asdict(written)})
        return
    how = "copied" if written.is_copied else "encoded again"
    printing.say(f"{out}: {written.num_frames} frames, {printing.clock(written.start_ms)} to "
                 f"{printing.clock(written.end_ms)}, {how}, {'with' if written.has_sound else 'without'} sound")


def _exporter(
    file: Path, handles: str, *, relative: bool, media_root: str, url: str | None
) -> Callable[[list[dict[str, Any]], str], dict[str, Any]]:
    """Return what exports hits; what is wrong with the options is told before the search."""
    from vidseek.actions import queries
    from vidseek.edit import timeline
    from vidseek.edit.events import Handles, Moment, Places, notes_of
    from vidseek.edit.export import export_text, format_of, write_export

    format_name, kept = format_of(file), Handles.parse(handles)
    if format_name in timeline.ADAPTERS and not url:
        timeline.require_library(format_name)

    def export(hits: list[dict[str, Any]], name: str) -> dict[str, Any]:
        if url:
            asked = [
                {"clip_id": hit["best_clip_id"], "start_ms": hit["start_ms"], "end_ms": hit["end_ms"]} for hit in hits
            ]
            body = {"format": format_name, "moments": asked, "handles": handles, "name": name or file.stem}
            made = queries.ask_api_to_export(url, body | ({"media_root": media_root} if media_root else {}))
            write_export(file, made["content"])
            return {"file": str(file), **{each: made[each] for each in ("num_events", "notes", "left_out")}}
        from vidseek.archive import Archive
        from vidseek.edit.archive_sources import locate_events

        places = Places(media_root, file.absolute().parent if relative else None)
        events, left_out = locate_events(Archive.here(), [Moment.of_hit(hit) for hit in hits], kept, places)
        write_export(file, export_text(events, format_name, name or file.stem))
        told = [{"uri": each.moment.uri, "reason": each.reason, "code": each.code} for each in left_out]
        return {"file": str(file), "num_events": len(events), "notes": notes_of(events), "left_out": told}

    return export


def _tell_second_look(report: Mapping[str, Any] | None) -> None:
    if report is None:
        return
    if report["is_done"]:
        printing.say(
            f"{report['model']} looked at the first {report['num_hits']} again ({report['num_cached']} known, "
            f"{report['cost_usd']:.4f} USD, {report['seconds']:.1f} s): the order is its own, scores are the first ones."
        )
    if report["reason"]:
        printing.say(f"{'Some kept their place' if report['is_done'] else 'No second look'}: {report['reason']}.")


def _tell_exported(exported: Mapping[str, Any] | None) -> None:
    if exported is None:
        return
    printing.say(f"{exported['file']}: {exported['num_events']} moments")
    for note in exported["notes"]:
        printing.say(f"  {note}")
    for each in exported["left_out"]:
        printing.say(f"  left out: {each['reason']}")


def _search_here(
    options: SearchOptions, model: Literal["vidseek", "base"], *, rerank: bool | None, texts: list[str] | None,
    images: list[Path] | None,
    clips: list[Path] | None, clip_ids: list[str] | None, negative_texts: list[str] | None,
    negative_images: list[Path] | None, negative_ids: list[str] | None,
) -> dict[str, Any]:
    from vidseek.actions.queries import read_clip, read_image
    from vidseek.actions.second_look import SecondLook
    from vidseek.archive import Archive, load_encoder, open_searcher
    from vidseek_media.terminal.progress import waiting
    from vidseek_retrieval.search.query import QueryInputs

    archive = Archive.here().seen_by(model)
    settings = archive.settings().search
    has_index = archive.index.exists() or os.environ.get("QDRANT_URL")
    if model == "vidseek" and not archive.bundle.exists() and not has_index:
        raise ArtifactError(
            f"nothing is published in {archive.root}: it has neither models/encoder nor index", code="not-published",
            remedy="Run `dvc repro` in the folder of the archive, or set VIDSEEK_HOME to it",
        )
    with waiting("opening the encoder and the index"):
        encoder = load_encoder(archive, settings, text_only=not (images or clips or negative_images))
        searcher = open_searcher(archive, settings, encoder)
    spec = encoder.spec
    positive = QueryInputs(
        tuple(texts or ()), tuple(read_image(file) for file in images or ()),
        tuple(read_clip(file, num_frames=spec.num_frames, side_px=spec.resizing.shorter_px) for file in clips or ()),
        tuple(clip_ids or ()),
    )
    negative = QueryInputs(
        texts=tuple(negative_texts or ()), images=tuple(read_image(file) for file in negative_images or ()),
        clip_ids=tuple(negative_ids or ()),
    )
    query = searcher.encode(positive, negative)
    with SecondLook(archive, settings.rerank) as look:
        find = partial(searcher.search, query)
        return look.search(find, options, texts=positive.texts, wanted=rerank).to_json()


def _fields(text: str | None) -> tuple[str, ...]:
    """Split `speech,ocr`; empty for nothing."""
    return tuple(name.strip() for name in text.split(",") if name.strip()) if text else ()


def _only(name: str, given: list[Any] | None) -> Any:
    """Return the single value that the API takes."""
    if given and len(given) > 1:
        raise InputRejected(f"{name} is given {len(given)} times", code="option-repeated", remedy="With --url, give one")
    return given[0] if given else None


def _bytes_of(file: Path | None) -> bytes | None:
    try:
        return file.read_bytes() if file else None
    except OSError as error:
        raise InputRejected(f"{file} cannot be read: {error.strerror}", code="file-unreadable") from error
