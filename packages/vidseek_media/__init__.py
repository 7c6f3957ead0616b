"""Videos into clips into frames: sources, probing, cutting, decoding; the ids, records and errors all rooms share."""

from vidseek_media import moved as _moved  # noqa: F401 - module paths of an earlier version
