from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.raising import raises
from tests.training.dataset.test_pairs import IDS, pairs_of, write
from vidseek_media.errors import ArtifactError, InputRejected
from vidseek_media.tables import CAPTIONS, FRAMES, GROUPS, PAIRS, REJECTED, read_table, write_table
from vidseek_training.dataset.pair_changes import TRAINED_ON, PairChanges
from vidseek_training.dataset.training_set import (
    forget_pairs,
    freeze,
    read_training_set,
    status,
    thaw,
)

Rows = list[dict[str, object]]
CAPTIONS_OF = st.dictionaries(
    st.tuples(st.integers(0, 20), st.integers(0, 2)), st.sampled_from(["a dog", "a cat", "rain"]), min_size=1, max_size=15
)


def rows_of(captions: dict[tuple[int, int], str]) -> Rows:
    return [
        {"video": IDS[video], "text": text, "span": (1000 * clip, 1000 * clip + 500)}
        for (video, clip), text in sorted(captions.items())
    ]


def tables(folder: Path) -> list[bytes]:
    """What training depends on."""
    return [(folder / "pairs" / name).read_bytes() for name in ("pairs.parquet", "groups.parquet")]


def test_freeze__captions_that_come_later_wait_and_thawed_they_are_pairs(tmp_path: Path) -> None:
    frozen = tmp_path / "decisions" / "training_set.parquet"
    rows: Rows = [{"video": IDS[v], "text": str(v)} for v in range(9)]
    write(tmp_path, rows)
    found = freeze(tmp_path / "pairs" / "pairs.parquet", frozen)
    assert found.frozen and (found.num_new, found.num_changed, found.num_gone) == (0, 0, 0)
    before = tables(tmp_path)
    new: Rows = [{"video": IDS[0], "text": "another"}, {"video": IDS[10], "text": "new"}]
    whole: Rows = [{"video": IDS[11], "text": "of a whole video", "span": None}]
    report = write(tmp_path, [*rows, *new, *whole], frozen=frozen)
    assert tables(tmp_path) == before
    assert (report.num_in, report.num_out, report.num_waiting, report.num_rejected) == (12, 9, 2, 1)
    assert set(read_table(tmp_path / "pairs" / "waiting.parquet", CAPTIONS)["text"]) == {"another", "new"}
    assert list(read_table(tmp_path / "pairs" / "rejected.parquet", REJECTED)["id"]) == [IDS[11]]
    assert status(tmp_path / "pairs" / "pairs.parquet", frozen).num_new == 2
    assert thaw(frozen) and not thaw(frozen)
    assert write(tmp_path, [*rows, *new], frozen=frozen).num_out == 11
    assert not status(tmp_path / "pairs" / "pairs.parquet", frozen).frozen


def test_freeze__a_pair_stays_where_its_caption_is_another_and_goes_with_its_frames(tmp_path: Path) -> None:
    frozen = tmp_path / "training_set.parquet"
    rows: Rows = [{"video": IDS[v], "text": str(v)} for v in range(9)]
    write(tmp_path, rows)
    freeze(tmp_path / "pairs" / "pairs.parquet", frozen)
    before = tables(tmp_path)
    write(tmp_path, [row | {"text": "by another model"} for row in rows], frozen=frozen)
    assert tables(tmp_path) == before
    report = write(tmp_path, rows[1:], frozen=frozen)  # the video is not in the archive any more
    assert (report.num_out, report.num_rejected) == (8, 1)
    assert IDS[0] not in set(pairs_of(tmp_path)["video_id"])
    assert status(tmp_path / "pairs" / "pairs.parquet", frozen).num_gone == 1


def test_freeze__other_frames_change_the_pairs(tmp_path: Path) -> None:
    frozen = tmp_path / "training_set.parquet"
    rows: Rows = [{"video": IDS[v], "text": str(v)} for v in range(5)]
    write(tmp_path, rows)
    freeze(tmp_path / "pairs" / "pairs.parquet", frozen)
    table = read_training_set(frozen)
    assert table is not None
    write_table(frozen, table.assign(frames_digest="0" * 32), PAIRS)
    write(tmp_path, rows, frozen=frozen)
    assert "0" * 32 not in set(pairs_of(tmp_path)["frames_digest"])
    assert status(tmp_path / "pairs" / "pairs.parquet", frozen).num_changed == 5


def test_freeze__videos_that_are_one_by_a_later_decision_are_on_one_side(tmp_path: Path) -> None:
    frozen = tmp_path / "training_set.parquet"
    rows: Rows = [{"video": IDS[0], "text": "a", "split": "train"}, {"video": IDS[1], "text": "b", "split": "test"}]
    write(tmp_path, rows)
    freeze(tmp_path / "pairs" / "pairs.parquet", frozen)
    write(tmp_path, rows, frozen=frozen, decided=[(IDS[0], IDS[1])])
    assert list(pairs_of(tmp_path)["split"]) == ["test"]
    assert set(read_table(tmp_path / "pairs" / "groups.parquet", GROUPS)["group"]) == {IDS[0]}


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(CAPTIONS_OF, CAPTIONS_OF)
def test_freeze__no_caption_that_comes_or_goes_changes_a_byte_of_what_training_reads(
    tmp_path_factory: pytest.TempPathFactory, before: dict[tuple[int, int], str], after: dict[tuple[int, int], str]
) -> None:
    folder = tmp_path_factory.mktemp("frozen")
    frozen = folder / "training_set.parquet"
    write(folder, rows_of(before))
    wanted = tables(folder)
    freeze(folder / "pairs" / "pairs.parquet", frozen)
    clips = {**dict.fromkeys(before, "of another model"), **after}  # every clip keeps its frames
    report = write(folder, rows_of(clips), frozen=frozen)
    assert tables(folder) == wanted
    assert report.num_in == report.num_out + report.num_rejected + report.num_waiting
    assert report.num_waiting == sum(before.get(place) != text for place, text in clips.items())


def test_freeze__refuses_what_it_cannot_mean(tmp_path: Path) -> None:
    pairs, frozen = tmp_path / "pairs" / "pairs.parquet", tmp_path / "training_set.parquet"
    with raises(ArtifactError, code="file-absent"):
        freeze(pairs, frozen)
    write_table(pairs, [], PAIRS)
    with raises(InputRejected, code="no-pairs"):
        freeze(pairs, frozen)
    assert not frozen.exists()
    write(tmp_path, [{"video": IDS[0], "text": "a"}])
    freeze(pairs, frozen)
    content = frozen.read_bytes()
    with raises(InputRejected, code="already-frozen"):
        freeze(pairs, frozen)
    assert frozen.read_bytes() == content


def test_read_training_set__a_row_that_is_no_pair_is_an_error_that_names_it(tmp_path: Path) -> None:
    frozen = tmp_path / "training_set.parquet"
    assert read_training_set(frozen) is None
    row = {"clip_id": "a", "video_id": "b", "caption": "c", "split": "train", "gallery": "default"}
    for change in ({"split": "holdout"}, {"split": None}, {"clip_id": None}, {"caption": None}):
        write_table(frozen, [row, row | change], PAIRS)
        with raises(ArtifactError, code="broken-rows", naming="row 1"):
            read_training_set(frozen)
    frozen.write_bytes(b"no table")
    with raises(ArtifactError, code="not-parquet"):
        read_training_set(frozen)


def test_forget_pairs__takes_the_captions_of_a_video_out(tmp_path: Path) -> None:
    frozen = tmp_path / "training_set.parquet"
    forget_pairs(frozen, IDS[1])
    rows: Rows = [{"video": IDS[v], "text": f"secret {v}"} for v in range(3)]
    write(tmp_path, rows)
    freeze(tmp_path / "pairs" / "pairs.parquet", frozen)
    forget_pairs(frozen, IDS[1])
    assert b"secret 1" not in frozen.read_bytes()
    for video in (IDS[0], IDS[2]):
        forget_pairs(frozen, video)
    assert write(tmp_path, rows, frozen=frozen).num_out == 0  # all of it was forgotten; it is frozen all the same


def test_status__says_what_is_new_for_each_adapter(tmp_path: Path) -> None:
    rows: Rows = [{"video": IDS[v], "text": str(v)} for v in range(4)]
    write(tmp_path, rows[:3])
    pairs, adapters = tmp_path / "pairs" / "pairs.parquet", tmp_path / "adapters"
    for name in ("lora", ".lora.123"):
        (adapters / name).mkdir(parents=True)
        (adapters / name / TRAINED_ON).write_bytes(pairs.read_bytes())
    (adapters / "old").mkdir()  # of an earlier version
    write(tmp_path, rows)
    found = status(pairs, tmp_path / "training_set.parquet", adapters)
    assert found.since_adapters.keys() == {"lora"} and found.since_adapters["lora"].num_new == 1
    assert isinstance(found.since_adapters["lora"], PairChanges)
    assert len(read_table(tmp_path / "frames" / "frames.parquet", FRAMES)) == 4
