"""What code inside a confined process would find; imports little, for that process imports it too."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def try_all(mark: str, port: int) -> list[str]:
    """The environment, and `allowed` for each thing that the kernel lets through."""
    found = [f"{name}={value}" for name, value in os.environ.items()]
    for what in (lambda: Path(mark).write_text("x"), lambda: Path("/etc/passwd").read_text(),
                 lambda: socket.create_connection(("127.0.0.1", port), 1), lambda: os.fork()):
        try:
            what()
            found.append("allowed")
        except OSError:
            continue
    return found
