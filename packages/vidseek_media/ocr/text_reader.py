"""Finds lines of text in a picture and reads them: RapidOCR with the PP-OCR models of its package, on ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vidseek_media.guards import mended_text
from vidseek_media.installing import require_module

Pixels = NDArray[np.uint8]
"""RGB, shape (height, width, 3)."""
Corners = NDArray[np.float32]
"""Of one line: top left, top right, bottom right, bottom left, shape (4, 2), x before y, in pixels."""

MODEL = "PP-OCRv6"
BATCH = 6
"""Lines that are read at once; they are made as wide as the widest."""
CELL_PX = 32
"""Width and height of a picture that the detection takes are multiples of it."""


class TextReader(Protocol):
    """Finds and reads text."""

    def find(self, pixels: Pixels, *, scale: float) -> list[Corners]:
        """Return the corners of the lines of text in a picture, in its pixels.

        Args:
            pixels: The picture.
            scale: By which it is made smaller before it is looked at, above 0, at most 1.
        """

    def read(self, pixels: Pixels, lines: Sequence[Corners]) -> list[tuple[str, float]]:
        """Return text and score (0 to 1) of each line; a text may be empty."""


def require_reader() -> str:
    """Return the name of the reader with its version and model, as the column `source` has it.

    Raises:
        ConfigError: RapidOCR is not installed.
    """
    require_module("rapidocr", "ocr", why="ocr.enabled is true")
    return f"rapidocr-{version('rapidocr')}/{MODEL}"


@cache
def rapid_reader() -> TextReader:
    """Return RapidOCR, loaded once in this process."""
    return RapidReader()


class RapidReader:
    """RapidOCR's detection and recognition, one thread each. Nothing is downloaded: the models lie in its package."""

    def __init__(self) -> None:
        from rapidocr import RapidOCR

        runtime = "EngineConfig.onnxruntime"
        engine: Any = RapidOCR(params={
            "Global.log_level": "critical", "Global.use_cls": False,
            f"{runtime}.intra_op_num_threads": 1, f"{runtime}.inter_op_num_threads": 1,
            # Pictures come in the size that they are looked at in.
            "Det.limit_type": "max", "Det.limit_side_len": 2**16, "Rec.rec_batch_num": BATCH,
        })
        self._detect, self._recognise = engine._load_det_model(), engine._load_rec_model()

    def find(self, pixels: Pixels, *, scale: float) -> list[Corners]:
        """Implement `TextReader.find`."""
        import cv2

        picture: NDArray[Any] = pixels[:, :, ::-1]
        if scale < 1:
            picture = cv2.resize(np.ascontiguousarray(picture), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        # The model takes cells of 32 pixels, and rapidocr squeezes the picture into whole cells: fill up the last one.
        short = [-size % CELL_PX for size in picture.shape[:2]]
        picture = np.pad(picture, ((0, short[0]), (0, short[1]), (0, 0)), mode="edge")
        found = self._detect(np.ascontiguousarray(picture))
        return [] if found.boxes is None else [np.asarray(corners, np.float32) / scale for corners in found.boxes]

    def read(self, pixels: Pixels, lines: Sequence[Corners]) -> list[tuple[str, float]]:
        """Implement `TextReader.read`."""
        from rapidocr.ch_ppocr_rec import TextRecInput
        from rapidocr.utils.process_img import get_rotate_crop_image

        if not lines:
            return []
        blue_first = np.ascontiguousarray(pixels[:, :, ::-1])
        crops = [get_rotate_crop_image(blue_first, corners.copy()) for corners in lines]
        found = self._recognise(TextRecInput(img=crops))
        return [(mended_text(text), float(score)) for text, score in zip(found.txts, found.scores, strict=True)]
