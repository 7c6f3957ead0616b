"""Trainings in forks of one process that has imported torch: an import takes longer than a tiny training.

As a program it is that process: a request is a line of JSON, and so is its answer.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.free_ports import free_port
from tests.line_server import LineServer

IMPORTED = (
    "accelerate", "mlflow.tracking", "peft", "tests.training.one_training", "tests.training.two_processes", "transformers",
    "vidseek_training.backbones.viclip",
)


class Training:
    """A training, of one process or of several that train together."""

    def __init__(self, trainings: Trainings, processes: Sequence[int], output: Path) -> None:
        self._trainings, self._processes, self.output = trainings, processes, output

    def poll(self) -> int | None:
        """Return None while one of its processes runs, then 0 or the exit code of one that failed."""
        codes = [self._trainings.ask(code_of=process) for process in self._processes]
        return None if None in codes else next((code for code in codes if code), 0)

    def wait(self, seconds: float = 300) -> int:
        """Wait for its end."""
        end = time.monotonic() + seconds
        while (code := self.poll()) is None:
            assert time.monotonic() < end, self.output.read_text()[-3000:]
            time.sleep(0.01)
        return code

    def kill(self) -> None:
        """Kill all of its processes at once: a machine that is switched off."""
        if self.poll() is None:
            for process in self._processes:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
        self.wait()


class Trainings(LineServer):
    """Starts trainings."""

    def __init__(self) -> None:
        super().__init__("tests.training.forked_trainings")

    def start(
        self, module: str, args: Sequence[str], *, output: Path, env: Mapping[str, str] | None = None, num_processes: int = 1
    ) -> Training:
        """Call `main` of a module in so many processes, told of each other as torchrun does.

        Args:
            module: Of `IMPORTED`.
            args: Of its `main`.
            output: File of what they write.
            env: Added to the environment.
            num_processes: That train together.
        """
        output.write_bytes(b"")  # a test may read it before the fork writes
        told = {**(env or {}), **({} if num_processes == 1 else {
            "WORLD_SIZE": str(num_processes), "LOCAL_WORLD_SIZE": str(num_processes), "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free_port()),
        })}
        processes = [
            self.ask(module=module, args=list(args), output=str(output), env={**told, "RANK": rank, "LOCAL_RANK": rank})
            for rank in map(str, range(num_processes))
        ]
        return Training(self, processes, output)

    def ask(self, **request: Any) -> Any:
        """Return the server's answer."""
        self.send(request)
        return self.receive()


def _train(request: Mapping[str, Any]) -> None:
    """The part of the fork."""
    output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number, file in ((0, os.open(os.devnull, os.O_RDONLY)), (1, output), (2, output)):
        os.dup2(file, number)
    os.environ.update(request["env"])
    status = 1
    try:
        importlib.import_module(request["module"]).main(*request["args"])
        status = 0
    except BaseException:  # noqa: BLE001 - as an interpreter does at its end
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def main() -> None:
    """Serve requests until there are no more."""
    for name in IMPORTED:
        importlib.import_module(name)
    codes: dict[int, int] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if "code_of" in request:
            process = request["code_of"]
            if process not in codes and (ended := os.waitpid(process, os.WNOHANG))[0]:
                codes[process] = os.waitstatus_to_exitcode(ended[1])
            answer = codes.get(process)
        elif not (answer := os.fork()):
            _train(request)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
