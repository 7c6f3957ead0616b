"""URLs with passwords and signatures, from a manifest to every file and every word of a run."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pyarrow.parquet as pq
import pytest

from tests.media.loopback import Server
from tests.raising import raises
from vidseek.actions.forget import forget, plan_forget
from vidseek.archive import Archive
from vidseek_media.errors import VidseekError
from vidseek_media.forgotten import ForgottenVideo, read_forgotten, write_forgotten
from vidseek_media.sources import downloads
from vidseek_media.sources.ingest import ingest, read_videos
from vidseek_media.sources.manifest import Manifest
from vidseek_media.sources.remote import Remote

pytest.importorskip("aiohttp")

FAULTS = int(os.environ.get("VIDSEEK_FAULTS", "0"))
"""More of them in `make faults`."""


@pytest.fixture
def server(tmp_path: Path, make_video: Callable[..., Path]) -> Iterator[Server]:
    for place, name in enumerate(("a.mp4", "b.mp4")):
        make_video(tmp_path / "served" / name, num_frames=20 + place)
    served = Server(tmp_path / "served")
    yield served
    served.close()


def written(*roots: Path) -> str:
    """All that lies in the folders, with names; tables as their cells."""
    found = []
    for path in (path for root in roots for path in root.rglob("*")):
        found.append(str(path))
        if path.suffix == ".parquet":
            found.append(repr(pq.read_table(path).to_pylist()))
        elif path.is_file():
            found.append(path.read_bytes().decode("latin-1"))
    return "\n".join(found)


def signed(server: Server, path: str, secret: str) -> str:
    """A URL whose user, password, signature, key, unknown parameter and fragment are secret."""
    host = server.url.removeprefix("http://")
    names = ("X-Amz-Signature", "sig", "access_token", "key")
    query = "&".join(f"{name}={quote(secret, safe='')}{place}" for place, name in enumerate(names))
    return f"http://me:{quote(secret, safe='')}@{host}{path}?{query}#{quote(secret, safe='')}"


@pytest.mark.parametrize("seed", range(max(3, FAULTS // 20)))
def test_manifest__its_secrets_are_in_no_file_and_no_word(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], seed: int
) -> None:
    monkeypatch.setattr(downloads, "FIRST_WAIT_SECONDS", 0.01)
    secret = f"Zq7{secrets.token_urlsafe(6)}{'/+ %é'[seed % 5]}{secrets.token_urlsafe(6)}9xK"
    work, listed = tmp_path / "work", tmp_path / "list.csv"
    rows = [signed(server, path, secret) for path in ("/a.mp4", "/b.mp4", "/lost.mp4")]
    rows += [f"nope://me:{secret.replace('/', '')}@host/a.mp4?sig=1", f"{signed(server, '/a.mp4', secret)}&id=7"]
    listed.write_text("uri,title\n" + "".join(f"{row},Day {number}\n" for number, row in enumerate(rows)))
    source = Manifest(listed, downloads=work / "downloads")
    report = ingest(source, out=work / "ingest", ledger=work / "ledger", timeout_seconds=60, workers=1)
    assert (report.num_out, report.num_rejected) == (2, 2)
    videos = read_videos(work / "ingest")
    uris = {uri.partition("?")[0] for video in videos for uri in video.uris}
    assert uris == {f"{server.url}/a.mp4", f"{server.url}/b.mp4"}
    assert all(source.path_of(uri).is_file() for video in videos for uri in video.uris)
    server.status["/busy.mp4"] = 503
    listed.write_text(f"uri\n{signed(server, '/busy.mp4', secret)}\n")
    with raises(VidseekError, code="source-no-answer") as caught:
        source.list_videos()
    texts = [written(work), "".join(capfd.readouterr()), str(caught.value), repr(source.name)]
    for text in texts:
        assert secret not in text and quote(secret, safe="") not in text and secret[:11] not in text


def test_manifest__a_file_that_is_signed_anew_is_not_loaded_again(server: Server, tmp_path: Path) -> None:
    tables = []
    for secret in ("first-signature", "second-signature"):
        rows = [f"{signed(server, '/a.mp4', secret)},one,0,1", f"{signed(server, '/a.mp4', secret + 'x')},two,1,2"]
        (tmp_path / "list.csv").write_text("\n".join(["uri,caption,start,end", *rows, ""]))
        beside = f"file,caption\n{signed(server, '/a.mp4', 'another-signature')},three\n"
        (tmp_path / "captions.csv").write_text(beside)
        source = Manifest(tmp_path / "list.csv", downloads=tmp_path / "downloads")
        report = ingest(source, out=tmp_path / "ingest", ledger=tmp_path / "ledger", timeout_seconds=60, workers=1)
        tables.append((tmp_path / "ingest" / "videos.parquet").read_bytes())
        assert (report.num_out, report.num_captions_out) == (1, 3)
    assert tables[0] == tables[1] and report.num_probed == 0
    assert sum(path.startswith("/a.mp4") for command, path in server.asked if command == "GET") == 1


def test_remote__its_name_addresses_and_folders_have_no_secret(tmp_path: Path) -> None:
    first, second = (
        Remote(f"https://me:{secret}@host.example/videos?sig={secret}", downloads=tmp_path)
        for secret in ("one-secret", "two-secret")
    )
    assert first.name == "https://host.example/videos" and first.address_of("a.mp4") == "https://host.example/videos/a.mp4"
    assert first.path_of("a.mp4") == second.path_of("a.mp4") and "secret" not in str(first.path_of("a.mp4"))


def test_forgotten__a_table_of_an_earlier_version_still_keeps_a_video_out(server: Server, tmp_path: Path) -> None:
    old = signed(server, "/b.mp4", "first-signature")
    write_forgotten(tmp_path / "decisions", [ForgottenVideo("0" * 32, (old,), (old,), "t", "2026-01-01T00:00:00Z")])
    forgotten = read_forgotten(tmp_path / "decisions")
    assert forgotten.addresses == {f"{server.url}/b.mp4"}
    (tmp_path / "list.csv").write_text(f"uri\n{signed(server, '/b.mp4', 'second-signature')}\n")
    source = Manifest(tmp_path / "list.csv", downloads=tmp_path / "downloads")
    listing = source.list_videos(forgotten=forgotten.addresses)
    assert list(listing.rejected) == [f"{server.url}/b.mp4"] and server.asked == []


def test_forget__finds_the_download_of_a_signed_url(server: Server, tmp_path: Path) -> None:
    rows = [signed(server, "/a.mp4", "first-signature"), signed(server, "/b.mp4", "x-signature")]
    (tmp_path / "list.csv").write_text("\n".join(["uri", *rows, ""]))
    (tmp_path / "params.yaml").write_text("ingest: {source: list.csv}\n")
    archive = Archive(tmp_path)
    source = archive.source
    assert source is not None
    ingest(source, out=tmp_path / "data" / "ingest", ledger=archive.state / "ledger", timeout_seconds=60, workers=1)
    plan = plan_forget(archive, signed(server, "/a.mp4", "third-signature"))
    assert plan.video.addresses == (f"{server.url}/a.mp4",) and plan.removed
    forget(archive, plan)
    assert not source.path_of(f"{server.url}/a.mp4").exists() and source.path_of(f"{server.url}/b.mp4").exists()
    assert "signature" not in written(archive.decisions, archive.state)
    assert len(read_forgotten(archive.decisions).videos) == 1
