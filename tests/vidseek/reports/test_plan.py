from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from tests.raising import raises
from tests.retrieval.archive import clip_row, video_row
from tests.vidseek.test_cli import call
from vidseek.archive import Archive
from vidseek.reports import plan as plan_module
from vidseek.reports.plan import Rates, _decode, num_clips_of, plan
from vidseek_media.errors import ArtifactError, ConfigError
from vidseek_media.frame_store import shards, stored_clips
from vidseek_media.tables import CLIPS, VIDEOS, read_table, write_table

RATES = Rates(
    machine="here", cores=2, measured_at="2026-11-24T10:00:00+00:00", provider="cpu", variant="fp32", dimension=250,
    clip_stride_seconds=18.0, decode_clips_per_core_second=10.0, encode_clips_per_core_second=5.0,
    encode_clips_per_gpu_second=None, publish_clips_per_core_second=1000.0, shard_bytes_per_clip=30_000.0,
    part_bytes_per_clip=1100.0, index_bytes_per_clip=2000.0,
)


def test_plan__by_hand() -> None:
    found = plan(RATES, num_clips=3_600_000, cores=10, gpus=0)
    assert found.hours_of_video == 18_000
    assert (found.decode_core_hours, found.encode_core_hours, found.publish_core_hours) == (100, 200, 1)
    assert found.wall_hours == pytest.approx(10 + 20 + 0.5)  # one machine of two cores publishes
    assert (found.shards_gb, found.parts_gb, found.index_gb, found.memory_gb) == (108, 3.96, 7.2, 3.6)
    assert num_clips_of(18_000, RATES) == 3_600_000 and num_clips_of(1e-9, RATES) == 1


def test_plan__what_was_not_measured_is_not_made_up() -> None:
    assert plan(RATES, num_clips=100, cores=2, gpus=0).encode_gpu_hours is None
    assert plan(RATES, num_clips=100, cores=2, gpus=4).wall_hours is None
    on_gpu = dataclasses.replace(RATES, encode_clips_per_core_second=None, encode_clips_per_gpu_second=100.0)
    assert plan(on_gpu, num_clips=360_000, cores=10, gpus=2).wall_hours == pytest.approx(1 + 0.5 + 0.05)
    assert plan(on_gpu, num_clips=360_000, cores=10, gpus=0).wall_hours is None


def test_publish__a_small_index_is_built_and_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(plan_module, "NUM_PUBLISHED", 300)
    per_second, num_bytes = plan_module._publish(16, tmp_path)
    assert per_second > 0 and num_bytes > 16 * 4


@pytest.mark.parametrize("wrong", [{"num_clips": 0}, {"cores": 0}, {"gpus": -1}])
def test_plan__out_of_range(wrong: dict[str, int]) -> None:
    with raises(ConfigError, code="setting-out-of-range"):
        plan(RATES, **{"num_clips": 1, "cores": 1, "gpus": 0, **wrong})


def test_rates__are_read_back_or_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rates.json"
    with raises(ConfigError, code="rates-missing"):
        Rates.read(path)
    RATES.write(path)
    assert Rates.read(path) == RATES and [each.name for each in path.parent.iterdir()] == ["rates.json"]
    path.write_text(json.dumps({"machine": "here"}))
    with raises(ArtifactError, code="rates-broken"):
        Rates.read(path)


def test_command__from_the_rates_of_the_archive(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VIDSEEK_HOME", str(tmp_path))
    assert call(monkeypatch, "plan") == ConfigError.exit_code
    assert "plan --measure" in capsys.readouterr().err
    RATES.write(tmp_path / ".vidseek" / "rates.json")
    assert call(monkeypatch, "plan", "--hours-of-video", "5000", "--json", "--cores", "8") == 0
    said = json.loads(capsys.readouterr().out)
    assert [each["num_clips"] for each in said["plans"]] == [10_000, 1_000_000, 100_000_000, 1_000_000]
    assert said["rates"]["provider"] == "cpu" and said["plans"][1]["encode_gpu_hours"] is None
    assert call(monkeypatch, "plan") == 0
    assert "not measured here" in " ".join(capsys.readouterr().out.split())


def test_decode__reads_the_longest_videos_whether_or_not_their_source_counts_views(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    videos = [video_row("a" * 32, "a", views=7), video_row("b" * 32, "b"), video_row("c" * 32, "c", duration_ms=1)]
    clips = [clip_row(str(each["video_id"]), 0, 0, 1) for each in videos]
    write_table(tmp_path / "data" / "ingest" / "videos.parquet", videos, VIDEOS)
    write_table(tmp_path / "data" / "cut" / "clips.parquet", clips, CLIPS)
    (tmp_path / "params.yaml").write_text(f"ingest: {{source: {tmp_path}}}\nframes: {{side_px: 64}}")
    decoded = []

    def write_frames(source: object, ingest: Path, cut: Path, *, out: Path, **_: object) -> None:
        rows = read_table(ingest / "videos.parquet", VIDEOS)
        views = dict(zip(rows["video_id"].str[0], rows["views"], strict=True))
        decoded.append((views, len(read_table(cut / "clips.parquet", CLIPS))))
        out.mkdir()

    monkeypatch.setattr(shards, "write_frames", write_frames)
    monkeypatch.setattr(stored_clips, "stored_clips", lambda folder: [])
    monkeypatch.setattr("vidseek.reports.plan.SECONDS_OF_VIDEO", 100)
    _decode(Archive(tmp_path), tmp_path / "tried")
    ((views, num_clips),) = decoded
    assert views.keys() == {"a", "b"} and views["a"] == 7 and views["b"] != views["b"] and num_clips == 2
