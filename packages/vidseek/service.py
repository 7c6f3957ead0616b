"""Starts the service: BentoML on serving/, which lies beside the packages or in the wheel."""

from __future__ import annotations

import ipaddress
import socket
import sys
from pathlib import Path

from vidseek.archive import Archive, open_text_searcher
from vidseek.installation import SERVICE, code_root
from vidseek_media.errors import ConfigError, foreign
from vidseek_media.installing import require_module
from vidseek_media.secret import secret

KEY_VARIABLE = "VIDSEEK_API_KEY"
"""What callers of the service must show."""
ADMIN_KEY_VARIABLE = "VIDSEEK_ADMIN_KEY"
"""What callers of its admin routes must show in its place; it opens the other routes too."""


def require_ready(archive: Archive) -> None:
    """Check that a service on this archive could answer, before one is started.

    Raises:
        VidseekError: it could not; the message is that of `vidseek search`.
    """
    require_module("bentoml", "serve")
    open_text_searcher(archive)


def require_free(host: str, port: int) -> None:
    """Check that `host` is an address of this machine, and that no process listens on `port`.

    Raises:
        ConfigError: one of these does not hold.
    """
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    except ValueError as error:
        raise ConfigError(
            f"host is {host!r}, wanted an IP address", code="bad-host", remedy="Use 127.0.0.1 for this machine",
        ) from error
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        fault = f"{host} port {port} cannot be listened at"
        with foreign(ConfigError, fault, code="port-taken", remedy="Choose another with --port"):
            probe.bind((host, port))


def require_key(host: str) -> None:
    """Check that a service which other machines can reach has an API key.

    Raises:
        ConfigError: `host` is reachable from outside, and VIDSEEK_API_KEY is not set.
    """
    if not ipaddress.ip_address(host).is_loopback and not secret(KEY_VARIABLE):
        raise ConfigError(
            f"{host} can be reached from elsewhere, and {KEY_VARIABLE} is not set", code="key-not-set",
            remedy=f"Set it (`export {KEY_VARIABLE}=$(openssl rand -hex 32)`), or listen at 127.0.0.1",
        )


def require_local(host: str) -> None:
    """Check that MLflow, which has no key, is only reachable from this machine.

    Args:
        host: The address to listen on.

    Raises:
        ConfigError: other machines can reach `host`, or it is not an IP address.
    """
    try:
        is_local = ipaddress.ip_address(host).is_loopback
    except ValueError as error:
        raise ConfigError(
            f"host is {host!r}, wanted an IP address", code="bad-host", remedy="Use 127.0.0.1 for this machine",
        ) from error
    if not is_local:
        raise ConfigError(
            f"{host} can be reached from elsewhere, and MLflow would let anybody read and change the runs",
            code="not-only-local",
            remedy="Listen at 127.0.0.1 and come by `ssh -L 5000:127.0.0.1:5000`, or by a proxy that asks for a password",
        )


def serve_command(*, host: str, port: int) -> list[str]:
    """Return the command that `vidseek serve` runs, equal to `bentoml serve` in the repository's root.

    Args:
        host: The address to listen on.
        port: The port to listen on.

    Raises:
        ConfigError: serving/ is not found.
    """
    return [
        sys.executable, "-m", "bentoml", "serve", "serving.service:Vidseek",
        "--working-dir", str(serving_root()), "--host", host, "--port", str(port),
    ]


def serving_root() -> Path:
    """Return the folder that contains serving/.

    Raises:
        ConfigError: it is not found.
    """
    return code_root(SERVICE)
