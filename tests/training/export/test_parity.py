from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from vidseek_training.export import parity
from vidseek_training.export.parity import Parity, ParityLimits, Reference, failures, measure, overlap

LIMITS = ParityLimits(min_cosine=-1, min_overlap=0, min_r1_difference=-0.02)


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def reference(num_clips: int, *, captions: int, per_video: int = 1) -> Reference:
    draws = np.random.default_rng(0)
    owner = np.repeat(np.arange(num_clips), captions)
    videos = unit(draws.normal(size=(num_clips, 64)))
    texts = unit(videos[owner] + 0.05 * draws.normal(size=(len(owner), 64)))
    table = pd.DataFrame({"clip_id": owner.astype(str), "gallery": "default", "contrast": ""})
    return Reference(
        "test", np.arange(num_clips), [str(row) for row in range(len(owner))], videos, texts, owner, table,
        (owner // per_video).astype(object),
    )


def measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, known: Reference, videos: np.ndarray, limits: ParityLimits = LIMITS
) -> Parity:
    """The gate's report of an encoder that gives these vectors of the clips, and torch's of the texts."""
    encoder = SimpleNamespace(
        embed_frames=lambda clips: videos[clips], embed_texts=lambda texts: known.texts[[int(text) for text in texts]]
    )
    monkeypatch.setattr(parity.Encoder, "load", lambda *_, **__: encoder)
    (tmp_path / "int8").mkdir(exist_ok=True)
    return measure(tmp_path, "int8", known, limits)


def broken(videos: np.ndarray, num: int) -> np.ndarray:
    """The same, with the vectors of `num` clips drawn anew."""
    return np.concatenate([unit(np.random.default_rng(1).normal(size=(num, 64))), videos[num:]])


@pytest.mark.parametrize("captions", [1, 3])
def test_measure__several_captions_of_a_clip_are_each_judged_among_the_clips(
    captions: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = reference(200, captions=captions)
    whole = measured(monkeypatch, tmp_path, known, known.videos)
    assert (whole.r1_torch, whole.r1, whole.num_texts, whole.num_clips) == (1.0, 1.0, 200 * captions, 200)
    assert whole.failed == () and whole.not_judged == ()  # 200 clips of 200 videos
    assert whole.r1_difference_low == pytest.approx(-0.0183, abs=1e-4)
    half = measured(monkeypatch, tmp_path, known, broken(known.videos, 60))
    assert half.r1 == pytest.approx(0.7, abs=0.01) and half.num_lost == pytest.approx(60 * captions, abs=2)
    assert any("r1_difference_low" in reason for reason in half.failed)


def test_measure__few_losses_fail_by_the_exact_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = reference(400, captions=1)
    for num, passes in ((0, True), (1, True), (2, True), (3, False), (6, False)):  # Clopper and Pearson: 0.0181, 0.0218
        found = measured(monkeypatch, tmp_path, known, broken(known.videos, num))
        assert found.num_lost == num and (found.failed == ()) is passes


def test_measure__too_few_clips_say_how_many_are_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = reference(60, captions=3)
    found = measured(monkeypatch, tmp_path, known, known.videos)
    assert found.failed == () and "R@1: not enough test clips to judge: 60, wanted 183" in found.not_judged
    # What is seen to be lost is lost, however few there are.
    assert "R@1" in measured(monkeypatch, tmp_path, known, broken(known.videos, 3)).failed[0]
    open_end = ParityLimits(min_cosine=-1, min_overlap=0, min_r1_difference=0.0)
    assert "no number proves" in measured(monkeypatch, tmp_path, known, known.videos, open_end).not_judged[0]


def test_measure__clips_of_few_videos_do_not_speak_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = reference(400, captions=1, per_video=40)
    found = measured(monkeypatch, tmp_path, known, known.videos)
    assert found.failed == () and found.num_groups == 10
    assert found.not_judged == ("R@1 on other videos: not enough test videos to judge: 10, wanted 183",)
    assert found.r1_difference_low_by_video == pytest.approx(-(1 - 0.025 ** 0.1), abs=1e-4)
    # Enough videos: one that loses all of its clips is a loss among videos, though few clips are lost.
    known = reference(800, captions=1, per_video=4)
    assert measured(monkeypatch, tmp_path, known, known.videos).not_judged == ()
    found = measured(monkeypatch, tmp_path, known, broken(known.videos, 4))
    assert found.r1_difference_low is not None and found.r1_difference_low > -0.02
    assert "by_video" in found.failed[0]


def test_parity__of_an_earlier_version_is_told_apart() -> None:
    older = {"num_clips": 4, "num_texts": 4, "min_cosine_video": 1.0, "failed": [], "tried": []}
    with pytest.raises(KeyError):
        Parity.from_json(older)


def test_overlap__counts_the_shared_best_and_lets_near_ties_pass() -> None:
    wanted = np.array([[0.9, 0.8, 0.7, 0.1]], np.float32)
    assert overlap(wanted, wanted, top=2) == 1.0
    assert overlap(np.array([[0.9, 0.1, 0.7, 0.8]], np.float32), wanted, top=2) == 0.5
    tied = np.array([[0.9, 0.8, 0.8 - 5e-7, 0.1]], np.float32)
    assert overlap(np.array([[0.9, 0.1, 0.8, 0.2]], np.float32), tied, top=2) == 1.0
    assert overlap(wanted, wanted, top=10) == 1.0


def test_failures__are_read_off_the_report() -> None:
    report = Parity("test", 200, 200, 200, 0.99, 0.98, 0.97, 0.9, 0.9, 0, 0, -0.0183, -0.0183, 1.0, ())
    assert failures(report, ParityLimits(min_cosine=0.98, min_overlap=0.97, min_r1_difference=-0.02)) == ()
    assert len(failures(report, ParityLimits(min_cosine=0.995, min_overlap=0.98, min_r1_difference=-0.01))) == 3
