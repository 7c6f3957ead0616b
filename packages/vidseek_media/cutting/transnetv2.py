"""The detector `transnetv2`: runs TransNetV2 on ONNX Runtime over the frames of a video."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vidseek_media.cutting.small_frames import SmallFrame, SmallFrames
from vidseek_media.cutting.transitions import Pace, merge_fades
from vidseek_media.cutting.transnetv2_model import HEIGHT_PX, LOOKUP, WIDTH_PX, WINDOW

STRIDE, EDGE = 50, 25
"""Frames from one window to the next, and frames at each end of a window whose chances are not used."""
MIN_CHANCE = 0.5
"""From which a frame is at a boundary, as published."""

Small = NDArray[np.uint8]
"""RGB, shape (27, 48, 3)."""


class TransNetV2:
    """Sees a video in windows of 100 frames, each 50 frames after the one before.

    Args:
        model: The ONNX file of `transnetv2_model.prepared_model`.
    """

    def __init__(self, model: Path) -> None:
        self._session = _session(model)
        self._window: list[Small] = []
        self._chances: list[NDArray[np.float32]] = []
        self._frames: list[SmallFrame] = []

    def take(self, pixels: NDArray[np.uint8]) -> None:
        """Look at the next frame, shape (height, width, 3)."""
        picture = Image.fromarray(pixels).resize((WIDTH_PX, HEIGHT_PX), Image.Resampling.BICUBIC)
        self._push(np.asarray(picture), times=1 if self._frames else EDGE + 1)
        self._frames.append(SmallFrame.of(pixels))

    def chances(self) -> NDArray[np.float32]:
        """Return the chances of all frames, shape (frames, 2), after the last of at least one frame.

        The first is that it is the last frame of a shot or the middle of a transition, the second that it belongs to one.
        """
        num_frames = len(self._frames)
        self._push(self._window[-1], times=EDGE + STRIDE - (num_frames % STRIDE or STRIDE))
        return np.concatenate(self._chances)[:num_frames]

    def boundaries(self, pace: Pace) -> list[int]:
        """Return the frame numbers of boundaries, ascending, after the last of at least one frame.

        Neighbouring frames over `MIN_CHANCE` are one boundary. So is a fade, which is often found twice, at its begin and at
        its end: it counts in the middle of its dark.
        """
        is_over = np.concatenate([[0], self.chances()[:, 0] > MIN_CHANCE, [0]])
        edges = np.flatnonzero(np.diff(is_over))
        last = len(self._frames) - 1
        found = [int(first + end - 1) // 2 + 1 for first, end in zip(edges[::2], edges[1::2], strict=True)]
        return merge_fades([at for at in found if at <= last], SmallFrames.of(self._frames), pace)

    def _push(self, small: Small, *, times: int) -> None:
        for _ in range(times):
            self._window.append(small)
            if len(self._window) == WINDOW:
                self._chances.append(self._run(np.stack(self._window))[EDGE : EDGE + STRIDE])
                del self._window[:STRIDE]

    def _run(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        planes = np.ascontiguousarray(frames.transpose(0, 3, 1, 2), np.float32)
        [chances] = self._session.run(None, {"frames": planes, "colours": colour_likeness(frames)})
        return np.asarray(chances, np.float32)


def colour_likeness(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return how alike the colour histogram of each frame is to those around it; 0 beyond the window.

    A histogram has 512 bins, eight a colour, and length 1.

    Args:
        frames: RGB, shape (100, height, width, 3).

    Returns:
        Shape (100, 101), the frame's own in the middle.
    """
    levels = frames.astype(np.intp) >> 5
    bins = (levels[..., 0] << 6) + (levels[..., 1] << 3) + levels[..., 2]
    counts = np.stack([np.bincount(each.ravel(), minlength=512) for each in bins]).astype(np.float32)
    unit = counts / np.linalg.norm(counts, axis=1, keepdims=True)
    alike = np.pad(unit @ unit.T, ((0, 0), (LOOKUP // 2, LOOKUP // 2)))
    around = np.arange(len(frames))[:, None] + np.arange(LOOKUP)
    return np.take_along_axis(alike, around, axis=1)


@cache
def _session(model: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
