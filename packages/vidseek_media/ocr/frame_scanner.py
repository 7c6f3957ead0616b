"""Reads the text of frames one after the other, and looks only at what has changed since the frame before."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vidseek_media.ocr.frame_changes import Grey, cells_of, changed_box, has_changed_in, small_grey
from vidseek_media.ocr.text_lines import Box, TextLine, box_of, overlap
from vidseek_media.ocr.text_reader import Corners, TextReader

SAME_PLACE = 0.7
"""Intersection over union of two boxes, from which they are one line that has not moved."""


class FrameScanner:
    """Reads one video, frame by frame, in order of time.

    Args:
        reader: Finds and reads text.
        detect_side_px: Shorter side of the picture that text is looked for in. What is found is read at the frame's size.

    Attributes:
        num_seen: Frames so far.
        num_passed_over: Of these, frames that equal the one before and were not looked at.
        num_read: Lines that were read.
    """

    def __init__(self, reader: TextReader, *, detect_side_px: int) -> None:
        self._reader, self._detect_side_px = reader, detect_side_px
        self._before: Grey | None = None
        self._lines: list[TextLine] = []
        self._scale = 1.0
        self.num_seen = self.num_passed_over = self.num_read = 0

    def scan(self, pixels: NDArray[np.uint8]) -> list[TextLine]:
        """Return the lines of text of the next frame.

        Args:
            pixels: RGB, shape (height, width, 3); all frames have one size.
        """
        self.num_seen += 1
        height, width = pixels.shape[:2]
        self._scale = min(1.0, self._detect_side_px / min(height, width))
        now, before = small_grey(pixels), self._before
        part: Box | None = (0.0, 0.0, float(width), float(height))
        if before is not None:
            part = changed_box(before, now, (height, width), lines=[line.box for line in self._lines])
        if part is None:
            self.num_passed_over += 1
            return self._lines
        left, top, right, bottom = (round(edge) for edge in part)
        kept = [line for line in self._lines if overlap(line.box, part) == 0]
        inside = [line for line in self._lines if overlap(line.box, part) > 0]
        found = [corners + np.array([left, top], np.float32) for corners in self._find(pixels[top:bottom, left:right])]
        self._lines = kept + self._read(pixels, found, inside, before, now)
        self._remember(now, part)
        return self._lines

    def _find(self, pixels: NDArray[np.uint8]) -> list[Corners]:
        """Look for text in a part of the frame, in the scale in which a whole frame is looked at."""
        return self._reader.find(pixels, scale=self._scale)

    def _read(
        self, pixels: NDArray[np.uint8], found: list[Corners], known: list[TextLine], before: Grey | None, now: Grey
    ) -> list[TextLine]:
        """Return the lines found; one that stands unchanged where it stood is not read again."""
        lines: list[TextLine] = []
        unread: list[Corners] = []
        for corners in found:
            box = box_of(corners)
            if before is not None and (same := _unchanged(box, known, before, now)):
                lines.append(same)
            else:
                unread.append(corners)
        self.num_read += len(unread)
        for corners, (text, score) in zip(unread, self._reader.read(pixels, unread), strict=True):
            if text:
                lines.append(TextLine(box_of(corners), text, score))
        return lines

    def _remember(self, now: Grey, part: Box) -> None:
        """Keep the small picture of what was looked at. Elsewhere it stays as it was, so that slow changes add up."""
        if self._before is None:
            self._before = now
        else:
            cells = cells_of(part)
            self._before[cells] = now[cells]


def _unchanged(box: Box, known: list[TextLine], before: Grey, now: Grey) -> TextLine | None:
    """Return the line that stood in this box and looks as it did; None if there is none."""
    same = max(known, key=lambda line: overlap(line.box, box), default=None)
    if same is None or overlap(same.box, box) < SAME_PLACE:
        return None
    return None if any(has_changed_in(before, now, each) for each in (same.box, box)) else same
