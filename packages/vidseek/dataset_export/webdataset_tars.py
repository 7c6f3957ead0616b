"""Writes a data set as tar files for WebDataset: `<split>-<number>.tar`, the members of a clip one behind the other."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vidseek.dataset_export.records import ClipContent, DatasetClip, Layout


class WebDatasetWriter:
    """Members of a clip: `<key>.json`, `.txt` with its first caption, `.00.jpg` and so on, `.npy`, `.mp4`.

    Args:
        folder: Where the tar files are written.
        layout: What every clip has.
    """

    def __init__(self, folder: Path, layout: Layout) -> None:
        self._folder = folder
        self._layout = layout
        self._tars: dict[str, tarfile.TarFile] = {}
        self._numbers: dict[str, int] = {}

    def add(self, clip: DatasetClip, content: ClipContent) -> None:
        """Write a clip."""
        tar = self._tar_of(clip.split)
        about = {**clip.to_json(), **({"frame_times_ms": content.times_ms} if content.frames else {})}
        _add(tar, f"{clip.key}.json", json.dumps(about, ensure_ascii=False).encode())
        if clip.captions:
            _add(tar, f"{clip.key}.txt", clip.captions[0].text.encode())
        for number, frame in enumerate(content.frames):
            _add(tar, f"{clip.key}.{number:02d}.jpg", frame)
        if content.embedding is not None:
            _add(tar, f"{clip.key}.npy", npy_bytes(content.embedding))
        if content.media is not None:
            _add_file(tar, f"{clip.key}.mp4", content.media)

    def close(self) -> None:
        """Finish the tar files."""
        for tar in self._tars.values():
            tar.close()

    def _tar_of(self, split: str) -> tarfile.TarFile:
        tar = self._tars.get(split)
        if tar is None or tar.offset >= self._layout.shard_bytes:
            if tar is not None:
                tar.close()
            number = self._numbers[split] = self._numbers.get(split, -1) + 1
            tar = tarfile.open(self._folder / f"{split}-{number:06d}.tar", "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
            self._tars[split] = tar
        return tar


def npy_bytes(values: NDArray[np.float32]) -> bytes:
    """Return an array as the bytes of a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)  # no owner and no time: equal clips give equal bytes
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def _add_file(tar: tarfile.TarFile, name: str, path: Path) -> None:
    info = tarfile.TarInfo(name)
    info.size = path.stat().st_size
    with path.open("rb") as file:
        tar.addfile(info, file)
    path.unlink()
