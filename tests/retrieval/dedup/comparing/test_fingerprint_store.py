from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from tests.raising import raises
from tests.retrieval.embedding.test_embed_clips import write_shard
from tests.retrieval.pictures import picture
from vidseek_media.errors import ArtifactError
from vidseek_retrieval.dedup.comparing import fingerprint_store
from vidseek_retrieval.dedup.comparing.fingerprint_store import STEP_MS, read_fingerprints
from vidseek_retrieval.dedup.comparing.fingerprints import SIDE


def test_read__by_video_in_order_of_time_and_thinned(tmp_path: Path) -> None:
    frames = [picture(seed) for seed in range(3)]
    write_shard(tmp_path / "shards" / "a.tar", {"a" * 32: [np.stack(frames)], "b" * 32: [np.stack(frames[:2])] * 2})
    fingerprints, digests = read_fingerprints(tmp_path, ["b" * 32, "c" * 32])
    assert list(fingerprints) == list(digests) == ["b" * 32]
    # The clips begin at 0 and 1000 ms, their frames are 1 ms apart: one of each is kept.
    assert fingerprints["b" * 32].times_ms.tolist() == [0, 1000]
    assert fingerprints["b" * 32].pictures.shape == (2, SIDE, SIDE) and STEP_MS[0] > 1
    with raises(ArtifactError, code="no-shards", remedy="dvc repro frames"):
        read_fingerprints(tmp_path / "none", ["a"])


def test_read__is_kept_by_the_digest_of_the_frames(tmp_path: Path) -> None:
    video_id, cache = "a" * 32, tmp_path / "cache"

    def read(seed: int) -> tuple[np.ndarray, str]:
        write_shard(tmp_path / "shards" / "a.tar", {video_id: [np.stack([picture(seed)] * 4)]}, frame_ms=400)
        fingerprints, digests = read_fingerprints(tmp_path, [video_id], cache=cache)
        return fingerprints[video_id].pictures, digests[video_id]

    first, digest = read(1)
    kept = cache / f"{video_id}.npz"
    written = kept.read_bytes()
    again, same = read(1)
    assert (again == first).all() and kept.read_bytes() == written and same == digest
    other, changed = read(2)
    assert not np.array_equal(other, first) and changed != digest
    for content in (b"", b"PK nothing", written[: len(written) // 2]):
        kept.write_bytes(content)
        assert (read(1)[0] == first).all()


def test_read__many_new_ones_in_several_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [letter * 32 for letter in "abc"]
    write_shard(tmp_path / "shards" / "a.tar", {each: [np.stack([picture(7)] * 3)] for each in ids}, frame_ms=400)
    alone = read_fingerprints(tmp_path, ids)
    begun: list[int] = []

    def in_processes(function: Callable[..., object], given: list[object], *, chunksize: int) -> Iterable[object]:
        begun.append(len(given))
        return map(function, given)

    monkeypatch.setattr(fingerprint_store, "_MANY", 3)
    monkeypatch.setattr(fingerprint_store, "map_in_processes", in_processes)
    for _ in range(2):
        together = read_fingerprints(tmp_path, ids, cache=tmp_path / "cache")
        assert begun == [3]  # the second time all are kept
        assert together[1] == alone[1] and list(together[0]) == ids
        assert all((together[0][each].pictures == alone[0][each].pictures).all() for each in ids)
