"""A program of the tests that is asked in lines of JSON on its standard input, and answers in such lines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[1]


class LineServer:
    """The program, from its start to its end: it ends when its standard input does."""

    def __init__(self, module: str, *options: str, stderr: int | None = None) -> None:
        """Start `python -m module options`; `stderr` as `subprocess.Popen` takes it."""
        environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'packages'}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr,
            env=environment, text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the program."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def send(self, request: object) -> None:
        """Ask it something."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()

    def receive(self) -> Any:
        """Return its next answer."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the program ended"
        return json.loads(line)
