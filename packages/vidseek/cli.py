"""The `vidseek` command. Rooms and heavy libraries are imported when a command needs them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from vidseek_media.errors import ArtifactError, ConfigError, InputRejected, VidseekError

if TYPE_CHECKING:
    from rich.table import Table

    from vidseek_retrieval.search import SearchOptions

app = typer.Typer(
    name="vidseek",
    help="Search your own video archive by meaning.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
index_app = typer.Typer(no_args_is_help=True, help="The published index: its collections, and what is live.")
demo_app = typer.Typer(no_args_is_help=True, help="The demo world.")
app.add_typer(index_app, name="index")
app.add_typer(demo_app, name="demo")
feedback_app = typer.Typer(no_args_is_help=True, help="What people said of hits.")
app.add_typer(feedback_app, name="feedback")
encoder_app = typer.Typer(no_args_is_help=True, help="The encoder bundle.")
app.add_typer(encoder_app, name="encoder")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program instead of text for a person.")]


def main() -> NoReturn:
    """Run the command: an error of ours is one message on stderr and its exit code, never a traceback."""
    try:
        app()
    except VidseekError as error:
        typer.echo(f"vidseek: {error.message}", err=True)
        if error.remedy:
            typer.echo(f"  → {error.remedy}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # `vidseek … | head` is no error
        sys.exit(0)
    sys.exit(0)


@app.command()
def search(
    texts: Annotated[list[str] | None, typer.Argument(metavar="[TEXT]...", help="What to look for, in words; several "
                                                                              "are looked for together.")] = None,
    image: Annotated[list[Path] | None, typer.Option(help="A picture that moments shall look like.")] = None,
    clip: Annotated[list[Path] | None, typer.Option(help="A short video file that they shall look like.")] = None,
    like: Annotated[list[str] | None, typer.Option(help="The best_clip_id of a hit: more of this.")] = None,
    less_texts: Annotated[list[str] | None, typer.Option("--not", help="What they shall not show, in words.")] = None,
    less_images: Annotated[list[Path] | None, typer.Option("--not-image", help="A picture of that.")] = None,
    unlike: Annotated[list[str] | None, typer.Option("--not-like", help="A best_clip_id: less of this.")] = None,
    channel: Annotated[list[str] | None, typer.Option(help="Only of this channel; again for one of several.")] = None,
    category: Annotated[list[str] | None, typer.Option(help="Only of this category.")] = None,
    after: Annotated[str | None, typer.Option(help="Published then or later: 2024-05-01.")] = None,
    before: Annotated[str | None, typer.Option(help="Published before then.")] = None,
    condition: Annotated[list[str] | None, typer.Option("--filter", help="field=value, field>=value, field<value.")] = None,
    weights: Annotated[str | None, typer.Option(help="Which vectors count: video=1,caption=0.5,words=0.5.")] = None,
    diversity: Annotated[float, typer.Option(min=0, max=1, help="0 to 1: how different the moments shall be.")] = 0.0,
    min_confidence: Annotated[float, typer.Option(min=0, max=1, help="Leave out what is less likely right: "
                                                  "reports/calibrate/metrics.json says what keeps 95 %.")] = 0.0,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many moments, at most.")] = 10,
    offset: Annotated[int, typer.Option(min=0, help="Moments to skip: next_offset of the page before.")] = 0,
    collection: Annotated[str | None, typer.Option(help="Stay on the index of the page before.")] = None,
    open_best: Annotated[bool, typer.Option("--open", help="Play the first one, at its second.")] = False,
    url: Annotated[str | None, typer.Option(envvar="VIDSEEK_URL", help="Ask the API that runs there.")] = None,
    as_json: AsJson = False,
) -> None:
    """Find moments of the archive: by words, pictures, clips, or several of them at once."""
    from vidseek import queries

    if not any((texts, image, clip, like)):
        raise typer.BadParameter("say what to look for: TEXT, --image, --clip or --like")
    if any(not text.strip() for text in (*(texts or []), *(less_texts or []))):
        raise InputRejected("the query is blank", remedy="Say in a few words what to look for")
    filters = queries.filters_of(
        condition or [], channels=channel or [], categories=category or [], after=after, before=before
    )
    if url:
        wanted: dict[str, Any] = {
            "text": _only("TEXT", texts), "image": _bytes_of(_only("--image", image)),
            "clip": _bytes_of(_only("--clip", clip)), "clip_id": _only("--like", like), "not": less_texts,
            "not_clip_id": unlike, "filters": filters, "weights": weights, "diversity": diversity,
            "min_confidence": min_confidence, "offset": offset,
            "collection": collection,
        }
        answer = queries.ask_api(url, {"limit": limit, **{name: value for name, value in wanted.items() if value}})
    else:
        from vidseek_retrieval.search import SearchOptions

        options = SearchOptions(
            limit, offset, collection, filters, queries.weights_of(weights) if weights else None, diversity,
            min_confidence,
        )
        answer = _search_here(
            options, texts=texts, images=image, clips=clip, like=like, less_texts=less_texts, less_images=less_images,
            unlike=unlike,
        )
    if as_json:
        _print_json(answer)
    else:
        _show(_hits_table(answer["hits"]), nothing="Nothing fits.")
    if open_best and answer["hits"]:
        from vidseek.archive import Archive

        best, archive = answer["hits"][0], Archive.here()
        if archive.source is None:
            raise ConfigError(f"{archive.params} has no ingest.source", remedy="Set it to the folder of the videos")
        queries.play(archive.source / best["uri"], start_ms=best["start_ms"])


def _search_here(
    options: SearchOptions, *, texts: list[str] | None, images: list[Path] | None, clips: list[Path] | None,
    like: list[str] | None, less_texts: list[str] | None, less_images: list[Path] | None, unlike: list[str] | None,
) -> dict[str, Any]:
    from vidseek.archive import Archive, load_encoder, open_searcher
    from vidseek.queries import read_clip, read_image
    from vidseek_retrieval.search import Asked

    archive = Archive.here()
    settings = archive.settings().search
    if not archive.bundle.exists() and not archive.index.exists() and not os.environ.get("QDRANT_URL"):
        raise ArtifactError(
            f"nothing is published in {archive.root}: it has neither models/encoder nor index",
            remedy="Run `dvc repro` in the folder of the archive, or set VIDSEEK_HOME to it",
        )
    encoder = load_encoder(archive, settings, text_only=not (images or clips or less_images))
    searcher = open_searcher(archive, settings, encoder)
    spec = encoder.spec
    more = Asked(
        tuple(texts or ()), tuple(read_image(file) for file in images or ()),
        tuple(read_clip(file, num_frames=spec.frames, side_px=spec.side) for file in clips or ()), tuple(like or ()),
    )
    less = Asked(
        texts=tuple(less_texts or ()), images=tuple(read_image(file) for file in less_images or ()),
        like=tuple(unlike or ()),
    )
    return searcher.search(searcher.encode(more, less), options).to_json()


def _only(name: str, given: list[Any] | None) -> Any:
    """What the API takes one of."""
    if given and len(given) > 1:
        raise InputRejected(f"{name} is given {len(given)} times", remedy="With --url, give one")
    return given[0] if given else None


def _bytes_of(file: Path | None) -> bytes | None:
    try:
        return file.read_bytes() if file else None
    except OSError as error:
        raise InputRejected(f"{file} cannot be read: {error.strerror}") from error


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="IP address to listen at, by default serve.host of params.yaml; any "
                                                  "but this machine's own needs a key in VIDSEEK_API_KEY.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="By default serve.port of params.yaml.")] = None,
) -> None:
    """Answer searches over HTTP: POST /v1/search, /healthz, /readyz, /openapi.json."""
    from vidseek.archive import HOME_VARIABLE, Archive
    from vidseek.service import require_free, require_key, require_ready, serve_command

    archive = Archive.here()
    require_ready(archive)
    settings = archive.settings().serve
    host, port = host or settings.host, port or settings.port
    require_free(host, port)
    require_key(host)
    command = serve_command(host=host, port=port)
    quiet = {"BENTOML_DO_NOT_TRACK": "true", HOME_VARIABLE: str(archive.root.resolve())}
    sys.stdout.flush()
    os.execve(command[0], command, {**os.environ, **quiet})


@app.command("push-adapter")
def push_adapter(
    destination: Annotated[str, typer.Argument(help="A folder, or hub:NAME/ADAPTER for the model hub.")],
) -> None:
    """Hand the champion's adapter on: PEFT's format, with a model card."""
    from vidseek.archive import Archive
    from vidseek_training.push import push_adapter as push

    root = Archive.here().root
    where = push(root / "models" / "champion", root / "reports" / "evaluate" / "metrics.json", destination)
    typer.echo(f"The adapter is at {where}.")


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Say what is installed, which versions agree, what is missing and how to mend it."""
    from vidseek.archive import Archive
    from vidseek.doctor import examine

    diagnosis = examine(Archive.here())
    if as_json:
        _print_json(diagnosis.to_json())
    else:
        marks = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "missing": "[yellow]missing[/]",
                 "error": "[red]error[/]"}
        _show(_table(
            ["", "what", "", "found", "how to mend it"],
            [(one.group, one.name, marks[one.state], _escape(one.found), _escape(one.remedy))
             for one in diagnosis.summary()],
        ))
        typer.echo("All that a search needs is there." if diagnosis.is_well
                   else "Something that is needed is missing: see the lines marked error.")
    if not diagnosis.is_well:
        raise typer.Exit(ConfigError.exit_code)


@app.command()
def mlflow(
    host: Annotated[str, typer.Option()] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 5000,
) -> None:
    """Open the MLflow UI on the archive's runs (or on MLFLOW_TRACKING_URI)."""
    from vidseek.archive import Archive

    archive = Archive.here()
    uri = archive.tracking_uri()
    if uri.startswith(("http://", "https://")):
        typer.echo(f"The runs are kept by a server: open {uri}")
        return
    database = archive.state / "mlflow.db"
    if not os.environ.get("MLFLOW_TRACKING_URI") and not database.exists():
        raise ArtifactError(f"{database} is missing: no run was tracked yet", remedy="Run `dvc repro`")
    _require_module("mlflow", "train")
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, "--host", host, "--port", str(port),
               "--workers", "1"]
    typer.echo(f"MLflow on http://{host}:{port}  (stop with Ctrl-C)", err=True)
    os.execve(command[0], command, {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"})


@app.command()
def ingest(
    source: Annotated[Path | None, typer.Argument(help="A folder of videos; by default ingest.source of "
                                                       "params.yaml.")] = None,
    as_json: AsJson = False,
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
    _report(report, as_json=as_json)


@app.command()
def probe(
    file: Annotated[Path, typer.Argument(help="A video file.")],
    as_json: AsJson = False,
) -> None:
    """Measure one video file, and decode a frame of it: what `ingest` would say of it."""
    from vidseek_media.probe import probe as probe_file

    try:
        report = probe_file(file)
    except InputRejected as error:
        raise InputRejected(f"{file}: {error.message}", remedy=error.remedy) from error
    _report(report, as_json=as_json)


@app.command()
def dedup(
    precision: Annotated[float, typer.Option(min=0.5, max=0.999, help="Of what is called a duplicate, the share that "
                                             "shall be one, on copies made of the archive.")] = 0.95,
    report: Annotated[Path | None, typer.Option(help="Write a page with both sides of each.")] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Decide so: write data/decisions/duplicates.parquet.")] = False,
    as_json: AsJson = False,
) -> None:
    """Look for near-duplicate videos of the published archive. No file is ever deleted."""
    from vidseek.archive import ALIAS, Archive
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
        write_duplicates(data / "decisions" / "duplicates.parquet", found.duplicates)
    if as_json:
        _print_json(found.to_json())
        return
    _show(_table(
        ["duplicate", "of", "", "likeness"],
        [(f"{_escape(found.uris[row.video_id])}\n{clock(row.start_ms)} – {clock(row.end_ms)}",
          f"{_escape(found.uris[row.duplicate_of])}\n{clock(row.of_start_ms)} – {clock(row.of_end_ms)}", row.kind,
          f"{row.score:.3f}") for row in found.duplicates],
    ), nothing="No near-duplicates.")
    chosen = found.threshold
    typer.echo(
        f"Likeness from {chosen.value:.3f}: precision {chosen.precision:.3f}, recall {chosen.recall:.3f} on "
        f"{chosen.num_copies} made copies and {chosen.num_different} pairs of different videos."
    )
    typer.echo("Decided. Run `dvc repro --force --single-item publish`, and searches fold them." if apply
               else "Nothing was decided: look at --report, then --apply.")


AliasName = Annotated[str, typer.Option("--alias", help="The name that searches ask for.")]


@index_app.command("list")
def index_list(as_json: AsJson = False) -> None:
    """List the collections: which is live, and which are kept for a rollback."""
    from vidseek.archive import Archive
    from vidseek_retrieval.publish import list_collections

    collections = list_collections(Archive.here().home())
    if as_json:
        _print_json([
            {**one.facts.to_json(), "live_as": list(one.live_as), "kept_for": list(one.kept_for)} for one in collections
        ])
        return
    _show(_table(
        ["collection", "clips", "made", "live as", "kept for"],
        [(one.facts.name, str(one.facts.num_points), one.facts.created_at[:19].replace("T", " "),
          ", ".join(one.live_as), ", ".join(one.kept_for)) for one in collections],
    ), nothing="Nothing is published yet: run `dvc repro`.")


@index_app.command("verify")
def index_verify(
    collection: Annotated[str | None, typer.Argument(help="By default the live one.")] = None,
    alias: AliasName = "clips",
    as_json: AsJson = False,
) -> None:
    """Check every file of a collection, count it, and compare approximate with exact searches."""
    from vidseek.archive import Archive
    from vidseek_retrieval.publish import verify

    verification = verify(Archive.here().home(), alias=alias, collection=collection)
    _report(verification, as_json=as_json)
    if not verification.passed:
        raise ArtifactError(
            f"{verification.collection} does not verify: {'; '.join(verification.problems)}",
            remedy="`vidseek index rollback`, or remove its folder and `dvc repro --force --single-item publish`",
        )


@index_app.command("rollback")
def index_rollback(alias: AliasName = "clips", as_json: AsJson = False) -> None:
    """Make the collection live that was live before."""
    from vidseek.archive import Archive
    from vidseek_retrieval.publish import rollback

    _report({"alias": alias, "collection": rollback(Archive.here().home(), alias=alias)}, as_json=as_json)


@index_app.command("prune")
def index_prune(as_json: AsJson = False) -> None:
    """Remove what no alias points to or keeps for a rollback."""
    from vidseek.archive import Archive
    from vidseek_retrieval.publish import prune

    removed = prune(Archive.here().home())
    if as_json:
        _print_json({"removed": removed})
    else:
        typer.echo("\n".join(f"removed {name}" for name in removed) or "Nothing to remove.")


@index_app.command("export")
def index_export(
    file: Annotated[Path, typer.Argument(help="A Parquet file to write.")],
    collection: Annotated[str | None, typer.Option(help="By default the live one.")] = None,
    alias: AliasName = "clips",
    as_json: AsJson = False,
) -> None:
    """Write a collection to one file. The home is the server that QDRANT_URL names, or else the folder `index`."""
    from vidseek.archive import Archive
    from vidseek_retrieval.transfer import export_collection

    done = export_collection(Archive.here().home(), file, alias=alias, collection=collection)
    _report({"collection": done.collection, "num_points": done.num_points, "file": str(done.path)}, as_json=as_json)


@index_app.command("import")
def index_import(
    file: Annotated[Path, typer.Argument(help="A file that `vidseek index export` wrote.")],
    alias: AliasName = "clips",
    as_json: AsJson = False,
) -> None:
    """Build the collection of FILE beside the live one, verify it, and make it live."""
    from vidseek.archive import Archive
    from vidseek_retrieval.transfer import import_collection

    done = import_collection(Archive.here().home(), file, alias=alias)
    _report({"collection": done.collection, "num_points": done.verification.num_points, "built": done.built,
             "moved": done.moved, "recall_at_10": done.verification.recall_at_10}, as_json=as_json)


@demo_app.command("render")
def demo_render(
    out: Annotated[Path | None, typer.Option(help="Where; by default .vidseek/demo of the archive.")] = None,
    tiny: Annotated[bool, typer.Option("--tiny", help="A few scenes, for tests.")] = False,
    seed: int = 0,
) -> None:
    """Render the demo world: real video files with their captions."""
    from vidseek.archive import Archive
    from vidseek_demo.world import WorldSize, render_world

    folder = out or Archive.here().state / "demo"
    render_world(folder, size=WorldSize.tiny() if tiny else WorldSize.demo(), seed=seed)
    typer.echo(f"The demo world is in {folder}")


@demo_app.command("show")
def demo_show() -> None:
    """Show what the demo came to: base against adapted, and four searches."""
    from vidseek_demo.show import show

    show()


@demo_app.command("picture")
def demo_picture(out: Annotated[Path, typer.Argument(help="A PNG file.")]) -> None:
    """Draw some searches of the demo archive with the frames of what they found."""
    from vidseek_demo.picture import draw_searches

    draw_searches(out)


@feedback_app.command("freeze")
def feedback_freeze(as_json: AsJson = False) -> None:
    """Write what was said so far to data/decisions/feedback.parquet: what was said last of a query and a clip."""
    from vidseek.archive import Archive
    from vidseek.feedback import TABLE, freeze

    archive = Archive.here()
    _report(freeze(archive.feedback, archive.decisions / TABLE), as_json=as_json)


@encoder_app.command("build-engines")
def encoder_build_engines(
    variant: Annotated[str, typer.Option(help="fp16 or fp32.")] = "fp16", as_json: AsJson = False
) -> None:
    """Build TensorRT's engines of the bundle ahead of the first query (minutes; needs a GPU and vidseek[gpu])."""
    from vidseek.archive import Archive
    from vidseek_encoder.encoder import Encoder

    encoder = Encoder.load(Archive.here().bundle, provider="tensorrt", variant=variant)
    _report({"num_engines": len(encoder.spec.towers), "seconds": encoder.warm_up()}, as_json=as_json)


def _report(report: Any, *, as_json: bool) -> None:
    """Print a record of numbers and words."""
    content = asdict(report) if is_dataclass(report) and not isinstance(report, type) else dict(report)
    if as_json:
        _print_json(content)
    else:
        _show(_table(["", ""], [(name.removeprefix("num_"), _escape(str(value))) for name, value in content.items()]))


def _hits_table(hits: list[dict[str, Any]]) -> Table:
    """Columns of which no hit has a value are left out."""
    columns = {
        "": [str(rank) for rank in range(1, len(hits) + 1)],
        "score": [f"{hit['score']:.3f}" for hit in hits],
        "confidence": ["" if hit["confidence"] is None else f"{hit['confidence']:.2f}" for hit in hits],
        "from – to": [f"{clock(hit['start_ms'])} – {clock(hit['end_ms'])}" for hit in hits],
        "video": [_escape(hit["uri"]) for hit in hits],
        "title": [_escape(hit["title"]) for hit in hits],
        "thumbnail": [_escape(hit["thumbnail_url"] or "") for hit in hits],
    }
    kept = {name: values for name, values in columns.items() if any(values)}
    return _table(list(kept), list(zip(*kept.values(), strict=True)))


def clock(time_ms: int) -> str:
    """Minutes, seconds and tenths (rounded down), with hours where there are some: `1:02.3`, `1:00:00.0`."""
    tenths = time_ms // 100
    minutes, seconds = divmod(tenths // 10, 60)
    hours, minutes = divmod(minutes, 60)
    head = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{head}:{seconds:02d}.{tenths % 10}"


def _table(columns: list[str], rows: Sequence[tuple[str, ...]]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_header=any(columns), pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=number == 0)
    for row in rows:
        table.add_row(*row)
    return table


def _show(table: Table, *, nothing: str = "Nothing was found.") -> None:
    from rich.console import Console

    console = Console()
    if table.row_count:
        console.print(table)
    else:
        console.print(nothing)


def _escape(text: str) -> str:
    """Names from the archive are text, never rich markup or terminal commands."""
    from rich.markup import escape

    return escape("".join(char if char.isprintable() else "�" for char in text))


def _print_json(content: object) -> None:
    typer.echo(json.dumps(content, indent=2, ensure_ascii=False))


def _require_module(name: str, extra: str) -> None:
    from importlib.util import find_spec

    if find_spec(name) is None:
        raise ConfigError(f"{name} is not installed", remedy=f"Run `pip install -c constraints.txt -e '.[{extra}]'`")


if __name__ == "__main__":
    main()
