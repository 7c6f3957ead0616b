from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from bench.videos.rendered import join_scenes, rendered_scene
from tests.raising import raises
from vidseek_media.cutting.cut import (
    CutReport,
    ShotSearch,
    caption_span,
    cut_archive,
    cut_videos,
    read_clip_columns,
    read_clips,
    window_spans,
)
from vidseek_media.errors import ArtifactError, ConfigError
from vidseek_media.ids import clip_ids_of, video_id_of
from vidseek_media.records import Clip, Rejection, Video
from vidseek_media.settings import CutSettings, ShotSettings
from vidseek_media.tables import CLIPS, REJECTED, SIDECAR, VIDEOS, read_table, write_table

A, B = "a" * 32, "b" * 32


def video(video_id: str = A, duration_ms: int = 10_000) -> Video:
    uris = (f"{video_id[0]}.mp4",)
    return Video(video_id, uris, duration_ms=duration_ms, fps=10.0, width=64, height=48, codec="h264")


def captions(*rows: tuple[str, int | None, int | None]) -> pd.DataFrame:
    return pd.DataFrame([{"video_id": v, "start_ms": s, "end_ms": e} for v, s, e in rows], columns=SIDECAR.names)


def cut(
    videos: list[Video], sidecar: pd.DataFrame | None = None, *, modes: tuple[str, ...] = ("captions", "windows"),
    length: float = 3.0, stride: float = 1.0,
) -> tuple[list[Clip], list[Rejection]]:
    settings = CutSettings(modes=modes, window_length_seconds=length, window_stride_seconds=stride)
    return cut_videos(videos, captions() if sidecar is None else sidecar, settings=settings)


@pytest.mark.parametrize(
    ("duration_ms", "length_ms", "stride_ms", "wanted"),
    [
        (2000, 3000, 1000, [(0, 2000)]),  # shorter than a window: one clip
        (3000, 3000, 1000, [(0, 3000)]),
        (5000, 3000, 1000, [(0, 3000), (1000, 4000), (2000, 5000)]),
        (5200, 3000, 1000, [(0, 3000), (1000, 4000), (2000, 5000), (3000, 5200)]),  # 200 ms that no window reaches
        (60_000, 30_000, 30_000, [(0, 30_000), (30_000, 60_000)]),
        (75_000, 30_000, 30_000, [(0, 30_000), (30_000, 60_000), (60_000, 75_000)]),  # a tail of half a window
        (74_999, 30_000, 30_000, [(0, 30_000), (30_000, 60_000)]),  # a tail of less
        (14_000, 3000, 5000, [(0, 3000), (5000, 8000), (10_000, 13_000)]),  # gaps, as asked for
    ],
)
def test_window_spans__by_hand(
    duration_ms: int, length_ms: int, stride_ms: int, wanted: list[tuple[int, int]]
) -> None:
    assert list(window_spans(duration_ms, length_ms=length_ms, stride_ms=stride_ms)) == wanted


@pytest.mark.parametrize(
    ("wanted", "span"),
    [
        ((1000, 2000), (1000, 2000)),
        ((9000, 10_500), (9000, 10_000)),  # two thirds lie inside
        ((9500, 10_500), None),  # half lies outside
        ((12_000, 13_000), None),
        (None, (0, 10_000)),
    ],
)
def test_caption_span__ends_with_the_video(wanted: tuple[int, int] | None, span: tuple[int, int] | None) -> None:
    assert caption_span(wanted, 10_000, 30_000) == span


def test_cut_videos__orders_and_numbers_all_clips_of_a_video() -> None:
    clips, rejections = cut([video(duration_ms=5000)], captions((A, 1500, 2500), (A, 0, 4000)))
    assert [(c.index, c.start_ms, c.end_ms, c.cut) for c in clips] == [
        (0, 0, 3000, ("windows",)), (1, 0, 4000, ("captions",)), (2, 1000, 4000, ("windows",)),
        (3, 1500, 2500, ("captions",)), (4, 2000, 5000, ("windows",)),
    ]
    assert rejections == []


def test_cut_videos__a_span_that_two_modes_make_is_one_clip() -> None:
    clips, _ = cut([video(duration_ms=4000)], captions((A, 1000, 4000), (A, 1000, 4000)))
    assert [(c.start_ms, c.cut) for c in clips] == [(0, ("windows",)), (1000, ("captions", "windows"))]


def test_cut_videos__an_untimed_caption_makes_a_clip_of_a_short_video_only() -> None:
    clips, _ = cut([video(A, 2000), video(B, 4000)], captions((A, None, None), (B, None, None)))
    assert [(c.video_id, c.start_ms, c.end_ms, c.cut) for c in clips] == [
        (A, 0, 2000, ("captions", "windows")), (B, 0, 3000, ("windows",)), (B, 1000, 4000, ("windows",)),
    ]


def test_cut_videos__a_caption_outside_its_video_is_rejected() -> None:
    clips, [rejection] = cut([video(duration_ms=3000)], captions((A, 5000, 6000)))
    assert len(clips) == 1
    assert (rejection.id, rejection.stage) == (f"{A}:5000:6000", "cut")
    assert "ends at 3000 ms" in rejection.reason


SHOTS = ShotSettings(threshold=3.0, min_content=15.0, min_seconds=2.0, max_seconds=6.0, workers=1)


def test_cut_videos__shots_are_spans_between_cuts() -> None:
    settings = CutSettings(modes=("shots", "windows"), window_length_seconds=4.0, window_stride_seconds=4.0, shots=SHOTS)
    clips, rejections = cut_videos([video(A), video(B)], captions(), settings=settings, cuts_ms={A: [4000]})
    assert [(c.start_ms, c.end_ms, c.cut) for c in clips if c.video_id == A] == [
        (0, 4000, ("shots", "windows")), (4000, 8000, ("windows",)), (4000, 10_000, ("shots",)),
        (8000, 10_000, ("windows",)),
    ]
    assert all(c.cut == ("windows",) for c in clips if c.video_id == B)  # its shots are not known
    assert rejections == []


def test_cut_videos__a_file_that_is_one_clip_by_its_name_is_not_cut() -> None:
    whole = dataclasses.replace(video(A, 60_000), clip_of="harbour")
    settings = CutSettings(
        modes=("captions", "shots", "windows"), window_length_seconds=3.0, window_stride_seconds=3.0, shots=SHOTS
    )
    clips, _ = cut_videos([whole], captions((A, 1000, 2000)), settings=settings, cuts_ms={A: []})
    assert [(c.start_ms, c.end_ms, c.cut) for c in clips] == [
        (0, 60_000, ("shots", "windows")), (1000, 2000, ("captions",)),
    ]


def test_cut_archive__shots_without_a_place_to_look_are_refused(tmp_path: Path) -> None:
    write_table(tmp_path / "videos.parquet", [], VIDEOS)
    write_table(tmp_path / "sidecar.parquet", [], SIDECAR)
    with raises(ConfigError, code="setting-missing"):
        cut_archive(tmp_path, out=tmp_path / "cut", settings=CutSettings(modes=("shots",)))


@pytest.mark.slow
def test_cut_archive__looks_for_shots_and_says_where_it_found_none(tmp_path: Path) -> None:
    pytest.importorskip("scenedetect")
    source = tmp_path / "source"
    [boundary] = join_scenes(source / "a.mp4", [rendered_scene(1), rendered_scene(2)], ["cut"], seed=0)
    (source / "b.mp4").write_bytes(b"no video")
    (source / "c.mp4").write_bytes(b"replaced since")
    a, b, c = video_id_of(source / "a.mp4"), video_id_of(source / "b.mp4"), "c" * 32
    made = (
        dataclasses.replace(video(A, 6000), video_id=a), dataclasses.replace(video(B, 4000), video_id=b),
        dataclasses.replace(video(A, 4000), video_id=c, uris=("c.mp4",)),
    )
    rows = [{**dataclasses.asdict(v), "uris": list(v.uris)} for v in made]
    write_table(tmp_path / "videos.parquet", rows, VIDEOS)
    write_table(tmp_path / "sidecar.parquet", captions(), SIDECAR)
    report = cut_archive(
        tmp_path, out=tmp_path / "cut", settings=CutSettings(modes=("shots",), shots=SHOTS),
        search=ShotSearch(source, tmp_path / "memory"),
    )
    cut_ms = boundary.first * 40
    assert [(c.start_ms, c.end_ms) for c in read_clips(tmp_path / "cut")] == [(0, cut_ms), (cut_ms, 6000)]
    table = read_table(tmp_path / "cut" / "rejected.parquet", REJECTED)
    assert {(row.id, row.kind, row.retryable) for row in table.itertuples()} == {(b, "clip", False), (c, "clip", True)}
    assert table["reason"].str.contains("its shots were not found").any()
    assert (report.num_in, report.num_out) == (3, 2)


def test_cut_videos__a_video_that_gives_no_clip_is_rejected() -> None:
    clips, [rejection] = cut([video(A), video(B)], captions((A, 0, 1000)), modes=("captions",))
    assert [c.video_id for c in clips] == [A]
    assert rejection.id == B


@pytest.mark.parametrize(
    ("changed", "code", "fact"),
    [
        ({"modes": ("scenes", "windows")}, "unknown-choice", "cut.modes.0 is 'scenes'"),
        ({"modes": ()}, "setting-out-of-range", "cut.modes"),
        ({"length": 0.0}, "setting-out-of-range", ("cut.window_length_seconds is 0.0", "0.001")),
        ({"stride": -1.0}, "setting-out-of-range", "cut.window_stride_seconds is -1.0"),
    ],
)
def test_cut_videos__refuses_settings_that_mean_nothing(
    changed: dict[str, object], code: str, fact: str | tuple[str, ...]
) -> None:
    with raises(ConfigError, code=code, naming=fact):
        cut([video()], **changed)  # type: ignore[arg-type]


def test_cut_archive__writes_clips_that_read_clips_gives_back(tmp_path: Path) -> None:
    rows = [{"video_id": v.video_id, "uris": list(v.uris), "duration_ms": v.duration_ms, "fps": v.fps, "width": v.width,
             "height": v.height, "codec": v.codec, "source_id": "", "title": "", "channel": "", "category": "",
             "published_at": "", "thumbnail": "", "clip_of": ""} for v in (video(A), video(B, 4000))]
    write_table(tmp_path / "videos.parquet", rows, VIDEOS)
    write_table(tmp_path / "sidecar.parquet", captions((A, 0, 1000), (B, 9000, 9500)), SIDECAR)
    report = cut_archive(
        tmp_path, out=tmp_path / "cut", settings=CutSettings(window_length_seconds=3.0, window_stride_seconds=1.0),
    )
    expected, _ = cut([video(A), video(B, 4000)], captions((A, 0, 1000), (B, 9000, 9500)))
    assert read_clips(tmp_path / "cut") == expected
    assert report == CutReport(num_in=2, num_out=len(expected), num_rejected=1)
    assert len(read_table(tmp_path / "cut" / "rejected.parquet", REJECTED)) == 1


def test_cut_archive__without_its_input_is_an_artifact_error(tmp_path: Path) -> None:
    with raises(ArtifactError, code="file-absent", naming="videos.parquet"):
        cut_archive(tmp_path, out=tmp_path, settings=CutSettings())


@pytest.mark.parametrize("span", [(3000, 3000), (4000, 3000), (-1, 3000)])
@pytest.mark.parametrize("read", [read_clips, read_clip_columns])
def test_read__a_row_that_is_no_span_is_refused(
    tmp_path: Path, read: Callable[[Path], object], span: tuple[int, int]
) -> None:
    spans = [(0, 1000), span]
    ids = clip_ids_of(["a" * 32] * 2, *([each[end] for each in spans] for end in (0, 1)))
    write_table(tmp_path / "clips.parquet", [
        {"clip_id": clip_id, "video_id": "a" * 32, "index": index, "start_ms": start, "end_ms": end, "cut": ["windows"]}
        for index, (clip_id, (start, end)) in enumerate(zip(ids, spans, strict=True))
    ], CLIPS)
    with raises(ArtifactError, code="broken-rows", naming=("clip 1 of", f"[{span[0]}, {span[1]})")):
        read(tmp_path)
