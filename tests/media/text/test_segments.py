from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.raising import raises
from vidseek_media.errors import ArtifactError
from vidseek_media.text.segments import SEGMENTS_FILE, Segment, SegmentCache, read_segments, segment_of, write_segments

found = st.builds(
    segment_of, st.floats(), st.floats(), st.one_of(st.text(), st.none(), st.integers()),
    language=st.sampled_from(["", "en"]), source=st.sampled_from(["", "ocr"]), confidence=st.one_of(st.none(), st.floats()),
)


@given(found)
@settings(max_examples=200)
def test_segment_of__gives_a_usable_segment_or_none(segment: Segment | None) -> None:
    if segment is not None:
        assert 0 <= segment.start_ms < segment.end_ms
        assert segment.text == " ".join(segment.text.split()) and segment.text
        assert segment.confidence is None or 0 <= segment.confidence <= 1


def test_segment_of__rounds_and_mends() -> None:
    assert segment_of(-20.4, 1500.6, " two\n lines\x00 ", confidence=1.2) == Segment(0, 1501, "two lines", confidence=1.0)
    assert segment_of(0, 10, "a", confidence=math.nan) == Segment(0, 10, "a")
    assert segment_of(5, 5, "a") is None and segment_of(0, 5, "\ud800 ") is None


@pytest.mark.parametrize("values", [(-1, 5, "a"), (5, 5, "a"), (0, 5, ""), (0, 5, "a\nb"), (0, 5, "a", "", "", 1.5)])
def test_segment__refuses_what_it_cannot_mean(values: tuple[object, ...]) -> None:
    with raises(ValueError):
        Segment(*values)  # type: ignore[arg-type]


def test_write_segments__gives_them_back_in_order_with_equal_bytes_for_equal_rows(tmp_path: Path) -> None:
    late, early = Segment(2000, 3000, "late", "en", "file"), Segment(0, 1000, "שלום 世界", confidence=0.25)
    assert write_segments(tmp_path / "a", {"v2": [late, early], "v1": [late], "v0": []}) == 3
    assert read_segments(tmp_path / "a") == {"v1": [late], "v2": [early, late]}
    write_segments(tmp_path / "b", {"v1": [late], "v2": [early, late]})
    assert (tmp_path / "a" / SEGMENTS_FILE).read_bytes() == (tmp_path / "b" / SEGMENTS_FILE).read_bytes()


def test_read_segments__a_table_without_rows_and_a_missing_one(tmp_path: Path) -> None:
    write_segments(tmp_path, {})
    assert read_segments(tmp_path) == {}
    with raises(ArtifactError, code="file-absent", naming=SEGMENTS_FILE):
        read_segments(tmp_path / "nowhere")


def test_segment_cache__recalls_what_these_settings_found(tmp_path: Path) -> None:
    cache = SegmentCache(tmp_path, {"engine": "a"})
    segments = [Segment(0, 1000, "größe", "de", "a", 0.5)]
    cache.remember("v1", segments)
    cache.remember("v2", [])
    assert cache.recall("v1") == segments and cache.recall("v2") == [] and cache.recall("v3") is None
    assert SegmentCache(tmp_path, {"engine": "b"}).recall("v1") is None


@pytest.mark.parametrize("content", ["", "{}1", "[1]", '[{"start_ms": 0}]', '[{"start_ms": 3, "end_ms": 1, "text": "a"}]'])
def test_segment_cache__a_broken_file_counts_as_unread(tmp_path: Path, content: str) -> None:
    cache = SegmentCache(tmp_path, {})
    cache.remember("v1", [])
    next(tmp_path.glob("v1-*.json")).write_text(content)
    assert cache.recall("v1") is None
