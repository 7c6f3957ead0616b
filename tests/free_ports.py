"""Ports of loopback for servers of tests."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

_PORTS = iter(random.Random().sample(range(20_000, 32_000), 12_000))
"""Below those that the kernel gives to whoever connects: between the choice and its use nobody gets one by chance."""


def free_port() -> int:
    """A port of loopback that nobody listens at, and that is given to no other test of this process."""
    for port in _PORTS:
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no port is left")
