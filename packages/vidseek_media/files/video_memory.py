"""What was found in each video, kept outside the pipeline, so that another run works on new videos only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from vidseek_media.files.json_files import read_json, write_json

Found = TypeVar("Found")


class VideoMemory:
    """One JSON file a video, `<folder>/<video_id>-<8 hex digits>.json`.

    The digits are a hash of the settings, so other settings find nothing. `vidseek forget` removes files that are named
    after a forgotten video.

    Args:
        folder: For example `ArchivePaths.state / "ocr"`.
        settings: What decides the result: the engine, its model, thresholds, and a format number of the code.

    Examples:
        >>> memory = VideoMemory(Path("shots"), {"format": 1})
        >>> memory.recall("ab12", list) is None
        True
        >>> memory.remember("ab12", [0, 1500])
        >>> memory.recall("ab12", list)
        [0, 1500]
    """

    def __init__(self, folder: Path, settings: Mapping[str, object]) -> None:
        self._folder = folder
        self._digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]

    def path(self, video_id: str, suffix: str = ".json") -> Path:
        """Return the file of a video."""
        return self._folder / f"{video_id}-{self._digest}{suffix}"

    def recall(self, video_id: str, read: Callable[[Any], Found]) -> Found | None:
        """Return what is kept of a video; None if there is nothing of these settings, or its file is broken.

        Args:
            video_id: Of the video.
            read: Makes the result of the file's content, or raises ValueError, TypeError or OverflowError.
        """
        try:
            return read(read_json(self.path(video_id)))
        except (OSError, ValueError, TypeError, OverflowError):
            return None

    def recall_all(self, video_ids: Iterable[str], read: Callable[[Any], Found]) -> dict[str, Found]:
        """Return what is kept of videos by video_id; videos of which nothing is kept are left out.

        Args:
            video_ids: Of the videos.
            read: As `recall` takes it.
        """
        return {video_id: known for video_id in video_ids if (known := self.recall(video_id, read)) is not None}

    def remember(self, video_id: str, content: object) -> None:
        """Keep what was found in a video, as JSON.

        Raises:
            OSError: the disk cannot hold it.
        """
        write_json(self.path(video_id), content, indent=None, ensure_ascii=False)
