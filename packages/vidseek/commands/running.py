"""What runs beside the archive: the service, MLflow; what is installed; what is handed on."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from vidseek import printing
from vidseek_media.errors import ArtifactError, ConfigError


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


def ui(
    url: Annotated[str | None, typer.Option(envvar="VIDSEEK_URL", help="The API that it asks; by default that of this "
                                            "archive, which is started beside it where none runs.")] = None,
    host: Annotated[str, typer.Option(help="IP address to listen at; any but this machine's own needs VIDSEEK_API_KEY, "
                                           "which visitors then type in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8501,
    against: Annotated[str | None, typer.Option(envvar="VIDSEEK_OTHER_URL", help="A second API over the same videos, to "
                                                "compare with; without one, the base of `vidseek base`.")] = None,
) -> None:
    """Open the page to search with, in a browser."""
    from contextlib import ExitStack

    from vidseek.actions import page
    from vidseek.archive import HOME_VARIABLE, Archive
    from vidseek.service import require_free, require_key, require_ready, serve_command
    from vidseek_media.installing import require_module

    require_module("streamlit", "ui")
    require_free(host, port)
    require_key(host)
    ended = 0
    with page.until_told_to_stop(), ExitStack() as stack:
        processes = []
        if url is None:
            archive = Archive.here()
            settings = archive.settings().serve
            url = page.address_of(settings.host, settings.port)
            if not page.answers(f"{url}/readyz"):
                require_ready(archive)
                require_free(settings.host, settings.port)
                quiet = {"BENTOML_DO_NOT_TRACK": "true", HOME_VARIABLE: str(archive.root.resolve())}
                command = serve_command(host=settings.host, port=settings.port)
                processes.append(stack.enter_context(page.running(command, environment=quiet)))
                page.wait_until_answered(f"{url}/readyz", processes[0], what="the API")
        command, folder = page.page_command()
        told = {"VIDSEEK_URL": url, "VIDSEEK_PAGE_HOST": host, "VIDSEEK_PAGE_PORT": str(port),
                "VIDSEEK_OTHER_URL": against or ""}
        processes.append(stack.enter_context(page.running(command, folder=folder, environment=told)))
        here = page.address_of(host, port)
        page.wait_until_answered(f"{here}/_stcore/health", processes[-1], what="the page")
        printing.say(f"The page is on {here}  (stop with Ctrl-C)", err=True)
        ended = page.wait_for_any(processes)
    raise typer.Exit(ended)


def mcp(
    url: Annotated[str, typer.Option(envvar="VIDSEEK_URL", help="The API that it asks, with VIDSEEK_API_KEY where it wants "
                                     "one.")] = "http://127.0.0.1:3000",
) -> None:
    """Let agents look things up: the Model Context Protocol over stdin and stdout."""
    from vidseek.service import KEY_VARIABLE
    from vidseek_media.installing import require_module

    require_module("mcp", "mcp")
    from vidseek.actions.agents import create_server
    from vidseek.client import Api
    from vidseek_media.secret import secret

    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"the URL of the API is {url!r}", code="bad-url", remedy="It begins with http:// or https://")
    create_server(Api(url.rstrip("/"), key=secret(KEY_VARIABLE))).run("stdio")


def mlflow(
    host: Annotated[str, typer.Option(help="IP address of this machine alone: MLflow lets everybody in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 5000,
) -> None:
    """Open the MLflow UI on the archive's runs (or on MLFLOW_TRACKING_URI)."""
    from vidseek.archive import Archive
    from vidseek.service import require_free, require_local
    from vidseek_media.installing import require_module
    from vidseek_media.urls import bare_url

    archive = Archive.here()
    uri = archive.tracking_uri()
    if uri.startswith(("http://", "https://")):
        printing.say(f"The runs are kept by a server: open {bare_url(uri)}")
        return
    database = archive.mlflow
    if not os.environ.get("MLFLOW_TRACKING_URI") and not database.exists():
        raise ArtifactError(f"{database} is missing: no run was tracked yet", code="no-runs", remedy="Run `dvc repro`")
    require_module("mlflow", "train")
    require_local(host)
    require_free(host, port)
    command = [sys.executable, "-m", "mlflow", "ui", "--host", host, "--port", str(port), "--workers", "1"]
    printing.say(f"MLflow on http://{host}:{port}  (stop with Ctrl-C)", err=True)
    # The address of the store may have a password: the environment of a process is its owner's, its command everybody's.
    told = {"MLFLOW_BACKEND_STORE_URI": uri, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    os.execve(command[0], command, {**os.environ, **told})


def doctor(
    hub: Annotated[bool, typer.Option("--hub", help="Ask the model hub too whether it can be reached; nothing else here "
                                      "uses a network.")] = False,
    as_json: printing.AsJson = False,
) -> None:
    """Say what is installed, what the machine offers, how the archive is, what is missing and how to mend it."""
    from vidseek.archive import Archive
    from vidseek.reports.doctor import examine
    from vidseek_media.terminal.progress import waiting

    with waiting("looking at the installation"):
        diagnosis = examine(Archive.here(), asks_hub=hub)
    if as_json:
        printing.print_json(diagnosis.to_json())
    else:
        findings = diagnosis.summary()
        for group in dict.fromkeys(one.group for one in findings):
            printing.say(group)
            for one in (each for each in findings if each.group == group):
                printing.say_wrapped(f"{one.name}: {one.found}", mark=f"  {one.state:<8}")
                if one.remedy:
                    printing.say_wrapped(one.remedy, mark="          → ")
        printing.say(
            "All that a search needs is there." if diagnosis.is_searchable
            else "What has to be installed is there. Nothing can be searched here yet: see the lines marked missing."
            if diagnosis.is_well else "Something that is needed is missing: see the lines marked error."
        )
    if not diagnosis.is_well:
        raise typer.Exit(ConfigError.exit_code)


def push_adapter(
    destination: Annotated[str, typer.Argument(help="A folder, or hub:NAME/ADAPTER for the model hub.")],
    as_json: printing.AsJson = False,
) -> None:
    """Hand the champion's adapter on: PEFT's format, with a model card."""
    from vidseek.archive import Archive
    from vidseek_training.export.push import push_adapter as push

    archive = Archive.here()
    where = push(archive.champion, archive.reports / "evaluate" / "metrics.json", destination)
    printing.tell({"adapter": str(where)}, f"The adapter is at {where}.", as_json=as_json)


def mteb(
    tasks: Annotated[list[str], typer.Argument(help="As MTEB names them: MSRVTTT2V, MSVDT2VRetrieval.")],
    base: Annotated[bool, typer.Option("--base", help="Judge the champion's base instead of what was taught.")] = False,
    as_json: printing.AsJson = False,
) -> None:
    """Judge the bundle on MTEB's video and picture tasks (their data come from the model hub; needs the extra mteb)."""
    from vidseek.archive import Archive
    from vidseek_encoder.bundle import EncoderSpec
    from vidseek_encoder.encoder import Encoder
    from vidseek_training import backbones
    from vidseek_training.benchmarks.mteb_model import run_tasks
    from vidseek_training.export.onnx_export import write_unproven

    archive = Archive.here()
    with tempfile.TemporaryDirectory(prefix="vidseek-") as scratch:
        if base:
            write_unproven(backbones.load(EncoderSpec.load(archive.bundle).backbone), Path(scratch))
        encoder = Encoder.load(Path(scratch) if base else archive.bundle)
        scores = run_tasks(encoder, "base" if base else "taught", tasks, archive.reports / "mteb")
    printing.report(scores, as_json=as_json)


def encoder_build_engines(
    variant: Annotated[str, typer.Option(help="fp16 or fp32.")] = "fp16", as_json: printing.AsJson = False
) -> None:
    """Build TensorRT's engines of the bundle ahead of the first query (minutes; needs a GPU and the extra gpu)."""
    from vidseek.archive import Archive
    from vidseek_encoder.encoder import Encoder

    encoder = Encoder.load(Archive.here().bundle, provider="tensorrt", variant=variant)
    printing.report({"num_engines": len(encoder.spec.towers), "seconds": encoder.warm_up()}, as_json=as_json)
