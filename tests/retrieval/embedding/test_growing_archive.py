"""An archive that grows, from video files to vectors: what each change decodes and embeds, and that nothing else changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.media.conftest import write_video
from tests.media.frame_store.test_growth import FEW_BYTES, Archive
from tests.retrieval.embedding.test_embed_clips import vectors_of
from tests.tiny_bundle import write_tiny_bundle
from vidseek_encoder.encoder import Encoder
from vidseek_media.frame_store import compaction
from vidseek_retrieval.embedding.embed_clips import embed_archive


class Grown(Archive):
    """The stages up to `embed`, with what each run decoded and embedded."""

    def __init__(self, folder: Path, num_videos: int) -> None:
        super().__init__(folder, num_videos)
        write_tiny_bundle(folder / "bundle")
        self.encoder = Encoder.load(folder / "bundle", threads=1, towers=["video"])
        self.num_embedded = 0

    def add(self, number: int) -> Path:
        """Write a video whose frames are those of no other: they differ in width."""
        return write_video(self.source / f"{number}.mp4", num_frames=10 + number, width=64 + 8 * number, gop=7)

    def run(
        self, monkeypatch: pytest.MonkeyPatch, out: str = "embed", *, shard_mib: float = FEW_BYTES
    ) -> tuple[list[str], int, int]:
        """Names of the files that were decoded, clips that were embedded, and clips in all."""
        self.write(monkeypatch, shard_mib=shard_mib)
        self.num_embedded = 0
        embed_frames = Encoder.embed_frames

        def counting(encoder: Encoder, clips: list[np.ndarray], **options: bool) -> np.ndarray:
            self.num_embedded += len(clips)
            return embed_frames(encoder, clips, **options)

        with monkeypatch.context() as patch:
            patch.setattr(Encoder, "embed_frames", counting)
            report = embed_archive(self.out, self.encoder, out=self.folder / out)
        return self.decoded, self.num_embedded, report.num_clips

    def vectors(self, out: str = "embed") -> dict[str, bytes]:
        return vectors_of(self.folder / out)


def test_growth__each_change_costs_itself_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = Grown(tmp_path, 3)
    decoded, num_embedded, num_clips = archive.run(monkeypatch)
    first = archive.vectors()
    assert sorted(decoded) == ["0.mp4", "1.mp4", "2.mp4"] and num_embedded == num_clips == len(first)
    assert archive.run(monkeypatch) == ([], 0, num_clips) and archive.vectors() == first
    archive.add(3)
    decoded, num_embedded, num = archive.run(monkeypatch)
    assert (decoded, num_embedded) == (["3.mp4"], num - num_clips) and num > num_clips
    assert first.items() < archive.vectors().items()
    write_video(archive.source / "3.mp4", num_frames=20, width=120)
    decoded, num_embedded, num = archive.run(monkeypatch)
    assert (decoded, num_embedded) == (["3.mp4"], num - num_clips) and num > num_clips
    assert first.items() < archive.vectors().items()
    (archive.source / "3.mp4").unlink()
    assert archive.run(monkeypatch) == ([], 0, num_clips) and archive.vectors() == first


def test_growth__compaction_embeds_nothing_and_the_vectors_are_those_of_one_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = Grown(tmp_path, 0)
    monkeypatch.setattr(compaction, "MOST_SMALL", 2)
    for number, num_shards in enumerate((1, 2, 1)):  # the third is laid together with the others, as its part is
        archive.add(number)
        decoded, num_embedded, _ = archive.run(monkeypatch, shard_mib=1)
        assert (decoded, num_embedded > 0, len(archive.shards())) == ([f"{number}.mp4"], True, num_shards)
    grown = archive.vectors()
    archive.out = tmp_path / "at once"
    decoded, num_embedded, num_clips = archive.run(monkeypatch, "embedded at once")
    assert (len(decoded), num_clips) == (3, len(grown))
    assert archive.vectors("embedded at once") == grown
