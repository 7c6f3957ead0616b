from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.raising import raises
from vidseek_media.errors import ArtifactError, ConfigError
from vidseek_media.frame_store.stored_side import require_enough_pixels, with_stored_side, write_side
from vidseek_media.settings import FrameSettings
from vidseek_media.tables import VIDEOS, write_table


def videos_of(path: Path, sizes: list[tuple[int, int]]) -> Path:
    rows = [
        dict.fromkeys(VIDEOS.names)
        | {"video_id": f"{place:032x}", "uris": [f"{place}.mp4"], "width": width, "height": height}
        for place, (width, height) in enumerate(sizes)
    ]
    write_table(path, rows, VIDEOS)
    return path


def test_with_stored_side__is_the_number_that_was_written(tmp_path: Path) -> None:
    write_side(tmp_path / "side.json", 224)
    first = (tmp_path / "side.json").read_bytes()
    auto = FrameSettings(num_frames=4)
    assert auto.side_px == "auto" and with_stored_side(auto, tmp_path / "side.json").stored_px == 224
    assert with_stored_side(auto, tmp_path / "side.json") == FrameSettings(num_frames=4, side_px=224)
    write_side(tmp_path / "side.json", 224)
    assert (tmp_path / "side.json").read_bytes() == first


def test_stored_px__of_auto_is_an_error_that_says_which_stage_finds_it() -> None:
    with raises(ConfigError, code="side-auto", naming="auto"):
        _ = FrameSettings().stored_px


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"side_px": "big"}', '{"side_px": 4}', '{"side_px": null}'])
def test_with_stored_side__broken_or_missing(tmp_path: Path, content: str) -> None:
    with raises(ArtifactError, code="side-absent"):
        with_stored_side(FrameSettings(), tmp_path / "side.json")
    (tmp_path / "side.json").write_text(content)
    with pytest.raises((ArtifactError, ConfigError)):
        with_stored_side(FrameSettings(), tmp_path / "side.json")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.tuples(st.integers(16, 600), st.integers(16, 600)), max_size=4), side_px=st.integers(16, 600),
    wanted_px=st.integers(16, 600),
)
def test_require_enough_pixels__refuses_just_where_a_video_has_what_is_wanted_and_not_kept(
    tmp_path: Path, sizes: list[tuple[int, int]], side_px: int, wanted_px: int
) -> None:
    path = videos_of(tmp_path / "videos.parquet", sizes)
    # Of a frame: what the tower could have had, and what it gets.
    lost = [size for size in sizes if min(wanted_px, *size) > min(side_px, *size)]
    if not lost:
        require_enough_pixels(path, side_px=side_px, wanted_px=wanted_px, backbone="some/backbone")
        return
    with raises(ConfigError, code="frames-too-small", naming=f"{len(lost)} of {len(sizes)}") as caught:
        require_enough_pixels(path, side_px=side_px, wanted_px=wanted_px, backbone="some/backbone")
    assert "auto" in caught.value.remedy and str(wanted_px) in caught.value.remedy
