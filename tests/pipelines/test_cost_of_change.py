"""A run costs what changed: files decoded, clips embedded and points written are those of the videos that came or went."""

from __future__ import annotations

from pathlib import Path

from bench.growing.counting import CLIPS, DELETED, FILES, WRITTEN
from tests.pipelines.growing import CLIPS_A_VIDEO, Run, Runner, content_of, make_archive, write_colours

FRAMES_TO_INDEX = ("frames", "caption", "pairs", "embed", "publish")


def counts_of(run: Run) -> tuple[int, int, int, int]:
    """Return files decoded, clips embedded, points written and points deleted."""
    return tuple(run.counts.get(name, 0) for name in (FILES, CLIPS, WRITTEN, DELETED))  # type: ignore[return-value]


def test_a_run__costs_what_changed(tmp_path: Path) -> None:
    paths = make_archive(tmp_path / "archive", num_videos=6, **{"publish.compact_share": 1.0})
    source = paths.root / "source"
    with Runner() as runner:

        def run() -> tuple[int, int, int, int]:
            runner.finish(paths.root, ("ingest", "cut", "side"))
            return counts_of(runner.finish(paths.root, FRAMES_TO_INDEX))

        assert run() == (6, 6 * CLIPS_A_VIDEO, 6 * CLIPS_A_VIDEO, 0)
        assert run() == (0, 0, 0, 0)
        write_colours(source / "6.mp4", seed=6)
        assert run() == (1, CLIPS_A_VIDEO, CLIPS_A_VIDEO, 0)
        write_colours(source / "6.mp4", seed=60)
        assert run() == (1, CLIPS_A_VIDEO, CLIPS_A_VIDEO, CLIPS_A_VIDEO)
        (source / "6.mp4").unlink()
        assert run() == (0, 0, 0, CLIPS_A_VIDEO)
        (source / "5.mp4").rename(source / "moved.mp4")
        assert run() == (0, 0, CLIPS_A_VIDEO, 0)  # its points say where it lies now
        said = content_of(paths)
    assert len(said.videos) == 6
    assert len(said.points) == len(said.vectors) == len(said.frames) == 6 * CLIPS_A_VIDEO
