"""A published archive that grows, searched by words for colours, and a receiver of webhooks."""

from __future__ import annotations

import atexit
import http.server
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tests.copying import copy_tree
from tests.retrieval.archive import VERSION, clip_row, video_row, write_archive
from tests.tiny_bundle import COLOURS, colour_vector, write_tiny_bundle
from vidseek.archive import Archive, open_text_searcher
from vidseek.saved.webhooks import Sender, key_of
from vidseek_media.fields.declared import fields_of
from vidseek_media.fields.statement import Statement
from vidseek_media.fields.statements import FieldTable, write_fields
from vidseek_media.files.fetching import Fetcher
from vidseek_retrieval.index.backend import IndexBackend
from vidseek_retrieval.index.publish import publish
from vidseek_retrieval.search.searcher import Searcher
from vidseek_retrieval.settings import PublishSettings

SECRET = "0123456789abcdef0123456789abcdef"
SURE = 0.95
"""Of a clip of the colour that is asked for; those of others score less."""


def video_id(number: int) -> str:
    return f"{number:032x}"


@dataclass
class Growing:
    """An archive whose videos a test chooses: the colours of the clips of each, by its number."""

    root: Path
    version: str = VERSION
    titles: dict[int, str] = field(default_factory=dict)
    cameras: dict[int, str] = field(default_factory=dict)
    declared: dict[str, str] = field(default_factory=lambda: {"camera": "keyword"})
    backend: IndexBackend | None = None
    """None for the embedded index, in the archive's folder."""

    @property
    def archive(self) -> Archive:
        return Archive(self.root)

    def publish(self, videos: Mapping[int, Sequence[str]]) -> None:
        bundle = self.root / "models" / "encoder"
        if not bundle.exists():
            write_tiny_bundle(bundle, encoder_version=self.version)
        rows = [video_row(video_id(each), f"{each}.mp4", title=self.titles.get(each, "")) for each in videos]
        clips = [
            clip_row(video_id(each), at, 1000 * at, 1000 * at + 1000) for each in videos for at in range(len(videos[each]))
        ]
        vectors = np.stack([colour_vector(COLOURS[name]) for names in videos.values() for name in names])
        tables = write_archive(self.root / "data", rows, clips, vectors, encoder_version=self.version)
        cameras = self.cameras if "camera" in self.declared else {}
        said = [Statement(video_id(each), "camera", (name,)) for each, name in cameras.items()]
        write_fields(self.root / "data" / "fields", FieldTable(fields_of(self.declared), tuple(said)))
        index = self.backend or self.root / "index"
        fields, settings = self.root / "data" / "fields", PublishSettings(compact_share=1.0)
        publish(**tables, index=index, fields_dir=fields, settings=settings)

    def searcher(self) -> Searcher:
        return open_text_searcher(self.archive)


@cache
def _first(videos: tuple[tuple[int, tuple[str, ...]], ...]) -> Path:
    """The archive, published once in a process."""
    root = Path(tempfile.mkdtemp(prefix="vidseek-saved-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    Growing(root).publish(dict(videos))
    return root


def first_of(root: Path, videos: Mapping[int, Sequence[str]]) -> Growing:
    """A published archive of one's own."""
    return Growing(copy_tree(_first(tuple((number, tuple(names)) for number, names in videos.items())), root))


class Receiver:
    """A server on the loopback that answers as it is told, and keeps what came.

    Args:
        answers: Statuses, one after the other, the last one for ever; 0 answers nothing.
    """

    def __init__(self, *answers: int) -> None:
        self.came: list[tuple[dict[str, str], bytes]] = []
        self.release = threading.Event()
        left, came, release = list(answers), self.came, self.release

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *args: object) -> None: ...

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                came.append(({name.lower(): value for name, value in self.headers.items()}, body))
                status = left.pop(0) if len(left) > 1 else left[0]
                if status == 0:
                    release.wait(120)
                    return
                self.send_response(status)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.host = f"hooks.example:{self._server.server_port}"
        self.url = f"http://{self.host}/a?token=1"

    def close(self) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()

    def sender(self, seconds: float = 10.0) -> Sender:
        """One whose names lead to this machine, which is let through here alone."""
        fetcher = Fetcher(
            [self.host], max_bytes=0, timeout_seconds=seconds, what="webhook", resolve=lambda *_: ["127.0.0.1"],
            may_reach=lambda _: True,
        )
        return Sender(fetcher, key_of(SECRET))


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let the time go on, for what waits."""
    now = time.time
    monkeypatch.setattr("vidseek.saved.webhooks.time.time", lambda: now() + seconds)
