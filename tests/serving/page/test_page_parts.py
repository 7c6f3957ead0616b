"""The parts of the page that need no browser: texts, the query in the address, settings, the way to the API."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import asynccontextmanager
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient
from streamlit import net_util
from streamlit.web.server import server_util

from serving.page import shown
from serving.page.__main__ import config_of, stay_silent
from serving.page.frame import span
from serving.page.query import QueryOptions, filters_of, split_queries
from serving.page.settings import PageSettings
from serving.page.shown import MediaRoutes, address
from serving.page.texts import TEXTS, text
from tests.raising import raises
from vidseek.client import Api, Problem
from vidseek_media.errors import ConfigError

CLIP = "1157d38b-4691-5e61-ba0c-ad2b11241343"


@pytest.mark.parametrize("name", TEXTS)
def test_texts__both_languages_fill_in_the_same(name: str) -> None:
    english, korean = TEXTS[name]
    assert english and korean
    assert set(re.findall(r"{(\w+)}", korean)) == set(re.findall(r"{(\w+)}", english))


def test_texts__every_one_that_is_asked_for_is_there_and_used() -> None:
    files = [file for file in Path(shown.__file__).parent.rglob("*.py") if file.name != "texts.py"]
    sources = "".join(file.read_text() for file in files)
    asked = set(re.findall(r"""\bt\(\s*["'](\w+)["']""", sources))
    assert len(asked) > 50 and asked <= TEXTS.keys()
    # Others are asked for by a name that stands in a table, by a mark's name with _help, or by a duplicate's kind.
    named = set(re.findall(r"""["'](\w+)["']""", sources))
    assert TEXTS.keys() - named == {"like_help", "unlike_help", "whole", "part"}
    assert text("ko", "play") == "재생"


@pytest.mark.parametrize(("written", "queries"), [
    ("a crane, a ship", ("a crane", "a ship")), ("a crane\na ship\n\n", ("a crane", "a ship")), (" ,, ", ()),
    ("크레인、 배", ("크레인", "배")), ("a, a", ("a",)),
    ('"Head Coach, Rome", a ship', ('"Head Coach, Rome"', "a ship")), ("“a, b” c, «d, e»", ("“a, b” c", "«d, e»")),
    ("budget £3,500, a ship", ("budget £3,500", "a ship")),
])
def test_split_queries__by_commas_and_lines(written: str, queries: tuple[str, ...]) -> None:
    assert split_queries(written) == queries


def test_body__leaves_out_what_is_not_asked() -> None:
    assert QueryOptions((), "", (), (), {}, 0.0, 12).body("red") == {"limit": 12, "text": "red"}
    filters = filters_of(
        channels=["news"], categories=[], after=date(2024, 5, 1), before=None, shortest=0, longest=60
    )
    assert QueryOptions((), "blue", (CLIP,), (), filters, 0.2, 24).body("") == {
        "limit": 24, "negative_text": "blue", "clip_id": [CLIP], "min_confidence": 0.2,
        "filters": {"channel": ["news"], "published_at": {"gte": "2024-05-01"}, "duration_ms": {"gte": 0, "lte": 60_000}},
    }


@pytest.mark.parametrize(("start_ms", "end_ms", "shown"), [
    (0, 400, "0:00 – 0:01"), (1000, 3000, "0:01 – 0:03"), (59_900, 3_600_000, "0:59 – 1:00:00"),
])
def test_span__whole_seconds_hold_all_of_it(start_ms: int, end_ms: int, shown: str) -> None:
    assert span(start_ms, end_ms) == shown


def test_settings__an_open_page_wants_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDSEEK_PAGE_HOST", "0.0.0.0")
    monkeypatch.delenv("VIDSEEK_API_KEY", raising=False)
    with raises(ConfigError, code="key-not-set"):
        PageSettings.of_environment()
    monkeypatch.setenv("VIDSEEK_API_KEY", "k" * 16)
    assert PageSettings.of_environment().is_open


@pytest.mark.parametrize(("name", "value", "code"), [
    ("VIDSEEK_URL", "localhost:3000", "bad-url"), ("VIDSEEK_PAGE_PORT", "many", "setting-out-of-range"),
    ("VIDSEEK_PAGE_HOST", "example.com", "setting-out-of-range"),
])
def test_settings__what_cannot_be(name: str, value: str, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with raises(ConfigError, code=code, naming=value):
        PageSettings.of_environment()


def test_config__sends_nothing_shows_no_traceback_and_knows_its_names() -> None:
    config = config_of(PageSettings())
    assert config["browser.gatherUsageStats"] is False and config["client.showErrorDetails"] == "none"
    assert config["server.address"] == "127.0.0.1" and "localhost" in config["server.allowedHosts"]  # type: ignore[operator]


def test_streamlit__asks_nobody_for_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(net_util, "get_external_ip", net_util.get_external_ip)  # put back afterwards
    monkeypatch.setattr(net_util, "_make_blocking_http_get", lambda url, **how: asked.append(url))
    assert not server_util.is_url_from_allowed_origins("https://elsewhere.example")
    assert asked  # so that this test fails where Streamlit stops asking, and stay_silent can go
    asked.clear()
    stay_silent()
    assert not server_util.is_url_from_allowed_origins("https://elsewhere.example")
    assert not asked


def answering(answer: httpx.Response | Exception) -> Api:
    def handle(request: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    return Api("http://api", client=httpx.Client(transport=httpx.MockTransport(handle)))


@pytest.mark.parametrize(("answer", "name", "passes"), [
    (httpx.ConnectError("refused"), "no_answer", True),
    (httpx.Response(502, text="<html>bad gateway"), "no_answer", True),
    (httpx.Response(200, text="<html>a router's login"), "no_answer", False),
    (httpx.Response(503, json={"error": {"code": "not_ready", "message": "m", "remedy": "r"}}), "not_ready", True),
    (httpx.Response(422, json={"error": {"code": "too_odd", "message": "m", "remedy": "r"}}), "too_odd", False),
])
def test_api__every_fault_is_one_problem(answer: Any, name: str, passes: bool) -> None:
    with raises(Problem, code="api-error") as caught:
        answering(answer).facets()
    assert (caught.value.name, caught.value.is_passing) == (name, passes)
    assert caught.value.message and caught.value.remedy


@pytest.fixture
def asked() -> list[httpx.Request]:
    return []


@pytest.fixture
def page(asked: list[httpx.Request], monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """The routes for pictures over an API that is busy once."""
    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        if request.url.path.endswith("strip"):
            return httpx.Response(404, json={})
        if len(asked) == 1:
            return httpx.Response(503)
        return httpx.Response(206, stream=httpx.ByteStream(b"bytes"), headers={
            "content-type": "video/mp4", "content-range": "bytes 0-4/9", "set-cookie": "a=b",
        })

    monkeypatch.setattr(shown, "BUSY_WAIT_SECONDS", 0.0)
    routes = MediaRoutes(PageSettings(url="http://api", key="secret"))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> Any:
        async with routes.open(app):
            routes._client = httpx.AsyncClient(transport=httpx.MockTransport(handle))
            yield

    with TestClient(Starlette(routes=routes.routes, lifespan=lifespan)) as client:
        yield client


def test_shown__passes_ranges_and_the_key_on_and_comes_again_where_the_api_is_busy(
    page: TestClient, asked: list[httpx.Request]
) -> None:
    answer = page.get(address(CLIP, "media"), headers={"range": "bytes=0-4"})
    assert (answer.status_code, answer.content, answer.headers["content-range"]) == (206, b"bytes", "bytes 0-4/9")
    assert "set-cookie" not in answer.headers and answer.headers["x-content-type-options"] == "nosniff"
    assert len(asked) == 2
    assert asked[1].headers["range"] == "bytes=0-4" and asked[1].headers["authorization"] == "Bearer secret"


def test_shown__a_picture_that_is_not_there_is_a_drawing(page: TestClient) -> None:
    answer = page.get(address(CLIP, "strip"))
    assert answer.status_code == 404 and answer.headers["content-type"].startswith("image/svg+xml")


@pytest.mark.parametrize("changed", [
    lambda url: url.split("?")[0], lambda url: url[:-1] + ("0" if url[-1] != "0" else "1"),
    lambda url: url.replace("media", "strip"), lambda url: url.replace(CLIP, CLIP.replace("1", "2")),
])
def test_shown__an_address_that_the_page_did_not_give_is_404(
    page: TestClient, asked: list[httpx.Request], changed: Any
) -> None:
    assert page.get(changed(address(CLIP, "media"))).status_code == 404
    assert not asked
