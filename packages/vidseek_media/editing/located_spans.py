"""How an editor counts the frames of a video, and where spans lie in it. It imports no decoder: the service reads it."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from vidseek_media.editing.frame_rates import format_timecode


@dataclass(frozen=True)
class SourceTimes:
    """How an editor counts the frames of a video file. A position is a frame's number from the beginning, at `rate`."""

    rate_numerator: int
    """Of the frames a second. Workers answer with plain numbers."""
    rate_denominator: int
    is_variable: bool
    """Whether frames have no constant distance. Positions are then exact in time: position p shows what the file shows at
    p / rate seconds, which need not be its p-th frame."""
    num_frames: int
    """Positions of the whole file."""
    first_timecode: int | None
    """Number of the file's first position by its timecode; None if the file has no timecode."""
    is_drop: bool
    """Whether its timecode is drop-frame."""
    width: int
    """As stored, in pixels."""
    height: int
    has_sound: bool

    @property
    def rate(self) -> Fraction:
        """Frames a second."""
        return Fraction(self.rate_numerator, self.rate_denominator)

    @property
    def origin(self) -> int:
        """Number of the first position by timecode; 0 in a file without timecode."""
        return self.first_timecode or 0

    def timecode(self, position: int) -> str:
        """Return the timecode of a position."""
        return format_timecode(self.origin + position, self.rate, is_drop=self.is_drop)


@dataclass(frozen=True)
class LocatedSpans:
    """The times of a source, and where the spans that were asked for lie in it."""

    times: SourceTimes
    positions: tuple[tuple[int, int], ...]
    """Of each span: the position of its first frame, and that behind its last."""
