from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.retrieval.dedup.comparing.videos import CHANGES, video
from vidseek_retrieval.dedup.comparing import compared as module
from vidseek_retrieval.dedup.comparing.candidates import propose
from vidseek_retrieval.dedup.comparing.compared import compare
from vidseek_retrieval.dedup.comparing.fingerprints import VideoFingerprint


@pytest.fixture(scope="module")
def videos() -> dict[str, VideoFingerprint]:
    """Five videos, the first three of them copies."""
    found = {name: video(seed, length_ms=3000) for name, seed in (("a", 1), ("d", 2), ("e", 3))}
    found["b"] = video(1, start_ms=60, length_ms=3000, change=CHANGES["mirrored"])
    found["c"] = video(1, start_ms=500, length_ms=2500, change=CHANGES["cropped"])
    return found


def test_propose__copies_and_only_pairs_with_a_new_video(videos: dict[str, VideoFingerprint]) -> None:
    pairs = list(propose(videos))
    assert {("a", "b"), ("a", "c"), ("b", "c")} <= set(pairs) and pairs == sorted(pairs)
    for known in (["a", "b"], ["a", "b", "c", "d"], list(videos)):
        left = list(propose(videos, known=known))
        assert left == [pair for pair in pairs if not set(pair) <= set(known)]


def test_compare__again_only_what_is_new(
    videos: dict[str, VideoFingerprint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aligned: list[int] = []
    real = module.align
    monkeypatch.setattr(module, "align", lambda *pair: aligned.append(1) or real(*pair))
    digests = {name: f"digest of {name}" for name in videos}
    before = {name: videos[name] for name in "abd"}
    first = compare(before, digests, cache=tmp_path)
    assert first.num_new == 3 and first.num_pairs == len(aligned) > 0
    again = compare(before, digests, cache=tmp_path)
    assert (again.num_new, again.num_pairs) == (0, 0) and again.alignments == first.alignments
    aligned.clear()
    grown = compare(videos, digests, cache=tmp_path)
    assert grown.num_new == 2 and ("a", "b") in grown.alignments and ("a", "c") in grown.alignments
    assert len(aligned) == grown.num_pairs < len(propose(videos))
    assert grown.alignments == compare(videos, digests).alignments
    # Another digest is another video; one that is gone is nowhere any more.
    changed = compare(before, {**digests, "b": "another"}, cache=tmp_path)
    assert changed.num_new == 1 and all("c" not in pair for pair in changed.alignments)


@pytest.mark.parametrize("content", [
    "", "{}", '{"version": 0}', '{"version": 1, "videos": {}, "pairs": [[1]]}', "[]",
    json.dumps({"version": 1, "videos": {}, "pairs": [["a", "b", {
        "by": {"speed": 1, "offset_ms": 0}, "view": {"mine": {}, "theirs": {}, "is_mirrored": False}, "one_ms": [],
    }]]}),
])
def test_compare__a_cache_that_cannot_be_read_is_none(
    videos: dict[str, VideoFingerprint], tmp_path: Path, content: str
) -> None:
    (tmp_path / "compared.json").write_text(content)
    some = {name: videos[name] for name in "ab"}
    found = compare(some, {"a": "1", "b": "2"}, cache=tmp_path)
    assert found.num_new == 2 and list(found.alignments) == [("a", "b")]
