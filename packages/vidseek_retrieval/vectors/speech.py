"""The sparse vector `speech`: what is said in a clip: subtitles, and recognised speech."""

from __future__ import annotations

from vidseek_retrieval.lexical.segment_vector import SegmentVector
from vidseek_retrieval.vectors.registry import register


@register
class SpeechVector(SegmentVector):
    """What is said."""

    name = "speech"
    evidence = "speech"
