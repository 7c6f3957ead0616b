"""What a page of another site causes in a browser is refused, and no answer may be framed or read by another site."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from serving.api.admin import Admin
from serving.app import create_app
from serving.engine import Engine, Places
from serving.http.guard import FREE_PATHS
from serving.http.safe_headers import PAGE_HEADERS, SAFE_HEADERS, SafeHeaders
from serving.http.sites import OwnPagesOnly, is_own_origin
from serving.model import open_archive
from tests.serving.colours import picture, write_colour_archive
from tests.serving.http.test_connections import examples
from vidseek.archive import Archive
from vidseek.params import Settings
from vidseek.settings import ServeSettings

OWN = "http://127.0.0.1:3000"
KEY = "0123456789abcdef-secret"
FORM = {"Content-Type": "multipart/form-data; boundary=x"}
OTHER_SITES = [
    {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": "anything"},
    {"Origin": "null"}, {"Origin": "http://evil.example"}, {"Origin": "http://127.0.0.1:3001"}, {"Origin": "http://127.0.0.1"},
    {"Origin": "http://localhost:3000"}, {"Origin": f"{OWN}.evil.example"}, {"Origin": "file://"}, {"Origin": ""},
    {"Sec-Fetch-Site": "same-origin", "Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site", "Origin": OWN},
]
OWN_SITE = [{}, {"Sec-Fetch-Site": "none"}, {"Sec-Fetch-Site": "same-origin", "Origin": OWN}, {"Origin": OWN}]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return write_colour_archive(tmp_path_factory.mktemp("sites"))


@pytest.fixture(scope="module")
def engine(archive: Archive) -> Iterator[Engine]:
    one = Engine(lambda: open_archive(archive, Settings()), ServeSettings(), Places.of(archive))
    yield one
    one.close()


@pytest.fixture(scope="module")
def client(archive: Archive, engine: Engine) -> Iterator[TestClient]:
    admin = Admin(archive, engine)
    with TestClient(create_app(engine, admin=admin), base_url=OWN, raise_server_exceptions=False) as one:
        yield one
    admin.close()


def routes(client: TestClient) -> list[tuple[str, str]]:
    document = client.get("/openapi.json").json()
    filled = {
        "clip_id": "1157d38b-4691-5e61-ba0c-ad2b11241343", "name": "pairs", "video_id": "0" * 32, "job_id": "0" * 20,
        "tag": "night", "saved_id": "0" * 20, "kind": "atom",
    }
    return [(method, path.format(**filled)) for path, item in document["paths"].items() for method in item]


def code(answer: Any) -> str:
    return str(answer.json()["error"]["code"]) if answer.status_code >= 400 else ""


@pytest.mark.parametrize("headers", OTHER_SITES)
def test_other_sites__cause_nothing_on_any_route(client: TestClient, headers: dict[str, str]) -> None:
    asked = [*routes(client), ("post", "/nowhere"), ("options", "/v1/search"), ("put", "/v1/search"), ("post", "/healthz")]
    for method, path in asked:
        answer = client.request(method, path, headers={**headers, "Content-Type": "text/plain"}, content=b"{}")
        is_free = method == "get" and path in FREE_PATHS
        assert (code(answer) == "cross_site") is not is_free, (method, path, answer.text)
        assert is_free or answer.status_code == 403


@pytest.mark.parametrize("headers", OTHER_SITES)
@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""])
def test_other_sites__forms_that_need_no_preflight_move_no_figure(
    client: TestClient, engine: Engine, headers: dict[str, str], kind: str
) -> None:
    before = engine.metrics.registry.get_sample_value("vidseek_search_seconds_count")
    body = b'--x\r\nContent-Disposition: form-data; name="query"\r\n\r\n{"text": "blue"}\r\n--x--\r\n'
    answer = client.post("/v1/search", content=body, headers={**headers, "Content-Type": kind})
    assert code(answer) == "cross_site"
    assert engine.metrics.registry.get_sample_value("vidseek_search_seconds_count") == before


@pytest.mark.parametrize("headers", OWN_SITE)
def test_own_site__and_programs_are_answered(client: TestClient, headers: dict[str, str]) -> None:
    assert client.get("/readyz", headers=headers).status_code == 200
    assert client.post("/v1/search", json={"text": "blue"}, headers=headers).status_code == 200
    assert client.post("/v1/search", files={"image": picture("red")}, headers=headers).status_code == 200


def test_other_sites__with_a_key_it_is_the_key_that_counts(engine: Engine) -> None:
    """No page can send the key without a preflight, which is refused; a page that was given the key may ask."""
    headers = {"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"}
    with TestClient(create_app(engine, key=KEY), base_url="http://archive.example") as client:
        assert code(client.post("/v1/search", json={"text": "blue"}, headers=headers)) == "key_wrong"
        assert code(client.options("/v1/search", headers=headers)) == "key_wrong"
        answer = client.post("/v1/search", json={"text": "blue"}, headers={**headers, "Authorization": f"Bearer {KEY}"})
        assert answer.status_code == 200
        assert not any(name.startswith("access-control") for name in answer.headers)


@hypothesis.given(
    host=st.from_regex(r"[a-z0-9.-]{1,20}", fullmatch=True), port=st.none() | st.integers(1, 65535),
    other=st.from_regex(r"[a-z0-9.-]{1,20}(:[0-9]{1,5})?", fullmatch=True), scheme=st.sampled_from(["http", "https"]),
)
@examples
def test_origin__is_own_if_host_and_port_are(host: str, port: int | None, other: str, scheme: str) -> None:
    own = host if port is None else f"{host}:{port}"
    assert is_own_origin(f"{scheme}://{own}", own) and is_own_origin(f"{scheme}://{own}".upper(), own)
    default = ":80" if scheme == "http" else ":443"
    assert is_own_origin(f"{scheme}://{other}", own) == (other.removesuffix(default) == own.removesuffix(default))
    good = f"{scheme}://{own}"
    for spoilt in (f"{good}@{other}", f"{good}/", f"{scheme}:{own}", own, f"x{good}", "null", ""):
        assert not is_own_origin(spoilt, own)


def test_headers__are_on_every_answer(client: TestClient) -> None:
    for method, path in [*routes(client), ("get", "/nowhere"), ("put", "/v1/search"), ("post", "/v1/search")]:
        answer = client.request(method, path)
        assert SAFE_HEADERS.keys() <= answer.headers.keys(), (method, path)
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"


def page() -> TestClient:
    async def shown(request: Any) -> PlainTextResponse:
        return PlainTextResponse("a page", headers={"Content-Security-Policy": "default-src 'none'"})

    async def socket(connection: WebSocket) -> None:
        await connection.accept()
        await connection.send_text("open")
        await connection.close()

    around = [Middleware(SafeHeaders, headers=PAGE_HEADERS), Middleware(OwnPagesOnly)]
    routes = [Route("/", shown, methods=["GET", "POST"]), WebSocketRoute("/stream", socket)]
    return TestClient(Starlette(routes=routes, middleware=around), base_url=OWN)


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_page__a_link_opens_it_and_nothing_else_of_another_site_does(site: str) -> None:
    link = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert page().get("/", headers=link).status_code == 200
    assert page().post("/", headers=link).status_code == 403
    for dest, mode in (("iframe", "navigate"), ("image", "no-cors"), ("empty", "cors"), ("object", "navigate")):
        asked = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": dest}
        assert page().get("/", headers=asked).status_code == 403
    with pytest.raises(WebSocketDisconnect), page().websocket_connect("/stream", headers={"Sec-Fetch-Site": site}):
        pass


def test_page__itself_has_sockets_and_headers() -> None:
    with page().websocket_connect("/stream", headers={"Sec-Fetch-Site": "same-origin"}) as stream:
        assert stream.receive_text() == "open"
    answer = page().get("/")
    assert PAGE_HEADERS.keys() <= answer.headers.keys()
    assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
