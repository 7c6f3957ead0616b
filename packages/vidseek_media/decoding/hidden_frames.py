"""Finds packets whose frames are never shown: VP8 and VP9 send reference frames for later frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator


def vp8_hides(packet: memoryview) -> bool:
    """Whether the frame of `packet` is not shown: `show_frame` of the frame tag (RFC 6386, section 9.1) is 0."""
    return bool(len(packet)) and not packet[0] >> 4 & 1


def vp9_hides(packet: memoryview) -> bool:
    """Whether no frame of `packet`, which may be a superframe, is shown (VP9 bitstream specification, 6.2 and annex B)."""
    return bool(len(packet)) and not any(_vp9_shows(frame[0]) for frame in _frames(packet) if len(frame))


HIDES: dict[str, Callable[[memoryview], bool]] = {"vp8": vp8_hides, "vp9": vp9_hides}
"""By FFmpeg's name of the codec. AV1 needs none: each of its packets is a temporal unit, which shows one frame."""


def _vp9_shows(head: int) -> bool:
    """From the first byte of a frame: marker (2 bits), profile (2), reserved (in profile 3), then three flags."""
    if head >> 6 != 2:
        return True  # No VP9 frame: the decoder decides.
    reserved = 1 if head >> 4 & 3 == 3 else 0
    shows_existing, shows = head >> (3 - reserved) & 1, head >> (1 - reserved) & 1
    return bool(shows_existing or shows)


def _frames(packet: memoryview) -> Iterator[memoryview]:
    marker = packet[-1]
    num_frames, width = (marker & 7) + 1, (marker >> 3 & 3) + 1
    index = 2 + width * num_frames
    if marker & 0xE0 != 0xC0 or len(packet) < index or packet[-index] != marker:
        yield packet
        return
    start = 0
    for number in range(num_frames):
        at = len(packet) - index + 1 + number * width
        size = int.from_bytes(packet[at : at + width], "little")
        yield packet[start : start + size]
        start += size
