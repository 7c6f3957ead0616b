"""The `vidseek` command. Rooms are imported when a command needs them."""

from vidseek_media import moved as _moved  # noqa: F401 - module paths of an earlier version
