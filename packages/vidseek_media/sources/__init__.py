"""Where videos come from, and the table of videos."""

from vidseek_media.moved import earlier

__getattr__ = earlier(__name__)
