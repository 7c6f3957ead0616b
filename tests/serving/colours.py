"""A published archive of four videos, each of one colour, with the bundle that knows colours."""

from __future__ import annotations

import atexit
import io
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import av
import numpy as np
from PIL import Image

from tests.copying import copy_tree
from tests.retrieval.archive import clip_row, video_row, write_archive
from tests.tiny_bundle import COLOURS, colour_vector, write_tiny_bundle
from vidseek.archive import Archive
from vidseek_media.fields.statements import FieldTable, write_fields
from vidseek_media.text.segments import Segment, write_segments
from vidseek_retrieval.confidence.calibration import Calibration
from vidseek_retrieval.index.publish import publish
from vidseek_retrieval.settings import PublishSettings

VERSION = "0123456789abcdef"
BASE_VERSION = "ba5eba5eba5eba5e"


def video_id_of_colour(name: str) -> str:
    return f"{list(COLOURS).index(name):032x}"


def write_colour_archive(
    root: Path, *, encoder_version: str = VERSION, titles: Mapping[str, str] | None = None
) -> Archive:
    """Write bundle and index into `root`; each colour's video has three touching windows. `titles` are by video_id."""
    if (root / "index").exists():  # the table of aliases there must be kept
        _write_colours(root, encoder_version, titles)
    else:
        copy_tree(_colours_of(encoder_version, tuple(sorted((titles or {}).items()))), root)
    return Archive(root)


@cache
def _colours_of(encoder_version: str, titles: tuple[tuple[str, str], ...]) -> Path:
    """The archive, written once in a process: to publish takes ten times as long as to copy."""
    root = Path(tempfile.mkdtemp(prefix="vidseek-colours-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    _write_colours(root, encoder_version, dict(titles))
    return root


def _write_colours(root: Path, encoder_version: str, titles: Mapping[str, str] | None) -> None:
    write_tiny_bundle(root / "models" / "encoder", encoder_version=encoder_version)
    publish_colours(root, encoder_version=encoder_version, titles=titles)


def publish_colours(
    root: Path, *, encoder_version: str = VERSION, folder: str = "tapes", titles: Mapping[str, str] | None = None,
    calibration: Calibration | None = None, alias: str = "clips", turned: int = 0,
    segments: Mapping[str, Mapping[str, Sequence[Segment]]] | None = None, fields: FieldTable | None = None,
) -> str:
    """Publish (again); gives the collection's name. `turned`: each colour's clips look like so many colours further on.
    `segments` are by field and video_id, `fields` what the user declared."""
    videos = [
        video_row(
            video_id_of_colour(name), f"{folder}/{name}.mp4", title=(titles or {}).get(video_id_of_colour(name), ""),
        )
        for name in COLOURS
    ]
    clips = [
        clip_row(video_id_of_colour(name), index, 1000 * index, 1000 * index + 1000)
        for name in COLOURS for index in range(3)
    ]
    colours = list(COLOURS.values())
    vectors = np.stack([colour_vector(colour) for colour in (*colours[turned:], *colours[:turned]) for _ in range(3)])
    data = root / ("data" if alias == "clips" else f"data-{alias}")
    tables = write_archive(data, videos, clips, vectors, encoder_version=encoder_version)
    if fields:
        write_fields(data / "fields", fields)
    for field, of_videos in (segments or {}).items():
        write_segments(data / field, of_videos)
    return publish(
        **tables, segment_dirs={field: [data / field] for field in segments or {}}, index=root / "index", alias=alias,
        calibration=calibration, settings=PublishSettings(keep_previous=1 if alias == "clips" else 0),
        fields_dir=data / "fields" if fields else None,
    ).collection


def publish_base(root: Path, *, encoder_version: str = BASE_VERSION, folder: str = "tapes") -> str:
    """Bundle and collection of a base that takes each colour for the one before it, as `vidseek base` leaves them; gives
    the collection's name."""
    bundle = Archive(root).seen_by("base").bundle
    shutil.rmtree(bundle, ignore_errors=True)
    write_tiny_bundle(bundle, encoder_version=encoder_version)
    return publish_colours(root, encoder_version=encoder_version, folder=folder, alias="base", turned=1)


def picture(colour: str, *, width: int = 20, height: int = 10, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), COLOURS[colour]).save(buffer, kind)
    return buffer.getvalue()


def video(colour: str, path: Path, *, seconds: int = 1) -> bytes:
    """Seconds of one colour in H.264."""
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        pixels = np.full((48, 64, 3), COLOURS[colour], dtype=np.uint8)
        for _ in range(10 * seconds):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path.read_bytes()
