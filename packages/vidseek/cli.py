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
    text: Annotated[str, typer.Argument(help="What to look for, in words.")],
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many moments, at most.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Find the moments of the archive that look like TEXT."""
    from vidseek.archive import Archive, load_encoder, open_searcher

    if not text.strip():
        raise InputRejected("the query is blank", remedy="Say in a few words what to look for")
    archive = Archive.here()
    settings = archive.settings().search
    if not archive.bundle.exists() and not archive.index.exists():
        raise ArtifactError(
            f"nothing is published in {archive.root}: it has neither models/encoder nor index",
            remedy="Run `dvc repro` in the folder of the archive, or set VIDSEEK_HOME to it",
        )
    searcher = open_searcher(archive, settings, load_encoder(archive, settings, text_only=True))
    answer = searcher.search_text(text, limit=limit).to_json()
    if as_json:
        _print_json(answer)
    else:
        _show(_hits_table(answer["hits"]))


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="IP address to listen at, by default serve.host of params.yaml; any "
                                                  "but this machine's own lets everybody in, without a key.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="By default serve.port of params.yaml.")] = None,
) -> None:
    """Answer searches over HTTP: POST /v1/search, /healthz, /readyz, /openapi.json."""
    from vidseek.archive import HOME_VARIABLE, Archive
    from vidseek.service import require_free, require_ready, serve_command

    archive = Archive.here()
    require_ready(archive)
    settings = archive.settings().serve
    host, port = host or settings.host, port or settings.port
    require_free(host, port)
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


AliasName = Annotated[str, typer.Option("--alias", help="The name that searches ask for.")]


@index_app.command("list")
def index_list(as_json: AsJson = False) -> None:
    """List the collections: which is live, and which are kept for a rollback."""
    from vidseek.archive import Archive
    from vidseek_retrieval.publish import list_collections

    collections = list_collections(Archive.here().index)
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

    verification = verify(Archive.here().index, alias=alias, collection=collection)
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

    _report({"alias": alias, "collection": rollback(Archive.here().index, alias=alias)}, as_json=as_json)


@index_app.command("prune")
def index_prune(as_json: AsJson = False) -> None:
    """Remove what no alias points to or keeps for a rollback."""
    from vidseek.archive import Archive
    from vidseek_retrieval.publish import prune

    removed = prune(Archive.here().index)
    if as_json:
        _print_json({"removed": removed})
    else:
        typer.echo("\n".join(f"removed {name}" for name in removed) or "Nothing to remove.")


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


def _report(report: Any, *, as_json: bool) -> None:
    """Print a record of numbers and words."""
    content = asdict(report) if is_dataclass(report) and not isinstance(report, type) else dict(report)
    if as_json:
        _print_json(content)
    else:
        _show(_table(["", ""], [(name.removeprefix("num_"), _escape(str(value))) for name, value in content.items()]))


def _hits_table(hits: list[dict[str, Any]]) -> Table:
    rows = [
        (str(rank), f"{hit['score']:.3f}", f"{clock(hit['start_ms'])} – {clock(hit['end_ms'])}",
         _escape(hit["uri"]), _escape(hit["title"]))
        for rank, hit in enumerate(hits, start=1)
    ]
    return _table(["", "score", "from – to", "video", "title"], rows)


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
