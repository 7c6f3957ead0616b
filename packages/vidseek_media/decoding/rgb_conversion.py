"""Convert decoder frames to RGB as a player shows them: upright, square pixels, standard dynamic range, one size."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.buffer import Buffer
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter
from numpy.typing import NDArray

from vidseek_media.decoding.containers import FOREIGN, message_of, open_video
from vidseek_media.decoding.display import (
    BT2020,
    full_range,
    is_hdr,
    is_mirrored,
    over_white,
    rotation_matrix,
    size_shown,
    to_sdr,
    upright,
)
from vidseek_media.decoding.frame_walk import WantedFrame, decode_all
from vidseek_media.decoding.packets import PacketPlan
from vidseek_media.errors import InputRejected

_UNSPECIFIED = 2
"""Colour primaries of a file that does not state them (H.273)."""


class RgbConverter:
    """Converts decoder frames to RGB of one size, as a player shows them."""

    def __init__(self, side_px: int | None, aspect: Fraction) -> None:
        """Convert to the size of the first frame.

        Args:
            side_px: The shorter side of the result; None, or more than the frame has, for the frame's own.
            aspect: Width to height of a sample, above 0.
        """
        self._side_px, self._aspect = side_px, aspect
        self._reformatter = VideoReformatter()
        self._size: tuple[int, int] | None = None
        self._last: tuple[av.VideoFrame, NDArray[np.uint8]] | None = None

    def convert(self, wanted: WantedFrame, plan: PacketPlan, path: Path) -> NDArray[np.uint8]:
        """Return a frame in the size of the file's first frame: RGB, shape (height, width, 3), 0 to 255, upright.

        Args:
            wanted: A frame of the file. The same frame twice gives the same array.
            plan: Of the file.
            path: The file.
        """
        if self._size is None:
            self._size = size_shown(*_size_of_first(path, wanted, plan), self._aspect, self._side_px)
        if self._last is None or self._last[0] is not wanted.frame:
            self._last = (wanted.frame, self.convert_frame(wanted.frame))
        return self._last[1]

    def convert_array(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return a decoded array in the size of the first one converted.

        Args:
            rgb: Shape (height, width, 3), 0 to 255.
        """
        return self.convert_frame(av.VideoFrame.from_ndarray(rgb, format="rgb24"))

    def convert_frame(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        """Return a frame in the size of the first one converted: RGB, shape (height, width, 3), 0 to 255, upright."""
        self._size = self._size or size_shown(frame.width, frame.height, self._aspect, self._side_px)
        flat = self._over_white(frame) if any(each.is_alpha for each in frame.format.components) else frame
        transfer = int(frame.color_trc)
        rgb = self._rgb(flat, "rgb48le" if is_hdr(transfer) else "rgb24")
        if is_hdr(transfer):
            is_wide = frame.color_primaries in (BT2020, _UNSPECIFIED)
            rgb = to_sdr(np.asarray(rgb, np.uint16), transfer, is_wide=is_wide)
        return np.ascontiguousarray(upright(np.asarray(rgb, np.uint8), _display_matrix(frame)))

    def _rgb(self, frame: av.VideoFrame, pixel_format: str) -> NDArray[Any]:
        assert self._size is not None
        width, height = self._size
        is_smaller = width * height < frame.width * frame.height
        rgb = self._converted(
            frame, width, height, pixel_format, Interpolation.AREA if is_smaller else Interpolation.BILINEAR
        )
        # swscale treats grey as full range whatever the frame states.
        is_lifted = frame.format.name.startswith("gray") and frame.color_range == ColorRange.MPEG
        return full_range(rgb) if is_lifted else rgb

    def _over_white(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Blend a frame over white before it is scaled, as for still pictures. A fully transparent one keeps its colours."""
        is_deep = max(component.bits for component in frame.format.components) > 8
        rgba = self._converted(frame, frame.width, frame.height, "rgba64le" if is_deep else "rgba", Interpolation.BILINEAR)
        return av.VideoFrame.from_ndarray(over_white(rgba), format="rgb48le" if is_deep else "rgb24")

    def _converted(
        self, frame: av.VideoFrame, width: int, height: int, pixel_format: str, interpolation: Interpolation
    ) -> NDArray[Any]:
        try:
            return self._reformatter.reformat(
                frame, width, height, pixel_format, interpolation=interpolation, threads=1
            ).to_ndarray()
        except FOREIGN as error:
            raise InputRejected(
                f"frames of {frame.format.name} cannot be turned into RGB: {message_of(error)}", code="undecodable",
            ) from error


def _size_of_first(path: Path, wanted: WantedFrame, plan: PacketPlan) -> tuple[int, int]:
    """Return width and height of the file's first frame.

    A stream may change its size (joined files). All frames get the first one's size, so that a result does not depend on
    which other frames are wanted.
    """
    frame = wanted.frame
    if wanted.pts != plan.pts[0] and (frame.width, frame.height) != plan.first_size:
        with open_video(path) as video:
            frame = next(decode_all(video, []), frame)
    return frame.width, frame.height


def is_file_mirrored(path: Path) -> bool:
    """Return whether the first frame's display matrix mirrors; False if no frame can be decoded.

    Args:
        path: The file.
    """
    with open_video(path) as video:
        first = next(decode_all(video, []), None)
        return first is not None and is_mirrored(_display_matrix(first))


def _display_matrix(frame: av.VideoFrame) -> NDArray[np.int32] | None:
    try:
        side_data = cast(Mapping[SideDataType, Buffer], frame.side_data)  # PyAV annotates it as a dict
        return np.frombuffer(bytes(side_data[SideDataType.DISPLAYMATRIX]), np.int32)
    except KeyError:
        return None
    except ValueError:  # PyAV 18.1 fails if it does not know the kind of one entry (EXIF)
        return rotation_matrix(frame.rotation)
