"""An archive in tables whose videos have numbered frames: no index, no model."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

from tests.media.editing.numbered import NTSC_24, NTSC_30, NTSC_60, varying, write_numbered
from tests.retrieval.archive import clip_row, video_row
from vidseek.archive import Archive
from vidseek_media.ids import video_id_of
from vidseek_media.tables import CLIPS, VIDEOS, write_table

FILES: dict[str, dict[str, Any]] = {
    "pal.mov": {"rate": Fraction(25), "timecode": "10:00:00:00"},
    "drop frame.mov": {"rate": NTSC_30, "timecode": "00:59:59;20"},
    "straight.mp4": {"rate": NTSC_30, "timecode": "01:00:00:00"},
    "film #1.mp4": {"rate": NTSC_24, "sound": True},
    "tief/schön.mov": {"rate": NTSC_60, "timecode": "00:00:58;00"},
    "phone.mp4": {"rate": Fraction(30), "times": varying(75)},
}
"""Each has 75 frames."""


def write_edit_archive(root: Path, *names: str) -> Archive:
    """Videos of `FILES`, their tables and one clip of each, from 500 to 1,500 ms."""
    (root / "params.yaml").write_text("ingest: {source: videos}\n")
    ids = {}
    for name in names:
        wanted = dict(FILES[name])
        path = write_numbered(root / "videos" / name, wanted.pop("rate"), 75, **wanted)
        ids[name] = video_id_of(path)
    archive = Archive(root)
    write_table(archive.ingest / "videos.parquet", [video_row(ids[name], name) for name in names], VIDEOS)
    write_table(archive.cut / "clips.parquet", [clip_row(ids[name], 0, 500, 1500) for name in names], CLIPS)
    return archive


def hit_of(archive: Archive, name: str, start_ms: int, end_ms: int, **changes: Any) -> dict[str, Any]:
    """As `vidseek search --json` gives it."""
    video_id = video_id_of(archive.root / "videos" / name)
    clip_id = str(clip_row(video_id, 0, 500, 1500)["clip_id"])
    return {
        "video_id": video_id, "start_ms": start_ms, "end_ms": end_ms, "score": 0.5, "confidence": None,
        "best_clip_id": clip_id, "best_ms": start_ms, "clip_ids": [clip_id], "title": "", "uri": name, "thumbnail_url": None,
        **changes,
    }
