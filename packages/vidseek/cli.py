"""The `vidseek` command: its entry point, and the output of its errors."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, NoReturn

import typer

from vidseek.commands import (
    archive,
    backbones,
    benchmarking,
    captioning,
    comparing,
    creating,
    demo,
    drifting,
    forgetting,
    growing,
    index,
    running,
    searching,
    training_set,
)
from vidseek_media.errors import VidseekError


def _group(help_text: str, commands: dict[str, Callable[..., None]]) -> typer.Typer:
    group = typer.Typer(no_args_is_help=True, help=help_text)
    for name, command in commands.items():
        group.command(name)(command)
    return group


app = typer.Typer(
    name="vidseek",
    help="Search your own video archive by meaning.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _tell_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"vidseek {version('vidseek')}")
        raise typer.Exit


@app.callback()
def _about(
    version: Annotated[bool, typer.Option("--version", is_eager=True, callback=_tell_version,
                                          help="Say which version this is.")] = False,
) -> None:
    """Search your own video archive by meaning."""


app.command(epilog=creating.INIT_EXAMPLES)(creating.init)
app.command(epilog=creating.RUN_EXAMPLES)(creating.run)
app.command(epilog=creating.SETTINGS_EXAMPLES)(creating.settings)
for command in (
    searching.search, archive.ingest, archive.probe, captioning.caption, archive.dedup, forgetting.forget, creating.plan,
    drifting.drift, comparing.base, running.serve, running.ui, running.mcp, running.mlflow, running.doctor,
    running.push_adapter, running.mteb, benchmarking.benchmark,
):
    app.command()(command)  # named as the function: push_adapter is push-adapter
app.command(epilog=growing.ADD_EXAMPLES)(growing.add)
app.command(epilog=growing.WATCH_EXAMPLES)(growing.watch)
app.command(epilog=growing.JOBS_EXAMPLES)(growing.jobs)
app.add_typer(_group("The published index: its collections, and what is live.", {
    "list": index.index_list, "verify": index.index_verify, "rollback": index.index_rollback, "use": index.index_use,
    "compact": index.index_compact, "prune": index.index_prune, "export": index.index_export,
    "import": index.index_import,
}), name="index")
app.add_typer(_group("Backbones: models to begin from.", {
    "fetch": backbones.backbone_fetch, "import": backbones.backbone_import,
}), name="backbone")
app.add_typer(_group("The training set: which pairs are trained and measured on.", {
    "status": training_set.training_set_status, "freeze": training_set.training_set_freeze,
    "thaw": training_set.training_set_thaw,
}), name="training-set")
app.add_typer(_group("The demo world.", {
    "render": demo.demo_render, "show": demo.demo_show, "picture": demo.demo_picture,
}), name="demo")
app.add_typer(_group("What people said of hits.", {"freeze": archive.feedback_freeze}), name="feedback")
app.add_typer(_group("The encoder bundle.", {"build-engines": running.encoder_build_engines}), name="encoder")


def main() -> NoReturn:
    """Run the command: an error of ours is one message on stderr and its exit code, never a traceback."""
    from vidseek_media.output import disk_fault, print_exceptions_shown

    print_exceptions_shown()
    try:
        app()
    except VidseekError as error:
        _end_with(error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # `vidseek … | head` is no error
        sys.exit(0)
    except Exception as error:
        if (fault := disk_fault(error)) is None:
            raise
        _end_with(fault)
    sys.exit(0)


def _end_with(error: VidseekError) -> NoReturn:
    from vidseek_media.output import lines_of, printable

    typer.echo(f"vidseek: {printable(error.message, keep=lines_of(error))}", err=True)
    if error.remedy:
        typer.echo(f"  → {printable(error.remedy)}", err=True)
    if _wants_json(sys.argv[1:]):
        _print_as_json(error)
    sys.exit(error.exit_code)


def _print_as_json(error: VidseekError) -> None:
    """Print the error as the JSON document on standard output, unless there is one: `index verify` prints its findings."""
    from vidseek import printing

    if not printing.has_printed_json:
        printing.print_json({"error": {
            "code": error.code, "class": error.category, "exit_code": error.exit_code, "message": error.message,
            "remedy": error.remedy,
        }})


def _wants_json(arguments: Sequence[str]) -> bool:
    """Whether `--json` is among the options; behind `--` are none."""
    return "--json" in itertools.takewhile(lambda each: each != "--", arguments)


if __name__ == "__main__":
    main()
