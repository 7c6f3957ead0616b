from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from tests.raising import raises
from tests.retrieval.archive import clip_row, frame_row, unit_rows, video_row, write_archive
from vidseek_media.errors import ArtifactError
from vidseek_media.tables import FRAMES, GROUPS, PAIRS, write_table
from vidseek_retrieval.suggesting.suggestions import ArchiveTables, SuggestReport, suggest_clips

VIDEOS = [f"{number:032x}" for number in range(6)]
NUM_WINDOWS = 8


def span(number: int) -> tuple[int, int]:
    return 1000 * number, 1000 * number + 3000


@pytest.fixture
def tables(tmp_path: Path) -> ArchiveTables:
    """Six videos of eight overlapping windows each. Video 0 is taught, 1 of the test, 2 without content in half; the
    frames of 4 show what those of 3 show."""
    clips = [clip_row(video, number, *span(number)) for video in VIDEOS for number in range(NUM_WINDOWS)]
    clips.append(clip_row(VIDEOS[0], 9, 0, 2000, cut=("captions",)))
    write_archive(tmp_path, [video_row(video, f"{video[-1]}.mp4") for video in VIDEOS], clips, unit_rows(len(clips), 8))
    write_table(tmp_path / "pairs" / "pairs.parquet", [
        {**dict.fromkeys(PAIRS.names, ""), "clip_id": clips[row]["clip_id"], "video_id": clips[row]["video_id"],
         "caption": "x", "split": split}
        for row, split in ((-1, "train"), (NUM_WINDOWS, "test"))
    ], PAIRS)
    write_table(tmp_path / "pairs" / "groups.parquet", [{"video_id": v, "group": v} for v in VIDEOS[:2]], GROUPS)
    frames = []
    for row, clip in enumerate(clips):
        number = VIDEOS.index(str(clip["video_id"]))
        flags = ["black"] if number == 2 and row % 2 else []
        shown = [2 ** (3 * (row % NUM_WINDOWS) + part) * 0x10001 + 7 * min(number, 3) for part in range(3)]
        hashes = [each if number in (3, 4) else hash((row, each)) & 2**62 - 1 for each in shown]
        frames.append(frame_row(clip["clip_id"], clip["video_id"], quality_flags=flags, hashes=hashes))
    write_table(tmp_path / "frames" / "frames.parquet", frames, FRAMES)
    return ArchiveTables(*(tmp_path / name for name in ("ingest", "cut", "frames", "pairs/pairs.parquet", "embed")))


def suggest(tables: ArchiveTables, **options: Any) -> SuggestReport:
    return suggest_clips(tables, **{
        "cut": "windows", "num": 99, "held_out": {VIDEOS[1]}, "also_captioned": {}, "skip_quality_flags": ("black",),
        "max_bits": 2, **options,
    })


def test_suggest__leaves_out_what_is_captioned_held_out_or_empty(tables: ArchiveTables) -> None:
    found = suggest(tables, also_captioned={VIDEOS[5]: [(4000, 7000)]})
    # A caption speaks of the windows that share half of it: of its 2 s in video 0, of its 3 s in the others.
    captioned = {0: {0, 1}, 1: {0, 1}, 5: {3, 4, 5}}
    assert (found.num_clips, found.num_held_out, found.num_without_content, found.num_captioned) == (48, 6, 4, 7)
    assert found.num_open == 48 - 6 - 4 - 7
    assert found.num_taught == 1
    assert {each.video_id for each in found.suggestions} <= {VIDEOS[0], *VIDEOS[2:]}
    assert not [each for each in found.suggestions if each.start_ms // 1000 in captioned.get(int(each.video_id, 16), ())]
    assert all(each.uri.endswith(".mp4") and each.distance > 0 for each in found.suggestions)


def test_suggest__near_duplicates_are_never_together(tables: ArchiveTables) -> None:
    found = suggest(tables, together=[(VIDEOS[2], VIDEOS[5])]).suggestions
    for one, other in itertools.combinations(found, 2):
        if one.video_id == other.video_id:
            assert one.end_ms <= other.start_ms or other.end_ms <= one.start_ms
        assert {one.video_id, other.video_id} != {VIDEOS[2], VIDEOS[5]}
        if {one.video_id, other.video_id} == {VIDEOS[3], VIDEOS[4]}:
            assert one.start_ms != other.start_ms  # the same hashes


def test_suggest__a_shorter_list_begins_the_longer_one(tables: ArchiveTables) -> None:
    assert suggest(tables, num=3).suggestions == suggest(tables).suggestions[:3]
    assert suggest(tables) == suggest(tables)
    assert not {VIDEOS[3]} & {each.video_id for each in suggest(tables, forgotten={VIDEOS[3]}).suggestions}


def test_suggest__of_a_mode_that_was_not_embedded_is_told(tables: ArchiveTables) -> None:
    with raises(ArtifactError, code="no-embeddings", naming="shots"):
        suggest(tables, cut="shots")
