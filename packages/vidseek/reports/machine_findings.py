"""What `vidseek doctor` says of the machine: vector instructions, disk, ports, and the model hub where that is asked."""

from __future__ import annotations

import os
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from vidseek.archive import Archive
from vidseek.new_archive.machine import cpu_flags, free_bytes
from vidseek_media.errors import ConfigError
from vidseek_media.files.json_files import read_json
from vidseek_media.urls import bare_url

State = Literal["ok", "note", "missing", "error"]
LEAST_FREE_BYTES = 5_000_000_000
"""Below so much a run of a small archive may end on a full disk."""
HUB_SECONDS = 10.0
PAGE_PORT, MLFLOW_PORT = 8501, 5000
_HUB = "https://huggingface.co"


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    group: str
    """python, base, an extra's name, runtime, pipeline."""
    name: str
    state: State
    found: str
    remedy: str = ""
    """The command that mends it, or what to do."""
    is_package: bool = False


def machine(archive: Archive) -> Iterator[Finding]:
    """Yield what is known of this machine, without any network.

    Args:
        archive: Its disk and its ports are looked at.
    """
    yield _processor()
    yield _disk(archive)
    yield from _ports(archive)


def _processor() -> Finding:
    flags = cpu_flags()
    found = ", ".join(flags) or "neither AVX2 nor AVX-512"
    if "avx512f" not in flags:
        slow = "half" if "avx2" in flags else "a fifth"
        told = f"{found}: the encoder runs at about {slow} of the speed that docs/encoder.md states for AVX-512"
        return Finding("machine", "processor", "ok" if "avx2" in flags else "note", told)
    fast = "; embed.variant: int8 is about three times as fast as fp32" if "avx512_vnni" in flags else ""
    return Finding("machine", "processor", "ok", f"{found}: the encoder runs at full speed{fast}")


def _disk(archive: Archive) -> Finding:
    free = free_bytes(archive.root)
    planned = 0
    if not (archive.index / "aliases.json").exists():
        try:
            planned = int(read_json(archive.plan)["disk_bytes"])
        except (OSError, ValueError, KeyError, TypeError):
            planned = 0
    told = f"{free / 1e9:,.1f} GB free" + (f"; `vidseek init` planned {planned / 1e9:,.2f} GB" if planned else "")
    if planned > free:
        return Finding("machine", "disk", "error", told, f"Make room on the disk of {archive.root}")
    if free < LEAST_FREE_BYTES:
        return Finding("machine", "disk", "note", told, "Make room: frames, vectors and DVC's cache lie here")
    return Finding("machine", "disk", "ok", told)


def _ports(archive: Archive) -> Iterator[Finding]:
    """Yield whether the ports of the service, the page and MLflow are free."""
    try:
        port = archive.settings().serve.port
    except ConfigError:
        return  # said of params.yaml, with its remedy
    used = {"vidseek serve": port, "vidseek ui": PAGE_PORT, "vidseek mlflow": MLFLOW_PORT}
    taken = {command: number for command, number in used.items() if not _is_free(number)}
    free = [f"{number} ({command})" for command, number in used.items() if command not in taken]
    if free:
        yield Finding("machine", "ports", "ok", f"free: {', '.join(free)}")
    for command, number in taken.items():
        yield Finding("machine", f"port {number}", "note", f"in use: `{command}` runs already, or another program does",
                      f"{command} --port ANOTHER")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def hub() -> Finding:
    """Ask the model hub, at HF_ENDPOINT where that is set, whether it can be reached. Sends nothing but a request."""
    address = os.environ.get("HF_ENDPOINT") or _HUB
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=HUB_SECONDS):
            pass
    except urllib.error.HTTPError:
        pass  # it answers
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        return Finding("machine", "model hub", "note", f"{bare_url(address)} cannot be reached: {reason}",
                       "Fetch backbones on a machine that reaches it, and copy their folder (docs/backbones.md)")
    return Finding("machine", "model hub", "ok", f"{bare_url(address)} answers")
