from __future__ import annotations

from pathlib import Path

import pytest

from tests.raising import raises
from vidseek.actions.queries import filters_of, read_clip, read_image, weights_of
from vidseek_media.errors import InputRejected
from vidseek_retrieval.search.query import Weights


def filters(*conditions: str, channels: tuple[str, ...] = ()) -> dict[str, object]:
    return filters_of(conditions, channels=channels, categories=(), after=None, before=None)


def test_filters__signs_and_values() -> None:
    assert filters("category=dogs, cats", "duration_ms>=5000", "duration_ms < 9000", "start_ms=0") == {
        "category": ["dogs", "cats"], "duration_ms": {"gte": 5000, "lt": 9000}, "start_ms": [0],
    }
    assert filters(channels=("news",)) == {"channel": ["news"]} and filters() == {}


@pytest.mark.parametrize("conditions", [
    ("channel",), ("=x",), ("channel~x",), ("channel=",), ("a=1", "a=2"), ("a=1", "a>2"),
])
def test_filters__what_is_none(conditions: tuple[str, ...]) -> None:
    with raises(InputRejected, code="bad-filter"):
        filters(*conditions)


def test_weights__what_is_not_named_counts_nothing() -> None:
    assert weights_of("words=0.5") == Weights(video=0.0, caption=0.0, words=0.5, ocr=0.0, speech=0.0)
    assert weights_of("video=1, caption=2") == Weights(video=1.0, caption=2.0, words=0.0, ocr=0.0, speech=0.0)


@pytest.mark.parametrize("text", ["", "video", "sound=1", "video=x", "video=-1", "video=0", "video=1=2"])
def test_weights__what_is_none(text: str) -> None:
    with raises(InputRejected, code="bad-query-weights"):
        weights_of(text)


def test_weights__unknown_vectors_are_named() -> None:
    with raises(InputRejected, code="bad-query-weights", naming="sound", remedy=["video", "caption", "words"]):
        weights_of("video=1,sound=1")


def test_files__that_cannot_be_read_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"neither picture nor video")
    for name, image_code, clip_code in (
        ("file", "image-unreadable", "not-a-video"), ("missing", "file-missing", "file-missing"),
    ):
        file = tmp_path / name
        with raises(InputRejected, code=image_code, naming=file):
            read_image(file)
        with raises(InputRejected, code=clip_code, naming=file):
            read_clip(file, num_frames=2, side_px=8)
