"""Vectors to an index, and a query to ranked moments."""

from vidseek_media import moved as _moved  # noqa: F401 - module paths of an earlier version
