from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.dataset.test_pairs import IDS, pairs_of, write
from vidseek_media.ids import clip_id_of
from vidseek_media.tables import FEEDBACK
from vidseek_training.dataset.judgements import JUDGED, Judgements, Side, sides_of
from vidseek_training.dataset.training_set import freeze

Said = tuple[int, str, bool]
"""Number of a video (its clip from 0 to 1 s), query, whether it is right."""
HASHES = [0x1234567890ABCDEF, 0x0FEDCBA987654321]


def feedback(said: Sequence[Said]) -> pd.DataFrame:
    return pd.DataFrame([
        {"query": query, "clip_id": str(clip_id_of(IDS[video], 0, 1000)), "relevant": relevant, "encoder_version": "",
         "said_at": "2026-11-28T10:00:00+00:00"} for video, query, relevant in said
    ], columns=FEEDBACK.names)


def rows(*videos: int, **wishes: str) -> list[dict[str, object]]:
    return [{"video": IDS[video], "text": f"caption {video}", **wishes} for video in videos]


def test_confirmed__of_a_training_video_is_a_pair_and_refused_is_a_contrast(tmp_path: Path) -> None:
    report = write(
        tmp_path, [*rows(1, split="train"), *rows(2, split="test")], unspoken=[],
        feedback=feedback([(1, "a red van", True), (1, "a crane", False), (1, "a bus", False), (1, "a ship", False)]),
    )
    pairs = pairs_of(tmp_path)
    [judged] = pairs[pairs["writer"] == JUDGED].to_dict("records")
    assert (judged["caption"], judged["video_id"], judged["split"], judged["gallery"]) == (
        "a red van", IDS[1], "train", "default")
    assert judged["frames_digest"] == pairs.set_index("caption")["frames_digest"]["caption 1"]
    taught = pairs[pairs["split"] == "train"].set_index("caption")
    assert dict(taught["contrast"]) == {"caption 1": "a crane", "a red van": "a bus"}
    assert set(taught["axis"]) == {JUDGED}
    assert report.judgements == Judgements(1, 2, 0, 1)
    assert report.num_out == 3


@pytest.mark.slow
@pytest.mark.parametrize(("said", "expected"), [
    ((2, "a red van", True), Judgements(num_held_out=1)),  # a video of the test
    ((1, "Caption  2", True), Judgements(num_held_out=1)),  # the words of a caption of the test
    ((1, "caption 2", False), Judgements(num_held_out=1)),
    ((1, "CAPTION 1", True), Judgements(num_unused=1)),  # its own caption
    ((1, "caption 1", False), Judgements(num_unused=1)),  # somebody refuses what somebody wrote: neither teaches
    ((9, "a red van", True), Judgements(num_unused=1)),  # no such clip
    ((1, "\0 ", True), Judgements(num_unused=1)),
])
def test_judgement__that_must_not_teach_changes_no_pair(tmp_path: Path, said: Said, expected: Judgements) -> None:
    captions = [*rows(1, split="train"), *rows(2, split="test")]
    write(tmp_path, captions)
    before = (tmp_path / "pairs" / "pairs.parquet").read_bytes()
    assert write(tmp_path, captions, feedback=feedback([said])).judgements == expected
    assert (tmp_path / "pairs" / "pairs.parquet").read_bytes() == before


def test_confirmed__of_a_video_that_is_stated_to_be_held_out_teaches_nothing(tmp_path: Path) -> None:
    """Its caption is of the whole video, so it makes no pair and is in no group; what the source states of it counts."""
    whole = {"video": IDS[3], "text": "all of it", "span": None, "split": "test"}
    for split, expected in (("test", Judgements(num_held_out=1)), ("train", Judgements(num_confirmed=1))):
        report = write(
            tmp_path, [*rows(1, split="train"), whole | {"split": split}], unspoken=[IDS[3]],
            feedback=feedback([(3, "a red van", True)]),
        )
        assert report.judgements == expected


def test_confirmed__that_shows_what_a_held_out_video_shows_is_held_out(tmp_path: Path) -> None:
    """Video 3 has no caption; it shows what the test shows, and what the training shows: it joins neither with the other."""
    for near, expected in (((1,), Judgements(num_confirmed=1)), ((2,), Judgements(num_held_out=1)),
                           ((1, 2), Judgements(num_held_out=1))):
        hashes: dict[object, list[int]] = {IDS[1]: HASHES[:1], IDS[2]: HASHES[1:]}
        hashes[IDS[3]] = [each for video in near for each in hashes[IDS[video]]]
        report = write(
            tmp_path, [*rows(1, split="train"), *rows(2, split="test")], unspoken=[IDS[3]], hashes=hashes,
            feedback=feedback([(3, "a red van", True)]),
        )
        assert report.judgements == expected, near
        assert report.num_groups == 2


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(
    st.sets(st.integers(0, 9), min_size=1, max_size=8), st.data(),
    st.lists(st.tuples(st.integers(0, 14), st.sampled_from(["van", "caption 1", "caption 4", "crane"]), st.booleans()),
             max_size=8, unique_by=lambda each: each[:2]),
)
def test_judgements__never_move_a_caption_and_never_measure(
    tmp_path_factory: pytest.TempPathFactory, captioned: set[int], data: st.DataObject, said: list[Said]
) -> None:
    folder = tmp_path_factory.mktemp("archive")
    shown = st.lists(st.sampled_from(HASHES), max_size=2, unique=True)
    hashes: dict[object, list[int]] = {IDS[v]: data.draw(shown) for v in range(15)}
    unspoken = [IDS[v] for v in range(15) if v not in captioned]
    write(folder, rows(*sorted(captioned)), hashes=hashes, unspoken=unspoken)
    before = pairs_of(folder)
    report = write(folder, rows(*sorted(captioned)), hashes=hashes, unspoken=unspoken, feedback=feedback(said))
    after = pairs_of(folder)
    kept = ["clip_id", "caption", "split", "gallery"]
    assert after[after["writer"] != JUDGED][kept].to_numpy().tolist() == before[kept].to_numpy().tolist()
    by_people = after[(after["writer"] == JUDGED) | (after["axis"] == JUDGED)]
    assert set(by_people["split"]) <= {"train"}
    held = set(after.loc[after["split"] != "train", "caption"])
    assert held.isdisjoint(by_people["contrast"]) and held.isdisjoint(after.loc[after["writer"] == JUDGED, "caption"])
    counts = report.judgements
    assert counts.num_confirmed + counts.num_refused + counts.num_held_out + counts.num_unused == len(said)


def test_judgements__wait_where_the_training_set_is_frozen(tmp_path: Path) -> None:
    captions = [*rows(1, split="train"), *rows(2, split="test")]
    write(tmp_path, captions, feedback=feedback([(1, "a red van", True)]))
    freeze(tmp_path / "pairs" / "pairs.parquet", tmp_path / "frozen.parquet")
    before = (tmp_path / "pairs" / "pairs.parquet").read_bytes()
    report = write(
        tmp_path, captions, frozen=tmp_path / "frozen.parquet",
        feedback=feedback([(1, "a red van", True), (1, "a bus", True)]),
    )
    assert report.judgements == Judgements(num_waiting=2)
    assert (tmp_path / "pairs" / "pairs.parquet").read_bytes() == before


def test_sides_of__a_new_video_takes_the_side_of_what_it_is_near_to() -> None:
    known = {"a": Side("train", "a"), "b": Side("test", "b")}
    found = sides_of(["c", "d", "e"], known, [("c", "a"), ("d", "x"), ("x", "b")], lambda group: f"of {group}")
    assert found == {**known, "c": known["a"], "d": known["b"], "x": known["b"], "e": Side("of e", "e")}
