from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.raising import raises
from tests.retrieval.archive import VERSION, clip_row, unit_rows, video_row, write_archive
from tests.retrieval.embedding.test_embed_clips import write_shard
from tests.retrieval.pictures import moving_frames
from vidseek_media.errors import GateFailed
from vidseek_retrieval.dedup.find import SHOWN_AT, DedupReport, find_duplicates, write_duplicates_page
from vidseek_retrieval.dedup.video_matches import Duplicate
from vidseek_retrieval.index.edge.backend import EdgeBackend
from vidseek_retrieval.index.publish import publish
from vidseek_retrieval.search.searcher import Searcher

NUM_VIDEOS = 12
COPY = f"{NUM_VIDEOS:032x}"
ORIGINAL = f"{3:032x}"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve originals of 18 s and a small, dark copy of the fourth; a clip is three seconds, with six frames."""
    root = tmp_path_factory.mktemp("dedup")
    originals = [moving_frames(40 + number, num=36, scene=1) for number in range(NUM_VIDEOS)]
    originals.append(
        [np.asarray(Image.fromarray((frame * 0.7).astype(np.uint8)).resize((60, 45))) for frame in originals[3]]
    )
    videos, clips, shards, vectors = [], [], {}, []
    for number, frames in enumerate(originals):
        video_id = f"{number:032x}"
        size = {"width": frames[0].shape[1], "height": frames[0].shape[0], "duration_ms": 18_000}
        videos.append(video_row(video_id, f"<{number}>.mp4", **size))
        own = unit_rows(6, 8, seed=3 if number == NUM_VIDEOS else number)
        for index in range(6):
            clips.append(clip_row(video_id, index, 3000 * index, 3000 * index + 3000))
            vectors.append(own[index])
        shards[video_id] = [np.stack(frames[6 * index : 6 * index + 6]) for index in range(6)]
    tables = write_archive(root, videos, clips, np.stack(vectors))
    write_shard(root / "frames" / "shards" / "all.tar", shards, clip_ms=3000, frame_ms=500)
    publish(**tables, index=root / "index")
    return root


def open_live(root: Path) -> object:
    backend = EdgeBackend(root / "index")
    return backend.open(backend.aliases()["clips"].collection)


@pytest.fixture(scope="module")
def report(root: Path) -> DedupReport:
    return find_in(root)


def find_in(root: Path) -> DedupReport:
    return find_duplicates(
        open_live(root), root / "frames", root / "ingest", precision=0.95, cache=root / "cache",  # type: ignore[arg-type]
    )


def test_find__the_copy_and_no_other_whole_video(root: Path, report: DedupReport, tmp_path: Path) -> None:
    wholes = [row for row in report.duplicates if row.kind == "whole"]
    assert [(row.video_id, row.duplicate_of) for row in wholes] == [(COPY, ORIGINAL)] and wholes[0].score > 0.9
    assert len(report.duplicates) == 1 and report.num_videos == report.num_new == NUM_VIDEOS + 1
    assert report.threshold.precision >= 0.95 and report.threshold.recall > 0.6
    assert report.uris == {ORIGINAL: "<3>.mp4", COPY: "<12>.mp4"}
    (why,) = report.reasons.values()
    # A frame each 500 ms, each of another scene: half of that is as exact as it can be.
    assert why.speed == 1 and abs(why.offset_ms) <= 250 and not why.is_mirrored and len(why.moments_ms) == len(SHOWN_AT)
    assert any(said.startswith("darker by") for said in why.differences)
    write_duplicates_page(tmp_path / "page.html", report, root / "frames")
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 2 * len(SHOWN_AT)
    assert "&lt;3&gt;.mp4" in page and "<3>" not in page and "darker by" in page


@pytest.mark.slow
def test_find__again_compares_nothing_and_finds_the_same(root: Path, report: DedupReport) -> None:
    again = find_in(root)
    assert (again.num_new, again.num_candidates) == (0, 0) and again.duplicates == report.duplicates


def test_search__folds_what_was_decided(root: Path, report: DedupReport, tmp_path: Path) -> None:
    tables = {"embed_dir": root / "embed", "cut_dir": root / "cut", "ingest_dir": root / "ingest"}
    plain = publish(**tables, index=tmp_path / "index")
    (query,) = unit_rows(1, 8, seed=3)
    searcher = Searcher.open(tmp_path / "index", None)
    both = {hit.video_id for hit in searcher.search_vector(query, VERSION, limit=1000).hits}
    assert {COPY, ORIGINAL} <= both
    decided = [row for row in report.duplicates if row.kind == "whole"]
    folded = publish(**tables, index=tmp_path / "index", duplicates=decided)
    assert folded.collection != plain.collection and folded.num_points == plain.num_points
    kept = {hit.video_id for hit in searcher.search_vector(query, VERSION, limit=1000).hits}
    assert kept == both - {COPY}
    gone = [Duplicate("f" * 32, 0, 1, "e" * 32, 0, 1, "whole", 1.0)]
    assert publish(**tables, index=tmp_path / "index", duplicates=gone).collection == plain.collection


def test_find__too_few_videos(tmp_path: Path) -> None:
    tables = write_archive(tmp_path, [video_row("a" * 32, "a.mp4")], [clip_row("a" * 32, 0, 0, 3000)], unit_rows(1, 8))
    publish(**tables, index=tmp_path / "index")
    write_shard(tmp_path / "frames" / "shards" / "a.tar", {"a" * 32: [np.stack(moving_frames(1, num=6))]})
    with raises(GateFailed, code="too-few-videos", naming="1 videos"):
        find_duplicates(open_live(tmp_path), tmp_path / "frames", tmp_path / "ingest", precision=0.95)  # type: ignore[arg-type]
