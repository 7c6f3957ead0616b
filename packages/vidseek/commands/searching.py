"""`vidseek search`: here or by the API."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vidseek import printing
from vidseek.matches import chance_if_unlikely
from vidseek_media.errors import ArtifactError, ConfigError, InputRejected
from vidseek_media.terminal.progress import waiting

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
    open_best: Annotated[bool, typer.Option("--open", help="Play the first one, at its second.")] = False,
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
        answer = queries.ask_api(url, {"limit": limit, **{name: value for name, value in wanted.items() if value}})
    else:
        from vidseek_retrieval.search.query import SearchOptions

        options = SearchOptions(
            limit, offset, collection, filters, queries.weights_of(weights) if weights else None, diversity,
            min_confidence, _fields(fields),
        )
        answer = _search_here(
            options, model, texts=texts, images=image, clips=clip, clip_ids=clip_ids,
            negative_texts=negative_texts, negative_images=negative_images, negative_ids=negative_ids,
        )
    if as_json:
        printing.print_json(answer)
    else:
        printing.show_hits(answer["hits"])
        chance = chance_if_unlikely(answer["hits"])
        if chance is not None:
            typer.echo(f"Probably none of these fits: the chance that one does is {chance:.0%}.")
    if open_best and answer["hits"]:
        from vidseek.archive import Archive

        best, archive = answer["hits"][0], Archive.here()
        if archive.source is None:
            raise ConfigError(
                f"{archive.params} has no ingest.source", code="source-not-set", remedy="Set it to where the videos are",
            )
        queries.play(archive.source.path_of(best["uri"]), start_ms=best["start_ms"])


def _search_here(
    options: SearchOptions, model: Literal["vidseek", "base"], *, texts: list[str] | None, images: list[Path] | None,
    clips: list[Path] | None, clip_ids: list[str] | None, negative_texts: list[str] | None,
    negative_images: list[Path] | None, negative_ids: list[str] | None,
) -> dict[str, Any]:
    from vidseek.actions.queries import read_clip, read_image
    from vidseek.archive import Archive, load_encoder, open_searcher
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
    return searcher.search(searcher.encode(positive, negative), options).to_json()


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
