"""Runs stages in forks of one process that has imported them: a run starts in milliseconds and can be killed at any moment.

    python -m tests.pipelines.stage_runner

A request is a line of JSON: a number, a folder, stages, and the longest file that may be written (0: any). For each run a
process is named, then each stage as it begins, and how it ended, with what was decoded, embedded and published.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
from types import ModuleType
from typing import Any

from bench.growing import counting

STAGES = ("ingest", "cut", "side", "frames", "caption", "pairs", "embed", "publish")


def say(**content: object) -> None:
    """Write a line, in one write: several processes share the pipe."""
    os.write(1, (json.dumps(content) + "\n").encode())


def run(modules: dict[str, ModuleType], request: dict[str, Any]) -> None:
    """The part of the fork."""
    number, error = request["run"], ""
    os.chdir(request["folder"])
    if longest := request["longest"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (longest, longest))
    for name in request["stages"]:
        say(run=number, begins=name)
        try:
            modules[name].main()
        except Exception as raised:  # noqa: BLE001 - the test judges it
            error = f"{name}: {type(raised).__name__}: {raised}"
            break
    say(run=number, ends=error, counts=dict(counting.counts))


def main() -> None:
    """Serve requests until there are no more."""
    counting.watch()
    modules = {name: importlib.import_module(f"pipelines.{name}") for name in STAGES}
    importlib.import_module("vidseek_encoder.encoder")
    importlib.import_module("vidseek_retrieval.index.edge.backend")
    say(ready=True)
    for line in sys.stdin:
        request = json.loads(line)
        process = os.fork()
        if not process:
            try:
                run(modules, request)
            finally:
                os._exit(0)
        say(run=request["run"], process=process)


if __name__ == "__main__":
    main()
