"""Writes a data set as plain files: clips.csv, captions.csv, embeddings.npy, frames and media by name."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from vidseek.dataset_export.records import ClipCaption, ClipContent, DatasetClip, Layout
from vidseek.edit.export import joined_cell

CLIPS, CAPTIONS, EMBEDDINGS = "clips.csv", "captions.csv", "embeddings.npy"
COLUMNS = (
    "key", "clip_id", "video_id", "uri", "title", "channel", "category", "published_at", "start_ms", "end_ms", "index",
    "cut", "split", "num_captions", "video_captions", "duplicate_of", "quality_flags", "frames", "frame_times_ms", "media",
)
CAPTION_COLUMNS = ("clip_id", "split", *ClipCaption.__dataclass_fields__)


class CsvWriter:
    """A row for each clip; row i of embeddings.npy is that of the i-th. Lists are joined by `; `, or JSON.

    Args:
        folder: Where the files are written.
        layout: What every clip has.
    """

    def __init__(self, folder: Path, layout: Layout) -> None:
        self._folder = folder
        self._layout = layout
        self._names = list(layout.declared)
        self._vectors: list[NDArray[np.float32]] = []
        self._files: list[TextIO] = []
        own = [f"field_{name}" if name in COLUMNS else name for name in self._names]
        self._clips = self._table(CLIPS, (*COLUMNS, *own))
        self._captions = self._table(CAPTIONS, CAPTION_COLUMNS)

    def add(self, clip: DatasetClip, content: ClipContent) -> None:
        """Write a clip."""
        frames = [f"frames/{clip.video_id}/{clip.key}.{number:02d}.jpg" for number in range(len(content.frames))]
        for name, frame in zip(frames, content.frames, strict=True):
            path = self._folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(frame)
        media = ""
        if content.media is not None:
            media = f"media/{clip.key}.mp4"
            (self._folder / "media").mkdir(exist_ok=True)
            content.media.replace(self._folder / media)
        if content.embedding is not None:
            self._vectors.append(content.embedding)
        row = {
            **asdict(clip), "key": clip.key, "num_captions": len(clip.captions), "frames": frames,
            "frame_times_ms": content.times_ms, "media": media,
        }
        self._clips.writerow(_cells([*(row[name] for name in COLUMNS), *(clip.fields.get(each) for each in self._names)]))
        for caption in clip.captions:
            self._captions.writerow(_cells([clip.clip_id, clip.split, *asdict(caption).values()]))

    def close(self) -> None:
        """Finish the files."""
        for file in self._files:
            file.close()
        if self._layout.dimension:
            vectors = np.array(self._vectors, np.float32).reshape(-1, self._layout.dimension)
            np.save(self._folder / EMBEDDINGS, vectors, allow_pickle=False)

    def _table(self, name: str, columns: Sequence[str]) -> Any:
        self._files.append((self._folder / name).open("w", encoding="utf-8", newline=""))
        writer = csv.writer(self._files[-1])
        writer.writerow(columns)
        return writer


def _cells(values: Sequence[Any]) -> list[object]:
    return [_cell(list(value) if isinstance(value, tuple) else value) for value in values]


def _cell(value: Any) -> object:
    """Return a value as a cell, as it is: a data set is read by programs, and what comes back must be the same."""
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else joined_cell(value)
