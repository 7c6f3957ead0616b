from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidseek_retrieval.index.bm25 import WordEncoder
from vidseek_retrieval.lexical.mixture import by_words, mix, overtaking_weight
from vidseek_retrieval.lexical.table_words import TableWords
from vidseek_retrieval.lexical.word_odds import MIN_ODDS, odds_of
from vidseek_retrieval.search.moments import RankedClip, rank_order

TEXTS = [
    "a golden retriever wears a red bandana in a kitchen", "two butterflies on a red flower", "a man walks a dog in snow",
    "a woman kneads dough in a kitchen", "a train passes a red station", "a boat on a river", "", "",
]
CLIPS = [RankedClip(f"c{number}", f"v{number}", 0, 3000, 0.0) for number in range(len(TEXTS))]
TABLE = TableWords.of(CLIPS, {f"c{number}": text for number, text in enumerate(TEXTS)}, WordEncoder())


def test_odds__a_text_word_for_word_is_meant() -> None:
    for number, text in enumerate(TEXTS[:6]):
        odds = TABLE.odds(text)
        assert max(odds, key=odds.__getitem__) == f"c{number}" and odds[f"c{number}"] > 10


def test_odds__shared_everyday_words_are_no_evidence() -> None:
    assert TABLE.odds("an airplane lands on a field in the evening") == {}
    assert TABLE.odds("") == TABLE.odds("zebra giraffe") == {}


def test_odds__words_that_many_texts_share_say_less_than_one_of_its_own() -> None:
    rare, common = TABLE.odds("bandana")["c0"], TABLE.odds("red")["c0"]
    assert rare > common


def test_odds__left_out_texts_are_not_there() -> None:
    visible = np.array([number != 0 for number in range(len(CLIPS))])
    table = replace(TABLE, visible=visible)
    assert "c0" not in table.odds(TEXTS[0]) and table.odds("bandana") == {}


def test_odds__a_duplicate_takes_nothing_from_its_original() -> None:
    copies = [CLIPS[0]._replace(clip_id=f"copy{number}", video_id=f"copy{number}", duplicate_of="v0") for number in range(2)]
    texts = {f"c{number}": text for number, text in enumerate(TEXTS)} | {each.clip_id: TEXTS[0] for each in copies}
    table = TableWords.of([*CLIPS, *copies], texts, WordEncoder())
    undecided = TableWords.of([*CLIPS, *(each._replace(duplicate_of="") for each in copies)], texts, WordEncoder())
    beside, unknown = (each.odds("retriever bandana")["c0"] for each in (table, undecided))
    assert beside == table.odds("retriever bandana")["copy0"] > 10 > 1 > unknown


def test_odds__another_moment_of_the_original_is_another_text() -> None:
    later = CLIPS[0]._replace(clip_id="later", start_ms=60_000, end_ms=63_000)
    texts = {f"c{number}": text for number, text in enumerate(TEXTS)} | {"later": "a bandana lies in the grass"}
    odds = TableWords.of([*CLIPS, later], texts, WordEncoder()).odds("bandana")
    assert odds["c0"] < TABLE.odds("bandana")["c0"]


def test_odds_of__grows_with_lead_and_coverage() -> None:
    assert odds_of(0.5, 0.5, 0.5) > odds_of(0.1, 0.5, 0.5) > odds_of(-0.5, 0.5, 0.5)
    assert odds_of(0.3, 1.0, 1.0) > odds_of(0.3, 0.8, 0.8) > odds_of(0.3, 0.2, 0.8)


scores = st.lists(st.floats(-1, 1).map(lambda value: round(value, 3)), min_size=1, max_size=12)


def ranking(values: list[float]) -> list[RankedClip]:
    return [RankedClip(f"c{number:02d}", f"v{number}", 0, 3000, value) for number, value in enumerate(values)]


@given(scores, st.floats(1, 60))
def test_mix__without_odds_nothing_changes(values: list[float], slope: float) -> None:
    assert mix(ranking(values), {}, slope=slope) == sorted(ranking(values), key=rank_order)


@given(scores, st.floats(1, 60), st.data())
@settings(max_examples=50)
def test_mix__odds_of_one_are_as_good_as_all_pictures_and_the_others_keep_their_order(
    values: list[float], slope: float, data: st.DataObject
) -> None:
    clips = ranking(values)
    meant = data.draw(st.sampled_from(clips))
    mixed = mix(clips, {meant.clip_id: 1.0}, slope=slope)
    assert mixed[0].score == pytest.approx(next(clip.score for clip in mixed if clip.clip_id == meant.clip_id), abs=1e-5)
    others = [clip for clip in mixed if clip.clip_id != meant.clip_id]
    assert others == sorted((clip for clip in clips if clip.clip_id != meant.clip_id), key=rank_order)


def test_mix__a_sure_picture_yields_to_sure_words_alone() -> None:
    clips = ranking([0.9, 0.3, 0.2])
    assert mix(clips, {"c02": 0.1}, slope=30.0)[0].clip_id == "c00"
    assert mix(clips, {"c02": 20.0}, slope=30.0)[0].clip_id == "c02"
    weak = ranking([0.31, 0.3, 0.2, 0.29])  # a ranking that is not sure of its first clip
    assert mix(weak, {"c02": 0.4}, slope=3.0)[0].clip_id == "c02"


@given(st.floats(0.05, 20), st.floats(5, 60))
def test_overtaking_weight__is_where_another_comes_first(value: float, slope: float) -> None:
    clips, odds = ranking([0.5, 0.4, 0.2]), {"c02": value}
    weight = overtaking_weight(clips, odds, slope=slope)
    assert mix(clips, {"c02": value * weight * 0.98}, slope=slope)[0].clip_id == "c00"
    assert mix(clips, {"c02": value * weight * 1.02}, slope=slope)[0].clip_id == "c02"


def test_mix__pictures_decide_among_clips_of_one_text() -> None:
    clips = [RankedClip(f"c{n}", "v", 3000 * n, 3000 * n + 3000, score) for n, score in enumerate([0.1, 0.3, 0.2])]
    mixed = mix([*clips, RankedClip("d", "w", 0, 3000, 0.5)], dict.fromkeys(["c0", "c1", "c2"], 50.0), slope=20.0)
    assert [clip.clip_id for clip in mixed if clip.video_id == "v"] == ["c1", "c2", "c0"] and mixed[0].clip_id == "c1"
    assert mixed[0].score - mixed[1].score == pytest.approx(0.1, abs=1e-3)  # so that moments end where pictures change


def test_by_words__lists_only_what_has_odds() -> None:
    assert [(clip.clip_id, clip.score) for clip in by_words(ranking([0.1, 0.9]), {"c00": 1.0})] == [("c00", 0.5)]
    assert MIN_ODDS < 0.1
