"""Published retrieval benchmarks."""

from vidseek_media.moved import earlier

__getattr__ = earlier(__name__)
