"""The detector `adaptive`: abrupt cuts of PySceneDetect without flashes, and dissolves and fades."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidseek_media.cutting.motion_cuts import motion_cuts
from vidseek_media.cutting.small_frames import SmallFrame, SmallFrames
from vidseek_media.cutting.transitions import Pace, add_gradual, without_flashes
from vidseek_media.settings import ShotSettings


class ContentChanges:
    """Compares each frame with its neighbours.

    Args:
        settings: Thresholds.
    """

    def __init__(self, settings: ShotSettings) -> None:
        from scenedetect.detectors import AdaptiveDetector

        self._detector: Any = AdaptiveDetector(
            adaptive_threshold=settings.threshold, min_content_val=settings.min_content, min_scene_len=1
        )
        self._settings = settings
        self._cuts: list[int] = []
        self._frames: list[SmallFrame] = []

    def take(self, pixels: NDArray[np.uint8]) -> None:
        """Look at the next frame, shape (height, width, 3)."""
        from scenedetect import FrameTimecode

        # The detector counts frames; their rate is of no consequence to it.
        time = FrameTimecode(len(self._frames), fps=25.0)
        found = self._detector.process_frame(time, np.ascontiguousarray(pixels[:, :, ::-1]))
        self._cuts += [cut.frame_num for cut in found]
        self._frames.append(SmallFrame.of(pixels))

    def boundaries(self, pace: Pace) -> list[int]:
        """Return the frame numbers of boundaries, ascending, after the last of at least one frame."""
        frames = SmallFrames.of(self._frames)
        sure = without_flashes(self._cuts, frames, pace)
        hidden = motion_cuts(
            sure, frames, reach=pace.flash, threshold=self._settings.threshold, min_content=self._settings.min_content
        )
        cuts = sorted([*sure, *without_flashes(hidden, frames, pace)])
        return add_gradual(cuts, frames, pace) if self._settings.gradual else cuts
