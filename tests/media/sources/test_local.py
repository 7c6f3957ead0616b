from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.raising import raises
from vidseek_media.errors import ConfigError, InputRejected
from vidseek_media.records import Refusal
from vidseek_media.sources.local import Folder, Pattern, path_inside

FILES = ["a.mp4", "b.MKV", "notes.txt", "2024/a.mp4", "2024/may/c.mp4", "2024/may/[x].mp4", ".hidden/d.mp4", "2024/.e.mp4"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "videos" / name).write_bytes(b"x")
    return tmp_path / "videos"


@pytest.mark.parametrize(("pattern", "uris"), [
    ("**/*.mp4", {"a.mp4", "2024/a.mp4", "2024/may/c.mp4", "2024/may/[x].mp4"}),
    ("*.mp4", {"a.mp4"}),
    ("*", {"a.mp4", "b.MKV"}),
    ("**", {"a.mp4", "b.MKV", "2024/a.mp4", "2024/may/c.mp4", "2024/may/[x].mp4"}),
    ("**/may/*", {"2024/may/c.mp4", "2024/may/[x].mp4"}),
    ("*/a.mp4", {"2024/a.mp4"}),
    ("**/[ac].mp4", {"a.mp4", "2024/a.mp4", "2024/may/c.mp4"}),
    ("**/[!a].mp4", {"2024/may/c.mp4"}),
    ("202?/*.mp4", {"2024/a.mp4"}),
    ("a.mp4", {"a.mp4"}),
    ("**/[[]x].mp4", {"2024/may/[x].mp4"}),
])
def test_pattern__names_files_relative_to_what_is_fixed_of_it(root: Path, pattern: str, uris: set[str]) -> None:
    source = Pattern(root / pattern)
    paths = source.list_videos().paths
    assert set(paths) == uris
    assert all(source.path_of(uri) == path for uri, path in paths.items())


def test_pattern__begins_where_its_first_wildcard_is(root: Path) -> None:
    assert set(Pattern(root / "2024" / "m*" / "c.mp4").list_videos().paths) == {"may/c.mp4"}


def test_pattern__reads_captions_beside_what_is_fixed_and_refuses_links_out(root: Path, tmp_path: Path) -> None:
    (root / "captions.csv").write_text("file,caption\n2024/a.mp4,a dog\n")
    (tmp_path / "outside.mp4").write_bytes(b"x")
    (root / "link.mp4").symlink_to(tmp_path / "outside.mp4")
    (root / "link.mkv").symlink_to(tmp_path / "outside.mp4")
    listing = Pattern(root / "**/*.mp4").list_videos()
    assert [caption.file for caption in listing.sidecar.captions] == ["2024/a.mp4"]
    assert listing.rejected == {"link.mp4": Refusal("is a link to a file outside the source", code="outside-source")}


def test_pattern__without_a_folder_is_a_config_error(tmp_path: Path) -> None:
    with raises(ConfigError, code="source-unreadable", naming="nowhere"):
        Pattern(tmp_path / "nowhere" / "*.mp4").list_videos()


@pytest.mark.parametrize("uri", ["../other.mp4", "a/../../other.mp4", "/etc/passwd", "link/x.mp4"])
def test_path_inside__refuses_what_leads_out(tmp_path: Path, uri: str) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path)
    with raises(InputRejected, code="outside-source", naming=uri):
        path_inside(tmp_path / "root", uri)
    assert path_inside(tmp_path / "root", "b/../a.mp4").resolve() == tmp_path / "root" / "a.mp4"


def resolved_inside(root: Path, uri: str) -> Path:
    """What `path_inside` promises, with each link followed."""
    path = root.resolve() / uri
    if not path.resolve().is_relative_to(root.resolve()):
        raise InputRejected("leads out", code="outside-source")
    return path


NAMES = ("a.mp4", "folder", "to_a.mp4", "to_folder", "out", "up", "..", ".", "", "nothing")
PARTS = st.lists(st.sampled_from(NAMES), min_size=1)


@given(parts=PARTS, is_linked=st.booleans())
def test_path_inside__is_where_links_lead(parts: list[str], is_linked: bool) -> None:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place, "root")
        (root / "folder").mkdir(parents=True)
        for below in (root, root / "folder"):
            (below / "a.mp4").write_bytes(b"x")
            (below / "to_a.mp4").symlink_to("a.mp4")
            (below / "out").symlink_to(place)
            (below / "up").symlink_to("..")
        (root / "to_folder").symlink_to(root / "folder")
        Path(place, "linked").symlink_to(root)
        source, uri = Path(place, "linked") if is_linked else root, "/".join(parts)
        try:
            wanted = resolved_inside(source, uri)
        except InputRejected:
            with raises(InputRejected, code="outside-source"):
                path_inside(source, uri)
        else:
            assert path_inside(source, uri) == wanted


def test_path_inside__a_null_byte_is_no_path(root: Path) -> None:
    with pytest.raises(ValueError, match="null"):
        path_inside(root, "a\0.mp4")


def test_folder__has_no_downloads(root: Path) -> None:
    source = Folder(root)
    assert (source.address_of("a.mp4"), source.downloads_of("a.mp4")) == ("", [])
