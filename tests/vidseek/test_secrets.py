"""A small archive behind signed URLs, from the manifest to the hits: no file and no word of a command has a secret."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from tests.media.loopback import Server
from tests.media.sources.test_secret_urls import signed, written
from tests.raising import raises
from tests.retrieval.archive import VERSION
from tests.tiny_bundle import COLOURS, write_tiny_bundle
from tests.vidseek.actions.test_forget import repro, search, write_colour
from tests.vidseek.test_cli import run
from vidseek.actions.queries import ask_api
from vidseek.archive import Archive
from vidseek_media.errors import ServiceError
from vidseek_retrieval.index.aliases import list_collections
from vidseek_retrieval.index.exchange.transfer import export_collection
from vidseek_retrieval.index.qdrant import requests as qdrant_requests

pytest.importorskip("aiohttp")


def test_archive__its_tables_index_export_and_commands_have_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = f"Zq7{secrets.token_urlsafe(12)}9xK"
    for colour in COLOURS:
        write_colour(tmp_path / "served" / f"{colour}.mp4", colour)
    server, root = Server(tmp_path / "served"), tmp_path / "archive"
    manifest = tmp_path / "list.csv"
    manifest.write_text("uri,caption,start,end\n" + "".join(
        f"{signed(server, f'/{colour}.mp4', secret)},all {colour},0,1\n" for colour in (*COLOURS, "lost")
    ))
    write_tiny_bundle(root / "models" / "encoder", encoder_version=VERSION)
    (root / "params.yaml").write_text(f"ingest: {{source: {manifest}}}\n")
    archive = Archive(root)
    repro(archive)
    assert search(archive)[0] == f"{server.url}/red.mp4"
    export_collection(archive.backend(), root / "export.parquet")
    [status] = list_collections(archive.index)
    said = [repr(status), *(repr(point) for point in archive.backend().open(status.metadata.name).scroll())]
    server.close()
    commands = [
        run("search", "red", "--json", folder=root),
        run("ingest", f"http://me:{secret}@127.0.0.1:9/a.mp4?sig={secret}", folder=root),
    ]
    assert [each.returncode for each in commands] == [0, 15], [each.stderr for each in commands]
    monkeypatch.setattr(qdrant_requests, "FIRST_WAIT_SECONDS", 0.001)
    monkeypatch.setenv("QDRANT_URL", f"http://me:{secret}@127.0.0.1:9/?api-key={secret}")
    with raises(ServiceError, code="server-no-answer") as silent:
        archive.backend().aliases()
    with raises(ServiceError, code="api-error") as away:
        ask_api(f"http://me:{secret}@127.0.0.1:9/?token={secret}", {"text": "red"})
    texts = [written(root), *said, str(silent.value), str(away.value), *(each.stdout + each.stderr for each in commands)]
    for text in texts:
        assert secret not in text and secret[:12] not in text, text[:2000]
