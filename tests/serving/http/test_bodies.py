"""JSON and forms: sizes, numbers and counts that no request needs are refused at once, wherever they stand."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from starlette.testclient import TestClient

from serving.api.admin import Admin
from serving.api.admin_schemas import DecideRequest, FindRequest, RollbackRequest
from serving.api.request_schemas import (
    EmbedClips,
    EmbeddingsRequest,
    EmbedImages,
    EmbedTexts,
    FeedbackRequest,
    SearchRequest,
)
from serving.app import create_app
from serving.engine import Engine, Places
from serving.http.bodies import MAX_DEPTH, MAX_INTEGER, MAX_KEYS, MAX_VALUES, NotUnderstood, read_json
from serving.model import open_archive
from tests.raising import raises
from tests.serving.colours import picture, write_colour_archive
from tests.serving.http.test_connections import examples
from vidseek.params import Settings
from vidseek.settings import ServeSettings

KINDS: dict[str, type[BaseModel]] = {
    "/v1/search": SearchRequest, "/v1/feedback": FeedbackRequest, "/v1/embed/text": EmbedTexts,
    "/v1/embed/image": EmbedImages, "/v1/embed/video": EmbedClips, "/v1/embeddings": EmbeddingsRequest,
    "/v1/admin/rollback": RollbackRequest, "/v1/admin/duplicates/find": FindRequest,
    "/v1/admin/duplicates/decide": DecideRequest,
}
SETTINGS = ServeSettings(max_embed=7, max_text_length=321)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-MAX_INTEGER, MAX_INTEGER) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=20,
)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    archive = write_colour_archive(tmp_path_factory.mktemp("bodies"))
    engine = Engine(lambda: open_archive(archive, Settings()), SETTINGS, Places.of(archive))
    admin = Admin(archive, engine)
    with TestClient(create_app(engine, admin=admin), base_url="http://127.0.0.1", raise_server_exceptions=False) as one:
        yield one
    admin.close()
    engine.close()


def depth_of(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth_of, inner), default=0)


@hypothesis.given(value=plain)
@examples
def test_read_json__gives_what_python_reads_or_refuses_what_is_deep(value: Any) -> None:
    content = json.dumps(value).encode()
    if depth_of(value) <= MAX_DEPTH:
        assert read_json(content) == json.loads(content)
    else:
        with raises(NotUnderstood, code="invalid-request", naming="deep"):
            read_json(content)


def wrapped(inner: str, depth: int) -> str:
    return '{"a":' * depth + inner + "}" * depth


@hypothesis.given(
    inner=st.one_of(
        st.integers(min_value=MAX_INTEGER + 1).map(str), st.integers(max_value=-MAX_INTEGER - 1).map(str),
        st.integers(309, 100_000).map(lambda power: f"1e{power}"), st.integers(20, 100_000).map(lambda num: "9" * num),
        st.sampled_from(
            ["NaN", "Infinity", "-Infinity", "-1e999", "01", "1.", "'a'", '"\\ud800"', "\x00", "[1,]", '{"a":1,}']
        ),
        st.integers(MAX_DEPTH, 100_000).map(lambda num: "[" * num),
        st.integers(MAX_DEPTH + 1, 100_000).map(lambda num: "[" * num + "]" * num),
        st.integers(MAX_VALUES + 1, 200_000).map(lambda num: "[" + "0," * num + "0]"),
        st.integers(MAX_KEYS + 1, 5_000).map(lambda num: json.dumps(dict.fromkeys(map(str, range(num))))),
    ),
    depth=st.integers(0, 3),
)
@examples
def test_read_json__refuses_what_no_request_needs(inner: str, depth: int) -> None:
    with raises(NotUnderstood, code="invalid-request"):
        read_json(wrapped(inner, depth).encode())


@pytest.mark.parametrize("content", [
    b"[" * 2**20, b"[" + b"1," * 2**19 + b"1]", b"[" + b"[]," * (2**20 // 3) + b"1]", b"9" * 2**20,
    b"{" + b",".join(b'"%x":1' % number for number in range(2**17)) + b"}", b'"' + b"\\u0041" * (2**20 // 6),
    b"[" + (b"9" * 4000 + b",") * 260 + b"1]",
])
def test_read_json__of_a_megabyte_is_refused_in_no_time(content: bytes) -> None:
    begin = time.process_time()  # of this process, whatever else runs
    with raises(NotUnderstood, code="invalid-request"):
        read_json(content)
    assert time.process_time() - begin < 1.0  # tens of milliseconds on an idle machine


@pytest.mark.parametrize("kind", KINDS.values())
@hypothesis.given(wrong=st.sampled_from([1, "", None, [], {}, "a" * 1000, 1.5, True, 10**30]), num=st.integers(1, 2000))
@hypothesis.settings(max_examples=15, deadline=None, derandomize=True, database=None)
def test_schemas__find_few_faults_however_many_there_are(kind: type[BaseModel], wrong: Any, num: int) -> None:
    for given in ({name: [wrong] * num for name in kind.model_fields}, dict.fromkeys(kind.model_fields, wrong)):
        try:
            kind.model_validate(given)
        except ValidationError as error:
            # At most a few a field: the first wrong item, and that the list is too short without it.
            assert error.error_count() <= 4 * len(kind.model_fields)


def test_schemas__every_list_and_text_of_a_request_has_a_bound() -> None:
    def unbounded(schema: Any, place: str) -> Iterator[str]:
        if isinstance(schema, list):
            for each in schema:
                yield from unbounded(each, place)
        elif isinstance(schema, dict):
            bounds = {"array": ("maxItems",), "string": ("maxLength", "pattern", "enum", "const", "contentEncoding"),
                      "integer": ("maximum",), "number": ("maximum",)}
            wanted = bounds.get(str(schema.get("type")))
            if wanted and not any(each in schema for each in wanted):
                yield f"{place}: {schema}"
            for name, each in schema.items():
                if name not in ("examples", "default"):
                    yield from unbounded(each, f"{place}.{name}")

    assert [each for name, kind in KINDS.items() for each in unbounded(kind.model_json_schema(), name)] == []


def test_openapi__states_the_limits_that_are_set(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    bodies = {
        path: document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"]
        for path in ("/v1/embed/text", "/v1/embeddings", "/v1/feedback")
    }
    assert bodies["/v1/embed/text"]["texts"]["maxItems"] == 7
    assert bodies["/v1/embed/text"]["texts"]["items"]["maxLength"] == 321
    assert [each.get("maxItems") for each in bodies["/v1/embeddings"]["input"]["anyOf"]] == [None, 7]
    assert bodies["/v1/feedback"]["query"]["maxLength"] == 321
    assert "at most 1 MB" in document["info"]["description"]
    assert "x-limit" not in json.dumps(document)


def is_refused(answer: Any, place: str = "") -> bool:
    said = answer.json()
    assert set(said) == {"error", "request_id"} and len(answer.content) < 2000, answer.text[:300]
    return answer.status_code == 422 and place in said["error"]["message"]


NUMBERS = ["1e400", "-1e400", "100000000000000000000", "-" + "9" * 30, "9" * 5000, "NaN", "Infinity"]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("place", [
    '"filters": {"start_ms": %s}', '"filters": {"start_ms": [1, %s]}', '"filters": {"duration_ms": {"gte": %s}}',
    '"limit": %s', '"offset": %s', '"diversity": %s', '"min_confidence": %s', '"weights": {"video": %s}', '"text": %s',
    '"filters": {"start_ms": {"gte": [[[%s]]]}}', '"filters": %s', '"nothing": %s',
])
def test_search__numbers_that_no_field_holds_are_refused(client: TestClient, place: str, number: str) -> None:
    text = "" if '"text"' in place else '"text": "blue", '
    query = "{" + text + place % number + "}"
    as_json = client.post("/v1/search", content=query, headers={"Content-Type": "application/json"})
    as_form = client.post("/v1/search", files={"query": query.encode(), "image": picture("blue")})
    assert is_refused(as_json) and is_refused(as_form)


@pytest.mark.parametrize("weights", ["video=inf", "video=nan", "video=1e400", "video=-1", "video=" + "9" * 400, "a" * 10**5])
def test_search__weights_in_words_are_numbers(client: TestClient, weights: str) -> None:
    assert is_refused(client.post("/v1/search", json={"text": "blue", "weights": weights}), "weights")


@pytest.mark.parametrize("filters", [
    {"channel": ["a"] * 1001}, {"channel": "a" * 501}, {str(number): 1 for number in range(17)},
    {"channel": {"gte": "a" * 501}}, {"a" * 10_000: 1}, {"start_ms": {str(number): 1 for number in range(60)}},
])
def test_search__filters_have_bounds(client: TestClient, filters: dict[str, Any]) -> None:
    assert is_refused(client.post("/v1/search", json={"text": "blue", "filters": filters}))


@pytest.mark.parametrize("route", KINDS)
@pytest.mark.parametrize("item", ["1", '""', "{}", "[]", "null", '"a"'])
def test_routes__a_megabyte_of_items_is_one_short_answer(client: TestClient, route: str, item: str) -> None:
    names = [field.alias or name for name, field in KINDS[route].model_fields.items()]
    listed = f"[{','.join([item] * (900_000 // (len(item) + 1) // len(names)))}]"
    content = "{" + ",".join(f'"{name}":{listed}' for name in names) + "}"
    begin = time.process_time()  # of this process, whatever else runs
    assert is_refused(client.post(route, content=content, headers={"Content-Type": "application/json"}))
    assert time.process_time() - begin < 2


@pytest.mark.parametrize(("parts", "statuses"), [
    ([("query", "{}")] * 20, {400}),
    ([("image", b"a")] * 80, {400}),
    ([(f"n{number}", b"a") for number in range(80)], {400}),
    ([(f"n{number}", "a") for number in range(80)], {400}),
    ([("query", b" " * (2**20 + 1))], {413}),
    ([("query", " " * (2**20 + 1))], {400, 413}),
    ([("a" * 5000, b"a")], {400, 422}),
    ([("query", b'{"image": "AAAA"}'), ("image", b"a")], {422}),
])
def test_forms__have_few_parts_and_little_json(
    client: TestClient, parts: list[tuple[str, str | bytes]], statuses: set[int]
) -> None:
    body = b"".join(
        b'--x\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n' % (
            name.encode(), b'; filename="f"' if isinstance(content, bytes) else b"",
            content if isinstance(content, bytes) else content.encode(),
        ) for name, content in parts
    ) + b"--x--\r\n"
    answer = client.post("/v1/search", content=body, headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert answer.status_code in statuses and set(answer.json()) == {"error", "request_id"}, answer.text[:300]
    assert len(answer.content) < 2000


@pytest.mark.parametrize("filling", [
    b"\r", b"\r\n", b"\r\n-", b"\r\n--", b"\r\n--x", b"-", b"\0", b"a: b\r\n", b"--x\r\n\r\n",
])
@pytest.mark.parametrize("where", ["before", "headers", "file", "after"])
def test_forms__of_near_boundaries_take_no_time(client: TestClient, filling: bytes, where: str) -> None:
    many = filling * (2**21 // len(filling))
    head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="f"\r\n'
    body = {
        "before": many + head + b"\r\na\r\n--x--\r\n", "headers": head + many,
        "file": head + b"\r\n" + many + b"\r\n--x--\r\n", "after": head + b"\r\na\r\n--x--\r\n" + many,
    }[where]
    begin = time.process_time()  # of this process, whatever else runs
    answer = client.post("/v1/search", content=body, headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert answer.status_code in (400, 422) and set(answer.json()) == {"error", "request_id"}
    assert time.process_time() - begin < 2


@hypothesis.given(noise=st.integers(0, 10**6), num=st.integers(0, 3))
@examples
def test_read_json__finite_numbers_within_64_bits_stay(noise: int, num: int) -> None:
    value = {"a": [noise, -noise, noise / 7, 2.0**num], "b": {"c": MAX_INTEGER, "d": -MAX_INTEGER, "e": 1.7e308}}
    said = read_json(json.dumps(value).encode())
    assert said == value and all(math.isfinite(each) for each in said["a"])
