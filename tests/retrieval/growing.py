"""A small archive whose videos come, change and go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.retrieval.archive import VERSION, clip_row, unit_rows, video_row, write_archive
from vidseek_media.tables import CAPTIONS, write_table
from vidseek_retrieval.dedup.video_matches import Duplicate
from vidseek_retrieval.embedding.embed_texts import clip_texts, text_id_of
from vidseek_retrieval.embedding.embedding_parts import write_part
from vidseek_retrieval.index.publish import PublishReport, publish
from vidseek_retrieval.settings import PublishSettings

CLIPS_OF_A_VIDEO = 10
DIMENSION = 16


class GrowingArchive:
    """An archive in tables, with the vectors and texts of its videos."""

    def __init__(self, root: Path, *, num_videos: int, captions: bool = False) -> None:
        self.root = root
        self.index = root / "index"
        self.has_captions = captions
        self.vectors: dict[str, NDArray[np.float32]] = {}
        self.titles: dict[str, str] = {}
        self.captions: dict[str, str] = {}
        self.duplicates: list[Duplicate] = []
        self.num_made = 0
        self.add(num_videos)

    @property
    def names(self) -> list[str]:
        """The videos that are there."""
        return sorted(self.vectors)

    def add(self, num: int) -> None:
        """Let new videos come."""
        for number in range(self.num_made, self.num_made + num):
            video_id = f"{number + 1:032x}"
            self.vectors[video_id] = unit_rows(CLIPS_OF_A_VIDEO, DIMENSION, seed=number)
            self.captions[video_id] = f"caption {number % 3}"
        self.num_made += num

    def remove(self, video_id: str) -> None:
        """Take a video out."""
        del self.vectors[video_id]

    def restore(self, video_id: str, vectors: NDArray[np.float32]) -> None:
        """Put a video back."""
        self.vectors[video_id] = vectors

    def change(self, kind: str, number: int) -> None:
        """Change the archive; `number` says which video."""
        name = self.names[number % len(self.vectors)]
        other = self.names[(number + 1) % len(self.vectors)]
        if kind == "add":
            self.add(1)
        elif kind == "remove" and len(self.vectors) > 2:
            self.remove(name)
        elif kind == "vector":
            self.vectors[name][number % CLIPS_OF_A_VIDEO] *= -1
        elif kind == "title":
            self.titles[name] = f"title {number}"
        elif kind == "caption":
            self.captions[name] = f"caption {number}"
        elif kind == "duplicate":
            self.duplicates = [Duplicate(name, 0, 4000, other, 0, 4000, "part", 1.0)]

    def write(self) -> dict[str, Any]:
        """Write the tables, and return the arguments of `publish`."""
        videos = [video_row(name, f"{name}.mp4", title=self.titles.get(name, "")) for name in self.names]
        clips = [
            clip_row(name, index, 1000 * index, 1000 * index + 2000)
            for name in self.names for index in range(CLIPS_OF_A_VIDEO)
        ]
        vectors = np.concatenate([self.vectors[name] for name in self.names])
        arguments: dict[str, Any] = {**write_archive(self.root, videos, clips, vectors), "duplicates": self.duplicates}
        if self.has_captions:
            arguments["caption_dir"] = self.root / "caption"
            self._write_captions(clips)
        return arguments

    def publish(self, *, alias: str = "clips", **settings: Any) -> PublishReport:
        """Publish the archive as it is now, with settings of the section `publish`."""
        wanted = PublishSettings(**{"compact_share": 0.9, **settings})
        return publish(**self.write(), index=self.index, alias=alias, settings=wanted)

    def _write_captions(self, clips: list[dict[str, object]]) -> None:
        rows = [
            {**dict.fromkeys(CAPTIONS.names, ""), "video_id": clip["video_id"], "clip_id": clip["clip_id"], "cost_usd": 0.0,
             "text": self.captions[str(clip["video_id"])]}
            for clip in clips if clip["index"] == 0
        ]
        write_table(self.root / "caption" / "captions.parquet", rows, CAPTIONS)
        folders = (self.root / name for name in ("ingest", "cut", "caption"))
        texts = sorted({text.spoken for text in clip_texts(*folders, cut="windows").values() if text.spoken})
        vectors = np.concatenate([
            unit_rows(1, DIMENSION, seed=int(text_id_of(text)[:8], 16)) for text in texts
        ])
        write_part(
            self.root / "embed" / "texts" / "0-0.parquet", clip_ids=[text_id_of(text) for text in texts], vectors=vectors,
            encoder_version=VERSION, variant="fp32",
        )
