from __future__ import annotations

from vidseek_retrieval.index.bm25 import WordEncoder
from vidseek_retrieval.lexical.joint_words import JointWords, joint_query
from vidseek_retrieval.lexical.table_words import TableWords
from vidseek_retrieval.lexical.word_odds import QueryWord, clip_odds
from vidseek_retrieval.search.moments import RankedClip

ENCODER = WordEncoder()
CLIPS = [RankedClip(str(number), f"video{number}", 0, 1000, 0.0, "") for number in range(20)]


def field(**texts: str) -> TableWords:
    """The words of one field by number of the clip, with other words in all other clips."""
    of_clips = {each.clip_id: texts.get(f"_{each.clip_id}", f"other{each.clip_id}") for each in CLIPS}
    return TableWords.of(CLIPS, of_clips, ENCODER)


def words(query: str) -> dict[tuple[int, ...], QueryWord]:
    return {(index,): QueryWord((index,)) for index in ENCODER.query(query).indices}


def test_joint_words__a_name_on_the_screen_and_a_word_that_is_said_are_one_query() -> None:
    shown, said = field(_3="anna bergstrom", _4="john bergstrom"), field(_3="the turbine broke", _5="turbine repaired")
    query = joint_query([words("bergstrom turbine"), words("bergstrom turbine")])
    alone = [clip_odds([*words("bergstrom turbine").values()], each) for each in (shown, said)]
    joint = clip_odds(query, JointWords([shown, said]))
    assert max(joint, key=joint.__getitem__) == "3"
    assert joint["3"] > 1 > sum(each.get("3", 0.0) for each in alone)
    assert joint.get("4", 0.0) < 0.1 and joint.get("5", 0.0) < 0.1


def test_joint_query__takes_what_any_field_knows_of_a_word() -> None:
    one = {(7,): QueryWord((7,)), (8,): QueryWord(())}
    other = {(7,): QueryWord((9,)), (8, 0): QueryWord((1,)), (8, 1): QueryWord((2,))}
    assert joint_query([one, other]) == [QueryWord((7, 9)), QueryWord((1,)), QueryWord((2,))]
