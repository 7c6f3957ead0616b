"""A stand-in of MSR-VTT and of MSVD in their own layout, end to end: from video files to the figures beside papers'."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import vidseek.cli
from tests.media.conftest import write_video
from tests.raising import raises
from vidseek_encoder.preprocess import resize_frames
from vidseek_encoder.tokenize import Tokenizer
from vidseek_media.decoding.frames import decode_uniform
from vidseek_media.errors import ArtifactError, ConfigError, InputRejected
from vidseek_training import backbones
from vidseek_training.benchmarks import run as benchmark_run
from vidseek_training.benchmarks.published_figures import PUBLISHED
from vidseek_training.benchmarks.run import BackboneEmbedder, BundleEmbedder, run_benchmark
from vidseek_training.dataset.pair_set import to_pixels
from vidseek_training.evaluation.champion import adapter_of
from vidseek_training.fitting import lora

CAPTIONS = {
    "video9770": "a bright red video",
    "video9771": "a dark blue video",
    "video9772": "a white video",
    "video9773": "a video",
    "video9774": "a dark red video",
    "video9775": "a bright yellow video",
}
MISSING, BROKEN = "video9774", "video9773"
THERE = [video for video in CAPTIONS if video not in (MISSING, BROKEN)]


@pytest.fixture(scope="module")
def msrvtt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six videos by the list, of which one is gone and one cannot be decoded; and one that is of another part."""
    root = tmp_path_factory.mktemp("msrvtt")
    for number, video in enumerate(THERE):
        write_video(root / "videos" / "all" / f"{video}.mp4", num_frames=6 + 7 * number, height=48 + 4 * number)
    write_video(root / "videos" / "all" / "video1.mp4", num_frames=4)
    (root / "videos" / "all" / f"{BROKEN}.mp4").write_bytes(b"no video at all" * 50)
    (root / "videos" / "all" / f"{MISSING}.txt").write_text("a file of its name is no video")
    rows = "".join(f"ret{n};msr{n};{video};{text}\n" for n, (video, text) in enumerate(CAPTIONS.items()))
    (root / "MSRVTT_JSFUSION_test.csv").write_text("key;vid_key;video_id;sentence\n" + rows)
    return root


def by_hand(model: backbones.Backbone, paths: Sequence[Path], texts: Sequence[str]) -> NDArray[np.float32]:
    """Scores of texts (rows) with videos, one at a time."""
    spec = model.spec
    tokenizer = Tokenizer.load(spec.tokenizer, context=spec.context_length, pad_id=spec.pad_id)
    with torch.no_grad():
        videos = torch.cat([model.embed_videos(to_pixels(resize_frames(
            decode_uniform(path, spec.num_frames)[None], spec.resizing), spec)) for path in paths])
        rows = torch.cat([model.embed_texts(torch.from_numpy(tokenizer.encode([text]))) for text in texts])
    scores: NDArray[np.float32] = (rows @ videos.T).numpy()
    return scores


def percent(ranks: NDArray[np.int64], k: int) -> float:
    return round(100 * float((ranks <= k).mean()), 1)


def test_run_benchmark__figures_are_those_of_the_videos_that_are_there(msrvtt: Path, backbone: Path, tmp_path: Path) -> None:
    result = run_benchmark("msrvtt-1ka", msrvtt / "videos", BackboneEmbedder(str(backbone)), work=tmp_path)
    assert (result.num_videos, result.num_videos_published) == (4, 6) and not result.is_whole
    assert (result.num_queries, result.num_queries_published) == (4, 6)
    assert result.missing == (MISSING,) and list(result.rejected) == [BROKEN]
    scores = by_hand(
        backbones.load(backbone).eval(), [msrvtt / "videos" / "all" / f"{video}.mp4" for video in THERE],
        [CAPTIONS[video] for video in THERE],
    )
    for found, table in ((result.text_to_video, scores), (result.video_to_text, scores.T)):
        ranks = (table >= table.diagonal()[:, None]).sum(1)
        assert [found[f"r{k}"] for k in (1, 5, 10)] == [percent(ranks, k) for k in (1, 5, 10)]
        assert (found["mdr"], found["mnr"]) == (np.median(ranks), pytest.approx(ranks.mean(), abs=0.05))
    assert [each["source"] for each in result.published] == [each.source for each in PUBLISHED["msrvtt-1ka"]]


class Counting(BackboneEmbedder):
    """Counts what it embeds, and stops before a batch of `stop`."""

    stop = -1

    def videos(self, clips: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        self.embedded = getattr(self, "embedded", 0) + len(clips)
        if self.embedded == self.stop:
            raise KeyboardInterrupt
        return super().videos(clips)

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.read = getattr(self, "read", 0) + len(texts)
        return super().texts(texts)


def test_run_benchmark__goes_on_where_it_was_stopped_and_sees_what_changed(
    msrvtt: Path, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark_run, "_BATCH", 2)
    stopped, again, third = (Counting(str(backbone)) for _ in range(3))
    stopped.stop = 4
    with pytest.raises(KeyboardInterrupt):
        run_benchmark("msrvtt-1ka", msrvtt / "videos", stopped, work=tmp_path)
    whole = run_benchmark("msrvtt-1ka", msrvtt / "videos", again, work=tmp_path)
    assert (again.embedded, again.read) == (2, 4)
    other = run_benchmark("msrvtt-1ka", msrvtt / "videos", BackboneEmbedder(str(backbone)), work=tmp_path / "other")
    assert whole == other
    changed = msrvtt / "videos" / "all" / f"{THERE[0]}.mp4"
    os.utime(changed, (1, 1))
    (tmp_path / "msrvtt-1ka" / third.key / "texts.npz").write_bytes(b"broken")
    assert run_benchmark("msrvtt-1ka", msrvtt / "videos", third, work=tmp_path) == whole
    assert (third.embedded, third.read) == (1, 4)


def test_run_benchmark__of_a_bundle_says_what_its_model_says(
    msrvtt: Path, backbone: Path, exported: Path, tmp_path: Path
) -> None:
    found = run_benchmark("msrvtt-1ka", msrvtt / "videos", BundleEmbedder(exported / "encoder"), work=tmp_path)
    model = lora.merged(backbones.load(backbone), adapter_of(exported / "champion"))
    scores = by_hand(
        model, [msrvtt / "videos" / "all" / f"{video}.mp4" for video in THERE], [CAPTIONS[video] for video in THERE]
    )
    ranks = (scores >= scores.diagonal()[:, None]).sum(1)
    assert found.text_to_video["mnr"] == pytest.approx(ranks.mean(), abs=0.05)
    assert found.model == f"{exported / 'encoder'} (fp32)"


def test_benchmark__of_msvd_counts_several_captions_and_prints_ours_beside_papers(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        write_video(tmp_path / "YouTubeClips" / f"v{number}_1_9.avi", num_frames=5 + 9 * number, codec="mpeg4", b_frames=0)
    content = [{"video": f"v{number}_1_9.avi", "caption": ["a red video", f"a {colour} video"]}
               for number, colour in enumerate(("dark", "bright", "blue"))]
    (tmp_path / "YouTubeClips" / "msvd_caption_test.json").write_text(json.dumps(content))
    told = ["vidseek", "benchmark", "msvd", str(tmp_path / "YouTubeClips"), "--backbone", str(backbone), "--work",
            str(tmp_path / "work"), "--workers", "1"]
    monkeypatch.setattr("sys.argv", [*told, "--json"])
    with pytest.raises(SystemExit, match="0"):
        vidseek.cli.main()
    found = json.loads(capsys.readouterr().out)
    assert (found["num_videos"], found["num_queries"], found["is_whole"], found["missing"]) == (3, 6, True, [])
    # "a red video" is each video's: it finds its own no better than by chance, and the two others are as near.
    assert found["text_to_video"]["mnr"] >= 1.5 and found["published"][0]["model"] == "InternVideo"
    monkeypatch.setattr("sys.argv", told)
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit, match="0"):
        vidseek.cli.main()
    text = capsys.readouterr().out
    assert "Over 3 of 3 videos, 6 of 6 captions." in text and "not in the folder" not in text
    assert "67.6" in text and "arXiv 2212.03191" in text and f"{found['text_to_video']['r1']:.1f}" in text


def test_run_benchmark__says_what_is_missing(msrvtt: Path, backbone: Path, tmp_path: Path) -> None:
    embedder = BackboneEmbedder(str(backbone))
    with raises(ConfigError, code="unknown-choice", naming="'msrvtt'"):
        run_benchmark("msrvtt", msrvtt, embedder, work=tmp_path)
    with raises(ConfigError, code="folder-missing"):
        run_benchmark("msvd", msrvtt / "nothing", embedder, work=tmp_path)
    with raises(ConfigError, code="annotations-missing"):
        run_benchmark("msvd", msrvtt / "videos", embedder, work=tmp_path)
    (tmp_path / "empty").mkdir()
    listed = msrvtt / "MSRVTT_JSFUSION_test.csv"
    with raises(InputRejected, code="benchmark-videos-missing", naming="6 videos"):
        run_benchmark("msrvtt-1ka", tmp_path / "empty", embedder, work=tmp_path, annotations=listed)
    with raises(ArtifactError, code="benchmark-unreadable"):
        run_benchmark("msrvtt-1ka", msrvtt, embedder, work=tmp_path, annotations=tmp_path / "none.csv")


@pytest.mark.parametrize("name", PUBLISHED)
def test_published__are_percent_and_ranks_in_order_with_a_source(name: str) -> None:
    for row in PUBLISHED[name]:
        assert "arXiv" in row.source
        for r1, r5, r10, median, mean in (row.text_to_video, row.video_to_text):
            known = [value for value in (r1, r5, r10) if value is not None]
            assert known == sorted(known) and all(1 < value < 100 for value in known)
            assert median is None or (median >= 1 and (mean is None or mean >= median))
            assert r1 is None or median is None or (median == 1) == (r1 >= 50)
