"""Runs the `vidseek` command, and code, in forks of one process that has imported what they use.

Each so has a process of its own, with its own environment, folder, output and exit code, and does not take a second to
start. As a program (`python -m tests.forking MODULES`) it is that process: a request is a line of JSON.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tests.line_server import LineServer

IMPORTED = (
    "numpy", "pandas", "pyarrow.parquet", "vidseek.cli", "vidseek.archive", "vidseek_encoder.encoder",
    "vidseek_retrieval.search.searcher", "vidseek_retrieval.index.edge.backend", "vidseek_retrieval.index.publish",
)
"""No torch, no Great Expectations, nothing of the model hub: it reads its environment when it is imported."""


def run_command(args: Sequence[str], *, folder: Path, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the `vidseek` command.

    Args:
        args: What follows `vidseek`.
        folder: The process is started there.
        env: All that its environment has.
    """
    return _server(IMPORTED).run(args=list(args), folder=str(folder), env=dict(env))


def run_code(
    code: str, *, imported: Sequence[str], folder: Path, env: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run Python code.

    Args:
        code: What `python -c` would be given.
        imported: Modules that the process has imported before; nothing that `code` is about.
        folder: The process is started there.
        env: All that its environment has.
    """
    return _server(tuple(imported)).run(code=code, folder=str(folder), env=dict(env))


@cache
def _server(imported: tuple[str, ...]) -> _Server:
    server = _Server(imported)
    atexit.register(server.close)
    return server


class _Server(LineServer):
    def __init__(self, imported: Sequence[str]) -> None:
        super().__init__("tests.forking", *imported)
        self._one_at_a_time = threading.Lock()

    def run(self, **asked: Any) -> subprocess.CompletedProcess[str]:
        with tempfile.TemporaryDirectory() as outputs:
            out, err = Path(outputs, "out"), Path(outputs, "err")
            request = {**asked, "out": str(out), "err": str(err)}
            with self._one_at_a_time:
                self.send(request)
                ended = self.receive()
            return subprocess.CompletedProcess(json.dumps(request), ended, out.read_text(), err.read_text())


def _run(request: Mapping[str, Any]) -> None:
    """The part of the fork."""
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.path[0], sys.argv = request["folder"], ["vidseek", *request.get("args", ())]
    writing = os.O_WRONLY | os.O_CREAT
    for number, file in (
        (0, os.open(os.devnull, os.O_RDONLY)), (1, os.open(request["out"], writing)), (2, os.open(request["err"], writing)),
    ):
        os.dup2(file, number)
    status = 1
    try:
        if "code" in request:
            exec(request["code"], {"__name__": "__main__"})
            status = 0
        else:
            importlib.import_module("vidseek.cli").main()
    except SystemExit as ended:
        status = int(ended.code or 0)
    except BaseException:  # noqa: BLE001 - as an interpreter does at its end
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def main() -> None:
    """Serve requests until there are no more."""
    for name in sys.argv[1:]:
        importlib.import_module(name)
    for line in sys.stdin:
        if not (process := os.fork()):
            _run(json.loads(line))
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
