from __future__ import annotations

from pathlib import Path

import pytest

from tests.raising import raises
from tests.retrieval.archive import clip_row, video_row
from vidseek.actions.tags import decide_tags, list_tags, target_of_clip, target_of_video
from vidseek.archive import Archive
from vidseek_media.errors import InputRejected
from vidseek_media.forgotten import ForgottenVideo, write_forgotten
from vidseek_media.tables import CLIPS, VIDEOS, write_table

A, B = "a" * 32, "b" * 32


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    archive = Archive(tmp_path)
    write_table(archive.ingest / "videos.parquet", [video_row(A, "tapes/a.mp4"), video_row(B, "b.mp4")], VIDEOS)
    write_table(archive.cut / "clips.parquet", [clip_row(A, 0, 0, 3000), clip_row(B, 0, 0, 3000)], CLIPS)
    return archive


def test_tags__of_clips_and_videos(archive: Archive) -> None:
    clip = target_of_clip(archive, str(clip_row(A, 0, 0, 3000)["clip_id"]).upper())
    assert clip == (A, (0, 3000))
    assert target_of_video(archive, "tapes/a.mp4") == target_of_video(archive, A[:6]) == (A, None)
    decide_tags(archive, clip, ["night", "rain"], has_tag=True, who="ann")
    decide_tags(archive, (B, None), ["night"], has_tag=False, who="bob")
    assert [(each.tag, each.who, each.has_tag) for each in list_tags(archive)] == [
        ("night", "ann", True), ("rain", "ann", True), ("night", "bob", False),
    ]
    assert len(list_tags(archive, clip)) == 2 and len(list_tags(archive, (B, None))) == 1


def test_tags__of_what_is_not_there_or_forgotten_are_refused(archive: Archive) -> None:
    clip = clip_row(B, 0, 0, 3000)["clip_id"]
    write_forgotten(archive.decisions, [ForgottenVideo(B, ("b.mp4",), (), "", "")])
    for name in (str(clip), "no clip"):
        with raises(InputRejected, code="unknown-clip", naming=name):
            target_of_clip(archive, name)
    with raises(InputRejected, code="unknown-video", naming="b.mp4"):
        target_of_video(archive, "b.mp4")
    with raises(InputRejected, code="bad-field-value"):
        decide_tags(archive, (A, None), ["night", " "], has_tag=True, who="")
    assert list_tags(archive) == []
