from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from vidseek_media.tables import PAIRS, write_table
from vidseek_training.dataset.pair_changes import (
    TRAINED_ON,
    PairChanges,
    changes_since,
    compare_pairs,
    lasting_changes,
    why_trained,
)

ROWS = st.dictionaries(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["a dog", "a cat", "rain"])),
    st.tuples(st.sampled_from(["train", "test"]), st.sampled_from(["0" * 32, "1" * 32, None])), max_size=9,
)
Rows = dict[tuple[str, str], tuple[str, str | None]]


def table_of(rows: Rows) -> pd.DataFrame:
    return pd.DataFrame([
        {"clip_id": clip, "video_id": clip, "caption": caption, "split": split, "gallery": "default", "contrast": None,
         "axis": "", "frames_digest": digest}
        for (clip, caption), (split, digest) in rows.items()
    ], columns=PAIRS.names)


@given(ROWS, ROWS)
def test_compare_pairs__counts_by_clip_and_caption(before: Rows, after: Rows) -> None:
    shared = before.keys() & after.keys()
    assert compare_pairs(table_of(before), table_of(after)) == PairChanges(
        num_pairs=len(after), num_new=len(after) - len(shared), num_gone=len(before) - len(shared),
        num_changed=sum(before[key] != after[key] for key in shared),
    )


@given(ROWS)
def test_compare_pairs__order_does_not_count_nor_does_null_differ_from_empty(rows: Rows) -> None:
    table = table_of(rows)
    again = table[::-1].assign(contrast="", axis=None)
    assert compare_pairs(table, again).num_all == 0


def test_compare_pairs__says_what_people_added() -> None:
    rows: Rows = {(clip, "rain"): ("train", None) for clip in "abcd"}
    earlier, later = table_of({("a", "rain"): ("train", None)}), table_of(rows)
    later["writer"] = ["file", "person", "judged", "file"]
    later.loc[3, ["contrast", "axis"]] = ["a dog", "judged"]
    found = compare_pairs(earlier, later)
    assert (found.num_new, found.num_changed) == (3, 0)  # who wrote a pair is no change of it
    assert (found.num_new_by_people, found.num_new_judged, found.num_new_refused) == (1, 1, 1)
    assert str(found).endswith("(of people: 1 captions written here, 1 confirmed hits, 1 refused hits as contrasts)")


def test_changes_since__is_none_where_the_adapter_tells_nothing(tmp_path: Path) -> None:
    write_table(tmp_path / "pairs.parquet", table_of({("a", "rain"): ("train", None)}), PAIRS)
    assert changes_since(tmp_path / "lora", tmp_path / "pairs.parquet") is None
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / TRAINED_ON).write_bytes(b"no table")
    assert changes_since(tmp_path / "lora", tmp_path / "pairs.parquet") is None
    write_table(tmp_path / "lora" / TRAINED_ON, [], PAIRS)
    assert changes_since(tmp_path / "lora", tmp_path / "pairs.parquet") == PairChanges(1, 1, 0, 0)


def test_lasting_changes__stay_where_a_training_is_run_again_on_its_pairs(tmp_path: Path) -> None:
    assert lasting_changes(tmp_path, None) == lasting_changes(tmp_path, PairChanges(9, 0, 0, 0)) == {}
    first = lasting_changes(tmp_path, PairChanges(9, 2, 1, 3, num_new_judged=2))
    assert (first["num_new"], first["num_new_judged"]) == (2, 2)
    (tmp_path / "outcome.json").write_text(json.dumps({"trained": True, "changes": first}))
    assert lasting_changes(tmp_path, PairChanges(9, 0, 0, 0)) == first
    for broken in ("[]", "{}", '{"changes": 3}', '{"changes": {"a": "b"}}', "{"):
        (tmp_path / "outcome.json").write_text(broken)
        assert lasting_changes(tmp_path, PairChanges(9, 0, 0, 0)) == {}


def test_why_trained__names_what_changed() -> None:
    assert why_trained(PairChanges(9, 2, 1, 3)).endswith("2 new, 1 changed, 3 gone of 9 pairs")
    assert "9 pairs are those of the adapter" in why_trained(PairChanges(9, 0, 0, 0))
    assert why_trained(None).startswith("no adapter")
