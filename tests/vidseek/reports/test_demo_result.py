"""`vidseek demo show --json`: what the terminal shows, for a program."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.raising import raises
from vidseek.reports import demo_result
from vidseek_media.errors import ArtifactError

QUERY = {"caption": "a red disc", "video_id": "v1", "start_ms": 0, "end_ms": 4000}


class Searcher:
    def search_text(self, text: str, *, limit: int) -> SimpleNamespace:
        hits = [SimpleNamespace(uri=f"{video}.mp4", video_id=video, start_ms=start, end_ms=start + 2000, score=0.5)
                for video, start in (("v1", 1000), ("v1", 4000), ("v2", 0))]
        return SimpleNamespace(hits=hits[:limit])


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("ingest:\n  source: videos\n")
    monkeypatch.setattr(demo_result, "open_text_searcher", lambda *_: Searcher())
    monkeypatch.setattr(demo_result, "test_queries", lambda *_, **__: [QUERY])
    monkeypatch.setattr(demo_result, "cautions", lambda *_: ["too few videos"])
    monkeypatch.setattr(demo_result, "lines_of", lambda *_: ["base is champion"])
    return tmp_path


def test_result__says_of_each_hit_whether_it_overlaps_the_scene(archive: Path) -> None:
    paths = demo_result.Archive.here()
    for file in (paths.reports / "evaluate" / "metrics.json", paths.reports / "calibrate" / "metrics.json", paths.selected):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"galleries": {}}))
    told = json.loads(json.dumps(demo_result.result()))
    assert told["cautions"] == ["too few videos"] and told["proof"] == ["base is champion"] and told["moments"] == {}
    assert told["evaluate"] == {"galleries": {}}
    assert [(each["uri"], each["is_right"]) for each in told["searches"][0]["hits"]] == [
        ("v1.mp4", True), ("v1.mp4", False), ("v2.mp4", False),
    ]


def test_result__is_refused_where_nothing_has_run(archive: Path) -> None:
    with raises(ArtifactError, code="json-unreadable", naming="metrics.json"):
        demo_result.result()
