"""The `vidseek` command: its entry point, and the output of its errors."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
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
from vidseek.commands.outgoing import datasets, saved
from vidseek_media.errors import VidseekError

EXAMPLES = {
    "init": ["vidseek init harbour --videos /media/harbour",
             "vidseek init harbour --videos /media/harbour --captions notes.csv --yes --run",
             "vidseek init harbour --videos /media/harbour --backbone openai/clip-vit-base-patch32",
             "vidseek init harbour --videos /media/harbour --ocr --speech pocketsphinx --yes",
             "Without --yes it asks where there is a terminal; elsewhere it says what it would do, and makes nothing."],
    "run": ["vidseek run", "vidseek run harbour", "vidseek run --renew",
            "It is `dvc repro` with the Python of this vidseek. A run that was stopped goes on where it was."],
    "settings": ["vidseek settings", "vidseek settings --json | jq .cut"],
    "search": ["vidseek search 'a crane lifts a container'", "vidseek search --image quay.jpg --negative night",
               "vidseek search 'white van' --in speech,ocr --after 2026-03-01 --json",
               "vidseek search 'a crane' --limit 30 --export cranes.edl --handles 12f"],
    "clip": ["vidseek clip 1f2e3d4c5b6a:12000-15500 -o crane.mp4", "vidseek clip 2026/harbour.mp4:12000-15500 -o crane.mov",
             "vidseek search 'a crane' --json | jq -r '.hits[0] | \"\\(.video_id):\\(.start_ms)-\\(.end_ms)\"'",
             "Packets are copied where the moment begins at a keyframe and ends with its group; else it is encoded."],
    "export-dataset": ["vidseek export-dataset hf harbour-clips --captioned",
                       "vidseek export-dataset webdataset harbour-train --split train --cut captions",
                       "vidseek export-dataset fiftyone harbour-look --filter camera=B --media"],
    "ingest": ["vidseek ingest", "vidseek ingest '/archive/**/*.mp4' --json"],
    "probe": ["vidseek probe harbour.mp4", "vidseek probe harbour.mp4 --decoder pyav --json"],
    "caption": ["vidseek caption --dry-run", "vidseek caption"],
    "suggest": ["vidseek suggest", "vidseek suggest --limit 50 --captions next.csv", "vidseek suggest --take next.csv",
                "vidseek suggest --judge",
                "What is taken, and what is judged after `vidseek feedback freeze`, teaches in the next `dvc repro`."],
    "dedup": ["vidseek dedup --report duplicates.html", "vidseek dedup --apply"],
    "forget": ["vidseek forget 2026/harbour.mp4", "vidseek forget --list", "vidseek forget 2026/harbour.mp4 --undo"],
    "plan": ["vidseek plan --measure", "vidseek plan --hours-of-video 500 --cores 32"],
    "drift": ["vidseek drift", "vidseek drift --json"],
    "base": ["vidseek base", "vidseek search 'a red container' --model base"],
    "serve": ["vidseek serve", "VIDSEEK_API_KEY=... vidseek serve --host 0.0.0.0 --port 8000"],
    "ui": ["vidseek ui", "vidseek ui --url http://127.0.0.1:3000"],
    "mcp": ["vidseek mcp", "vidseek mcp --url http://127.0.0.1:3000"],
    "mlflow": ["vidseek mlflow", "vidseek mlflow --port 5001"],
    "doctor": ["vidseek doctor", "vidseek doctor --hub",
               "vidseek doctor --json | jq '.findings[] | select(.state != \"ok\")'"],
    "push-adapter": ["vidseek push-adapter /mnt/shared/harbour-adapter"],
    "mteb": ["vidseek mteb MSVDT2VRetrieval", "vidseek mteb MSVDT2VRetrieval --base"],
    "benchmark": ["vidseek benchmark msvd /data/msvd", "vidseek benchmark msrvtt-1ka /data/msrvtt --workers 8 --json"],
    "add": ["vidseek add harbour.mp4 gate.mov",
            "vidseek add https://videos.example/harbour.mp4    (of a host in serve.url_hosts)",
            "vidseek add --no-wait *.mp4                       (for `vidseek watch`)"],
    "watch": ["vidseek watch                                     (until it is stopped)",
              "*/10 * * * * cd /archive && .venv/bin/vidseek watch --once    (a line of cron)"],
    "jobs": ["vidseek jobs                                      (the last ones)",
             "vidseek jobs retry 018f3a2b4c5d6e7f8a9b",
             "vidseek jobs retry                                (all that failed)",
             "vidseek jobs cancel 018f3a2b4c5d6e7f8a9b"],
    "tag": ["vidseek tag night rain --clip-id 0d5a6f9e-5f0f-5e0e-9d2c-3f6f3f1f2a11",
            "vidseek tag rejected --video harbour/day1.mp4 --remove", "vidseek tag --list"],
    "saved add": ["vidseek saved add 'a crane lifts a container' --min-confidence 0.3",
                  "vidseek saved add --clip-id 0d5a6f9e-5f0f-5e0e-9d2c-3f6f3f1f2a11 --min-score 0.4 --name 'our logo'",
                  "vidseek saved add '\"white van\"' --in speech,ocr --filter camera=B --webhook https://hooks.example/vidseek"],
    "saved list": ["vidseek saved list", "vidseek saved list 018f3a2b4c5d6e7f8a9b --json"],
    "saved remove": ["vidseek saved remove 018f3a2b4c5d6e7f8a9b"],
    "saved run": ["vidseek saved run"],
    "saved feed": ["vidseek saved feed 018f3a2b4c5d6e7f8a9b -o /var/www/cranes.atom",
                   "vidseek saved feed 018f3a2b4c5d6e7f8a9b --format json"],
    "index list": ["vidseek index list"],
    "index verify": ["vidseek index verify", "vidseek index verify --json"],
    "index rollback": ["vidseek index rollback"],
    "index use": ["vidseek index use clips-1f2e3d4c5b6a7988-0a1b2c3d4e5f"],
    "index compact": ["vidseek index compact"],
    "index prune": ["vidseek index prune"],
    "index export": ["vidseek index export archive.parquet"],
    "index import": ["vidseek index import archive.parquet"],
    "backbone fetch": ["vidseek backbone fetch openai/clip-vit-base-patch32 --use"],
    "backbone import": ["vidseek backbone import updates.pt my-backbone --base openai/clip-vit-base-patch32"],
    "training-set status": ["vidseek training-set status"],
    "training-set freeze": ["vidseek training-set freeze"],
    "training-set thaw": ["vidseek training-set thaw"],
    "demo render": ["vidseek demo render", "vidseek demo render --out /tmp/world --tiny"],
    "demo films": ["vidseek demo films", "vidseek demo films --out films"],
    "demo show": ["vidseek demo show", "vidseek demo show --json | jq .searches"],
    "demo picture": ["vidseek demo picture demo.png"],
    "feedback say": ["vidseek feedback say 'a red crane' --clip-id 16f8ca77-874c-5b0d-b134-c35b8db41587 --right"],
    "feedback freeze": ["vidseek feedback freeze"],
    "encoder build-engines": ["vidseek encoder build-engines --variant fp16"],
}
"""Of each command: calls, and what is to be known of them. They follow its help."""
EXIT_CODES = """Exit codes: 0 well, 2 wrong call, 10 this input cannot be used, 11 params or options are wrong,
12 something was not made yet or is broken, 13 no such device, 14 a gate stopped it, 15 another program did not answer
(docs/errors.md)."""


def _examples(name: str) -> str:
    return "\n\n".join(["Examples:", *EXAMPLES[name]])


def _group(name: str, help_text: str, commands: dict[str, Callable[..., None]]) -> None:
    group = typer.Typer(no_args_is_help=True, help=help_text)
    for each, command in commands.items():
        group.command(each, epilog=_examples(f"{name} {each}"))(command)
    app.add_typer(group, name=name)


app = typer.Typer(
    name="vidseek",
    help="Search your own video archive by meaning.",
    no_args_is_help=True,
    epilog=EXIT_CODES,
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


for command in (
    creating.init, creating.run, creating.settings,
    searching.search, searching.clip, datasets.export_dataset,
    archive.ingest, archive.probe, archive.tag, captioning.caption, captioning.suggest, archive.dedup,
    forgetting.forget, creating.plan,
    drifting.drift, comparing.base, running.serve, running.ui, running.mcp, running.mlflow,
    running.push_adapter, running.mteb, benchmarking.benchmark, running.doctor, growing.add, growing.watch, growing.jobs,
):
    app.command(epilog=_examples(command.__name__.replace("_", "-")))(command)  # push_adapter is push-adapter
_group("index", "The published index: its collections, and what is live.", {
    "list": index.index_list, "verify": index.index_verify, "rollback": index.index_rollback, "use": index.index_use,
    "compact": index.index_compact, "prune": index.index_prune, "export": index.index_export,
    "import": index.index_import,
})
_group("saved", "Saved searches: asked of what each publish brings.", {
    "add": saved.saved_add, "list": saved.saved_list, "remove": saved.saved_remove, "run": saved.saved_run,
    "feed": saved.saved_feed,
})
_group("backbone", "Backbones: models to begin from.", {
    "fetch": backbones.backbone_fetch, "import": backbones.backbone_import,
})
_group("training-set", "The training set: which pairs are trained and measured on.", {
    "status": training_set.training_set_status, "freeze": training_set.training_set_freeze,
    "thaw": training_set.training_set_thaw,
})
_group("demo", "The demo: a rendered world, and a handful of real films.", {
    "render": demo.demo_render, "films": demo.demo_films, "show": demo.demo_show, "picture": demo.demo_picture,
})
_group("feedback", "What people said of hits.", {
    "say": archive.feedback_say, "freeze": archive.feedback_freeze,
})
_group("encoder", "The encoder bundle.", {"build-engines": running.encoder_build_engines})


UNTOLD = frozenset({"init", "forget", "run", "serve", "ui", "mcp", "mlflow", "watch", "demo render"})
"""Commands of which nobody is told how long they are at work: they ask, run until they are stopped, run stages, or fork."""


def main() -> NoReturn:
    """Run the command: an error of ours is one message on stderr and its exit code, never a traceback."""
    from vidseek_media.output import disk_fault, print_exceptions_shown

    print_exceptions_shown()
    try:
        with _telling(sys.argv[1:]):
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


def _telling(arguments: Sequence[str]) -> AbstractContextManager[object]:
    """Return what tells, on standard error, that the command of these arguments is still at work."""
    from vidseek_media.terminal.progress import waiting

    names = [" ".join(arguments[:length]) for length in (2, 1)]
    name = next((each for each in names if each in EXAMPLES and each not in UNTOLD), "")
    return waiting(name) if name else nullcontext()


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
