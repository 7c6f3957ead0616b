"""A real API on a free port of loopback, in a thread of the test: for pages and agents, which ask over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from serving.api.admin import Admin
from serving.app import create_app
from serving.engine import Base, Engine, Places
from serving.model import open_archive
from tests.free_ports import free_port
from tests.retrieval.archive import frame_row
from tests.serving.colours import VERSION, publish_colours, video, video_id_of_colour, write_colour_archive
from tests.tiny_bundle import COLOURS
from tests.waiting import wait_until
from vidseek.archive import Archive
from vidseek.params import Settings
from vidseek.settings import ServeSettings
from vidseek_media.fields.declared import fields_of
from vidseek_media.fields.statement import Statement
from vidseek_media.fields.statements import FieldTable
from vidseek_media.ids import clip_id_of
from vidseek_media.tables import CLIPS, FRAMES, PAIRS, SIDECAR, read_table, write_table
from vidseek_media.text.segments import Segment
from vidseek_retrieval.confidence.calibration import Calibration


def write_video_archive(root: Path) -> Archive:
    """The colours, published, with a video of three seconds for each but white, whose file was moved away."""
    (root / "params.yaml").write_text("ingest: {source: videos}\n")
    (root / "videos" / "tapes").mkdir(parents=True)
    for colour in COLOURS:
        if colour != "white":
            video(colour, root / "videos" / "tapes" / f"{colour}.mp4", seconds=3)
    return write_colour_archive(root, titles={video_id_of_colour("red"): "<img src=x onerror=alert(1)> **red**"})


def write_worded_archive(root: Path) -> Archive:
    """The same, and green says something of a harbour, which blue shows."""
    archive = write_video_archive(root)
    said = [
        Segment(200, 900, "good morning"), Segment(1400, 2100, "the harbour <b>reopens</b>"), Segment(2200, 2900, "rain"),
    ]
    publish_colours(root, segments={
        "speech": {video_id_of_colour("green"): said},
        "ocr": {video_id_of_colour("blue"): [Segment(1000, 3000, "HARBOUR NEWS")]},
    })
    return archive


def write_taught_archive(root: Path) -> Archive:
    """The same, with confidences: a caption of green is trained with, one of white is of the test."""
    archive = write_video_archive(root)
    publish_colours(root, calibration=Calibration(VERSION, 4.0, (0.0, 0.0, 0.0), 0.0, 0.1, 50))
    pairs = [
        {**dict.fromkeys(PAIRS.names, ""), "clip_id": str(clip_id_of(video_id_of_colour(colour), 0, 1000)),
         "video_id": video_id_of_colour(colour), "caption": colour, "split": split}
        for colour, split in (("green", "train"), ("white", "test"))
    ]
    write_table(archive.pairs_table, pairs, PAIRS)
    write_table(archive.ingest / "sidecar.parquet", [], SIDECAR)
    clips = read_table(archive.cut / "clips.parquet", CLIPS)
    frames = [frame_row(clip.clip_id, clip.video_id) for clip in clips.itertuples()]
    write_table(archive.frames / "frames.parquet", frames, FRAMES)
    return archive


def write_field_archive(root: Path) -> Archive:
    """The same, and each video has a camera and a take; red is tagged."""
    archive = write_video_archive(root)
    declared = fields_of({"camera": "keyword", "take": "integer", "shot_at": "datetime", "tags": ["keyword"]})
    said = [Statement(video_id_of_colour("red"), "tags", ("<b>rain</b> *1*",))]
    for number, colour in enumerate(COLOURS):
        video_id = video_id_of_colour(colour)
        said += [
            Statement(video_id, "camera", ("AB"[number % 2],)), Statement(video_id, "take", (number,)),
            Statement(video_id, "shot_at", (f"2026-03-0{number + 1}T00:00:00Z",)),
        ]
    publish_colours(root, fields=FieldTable(declared, tuple(said)))
    return archive


@contextmanager
def live_api(archive: Archive, *, port: int | None = None, **keys: Any) -> Iterator[str]:
    """The API over `archive`; gives its URL, and stops it at the end."""
    chosen = port or free_port()
    patient = ServeSettings(timeout_seconds=90, decode_timeout_seconds=80)  # other work may run on the machine of a test
    base = Base.of(archive, Settings())
    engine = Engine(lambda: open_archive(archive, Settings()), patient, Places.of(archive), base)
    admin = Admin(archive, engine)
    app = create_app(engine, admin=admin, **keys)
    server = uvicorn.Server(uvicorn.Config(app, port=chosen, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield f"http://127.0.0.1:{chosen}"
    finally:
        server.should_exit = True
        thread.join(30)
        engine.close()
