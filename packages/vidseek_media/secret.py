"""Reads keys and passwords from the environment, or from files that it names."""

from __future__ import annotations

import os
from pathlib import Path

from vidseek_media.errors import ConfigError


def secret(variable: str) -> str | None:
    """Return the value of an environment variable, or the content of the file named by `<variable>_FILE`.

    Containers receive secrets as files, since variables are visible to everybody who may inspect the container.

    Args:
        variable: Name of the variable.

    Returns:
        None if neither is set.

    Raises:
        ConfigError: both are set, or the file cannot be read as text.
    """
    value, file = os.environ.get(variable), os.environ.get(f"{variable}_FILE")
    if not file:
        return value
    if value is not None:
        raise ConfigError(f"{variable} and {variable}_FILE are both set", code="secret-set-twice", remedy="Set one of them")
    try:
        return Path(file).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"{variable}_FILE names {file}, which cannot be read: {error}",
            code="secret-unreadable", remedy="Name a text file that holds it alone"
        ) from error
