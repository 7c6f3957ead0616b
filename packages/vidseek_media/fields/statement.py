"""One statement: values of a field, of a video or a span of it."""

from __future__ import annotations

from dataclasses import dataclass

from vidseek_media.fields.declared import FieldValue


@dataclass(frozen=True)
class Statement:
    """Values of one field, of a video or a span of it."""

    video_id: str
    field: str
    values: tuple[FieldValue, ...]
    """At least one."""
    start_ms: int | None = None
    """Null with `end_ms` for the whole video."""
    end_ms: int | None = None
    clip_index: int | None = None
    """The clip of the video that a file name states, in place of times."""
    removed: bool = False
    """Whether these values are taken from what earlier statements say: a tag that somebody removed."""

    @property
    def is_of_video(self) -> bool:
        """Whether it is of the whole video."""
        return self.start_ms is None and self.clip_index is None

    def shared_ms(self, start_ms: int, end_ms: int, index: int) -> int:
        """Return how much of a clip it speaks of, in milliseconds; 0 where it does not count for the clip.

        It counts where the two share at least half of the shorter one.

        Args:
            start_ms: Start of the clip.
            end_ms: End of the clip.
            index: Number of the clip in its video.
        """
        if self.start_ms is None or self.end_ms is None:
            return end_ms - start_ms if self.clip_index in (None, index) else 0
        shared = min(end_ms, self.end_ms) - max(start_ms, self.start_ms)
        return shared if 2 * shared >= min(end_ms - start_ms, self.end_ms - self.start_ms) else 0
