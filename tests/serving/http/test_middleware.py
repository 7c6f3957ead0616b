"""Request ids."""

from __future__ import annotations

from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from serving.http.middleware import RequestId


def test_request_id__of_a_caller_is_taken_only_if_it_is_plain() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    client = TestClient(RequestId(app))
    assert client.get("/", headers={"X-Request-Id": "a.b-c_1"}).headers["x-request-id"] == "a.b-c_1"
    for given in ("a b", "a" * 65, "<script>", ""):
        assert client.get("/", headers={"X-Request-Id": given}).headers["x-request-id"] != given
