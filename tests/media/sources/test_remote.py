from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

from tests.media.loopback import Server
from tests.raising import raises
from vidseek_media.errors import ArtifactError, ConfigError, InputRejected, ServiceError
from vidseek_media.sources import downloads
from vidseek_media.sources.ingest import ingest, read_videos
from vidseek_media.sources.manifest import Manifest
from vidseek_media.sources.remote import Remote
from vidseek_media.tables import SIDECAR, TRANSCRIPTS, read_table

MakeVideo = Callable[..., Path]


@pytest.fixture
def served(tmp_path: Path, make_video: MakeVideo) -> Iterator[tuple[Server, Path]]:
    root = tmp_path / "served"
    make_video(root / "day 1" / "a.mp4", num_frames=10)
    make_video(root / "b.mp4", num_frames=20)
    server = Server(root)
    yield server, root
    server.close()


@pytest.fixture
def bucket(tmp_path: Path, make_video: MakeVideo) -> str:
    """A prefix of fsspec's in-memory file system, with two videos and what belongs to them."""
    fs, prefix = fsspec.filesystem("memory"), f"/{uuid.uuid4().hex}/archive"
    fs.pipe(f"{prefix}/a.mp4", make_video(tmp_path / "a.mp4", num_frames=10).read_bytes())
    fs.pipe(f"{prefix}/deep/b.mkv", make_video(tmp_path / "b.mkv", num_frames=20).read_bytes())
    fs.pipe(f"{prefix}/captions.csv", b"file,caption\na.mp4,a dog\n")
    fs.pipe(f"{prefix}/deep/b.en.vtt", b"WEBVTT\n\n00:00.000 --> 00:01.000\nhello\n")
    fs.pipe(f"{prefix}/deep/other.srt", b"1\n")
    fs.pipe(f"{prefix}/notes.txt", b"x")
    fs.pipe(f"{prefix}/.hidden/c.mp4", b"x")
    return f"memory:/{prefix}"


def test_remote__a_prefix_becomes_videos_with_captions_and_transcripts(bucket: str, tmp_path: Path) -> None:
    source = Remote(bucket, downloads=tmp_path / "downloads")
    report = ingest(source, out=tmp_path / "ingest", ledger=tmp_path / "ledger", timeout_seconds=60, workers=1)
    assert (report.num_in, report.num_out, report.num_captions_out, report.num_transcripts) == (2, 2, 1, 1)
    videos = {video.uris[0]: video for video in read_videos(tmp_path / "ingest")}
    assert set(videos) == {"a.mp4", "deep/b.mkv"}
    assert source.path_of("deep/b.mkv").read_bytes() == (tmp_path / "b.mkv").read_bytes()
    assert source.address_of("deep/b.mkv") == f"{bucket}/deep/b.mkv"
    assert list(read_table(tmp_path / "ingest" / "sidecar.parquet", SIDECAR)["text"]) == ["a dog"]
    assert len(read_table(tmp_path / "ingest" / "transcripts.parquet", TRANSCRIPTS)) == 1
    names = {path.name for path in (tmp_path / "downloads").rglob("*") if path.is_file()}
    assert names == {f"{dot}{name}{stamp}" for name in ("a.mp4", "b.mkv", "captions.csv", "b.en.vtt")
                     for dot, stamp in (("", ""), (".", ".stamp"))}


def test_remote__again_loads_only_what_changed(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Remote(bucket, downloads=tmp_path / "downloads")
    loaded: list[str] = []
    load = downloads._load
    monkeypatch.setattr(downloads, "_load", lambda fs, path, *rest: (loaded.append(path), load(fs, path, *rest)))
    first = source.list_videos()
    assert len(loaded) == 4
    changed = {uri: path.stat().st_mtime_ns for uri, path in first.paths.items()}
    loaded.clear()
    assert source.list_videos() == first
    assert loaded == []
    assert {uri: path.stat().st_mtime_ns for uri, path in first.paths.items()} == changed
    fsspec.filesystem("memory").pipe(f"{bucket.removeprefix('memory:/')}/a.mp4", b"other bytes")
    assert source.list_videos().paths["a.mp4"].read_bytes() == b"other bytes"
    assert [path.rsplit("/", 1)[1] for path in loaded] == ["a.mp4"]


def test_remote__what_is_gone_there_is_no_video_here(bucket: str, tmp_path: Path) -> None:
    source, fs = Remote(bucket, downloads=tmp_path), fsspec.filesystem("memory")
    source.list_videos()
    prefix = bucket.removeprefix("memory:/")
    for name in ("a.mp4", "captions.csv", "deep/b.en.vtt"):
        fs.rm(f"{prefix}/{name}")
    listing = source.list_videos()
    assert set(listing.paths) == {"deep/b.mkv"} and listing.sidecar.num_rows == 0
    assert not listing.paths["deep/b.mkv"].with_name("b.en.vtt").exists()


def test_remote__what_was_forgotten_is_not_loaded(bucket: str, tmp_path: Path) -> None:
    source = Remote(bucket, downloads=tmp_path)
    listing = source.list_videos(forgotten=[f"{bucket}/a.mp4"])
    assert set(listing.paths) == {"deep/b.mkv"}
    assert listing.rejected["a.mp4"].reason.startswith("forgotten")
    assert not source.path_of("a.mp4").exists()


def test_remote__downloads_of_are_the_file_and_its_stamp(bucket: str, tmp_path: Path) -> None:
    source = Remote(bucket, downloads=tmp_path)
    assert source.downloads_of("a.mp4") == []
    source.list_videos()
    assert [path.name for path in source.downloads_of("a.mp4")] == ["a.mp4", ".a.mp4.stamp"]
    with raises(InputRejected, code="outside-source", naming="../../x.mp4"):
        source.path_of("../../x.mp4")


def test_sources__give_the_same_absolute_paths_wherever_one_works(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    paths = Remote(bucket, downloads=Path("downloads")).list_videos().paths
    assert paths == Remote(bucket, downloads=tmp_path / "downloads").list_videos().paths
    assert all(path.is_absolute() for path in paths.values())
    url = "https://host.example/a.mp4"
    manifest = Manifest(Path("list.csv"), downloads=Path("downloads"))
    assert manifest.path_of(url).is_relative_to(tmp_path / "downloads")


def test_remote__names_that_lead_out_are_rejected(tmp_path: Path) -> None:
    class Sly(fsspec.AbstractFileSystem):  # type: ignore[misc]
        protocol = "sly"

        def find(self, path, detail=False, **kwargs):  # type: ignore[no-untyped-def]
            return {name: {"name": name, "size": 1, "type": "file"}
                    for name in ("root/../../x.mp4", "/elsewhere/y.mp4", f"root/{'z' * 201}.mp4")}

    fsspec.register_implementation("sly", Sly, clobber=True)
    listing = Remote("sly://root", downloads=tmp_path / "downloads").list_videos()
    assert listing.paths == {}
    assert sorted(why.reason for why in listing.rejected.values()) == [
        "its name is longer than 200 bytes", "its name leads out of the source", "its name leads out of the source",
    ]


def test_remote__a_killed_download_leaves_nothing_and_is_begun_again(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Remote(bucket, downloads=tmp_path / "downloads")

    def die(fs: object, path: str, beside: Path, stop: object) -> None:
        beside.write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(downloads, "_load", die)
        with pytest.raises(KeyboardInterrupt):
            source.list_videos()
    assert [path for path in (tmp_path / "downloads").rglob("*") if path.is_file()] == []
    assert source.list_videos().paths["a.mp4"].stat().st_size > 100


def test_remote__a_full_disk_is_an_artifact_error(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: object) -> None:
        raise downloads._DiskFull("No space left on device")

    monkeypatch.setattr(downloads, "_load", full)
    with raises(ArtifactError, code="not-writable", naming="No space left"):
        Remote(bucket, downloads=tmp_path).list_videos()


def test_remote__a_shorter_file_than_announced_is_rejected(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "_load", lambda fs, path, beside, stop: beside.write_bytes(b"short"))
    source = Remote(bucket, downloads=tmp_path / "downloads")
    listing = source.list_videos()
    assert "is 5 bytes when downloaded" in listing.rejected["a.mp4"].reason
    assert source.downloads_of("a.mp4") == []


@pytest.mark.parametrize(("url", "error", "code"), [
    ("memory://no/such/prefix", ConfigError, "source-empty"), ("nope://x", InputRejected, "url-unreadable"),
])
def test_remote__of_nothing_is_one_error(tmp_path: Path, url: str, error: type[Exception], code: str) -> None:
    with raises(error, code=code, naming=url):
        Remote(url, downloads=tmp_path).list_videos()


@pytest.mark.parametrize(("url", "extra"), [("s3://b/x.mp4", "s3"), ("gs://b", "gs"), ("https://h/x.mp4", "http")])
def test_open_fs__a_missing_library_names_its_extra(monkeypatch: pytest.MonkeyPatch, url: str, extra: str) -> None:
    def missing(url: str) -> None:
        raise ImportError("Please install it")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with raises(ConfigError, code="not-installed") as caught:
        downloads.open_fs(url)
    assert f"'.[{extra}]'" in caught.value.remedy


def test_remote__over_http_a_folder_of_links(served: tuple[Server, Path], tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    server, root = served
    source = Remote(f"{server.url}/", downloads=tmp_path / "downloads")
    listing = source.list_videos()
    assert set(listing.paths) == {"b.mp4", "day 1/a.mp4"}
    assert listing.paths["day 1/a.mp4"].read_bytes() == (root / "day 1" / "a.mp4").read_bytes()
    server.asked.clear()
    assert source.list_videos() == listing
    assert server.loaded() == []


def test_remote__over_http_one_file(served: tuple[Server, Path], tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    server, root = served
    listing = Remote(f"{server.url}/day%201/a.mp4", downloads=tmp_path / "downloads").list_videos()
    assert {uri: path.read_bytes() for uri, path in listing.paths.items()} == {
        "a.mp4": (root / "day 1" / "a.mp4").read_bytes()
    }


def test_manifest__urls_are_loaded_once_and_a_missing_one_is_rejected(served: tuple[Server, Path], tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    server, root = served
    (tmp_path / "list.csv").write_text(
        f"uri,title\n{server.url}/b.mp4,B\n{server.url}/lost.mp4,L\nserved/day 1/a.mp4,A\n{server.url}/no.mp4,\n"
    )
    server.status["/no.mp4"] = 403
    source = Manifest(tmp_path / "list.csv", downloads=tmp_path / "downloads")
    listing = source.list_videos()
    assert set(listing.paths) == {f"{server.url}/b.mp4", "served/day 1/a.mp4"}
    assert source.path_of(f"{server.url}/b.mp4").read_bytes() == (root / "b.mp4").read_bytes()
    assert set(listing.rejected) == {f"{server.url}/lost.mp4", f"{server.url}/no.mp4"}
    assert all("cannot be downloaded" in why.reason and not why.retryable for why in listing.rejected.values())
    assert server.loaded().count("/b.mp4") == 1
    again = Manifest(tmp_path / "list.csv", downloads=tmp_path / "downloads").list_videos(
        forgotten=[f"{server.url}/lost.mp4"]
    )
    assert server.loaded().count("/b.mp4") == 1
    assert again.rejected[f"{server.url}/lost.mp4"].reason.startswith("forgotten")


def test_manifest__a_silent_server_stops_the_run_and_what_is_loaded_stays(
    served: tuple[Server, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("aiohttp")
    monkeypatch.setattr(downloads, "FIRST_WAIT_SECONDS", 0.01)
    server, _ = served
    (tmp_path / "list.csv").write_text(f"uri\n{server.url}/b.mp4\n{server.url}/busy.mp4\n")
    server.status["/busy.mp4"] = 503
    source = Manifest(tmp_path / "list.csv", downloads=tmp_path / "downloads")
    with raises(ServiceError, code="source-no-answer") as caught:
        source.list_videos()
    assert "busy.mp4" in caught.value.message and caught.value.remedy
    assert sum(path == "/busy.mp4" for _, path in server.asked) >= downloads.TRIES
    assert source.path_of(f"{server.url}/b.mp4").is_file()


def test_remote__a_server_that_is_not_there_is_a_service_error(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    with raises(ServiceError, code="source-no-answer", naming="127.0.0.1"):
        Remote("http://127.0.0.1:9/videos/", downloads=tmp_path).list_videos()


def test_remote__no_password_of_a_url_is_in_a_folder_name(tmp_path: Path) -> None:
    source = Remote("https://user:secret@host.example/videos", downloads=tmp_path)
    assert "secret" not in str(source.path_of("a.mp4")) and "host.example" in str(source.path_of("a.mp4"))
