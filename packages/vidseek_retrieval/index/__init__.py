"""Collections: what they hold, and how they are built, verified and published."""

from vidseek_media.moved import earlier

__getattr__ = earlier(__name__)
