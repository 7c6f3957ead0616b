from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.raising import raises
from vidseek_media.errors import InputRejected
from vidseek_media.sources.local import Folder, Pattern
from vidseek_media.sources.manifest import Manifest
from vidseek_media.sources.opening import open_source, source_of
from vidseek_media.sources.remote import Remote
from vidseek_media.sources.youtube.source import Youtube


@pytest.mark.parametrize(("text", "kind"), [
    ("videos", Folder), ("no/such/folder", Folder), ("videos/**/*.mp4", Pattern), ("videos/a.MOV", Pattern),
    ("list.csv", Manifest), ("list.PARQUET", Manifest), ("list.jsonl", Manifest), ("*.csv", Pattern),
    ("file:///archive/list.csv", Manifest), ("s3://bucket/day", Remote), ("gs://bucket", Remote),
    ("https://host.example/videos/", Remote), ("https://youtube.com.example/watch", Remote),
    ("https://www.youtube.com/watch?v=abc", Youtube), ("https://youtu.be/abc", Youtube),
    ("http://m.youtube.com/@someone/shorts", Youtube), ("yt-dlp:https://site.example/video/1", Youtube),
])
def test_open_source__tells_the_kind_by_how_it_is_written(tmp_path: Path, text: str, kind: type) -> None:
    (tmp_path / "videos").mkdir()
    source = open_source(text, base=tmp_path, downloads=tmp_path / "downloads")
    assert type(source) is kind
    assert not (tmp_path / "downloads").exists()


def test_open_source__of_a_file_url_is_the_path_itself(tmp_path: Path) -> None:
    (tmp_path / "my videos").mkdir()
    source = open_source(f"file://{tmp_path}/my%20videos", downloads=tmp_path / "downloads")
    assert source.name == str(tmp_path / "my videos")


def test_source_of__a_folder_is_its_source(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    assert source_of(folder) is folder
    assert source_of(tmp_path).name == str(tmp_path)


def test_sources__import_neither_fsspec_nor_yt_dlp() -> None:
    code = "import sys, vidseek_media.sources.ingest\nassert not {'fsspec', 'yt_dlp', 'aiohttp'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("text", ["https://[host/a.mp4", "file://[x"])
def test_open_source__of_no_url_is_refused(tmp_path: Path, text: str) -> None:
    with raises(InputRejected, code="url-unreadable"):
        open_source(text, downloads=tmp_path)


def test_open_source__brackets_in_the_name_of_what_is_there_are_no_wildcards(tmp_path: Path) -> None:
    folder = tmp_path / "day [1]"
    folder.mkdir()
    for name in ("a [x].mp4", "a x.mp4", "list [2].csv"):
        (folder / name).write_text("uri\n")
    [uri] = open_source(str(folder / "a [x].mp4"), downloads=tmp_path).list_videos().paths
    assert uri == "a [x].mp4"
    assert isinstance(open_source(str(folder / "list [2].csv"), downloads=tmp_path), Manifest)
    assert isinstance(open_source(str(folder), downloads=tmp_path), Folder)
