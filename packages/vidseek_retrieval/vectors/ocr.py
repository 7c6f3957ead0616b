"""The sparse vector `ocr`: what stands on the screen."""

from __future__ import annotations

from vidseek_retrieval.lexical.segment_vector import SegmentVector
from vidseek_retrieval.vectors.registry import register


@register
class ScreenTextVector(SegmentVector):
    """What stands on the screen. Readers of text often lose the spaces between words."""

    name = "ocr"
    evidence = "ocr"
    run_together = True
