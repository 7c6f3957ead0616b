"""Whatever is sent, the answer is a documented one: requests made from the OpenAPI document, and files that are broken.

The short form runs with all tests; `make faults` sends many more (VIDSEEK_FAULTS, requests for each route).
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import schemathesis
from PIL import Image
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance
from starlette.testclient import TestClient

from serving.api.admin import Admin
from serving.app import create_app
from serving.engine import Base, Engine, Places
from serving.model import open_archive
from tests.serving.colours import picture, publish_base, video
from tests.serving.live_api import write_taught_archive
from vidseek.archive import Archive
from vidseek.params import Settings
from vidseek.settings import ServeSettings

KEY = "0123456789abcdef-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}
NUM_REQUESTS = int(os.environ.get("VIDSEEK_FAULTS", "8"))


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    root = tmp_path_factory.mktemp("faults")
    publish_base(root)
    return write_taught_archive(root)


@pytest.fixture(scope="module")
def app(archive: Archive) -> Iterator[Any]:
    settings = ServeSettings(max_embed=4, max_body_mb=1)
    base = Base.of(archive, Settings())
    engine = Engine(lambda: open_archive(archive, Settings()), settings, Places.of(archive), base)
    admin = Admin(archive, engine)
    yield create_app(engine, key=KEY, admin=admin, admin_key=KEY)
    admin.close()
    engine.close()


@pytest.fixture(scope="module")
def document(app: Any) -> Any:
    return schemathesis.openapi.from_asgi("/openapi.json", app, headers=HEADERS)


ROUTES = [
    "GET /healthz", "GET /readyz", "GET /metrics", "POST /v1/search", "POST /v1/feedback", "POST /v1/embed/text",
    "POST /v1/embed/image", "POST /v1/embed/video", "GET /v1/clips/{clip_id}", "GET /v1/clips/{clip_id}/thumbnail",
    "GET /v1/clips/{clip_id}/media", "GET /v1/clips/{clip_id}/neighbours", "GET /v1/clips/{clip_id}/strip",
    "GET /v1/facets", "GET /v1/models", "GET /v1/admin/archive", "GET /v1/admin/reports/{name}", "POST /v1/admin/rollback",
    "GET /v1/admin/videos/{video_id}/still", "GET /v1/admin/feedback", "POST /v1/admin/feedback/freeze",
    "GET /v1/admin/duplicates", "POST /v1/admin/duplicates/find", "POST /v1/admin/duplicates/decide",
    "POST /v1/embeddings", "GET /v1/clips/{clip_id}/transcript", "POST /v1/videos", "DELETE /v1/videos/{video_id}",
    "PUT /v1/clips/{clip_id}/tags/{tag}", "DELETE /v1/clips/{clip_id}/tags/{tag}", "PUT /v1/videos/{video_id}/tags/{tag}",
    "DELETE /v1/videos/{video_id}/tags/{tag}",
    "GET /v1/clips/{clip_id}/moment", "POST /v1/export",
    "GET /v1/admin/suggestions", "POST /v1/clips/{clip_id}/captions",
    "GET /v1/saved", "POST /v1/saved", "GET /v1/saved/{saved_id}", "DELETE /v1/saved/{saved_id}",
    "GET /v1/saved/{saved_id}/feed.{kind}",
    "GET /v1/jobs", "GET /v1/jobs/{job_id}", "DELETE /v1/jobs/{job_id}", "POST /v1/jobs/{job_id}/retry",
]


def test_routes__are_all_tried(document: Any) -> None:
    assert {result.ok().label for result in document.get_all_operations()} == set(ROUTES)


@pytest.mark.parametrize("route", ROUTES)
def test_routes__answer_as_documented_whatever_is_sent(document: Any, route: str) -> None:
    method, path = route.split()
    operation = document[path][method]

    @hypothesis.given(case=operation.as_strategy() | operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))
    @hypothesis.settings(
        max_examples=NUM_REQUESTS, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    def ask(case: Any) -> None:
        # The document cannot say that bytes must be a picture and words not blank: such a 422 is no fault.
        case.call_and_validate(headers=HEADERS, excluded_checks=[positive_data_acceptance])

    ask()


@pytest.fixture(scope="module")
def client(app: Any) -> Iterator[TestClient]:
    with TestClient(app, headers=HEADERS, raise_server_exceptions=False) as one:
        yield one


def broken(content: bytes, rng: np.random.Generator) -> bytes:
    """`content` with some bytes changed, cut off, doubled, or taken out."""
    cut = int(rng.integers(1, len(content)))
    match rng.integers(4):
        case 0:
            values = np.frombuffer(content, dtype=np.uint8).copy()
            values[rng.integers(0, len(values), size=max(1, len(values) // 50))] ^= rng.integers(1, 256, dtype=np.uint8)
            return values.tobytes()
        case 1:
            return content[:cut]
        case 2:
            return content[:cut] + content
        case _:
            return content[: cut // 2] + content[cut:]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_search__broken_pictures_are_answered_or_refused(client: TestClient, kind: str) -> None:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    noise.save(buffer, kind)
    statuses = [
        client.post("/v1/search", files={"image": broken(buffer.getvalue(), rng)}).status_code
        for _ in range(10 * NUM_REQUESTS)
    ]
    assert set(statuses) <= {200, 422}
    assert 422 in statuses
    assert client.post("/v1/search", files={"image": picture("red")}).status_code == 200


def test_search__broken_clips_are_answered_or_refused(client: TestClient, tmp_path: Path) -> None:
    content, rng = video("red", tmp_path / "a.mp4"), np.random.default_rng(0)
    num = max(4, NUM_REQUESTS // 2)
    statuses = [client.post("/v1/search", files={"clip": broken(content, rng)}).status_code for _ in range(num)]
    assert set(statuses) <= {200, 422}
    assert client.post("/v1/search", files={"clip": content}).status_code == 200
