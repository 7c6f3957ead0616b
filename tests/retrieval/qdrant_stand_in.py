"""A Qdrant server on loopback: the REST routes that vidseek calls, over the client's in-memory mode.

What the in-memory mode does not have is here as Qdrant's source has it (lib/collection/src/operations/verification of
1.19): strict mode, 409 where a collection is there already, 429 with Retry-After, the four colours of a collection, the
version. Faults can be set for the requests to come. It proves what our client sends and how it takes the answers; what a
real server does with its data is for `make qdrant-check`.
"""

from __future__ import annotations

import json
import re
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pydantic import BaseModel, ValidationError
from qdrant_client import QdrantClient, models

from vidseek_media.secret import secret
from vidseek_retrieval.index.open_backend import KEY_VARIABLE
from vidseek_retrieval.index.qdrant.backend import QdrantBackend

STRICT = models.StrictModeConfig(
    enabled=True, unindexed_filtering_retrieve=False, unindexed_filtering_update=False, max_query_limit=17,
    search_max_hnsw_ef=128, search_allow_exact=False, search_max_oversampling=3.0, upsert_max_batchsize=9,
    filter_max_conditions=8, condition_max_size=3, max_payload_index_count=10, max_points_count=10_000,
    max_timeout=5,
)
"""Every limit that vidseek can meet, each one below what it asks for where nothing is limited."""


class Refused(Exception):
    """The server says no, with a status of HTTP."""

    def __init__(self, status: int, said: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(said)
        self.status = status
        self.headers = headers or {}


class QdrantStandIn(ThreadingHTTPServer):
    """The server. `faults` is what it does to the next requests that match: see `Handler.answer`."""

    daemon_threads = True

    def __init__(self, *, strict: models.StrictModeConfig | None = None, version: str = "1.19.0", api_key: str = "") -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.client = QdrantClient(":memory:")
        self.strict = strict
        self.version = version
        self.api_key = api_key
        self.indexed: dict[str, dict[str, str]] = {}
        self.statuses: list[str] = []
        """Of collections that are asked for, one a request; then green."""
        self.woken = 0
        """Updates of a collection's optimizer that change nothing."""
        self.faults: list[tuple[str, str]] = []
        """(pattern of "METHOD path", fault): each is taken by the first request that it matches."""
        self.requests: list[str] = []
        self.created: dict[str, dict[str, Any]] = {}
        """The body with which each collection was made."""
        self.lock = threading.Lock()  # the in-memory mode is for one thread

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}"

    def fault(self, method_and_path: str) -> str:
        """The fault of this request; "" where it has none."""
        for place, (pattern, fault) in enumerate(self.faults):
            if re.search(pattern, method_and_path):
                del self.faults[place]
                return fault
        return ""


@contextmanager
def standing(**named: Any) -> Iterator[QdrantStandIn]:
    """A stand-in that answers as long as this lasts."""
    server = QdrantStandIn(**named)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def borrowed_backend(url: str) -> Iterator[QdrantBackend]:
    """A backend on a server that others use too, under a prefix of its own: all of it is removed at the end.

    The key is in QDRANT_API_KEY, where the server wants one.
    """
    prefix = f"vidseek-check-{uuid.uuid4().hex[:12]}-"
    client = QdrantClient(url=url, api_key=secret(KEY_VARIABLE), timeout=60, check_compatibility=False)
    try:
        yield QdrantBackend(client, prefix=prefix)
    finally:
        for collection in client.get_collections().collections:
            if collection.name.startswith(prefix):
                client.delete_collection(collection.name)  # its aliases go with it
        client.close()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: QdrantStandIn
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        path = self.path.partition("?")[0]
        self.server.requests.append(f"{self.command} {path}")
        fault = self.server.fault(f"{self.command} {path}")
        try:
            if fault.startswith("429"):
                raise Refused(429, "Rate limiting exceeded: retry later", {"Retry-After": fault[4:]} if fault[4:] else {})
            if fault.isdecimal():
                raise Refused(int(fault), "as the test wants it")
            if self.server.api_key and self.headers.get("api-key") != self.server.api_key:
                raise Refused(401, "Must provide an API key or an Authorization bearer token")
            with self.server.lock, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result = _routed(self.server, self.command, path, body)
            status, content, headers = 200, {"result": result, "status": "ok", "time": 0.0}, {}
        except Refused as error:
            status, content, headers = error.status, {"status": {"error": str(error)}, "time": 0.0}, error.headers
        except ValidationError as error:
            status, content, headers = 400, {"status": {"error": f"Format error: {error}"[:500]}, "time": 0.0}, {}
        except ValueError as error:
            said = str(error)
            status = 409 if "already exists" in said else 404 if "not found" in said else 400
            content, headers = {"status": {"error": f"Wrong input: {said}"}, "time": 0.0}, {}
        if path == "/" and status == 200:
            content = content["result"]
        if fault == "lost":  # it was done, and nobody hears of it
            self.connection.close()
            self.close_connection = True
            return
        if fault == "slow":
            time.sleep(2)
        encoded = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {**headers, "content-type": "application/json", "content-length": str(len(encoded))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(encoded)

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = answer  # noqa: N815 - the names that the library calls

    def log_message(self, *_: object) -> None:
        pass


def _routed(server: QdrantStandIn, method: str, path: str, body: bytes) -> Any:
    parts = [part for part in path.split("/") if part]
    plain: dict[tuple[str, str], Callable[[], Any]] = {
        ("GET", "/"): lambda: {"title": "qdrant - vector search engine", "version": server.version, "commit": None},
        ("GET", "/collections"): lambda: _json(server.client.get_collections()),
        ("GET", "/aliases"): lambda: _json(server.client.get_aliases()),
        ("POST", "/collections/aliases"): lambda: server.client.update_collection_aliases(
            models.ChangeAliasesOperation.model_validate_json(body).actions
        ),
    }
    if (method, path) in plain:
        return plain[method, path]()
    if parts[0] != "collections" or len(parts) < 2:
        raise Refused(404, f"no route {path}")
    name, route = parts[1], (method, "/".join(parts[2:]))
    if route == ("PUT", ""):
        return _create(server, name, body)
    if route == ("DELETE", ""):
        server.indexed.pop(name, None)
        return server.client.delete_collection(name)
    if route not in _ROUTES:
        raise Refused(404, f"no route {method} {path}")
    server.client.get_collection(name)  # or it is not found
    return _ROUTES[route](server, name, body)


def _json(record: BaseModel) -> Any:
    return record.model_dump(mode="json", exclude_none=True)


def _create(server: QdrantStandIn, name: str, body: bytes) -> Any:
    wanted = models.CreateCollection.model_validate_json(body)
    server.client.create_collection(
        name, vectors_config=wanted.vectors or {}, sparse_vectors_config=wanted.sparse_vectors, metadata=wanted.metadata
    )
    server.created[name] = json.loads(body)
    return True


def _describe(server: QdrantStandIn, name: str, _: bytes) -> Any:
    described = _json(server.client.get_collection(name))
    status = server.statuses.pop(0) if server.statuses else "green"
    schema = {field: {"data_type": kind, "points": 0} for field, kind in server.indexed.get(name, {}).items()}
    described |= {"status": status.partition(":")[0], "payload_schema": schema}
    if status.startswith("red"):
        described["optimizer_status"] = {"error": status.partition(":")[2]}
    if server.strict:
        described["config"]["strict_mode_config"] = _json(server.strict)
    return described


def _update(server: QdrantStandIn, name: str, body: bytes) -> Any:
    wanted = models.UpdateCollection.model_validate_json(body)
    if wanted.optimizers_config is not None and not wanted.optimizers_config.model_dump(exclude_none=True):
        server.woken += 1
    return server.client.update_collection(name, metadata=wanted.metadata)


def _index(server: QdrantStandIn, name: str, body: bytes) -> Any:
    wanted = models.CreateFieldIndex.model_validate_json(body)
    fields = server.indexed.setdefault(name, {})
    most = server.strict.max_payload_index_count if server.strict else None
    if most is not None and wanted.field_name not in fields and len(fields) >= most:
        raise Refused(400, f"Collection already has the maximum number of payload indices ({most})")
    fields[wanted.field_name] = str(wanted.field_schema)
    return {"operation_id": 1, "status": "completed"}


def _upsert(server: QdrantStandIn, name: str, body: bytes) -> Any:
    wanted = models.PointsList.model_validate_json(body)
    _most(server, len(wanted.points), "upsert_max_batchsize", "upsert limit")
    return _json(server.client.upsert(name, wanted.points, update_mode=wanted.update_mode))


def _delete(server: QdrantStandIn, name: str, body: bytes) -> Any:
    content = json.loads(body)
    selector: Any = (models.FilterSelector if "filter" in content else models.PointIdsList).model_validate(content)
    if "filter" in content:
        _check_filter(server, name, selector.filter, updates=True)
    return _json(server.client.delete(name, selector))


def _set_payload(server: QdrantStandIn, name: str, body: bytes) -> Any:
    wanted = models.SetPayload.model_validate_json(body)
    _check_filter(server, name, wanted.filter, updates=True)
    points: Any = wanted.points if wanted.points is not None else wanted.filter
    return _json(server.client.set_payload(name, wanted.payload, points=points))


def _delete_payload(server: QdrantStandIn, name: str, body: bytes) -> Any:
    wanted = models.DeletePayload.model_validate_json(body)
    _check_filter(server, name, wanted.filter, updates=True)
    points: Any = wanted.points if wanted.points is not None else wanted.filter
    return _json(server.client.delete_payload(name, wanted.keys, points=points))


def _retrieve(server: QdrantStandIn, name: str, body: bytes) -> Any:
    wanted = models.PointRequest.model_validate_json(body)
    found = server.client.retrieve(
        name, wanted.ids, with_payload=wanted.with_payload or False, with_vectors=wanted.with_vector or False  # type: ignore[arg-type]
    )
    return [_json(record) for record in found]


def _query(server: QdrantStandIn, name: str, body: bytes) -> Any:
    wanted = models.QueryRequest.model_validate_json(body)
    _most(server, wanted.limit or 10, "max_query_limit", "limit")
    _check_filter(server, name, wanted.filter)
    if wanted.params is not None:
        _check_exact(server, wanted.params.exact)
        _most(server, wanted.params.hnsw_ef, "search_max_hnsw_ef", "hnsw_ef")
        quantization = wanted.params.quantization
        _most(server, quantization.oversampling if quantization else None, "search_max_oversampling", "oversampling")
        _check_filter(server, name, wanted.params.idf.corpus if wanted.params.idf else None)  # type: ignore[union-attr]
    return _json(server.client.query_points(
        name, query=wanted.query, using=wanted.using, limit=wanted.limit or 10, offset=wanted.offset,
        query_filter=wanted.filter, search_params=wanted.params, with_payload=wanted.with_payload or False,  # type: ignore[arg-type]
        score_threshold=wanted.score_threshold,
    ))


def _count(server: QdrantStandIn, name: str, body: bytes) -> Any:
    wanted = models.CountRequest.model_validate_json(body)
    _check_filter(server, name, wanted.filter)
    _check_exact(server, wanted.exact)
    return _json(server.client.count(name, count_filter=wanted.filter))


def _scroll(server: QdrantStandIn, name: str, body: bytes) -> Any:
    wanted = models.ScrollRequest.model_validate_json(body)
    _most(server, wanted.limit or 10, "max_query_limit", "limit")
    _check_filter(server, name, wanted.filter)
    records, following = server.client.scroll(
        name, limit=wanted.limit or 10, offset=wanted.offset, order_by=wanted.order_by, scroll_filter=wanted.filter,
        with_payload=wanted.with_payload or False, with_vectors=wanted.with_vector or False,  # type: ignore[arg-type]
    )
    return {"points": [_json(record) for record in records], "next_page_offset": following}


def _facet(server: QdrantStandIn, name: str, body: bytes) -> Any:
    wanted = models.FacetRequest.model_validate_json(body)
    _most(server, wanted.limit or 10, "max_query_limit", "limit")
    _check_filter(server, name, wanted.filter)
    _check_exact(server, wanted.exact)
    if wanted.key not in server.indexed.get(name, {}):
        raise Refused(400, f"No appropriate index for faceting: `{wanted.key}`")
    return _json(server.client.facet(name, wanted.key, facet_filter=wanted.filter, limit=wanted.limit or 10))


_ROUTES: dict[tuple[str, str], Callable[[QdrantStandIn, str, bytes], Any]] = {
    ("GET", ""): _describe, ("PATCH", ""): _update, ("PUT", "index"): _index, ("PUT", "points"): _upsert,
    ("POST", "points"): _retrieve, ("POST", "points/query"): _query, ("POST", "points/count"): _count,
    ("POST", "points/scroll"): _scroll, ("POST", "facet"): _facet, ("POST", "points/payload"): _set_payload,
    ("POST", "points/delete"): _delete, ("POST", "points/payload/delete"): _delete_payload,
}


def _most(server: QdrantStandIn, value: float | None, limit: str, said: str) -> None:
    allowed = getattr(server.strict, limit) if server.strict else None
    if allowed is not None and value is not None and value > allowed:
        raise Refused(400, f'Bad request: Limit exceeded {value} > {allowed} for "{said}". Help: Reduce the "{said}"')


def _check_exact(server: QdrantStandIn, exact: bool | None) -> None:
    if server.strict and server.strict.search_allow_exact is False and exact:
        raise Refused(400, "Bad request: Exact search disabled!. Help: Set exact=false.")


def _check_filter(server: QdrantStandIn, name: str, wanted: models.Filter | None, *, updates: bool = False) -> None:
    if server.strict is None or wanted is None:
        return
    allowed = server.strict.unindexed_filtering_update if updates else server.strict.unindexed_filtering_retrieve
    conditions = list(_conditions(wanted))
    for each in conditions:
        key = getattr(each, "key", None)
        if allowed is False and key is not None and key not in server.indexed.get(name, {}):
            raise Refused(400, f'Bad request: Index required but not found for "{key}" of one of the types: [keyword]')
        values = getattr(getattr(each, "match", None), "any", ())
        if server.strict.condition_max_size is not None and len(values) > server.strict.condition_max_size:
            raise Refused(400, f"Bad request: Condition size limit reached ({len(values)})")
    most = server.strict.filter_max_conditions
    if most is not None and len(conditions) > most:
        raise Refused(400, f"Bad request: Filter condition limit reached ({len(conditions)} > {most})")


def _conditions(wanted: models.Filter) -> Iterator[Any]:
    for part in (wanted.must, wanted.should, wanted.must_not):
        for each in part if isinstance(part, list) else [part] if part else []:
            if isinstance(each, models.Filter):
                yield from _conditions(each)
            else:
                yield each
