"""What Prometheus is told of the index, of empty answers and of feedback."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from serving.app import create_app
from serving.engine import Engine, Places
from serving.model import open_archive
from tests.serving.colours import publish_colours, video_id_of_colour, write_colour_archive
from tests.tiny_bundle import write_tiny_bundle
from vidseek.archive import Archive
from vidseek.params import Settings
from vidseek.settings import ServeSettings
from vidseek_media.ids import clip_id_of


def client_of(archive: Archive) -> TestClient:
    engine = Engine(lambda: open_archive(archive, Settings()), ServeSettings(), Places.of(archive))
    return TestClient(create_app(engine), base_url="http://127.0.0.1", raise_server_exceptions=False)


def figure(client: TestClient, series: str) -> float | None:
    """The value of a series, or None where it is not there."""
    found = re.search(rf"^{re.escape(series)} (\S+)$", client.get("/metrics").text, re.M)
    return float(found[1]) if found else None


def test_metrics__say_whether_and_what_can_be_searched(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("serving.model.RETRY_SECONDS", 0.0)
    write_tiny_bundle(tmp_path / "models" / "encoder")
    client = client_of(Archive(tmp_path))
    assert figure(client, "vidseek_ready") == 0
    assert "vidseek_index_points{" not in client.get("/metrics").text
    first = publish_colours(tmp_path)
    assert figure(client, "vidseek_ready") == 1
    assert figure(client, f'vidseek_index_points{{collection="{first}"}}') == 12
    second = publish_colours(tmp_path, folder="elsewhere")
    assert figure(client, f'vidseek_index_points{{collection="{second}"}}') == 12
    assert figure(client, f'vidseek_index_points{{collection="{first}"}}') is None


def test_metrics__count_empty_answers_and_feedback(tmp_path: Path) -> None:
    client = client_of(write_colour_archive(tmp_path))
    client.post("/v1/search", json={"text": "red", "filters": {"duration_ms": {"lt": 1}}})
    client.post("/v1/search", json={"text": "red"})
    clip_id = str(clip_id_of(video_id_of_colour("red"), 0, 1000))
    client.post("/v1/feedback", json={"query": "red", "clip_id": clip_id, "relevant": False})
    assert figure(client, "vidseek_empty_answers_total") == 1
    assert figure(client, "vidseek_best_score_count") == 1
    assert figure(client, 'vidseek_feedback_total{said="wrong"}') == 1
