"""Captions and pairs to a LoRA adapter, proven better, to a merged ONNX bundle. The only room with torch."""

from vidseek_media import moved as _moved  # noqa: F401 - module paths of an earlier version
