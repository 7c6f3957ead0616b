"""Which file a uri of the index is, for every kind of source, and which it never is."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.inputs.media import MediaGone, find_media
from tests.raising import raises
from vidseek.archive import Archive
from vidseek_media.sources.opening import open_source
from vidseek_media.sources.source import Source


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("videos/a.mp4", "videos/deep/b.webm", "elsewhere/c.mov", "secret.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "videos" / "list.csv").write_text(
        f"uri\na.mp4\n{tmp_path}/elsewhere/c.mov\nhttps://host.example/x/d.mp4\n"
    )
    return tmp_path


def source(root: Path, text: str) -> Source:
    return open_source(text, base=root, downloads=root / "downloads")


def put(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"loaded")


@pytest.mark.parametrize(("text", "uri", "file", "kind"), [
    ("videos", "deep/b.webm", "videos/deep/b.webm", "video/webm"),
    ("videos/**/*.webm", "deep/b.webm", "videos/deep/b.webm", "video/webm"),
    ("videos/list.csv", "a.mp4", "videos/a.mp4", "video/mp4"),
    ("videos/list.csv", "{root}/elsewhere/c.mov", "elsewhere/c.mov", "video/quicktime"),
])
def test_find_media__finds_the_users_own_file(root: Path, text: str, uri: str, file: str, kind: str) -> None:
    media = find_media(source(root, text), uri.format(root=root))
    assert (media.path, media.content_type) == (root / file, kind)


@pytest.mark.parametrize(("text", "uri"), [
    ("s3://bucket/2026", "deep/a.mp4"), ("https://www.youtube.com/@name", "Youtube-abc.mp4"),
    ("videos/list.csv", "https://host.example/x/d.mp4"),
])
def test_find_media__finds_what_was_downloaded_without_asking_anybody(root: Path, text: str, uri: str) -> None:
    opened = source(root, text)
    with raises(MediaGone, code="media-not-found"):
        find_media(opened, uri)
    put(opened.path_of(uri))
    media = find_media(opened, uri)
    assert media.path.read_bytes() == b"loaded" and media.path.is_relative_to(root / "downloads")


@pytest.mark.parametrize("text", [
    "videos", "videos/*.mp4", "videos/list.csv", "s3://bucket", "https://www.youtube.com/@name", "no/such/folder",
])
@pytest.mark.parametrize("uri", ["../secret.txt", "{root}/secret.txt", "deep/../../secret.txt", "link/secret.txt", ""])
def test_find_media__never_leaves_the_source(root: Path, text: str, uri: str) -> None:
    (root / "videos" / "link").symlink_to(root)
    with raises(MediaGone, code="media-not-found"):
        find_media(source(root, text), uri.format(root=root))


def test_find_media__of_a_manifest_that_is_gone_is_gone(root: Path) -> None:
    (root / "videos" / "list.csv").write_bytes(b"\xff")
    with raises(MediaGone, code="media-not-found"):
        find_media(source(root, "videos/list.csv"), f"{root}/elsewhere/c.mov")


def test_archive__names_its_source_as_params_say(root: Path) -> None:
    assert Archive(root).source is None
    (root / "params.yaml").write_text("ingest: {source: videos/list.csv}\n")
    opened = Archive(root).source
    assert opened is not None and opened.path_of("a.mp4") == root / "videos" / "a.mp4"
