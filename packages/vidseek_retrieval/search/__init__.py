"""A query to ranked moments."""

from typing import Any

from vidseek_media import moved


def __getattr__(name: str) -> Any:
    return moved.find(__name__, name)  # what the module of this name had in an earlier version
