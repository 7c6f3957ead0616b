from __future__ import annotations

import hashlib
from collections.abc import Sequence, Set
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.raising import raises
from vidseek_media.cutting.cut import cut_archive
from vidseek_media.errors import ConfigError
from vidseek_media.frame_store.shards import write_frames
from vidseek_media.ids import clip_id_of
from vidseek_media.settings import CutSettings, FrameSettings
from vidseek_media.sources.ingest import ingest
from vidseek_media.tables import BOTH_SIDES, CAPTIONS, FRAMES, GROUPS, PAIRS, REJECTED, VIDEOS, read_table, write_table
from vidseek_training.captioning.captions import write_captions
from vidseek_training.dataset.pairs import PairsReport, make_pairs, split_videos
from vidseek_training.dataset.training_set import read_training_set
from vidseek_training.settings import CaptionSettings, PairSettings

IDS = [f"{number:032x}" for number in range(4000)]


def write(
    folder: Path,
    rows: list[dict[str, object]],
    *,
    without_frames: Set[str] = frozenset(),
    hashes: dict[object, list[int]] | None = None,
    clip_of: dict[str, str] | None = None,
    decided: list[tuple[str, str]] | None = None,
    unspoken: Sequence[str] = (),
    frozen: Path | None = None,
    feedback: pd.DataFrame | None = None,
) -> PairsReport:
    """Pairs of captions given as {video, text, span, split, ...}; a null span is a caption of the whole video.

    `unspoken` videos have a clip with frames, and no caption of it.
    """
    captions, clips = [], {}
    for row in rows:
        span = row.get("span", (0, 1000))
        clip_id = str(clip_id_of(str(row["video"]), *span)) if span else None  # type: ignore[misc]
        captions.append({
            "video_id": row["video"], "clip_id": clip_id, "text": row["text"], "writer": "file", "cost_usd": 0.0,
            "split": row.get("split", ""), "gallery": row.get("gallery", ""), "contrast": "", "axis": "",
        })
        if clip_id and row["text"] not in without_frames:
            clips[clip_id] = row["video"]
    clips |= {str(clip_id_of(video, 0, 1000)): video for video in unspoken}
    write_table(folder / "caption" / "captions.parquet", captions, CAPTIONS)
    write_table(folder / "frames" / "frames.parquet", [
        {"clip_id": clip_id, "video_id": video, "key": "", "shard": "", "num_frames": 8, "num_repeated": 0,
         "decoder": "pyav", "quality_flags": [], "hashes": (hashes or {}).get(clip_id, (hashes or {}).get(video, [])),
         "frames_digest": digest_of(clip_id)}
        for clip_id, video in clips.items()
    ], FRAMES)
    write_table(folder / "ingest" / "videos.parquet", [
        {"video_id": video_id, "uris": [f"{video_id}.mp4"], "source_id": "", "duration_ms": 9000, "fps": 10.0, "width": 64,
         "height": 48, "codec": "h264", "title": "", "channel": "", "category": "", "published_at": "", "thumbnail": "",
         "clip_of": (clip_of or {}).get(video_id, "")}
        for video_id in sorted({*(str(row["video"]) for row in rows), *unspoken})
    ], VIDEOS)
    return make_pairs(
        folder / "ingest", folder / "caption", folder / "frames", out=folder / "pairs", memory=folder / "memory",
        decided=decided or (),
        frozen=read_training_set(frozen) if frozen else None, feedback=feedback,
        settings=PairSettings(validation_share=0.2, test_share=0.2, seed=0, near_duplicate_bits=6),
    )


def digest_of(clip_id: str) -> str:
    return hashlib.sha256(clip_id.encode()).hexdigest()[:32]


def pairs_of(folder: Path) -> pd.DataFrame:
    return read_table(folder / "pairs" / "pairs.parquet", PAIRS)


def test_make_pairs__a_video_is_on_one_side(tmp_path: Path) -> None:
    rows = [
        {"video": IDS[v], "text": f"{v} {c}", "span": (1000 * c, 1000 * c + 500)} for v in range(40) for c in range(5)
    ]
    report = write(tmp_path, rows)
    assert pairs_of(tmp_path).groupby("video_id")["split"].nunique().eq(1).all()
    assert report.num_in == report.num_out == report.num_train + report.num_validation + report.num_test == 200
    assert min(report.num_validation, report.num_test) > 0


def test_make_pairs__a_pair_names_the_frames_of_its_clip(tmp_path: Path) -> None:
    write(tmp_path, [{"video": IDS[v], "text": str(v)} for v in range(5)])
    pairs = pairs_of(tmp_path)
    assert list(pairs["frames_digest"]) == [digest_of(clip_id) for clip_id in pairs["clip_id"]]
    path = tmp_path / "frames" / "frames.parquet"
    write_table(path, read_table(path, FRAMES).drop(columns="frames_digest").assign(frames_digest=None), FRAMES)
    make_pairs(tmp_path / "ingest", tmp_path / "caption", tmp_path / "frames", out=tmp_path / "pairs",
               memory=tmp_path / "memory", settings=PairSettings(validation_share=0.2, test_share=0.2, seed=0))
    assert pairs_of(tmp_path)["frames_digest"].isna().all()  # of an earlier version


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=12, unique=True),
    st.lists(st.integers(0, 60), min_size=1, max_size=6, unique=True), st.booleans(), st.data(),
)
def test_make_pairs__videos_without_captions_of_clips_change_no_byte_of_what_training_reads(
    tmp_path_factory: pytest.TempPathFactory, with_captions: list[int], without: list[int], titled: bool, data: st.DataObject
) -> None:
    """New videos may show what others show, and may have a title for all of several clips: neither makes a pair."""
    folder = tmp_path_factory.mktemp("archive")
    shown = st.lists(st.sampled_from([0x1234567890ABCDEF, 0x1234567890ABCDEE, 0x0FEDCBA987654321]), max_size=3, unique=True)
    known: dict[object, list[int]] = {IDS[v]: data.draw(shown) for v in {*with_captions, *without}}
    rows: list[dict[str, object]] = [
        {"video": IDS[v], "text": f"{v} {c}", "span": (1000 * c, 1000 * c + 500)} for v in with_captions for c in range(2)
    ]
    write(folder, sorted(rows, key=lambda row: str(row["video"])), hashes=known)
    before = [(folder / "pairs" / name).read_bytes() for name in ("pairs.parquet", "groups.parquet")]
    new = [IDS[v] for v in without if v not in with_captions]
    titles = [{"video": v, "text": "a title", "span": None} for v in new if titled]
    write(folder, sorted([*rows, *titles], key=lambda row: str(row["video"])), hashes=known, unspoken=new)
    assert [(folder / "pairs" / name).read_bytes() for name in ("pairs.parquet", "groups.parquet")] == before


def test_make_pairs__near_duplicates_are_on_one_side(tmp_path: Path) -> None:
    """Forty videos of eight frames; each odd one shows what the even one before it shows, a few bits away."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 2**63, (20, 8), dtype=np.uint64)
    hashes: dict[object, list[int]] = {}
    for number in range(20):
        hashes[IDS[2 * number]] = [int(h) for h in frames[number]]
        hashes[IDS[2 * number + 1]] = [int(h) ^ 0b10101 << 8 for h in frames[number, :5]]
    report = write(tmp_path, [{"video": IDS[v], "text": str(v)} for v in range(40)], hashes=hashes)
    split = pairs_of(tmp_path).set_index("video_id")["split"]
    assert all(split[IDS[2 * n]] == split[IDS[2 * n + 1]] for n in range(20))
    assert set(split) == {"train", "validation", "test"}
    assert (report.num_groups, report.num_in_largest_group) == (20, 2)
    groups = read_table(tmp_path / "pairs" / "groups.parquet", GROUPS)
    assert list(groups["group"]) == [IDS[v - v % 2] for v in range(40)]


def test_make_pairs__clips_of_one_longer_video_are_on_one_side(tmp_path: Path) -> None:
    clip_of = {IDS[v]: f"video{v // 4}" for v in range(40)}
    report = write(tmp_path, [{"video": IDS[v], "text": str(v)} for v in range(40)], clip_of=clip_of)
    split = pairs_of(tmp_path).set_index("video_id")["split"]
    assert all(len({split[IDS[4 * n + i]] for i in range(4)}) == 1 for n in range(10))
    assert report.num_groups == 10


def test_make_pairs__what_people_decided_is_on_one_side(tmp_path: Path) -> None:
    """Two copies of one video without captions are on one side, and the video is in no group."""
    rows = [{"video": IDS[v], "text": str(v)} for v in range(1, 40)]
    report = write(tmp_path, rows, decided=[(IDS[1], IDS[0]), (IDS[39], IDS[0]), (IDS[2], IDS[3])])
    groups = read_table(tmp_path / "pairs" / "groups.parquet", GROUPS).set_index("video_id")["group"]
    assert groups[IDS[39]] == groups[IDS[1]] == IDS[1] and groups[IDS[3]] == IDS[2] and IDS[0] not in groups
    split = pairs_of(tmp_path).set_index("video_id")["split"]
    assert split[IDS[1]] == split[IDS[39]]
    assert (report.num_groups, report.num_in_largest_group) == (37, 2)


def test_make_pairs__of_near_duplicates_wished_on_two_sides_the_tested_one_stays(tmp_path: Path) -> None:
    hashes: dict[object, list[int]] = {IDS[v]: [2**40 + 7, 2**50 + 1] for v in range(3)}
    report = write(tmp_path, [
        {"video": IDS[0], "text": "learned", "split": "train"}, {"video": IDS[1], "text": "asked", "split": "test"},
        {"video": IDS[2], "text": "free"},
    ], hashes=hashes)
    assert dict(pairs_of(tmp_path)[["caption", "split"]].to_numpy().tolist()) == {"asked": "test", "free": "test"}
    [reason] = read_table(tmp_path / "pairs" / "rejected.parquet", REJECTED)["reason"]
    assert "stated to be in train, and shows the same as" in reason
    assert (report.num_in, report.num_out, report.num_rejected) == (3, 2, 1)


def test_make_pairs__clips_that_say_nothing_make_none(tmp_path: Path) -> None:
    rows = [{"video": IDS[v], "text": str(v)} for v in range(10)]
    write(tmp_path, rows)
    frames = read_table(tmp_path / "frames" / "frames.parquet", FRAMES)
    quality_flags = [["frozen"], ["black", "flat"], *([] for _ in range(8))]
    write_table(tmp_path / "frames" / "frames.parquet", frames.assign(quality_flags=quality_flags), FRAMES)

    def again(**changed: object) -> PairsReport:
        return make_pairs(
            tmp_path / "ingest", tmp_path / "caption", tmp_path / "frames", out=tmp_path / "pairs",
            memory=tmp_path / "memory",
        settings=PairSettings(validation_share=0.2, test_share=0.2, seed=0, **changed),  # type: ignore[arg-type]
        )

    assert again().num_out == 8
    reasons = list(read_table(tmp_path / "pairs" / "rejected.parquet", REJECTED)["reason"])
    assert any("its clip is black and flat" in reason for reason in reasons)
    assert any("its clip is frozen" in reason for reason in reasons)
    assert again(skip_quality_flags=("black",)).num_out == 9
    assert again(skip_quality_flags=()).num_out == 10
    with raises(ConfigError, code="unknown-choice", naming=("skip_quality_flags", "'dull'")):
        again(skip_quality_flags=("dull",))


def test_make_pairs__the_wish_of_the_source_holds_for_the_whole_video(tmp_path: Path) -> None:
    write(tmp_path, [
        {"video": IDS[0], "text": "wished", "span": (0, 1000), "split": "validation", "gallery": "hard"},
        {"video": IDS[0], "text": "silent", "span": (1000, 2000)},
    ])
    assert list(pairs_of(tmp_path)["split"]) == ["validation", "validation"]
    assert list(pairs_of(tmp_path)["gallery"]) == ["hard", "default"]


def test_make_pairs__a_video_wished_on_two_sides_is_rejected_whole(tmp_path: Path) -> None:
    report = write(tmp_path, [
        {"video": IDS[0], "text": "one", "span": (0, 1000), "split": "train"},
        {"video": IDS[0], "text": "two", "span": (1000, 2000), "split": "test"},
        {"video": IDS[0], "text": "three", "span": (2000, 3000)},
        {"video": IDS[1], "text": "four"},
    ])
    assert list(pairs_of(tmp_path)["caption"]) == ["four"]
    assert (report.num_in, report.num_out, report.num_rejected) == (4, 1, 3)
    reasons = read_table(tmp_path / "pairs" / "rejected.parquet", REJECTED)["reason"]
    assert all("test and train" in reason for reason in reasons)


def test_make_pairs__without_a_clip_or_its_frames_there_is_no_pair(tmp_path: Path) -> None:
    report = write(tmp_path, [
        {"video": IDS[0], "text": "good"}, {"video": IDS[1], "text": "whole", "span": None},
        {"video": IDS[2], "text": "blind"},
    ], without_frames={"blind"})
    assert list(pairs_of(tmp_path)["caption"]) == ["good"]
    table = read_table(tmp_path / "pairs" / "rejected.parquet", REJECTED)
    assert set(table["id"]) == {IDS[1], str(clip_id_of(IDS[2], 0, 1000))}
    assert report.num_in == report.num_out + report.num_rejected


def test_make_pairs__of_no_captions_is_an_empty_table(tmp_path: Path) -> None:
    assert write(tmp_path, []) == PairsReport(*[0] * 12)
    assert len(pairs_of(tmp_path)) == 0


def test_split_videos__shares_are_kept_and_a_new_video_moves_no_other() -> None:
    before = split_videos(IDS[:3000], validation_share=0.1, test_share=0.2, seed=0)
    after = split_videos(IDS, validation_share=0.1, test_share=0.2, seed=0)
    assert {video_id: after[video_id] for video_id in before} == before
    shares = pd.Series(after).value_counts(normalize=True)
    assert (shares["validation"], shares["test"]) == (pytest.approx(0.1, abs=0.02), pytest.approx(0.2, abs=0.02))


def test_split_videos__another_seed_is_another_split() -> None:
    splits = [split_videos(IDS, validation_share=0.1, test_share=0.2, seed=seed) for seed in (0, 0, 1)]
    assert splits[0] == splits[1] != splits[2]


@pytest.mark.parametrize("num_videos", [3, 4, 7])
@pytest.mark.parametrize("seed", range(20))
def test_split_videos__of_a_few_leaves_no_split_empty(num_videos: int, seed: int) -> None:
    splits = split_videos(IDS[:num_videos], validation_share=0.1, test_share=0.1, seed=seed)
    assert set(splits.values()) == {"train", "validation", "test"}


def test_split_videos__a_share_of_zero_stays_empty() -> None:
    assert set(split_videos(IDS[:50], validation_share=0.0, test_share=0.0, seed=0).values()) == {"train"}


@pytest.mark.parametrize(("validation_share", "test_share"), [(0.5, 0.5), (-0.1, 0.2)])
def test_split_videos__refuses_shares_that_leave_nothing(validation_share: float, test_share: float) -> None:
    with raises(ConfigError, code="setting-out-of-range", naming="pairs.validation_share"):
        split_videos(IDS[:9], validation_share=validation_share, test_share=test_share, seed=0)


@pytest.mark.slow
@pytest.mark.realdata
def test_make_pairs__every_captioned_file_of_a_real_archive_is_a_pair(realdata: Path, tmp_path: Path) -> None:
    source = realdata / "A_video_captioned"
    taken = ingest(source, out=tmp_path / "ingest", ledger=tmp_path / "ledger.json", timeout_seconds=60, workers=2)
    cut_archive(tmp_path / "ingest", out=tmp_path / "cut", settings=CutSettings())
    write_frames(
        source, tmp_path / "ingest", tmp_path / "cut", out=tmp_path / "frames",
        settings=FrameSettings(num_frames=2, side_px=64, quality=90, shard_mib=1, workers=2, timeout_seconds=60),
    )
    write_captions(
        tmp_path / "ingest", tmp_path / "cut", out=tmp_path / "caption",
        settings=CaptionSettings(),
    )
    report = make_pairs(
        tmp_path / "ingest", tmp_path / "caption", tmp_path / "frames", out=tmp_path / "pairs",
        memory=tmp_path / "memory",
        settings=PairSettings(validation_share=0.1, test_share=0.1, seed=0, near_duplicate_bits=None),
    )
    # The sidecar names 41 files of this folder, and 15 of a folder beside it.
    assert (taken.num_in, taken.num_out, taken.num_captions_out, taken.num_captions_rejected) == (41, 41, 41, 15)
    assert (report.num_out, report.num_rejected) == (41, 0)


def test_make_pairs__counts_captions_and_clips_that_training_has_too(tmp_path: Path) -> None:
    # Half of the test clip's hashes are a bit from training's, and one of the validation clip's four is one of them.
    hashes = [int(value) for value in np.random.default_rng(0).integers(0, 2**63, 20)]  # about 31 bits from each other
    shared, far, others = hashes[:2], hashes[2:4], {0: hashes[4:10], 1: hashes[10:16]}
    clips = {name: str(clip_id_of(IDS[name], 0, 1000)) for name in (0, 1, 2)}
    rows = [
        {"video": IDS[0], "text": "A red  square", "split": "train"},
        {"video": IDS[0], "text": "a ball", "span": (1000, 2000)},
        {"video": IDS[1], "text": "a red square", "split": "test"},
        {"video": IDS[1], "text": "a cube", "span": (1000, 2000)}, {"video": IDS[1], "text": "a blue square"},
        {"video": IDS[2], "text": "a green square", "split": "validation"},
        {"video": IDS[3], "text": "a white square", "split": "validation"},
    ]
    report = write(tmp_path, rows, hashes={
        clips[0]: shared, IDS[0]: others[0], clips[1]: [shared[0] ^ 1, shared[1] ^ 2, *far], IDS[1]: others[1],
        clips[2]: [shared[0], *hashes[16:19]],
    })
    found = read_table(tmp_path / "pairs" / "both_sides.parquet", BOTH_SIDES)
    assert report.num_groups == 4 and report.num_rejected == 0
    assert [tuple(row) for row in found.itertuples(index=False)] == [
        (clips[1], "a red square", "test", True, True), (clips[1], "a blue square", "test", False, True),
    ]
    assert (report.num_captions_on_both_sides, report.num_clips_on_both_sides) == (1, 1)
