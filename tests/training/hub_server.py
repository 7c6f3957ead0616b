"""A model hub on the loopback: listings, files with ETags and redirects, ranges, and every way in which it can go wrong."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".safetensors", ".bin", ".msgpack", ".h5", ".onnx", ".gguf")
"""Endings of files that the hub keeps in its large-file storage: their files come by a redirect."""


@dataclass
class Repository:
    """A repository of the hub."""

    files: dict[str, bytes]
    commit: str = COMMIT
    refs: tuple[str, ...] = ("main",)
    kind: str = "models"
    gated: bool = False
    private: bool = False
    pipeline_tag: str | None = None
    library_name: str | None = None
    renamed_to: str = ""
    xet_storage: str = ""
    """Where the storage behind the hub is: large files then come from there."""


@dataclass
class Trouble:
    """An answer in the place of the right one, `times` times (-1: always), for paths that `path` matches."""

    path: str
    status: int = 0
    """0: the file itself, with the faults below."""
    times: int = -1
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"{}"
    cut_after: int | None = None
    """Close the connection after this many bytes of the body."""
    content: bytes | None = None
    """Another content, with its own length."""
    method: str = ""


class Hub(ThreadingHTTPServer):
    """The server; `repositories` and `troubles` may change while it runs."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Repository] = {}
        self.troubles: list[Trouble] = []
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        """Method, path and headers, in order."""
        self.token = ""
        """Who has it may see what is private or gated."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def paths(self, method: str = "GET") -> list[str]:
        return [path for each, path, _ in self.requests if each == method]

    def trouble_of(self, path: str, method: str) -> Trouble | None:
        for trouble in self.troubles:
            if trouble.times and re.search(trouble.path, path) and trouble.method in ("", method):
                trouble.times -= 1
                return trouble
        return None


@contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


def blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _is_large(name: str) -> bool:
    return name.endswith(LARGE)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer("HEAD")

    def do_GET(self) -> None:
        self._answer("GET")

    def _answer(self, method: str) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append((method, path, {key.lower(): value for key, value in self.headers.items()}))
        trouble = self.server.trouble_of(path, method)
        if trouble is not None and trouble.status:
            self._send(trouble.status, trouble.body, trouble.headers, method)
        elif found := re.fullmatch(r"/api/(models|datasets|spaces)/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            self._list(found[1], found[2], found[3] or "main", method)
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/.+", path):
            self._tree(self.server.repositories[found[1]], method)
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(found[1], found[2], found[3], method, trouble)
        elif found := re.fullmatch(r"/api/xet-token/([^/]+/[^/]+)", path):
            storage = self.server.repositories[found[1]].xet_storage
            pass_ = {"X-Xet-Cas-Url": storage, "X-Xet-Access-Token": "t", "X-Xet-Token-Expiration": "4102444800"}
            self._send(200, b"{}", pass_, method)
        elif found := re.fullmatch(r"/lfs/([^/]+/[^/]+)/(.+)", path):
            self._file(self.server.repositories[found[1]].files[found[2]], {}, method, trouble)
        else:
            self._send(404, b"Not Found", {"Content-Type": "text/plain"}, method)

    def _may_see(self) -> bool:
        return bool(self.server.token) and self.headers.get("Authorization") == f"Bearer {self.server.token}"

    def _list(self, kind: str, name: str, revision: str, method: str) -> None:
        repository = self.server.repositories.get(name)
        if repository is not None and repository.renamed_to:
            location = self.path.replace(name, repository.renamed_to)
            return self._send(307, b"", {"Location": location}, method)
        if repository is None or repository.kind != kind or (repository.private and not self._may_see()):
            return self._not_found(method)
        commit = self._commit_of(repository, revision)
        if commit is None:
            return self._send(404, b'{"error":"Invalid rev id"}', {"X-Error-Code": "RevisionNotFound"}, method)
        siblings = [{
            "rfilename": file, "size": len(content), "blobId": blob_id(content),
            **({"lfs": {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}}
               if _is_large(file) else {}),
        } for file, content in repository.files.items()]
        if "blobs" not in parse_qs(urlsplit(self.path).query):
            siblings = [{"rfilename": each["rfilename"]} for each in siblings]
        about = {
            "id": name, "sha": commit, "gated": "manual" if repository.gated else False, "private": repository.private,
            "siblings": siblings, "pipeline_tag": repository.pipeline_tag, "library_name": repository.library_name,
        }
        self._send(200, json.dumps(about).encode(), {"Content-Type": "application/json"}, method)

    def _tree(self, repository: Repository, method: str) -> None:
        """The listing that `snapshot_download` asks for."""
        entries = [{
            "type": "file", "path": file, "size": len(content), "oid": blob_id(content),
            **({"lfs": {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}}
               if _is_large(file) else {}),
        } for file, content in repository.files.items()]
        self._send(200, json.dumps(entries).encode(), {"Content-Type": "application/json"}, method)

    def _commit_of(self, repository: Repository, revision: str) -> str | None:
        is_commit = len(revision) >= 7 and repository.commit.startswith(revision)
        return repository.commit if revision in repository.refs or is_commit else None

    def _not_found(self, method: str) -> None:
        """As the hub does: who is not logged in cannot tell a missing model from a private one."""
        code = {"X-Error-Code": "RepoNotFound"} if self._may_see() else {}
        status = 404 if self._may_see() else 401
        self._send(status, b'{"error":"Invalid username or password."}',
                   {**code, "X-Error-Message": "Invalid username or password."}, method)

    def _resolve(self, name: str, revision: str, file: str, method: str, trouble: Trouble | None) -> None:
        repository = self.server.repositories.get(name)
        if repository is None or (repository.private and not self._may_see()):
            return self._not_found(method)
        if repository.gated and not self._may_see():
            status = 403 if self.headers.get("Authorization") else 401
            return self._send(status, b'{"error":"gated"}', {"X-Error-Code": "GatedRepo"}, method)
        if self._commit_of(repository, revision) is None:
            return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"}, method)
        head = {"X-Repo-Commit": repository.commit}
        if file not in repository.files:
            return self._send(404, b"{}", {**head, "X-Error-Code": "EntryNotFound"}, method)
        content = repository.files[file]
        if _is_large(file):
            # The storage is another host: the token must not get there.
            port = self.server.server_address[1]
            location = f"http://localhost:{port}/lfs/{name}/{file}"
            linked = {"X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Linked-Size": str(len(content))}
            if repository.xet_storage:
                route = f"{self.server.url}/api/xet-token/{name}"
                linked |= {"X-Xet-Hash": hashlib.sha256(content).hexdigest(), "X-Xet-Refresh-Route": route}
            return self._send(302, b"", {**head, **linked, "Location": location}, method)
        return self._file(content, {**head, "ETag": f'"{blob_id(content)}"'}, method, trouble)

    def _file(self, content: bytes, head: dict[str, str], method: str, trouble: Trouble | None) -> None:
        if trouble is not None and trouble.content is not None:
            content = trouble.content
        status, start = 200, 0
        if found := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or ""):
            start = int(found[1])
            if start >= len(content):
                return self._send(416, b"", {"Content-Range": f"bytes */{len(content)}"}, method)
            status, head = 206, {**head, "Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        self._send(status, content[start:], head, method, cut_after=trouble.cut_after if trouble is not None else None)

    def _send(
        self, status: int, body: bytes, headers: dict[str, str], method: str, *, cut_after: int | None = None
    ) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if method == "HEAD":
            return
        self.wfile.write(body if cut_after is None else body[:cut_after])
        if cut_after is not None:
            self.close_connection = True
