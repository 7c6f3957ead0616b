"""Training: the loop, the loss, adapters, precision, several processes."""

from vidseek_media.moved import earlier

__getattr__ = earlier(__name__)
