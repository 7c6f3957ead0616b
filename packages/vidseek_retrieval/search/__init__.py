"""A query to ranked moments."""

from vidseek_media.moved import earlier

__getattr__ = earlier(__name__)
