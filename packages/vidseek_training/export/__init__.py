"""The champion to ONNX, behind the parity gate."""

from vidseek_media.moved import earlier

__getattr__ = earlier(__name__)
