"""An archive whose stages are run here, as far as the clips, and each clip has frames: what jobs need to see."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.serving.colours import video
from vidseek.archive import Archive
from vidseek.jobs import worker as worker_module
from vidseek.jobs.stages import StagesRun
from vidseek_media.cutting.cut import cut_archive, read_clips
from vidseek_media.forgotten import read_forgotten
from vidseek_media.settings import CutSettings
from vidseek_media.sources.ingest import ingest
from vidseek_media.tables import FRAMES, REJECTED, write_table

PARAMS = """
ingest: {source: videos, workers: 1}
jobs: {settle_seconds: 0, poll_seconds: 0.05, source_seconds: 0.1}
"""


class Stages:
    """Stands for the process of the stages: runs those that jobs look at, and counts its runs."""

    def __init__(self) -> None:
        self.num_runs = 0
        self.error: BaseException | None = None
        self.before: Callable[[], None] = lambda: None
        self.after: Callable[[], None] = lambda: None

    def __call__(self, archive: Archive, *, what: str, lock: int, at: Callable[[str, float], None]) -> StagesRun:
        self.num_runs += 1
        at("ingest", 0.0)
        self.before()
        if self.error is not None:
            raise self.error
        source = archive.source
        assert source is not None
        ingest(source, out=archive.ingest, ledger=archive.ledger, timeout_seconds=60, workers=1,
               forgotten=read_forgotten(archive.decisions))
        windows = CutSettings(modes=("windows",), window_length_seconds=1, window_stride_seconds=1)
        cut_archive(archive.ingest, out=archive.cut, settings=windows)
        write_table(archive.frames / "frames.parquet", [
            {"clip_id": str(clip.clip_id), "video_id": clip.video_id, "key": "", "shard": "shards/0-0.tar", "num_frames": 1,
             "num_repeated": 0, "decoder": "pyav", "quality_flags": [], "hashes": []}
            for clip in read_clips(archive.cut)
        ], FRAMES)
        write_table(archive.frames / "rejected.parquet", [], REJECTED)
        self.after()
        at("publish", 0.9)
        return StagesRun({}, ("evaluate",))


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> Stages:
    made = Stages()
    monkeypatch.setattr(worker_module, "run_stages", made)
    return made


@pytest.fixture(scope="session")
def coloured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A video of two seconds for each of three colours."""
    folder = tmp_path_factory.mktemp("coloured")
    for colour in ("red", "blue", "green"):
        video(colour, folder / f"{colour}.mp4", seconds=2)
    return {colour: folder / f"{colour}.mp4" for colour in ("red", "blue", "green")}


@pytest.fixture
def archive(tmp_path: Path, stages: Stages) -> Archive:
    """An archive of no video."""
    (tmp_path / "params.yaml").write_text(PARAMS)
    (tmp_path / "videos").mkdir()
    return Archive(tmp_path)


def ids_of(jobs: Any) -> list[str]:
    return [job.id for job in jobs]
