"""Writes a data set for FiftyOne, as its type `LegacyFiftyOneDataset` reads it: metadata.json, samples.json, data/.

That layout is plain JSON. The newer `FiftyOneDataset` holds documents of one version of FiftyOne's data base.
"""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidseek.dataset_export.records import ClipContent, DatasetClip, Layout
from vidseek.dataset_export.webdataset_tars import npy_bytes
from vidseek_media.fields.declared import TAGS
from vidseek_media.files.json_files import write_json

NO_FRAME_LABELS = "frames/none.json"
_OWN = (
    "clip_id", "video_id", "uri", "title", "channel", "category", "published_at", "start_ms", "end_ms", "cut", "split",
    "video_captions", "duplicate_of", "quality_flags",
)
_TAKEN = frozenset({
    *_OWN, "id", "filepath", "metadata", "media_type", "frames", "created_at", "last_modified_at", "captions", "contrasts",
    "clip_index", "frame_ms", "embedding", "media_reference", "support", "sample_id", "rand", "dataset_id", "group",
})
"""Names that declared fields do not get: a field of one is called `field_<name>`."""


class FiftyOneWriter:
    """One sample for each clip: its middle frame, or with media the clip itself.

    Args:
        folder: Where the files are written.
        layout: What every clip has.
    """

    def __init__(self, folder: Path, layout: Layout) -> None:
        self._folder = folder
        (folder / "data").mkdir()
        self._is_first = True
        self._samples = (folder / "samples.json").open("w", encoding="utf-8")
        self._samples.write('{"samples": [')
        if layout.has_media:  # its importer asks for labels of frames
            write_json(folder / NO_FRAME_LABELS, {"frames": {}})
        write_json(folder / "metadata.json", {"name": "vidseek", "media_type": "video" if layout.has_media else "image"})

    def add(self, clip: DatasetClip, content: ClipContent) -> None:
        """Write a clip."""
        row = clip.to_json()
        sample: dict[str, Any] = {name: row[name] for name in _OWN}
        sample |= {
            "tags": list(dict.fromkeys([clip.split, *clip.fields.get(TAGS, ())])), "clip_index": clip.index,
            "captions": [each.text for each in clip.captions],
            "contrasts": [each.contrast for each in clip.captions if each.contrast],
        }
        for name, value in clip.fields.items():
            if name != TAGS:
                sample[f"field_{name}" if name in _TAKEN else name] = value
        if content.embedding is not None:
            sample["embedding"] = _vector(content.embedding)
        if content.media is not None:
            sample |= {"filepath": f"data/{clip.key}.mp4", "_media_type": "video", "frames": NO_FRAME_LABELS}
            content.media.replace(self._folder / sample["filepath"])
        else:
            middle = len(content.frames) // 2
            sample |= {"filepath": f"data/{clip.key}.jpg", "_media_type": "image", "frame_ms": content.times_ms[middle]}
            (self._folder / sample["filepath"]).write_bytes(content.frames[middle])
        self._samples.write(f"{'' if self._is_first else ','}\n{json.dumps(sample, ensure_ascii=False)}")
        self._is_first = False

    def close(self) -> None:
        """Finish the files."""
        self._samples.write("\n]}\n")
        self._samples.close()


def _vector(values: NDArray[np.float32]) -> dict[str, Any]:
    """Return a vector as FiftyOne keeps it: a compressed .npy file."""
    packed = base64.b64encode(zlib.compress(npy_bytes(values))).decode()
    return {"$binary": {"base64": packed, "subType": "00"}}
