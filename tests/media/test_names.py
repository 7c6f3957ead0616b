from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.raising import raises
from vidseek_media import names

ROOT = Path("/archive/index")
ODD = ["..", ".", "", "a/b", "/etc", "../x", "a\\b/..", "a\0", "a\n", "\x1b[2J", "-rf", ".hidden", "a..b", "x" * 129,
       "\u2024\u2024", "ä"]


@given(st.text() | st.text(alphabet="./\\a0_-\n\0 ") | st.sampled_from(ODD))
def test_plain_name__is_one_component_or_refused(text: str) -> None:
    try:
        name = names.plain_name(text, what="a name")
    except ValueError:
        return
    assert name == text and (ROOT / name).parent == ROOT and Path(name).name == name
    assert name.isascii() and name.isprintable() and len(name) <= names.MOST_LETTERS and ".." not in name


@pytest.mark.parametrize("odd", [*ODD, None, 3, b"a", ["a"]])
def test_plain_name__refuses(odd: object) -> None:
    with pytest.raises(ValueError, match="wanted a name") as raised:
        names.plain_name(odd, what="a name")
    assert str(raised.value).isprintable() and len(str(raised.value)) < 300


@given(st.text(alphabet="./\\a0_-\n ") | st.lists(st.sampled_from(["a", "..", ".", "", "b.c"])).map("/".join))
def test_relative_file__lies_below_its_folder(text: str) -> None:
    try:
        name = names.relative_file(text, what="a file")
    except ValueError:
        return
    assert (ROOT / name).is_relative_to(ROOT) and ".." not in Path(name).parts and not Path(name).is_absolute()


def test_names__of_ours_are_taken() -> None:
    assert names.plain_name("exp-quiet-otter_2.1", what="an alias") == "exp-quiet-otter_2.1"
    assert names.relative_file("fp32/text.onnx", what="a file") == "fp32/text.onnx"
    assert names.shard_file("shards/a-0123456789abcdef.tar") == "shards/a-0123456789abcdef.tar"
    assert names.video_id("0a" * 16) == "0a" * 16
    assert names.hex_digits("0123456789ab", 12, what="build") == "0123456789ab"
    clip_id = str(uuid.uuid5(uuid.NAMESPACE_URL, "a"))
    assert names.clip_id(clip_id) == clip_id


@pytest.mark.parametrize(
    "odd", ["shards/../a.tar", "shards/a/b.tar", "/shards/a.tar", "a.tar", "shards/a.tar\n", "shards/.tar"]
)
def test_shard_file__refuses(odd: str) -> None:
    with raises(ValueError, naming="shard"):
        names.shard_file(odd)


@pytest.mark.parametrize("odd", ["A" * 32, "0" * 31, "0" * 32 + "\n", "../" + "0" * 29, 5])
def test_video_id__refuses(odd: object) -> None:
    with raises(ValueError, naming="32 hex digits"):
        names.video_id(odd)


@pytest.mark.parametrize("odd", [
    "0" * 32, "{6f1c2a52-8f0e-5b57-9a3e-1d6f0f7e7c11}", "6F1C2A52-8F0E-5B57-9A3E-1D6F0F7E7C11", "", None,
])
def test_clip_id__refuses(odd: object) -> None:
    with raises(ValueError, naming="UUID"):
        names.clip_id(odd)
