"""The measure of second looks: a judge that sees mends a ranking that does not, and what it costs is counted."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from bench.searching.second_look import Looks, Trial, by_both, measure, open_first, publish_stills, questions_of
from bench.searching.seeing_endpoint import Judge, RandomJudge, SeeingJudge, query_of, serve
from tests.retrieval.archive import clip_row
from tests.serving.colours import publish_base, video_id_of_colour, write_colour_archive
from tests.tiny_bundle import COLOURS, clip_of
from tests.training.llm_servers import write_noise
from vidseek.archive import Archive
from vidseek_encoder.encoder import Encoder
from vidseek_media.cutting.cut import read_clips
from vidseek_media.tables import CLIPS, PAIRS, read_table, write_table
from vidseek_retrieval.search.query import Answer, Hit, Reranked
from vidseek_training.captioning.relevance import PROMPT


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """Four colours with their true frames; the base takes each for the one before it. Captions name whole videos."""
    archive = write_colour_archive(tmp_path_factory.mktemp("colours"))
    publish_base(archive.root)
    clips = read_clips(archive.cut)
    colours = {video_id_of_colour(name): colour for name, colour in COLOURS.items()}
    write_noise(
        archive.frames, [(str(clip.clip_id), clip.video_id, clip.index) for clip in clips], num_frames=2,
        pixels=lambda number, frame: clip_of(colours[clips[number].video_id])[0],
    )
    whole = [clip_row(video_id, 3, 0, 3000, cut=("captions",)) for video_id in colours]
    table = read_table(archive.cut / "clips.parquet", CLIPS)
    write_table(archive.cut / "clips.parquet", [*table.to_dict("records"), *whole], CLIPS)
    write_table(archive.pairs_table, [
        {**dict.fromkeys(PAIRS.names, ""), "clip_id": row["clip_id"], "video_id": row["video_id"], "caption": name,
         "split": split, "gallery": f"g{number % 2}"}
        for split in ("validation", "test") for number, (name, row) in enumerate(zip(COLOURS, whole, strict=True))
    ], PAIRS)
    return archive


def measured(archive: Archive, judge: Judge, work: Path, **keys: bool) -> list[dict[str, Any]]:
    validation, test = questions_of(archive, "validation", most=4), questions_of(archive, "test")
    trial = Trial("first", "base", "seer", num_frames=2, num_hits=(2, 4))
    looks = Looks(archive, open_first(archive, "base"), work)
    return measure(looks, judge, trial, validation=validation, test=test, **keys)


def moment_r1(row: dict[str, Any], when: str, gallery: str = "all") -> float:
    found: float = row["galleries"][gallery]["moment_r1"][when]["value"]
    return found


@pytest.mark.slow
def test_measure__a_judge_that_sees_mends_a_ranking_that_does_not(archive: Archive, tmp_path: Path) -> None:
    judge = SeeingJudge(Encoder.load(archive.encoder))
    two, half, four = measured(archive, judge, tmp_path, with_half_budget=True)
    assert (two["num_hits"], two["num_requests"], two["num_known"], two["num_pictures"]) == (2, 8, 0, 8)  # still: one each
    assert two["queries"] == {"whole": 4, "in_part": 0, "none": 0} and two["reasons"] == []
    assert half["num_requests"] <= 4 and half["usd"] <= two["usd"] / 2
    assert half["queries"]["none"] >= 2 and "budget" in half["reasons"][0]
    assert (four["num_requests"], four["num_known"]) == (8, 8)
    assert (four["again"]["num_requests"], four["again"]["num_known"]) == (0, 16)
    assert [moment_r1(four, when, gallery) for when in ("before", "after", "gain") for gallery in ("g0", "g1")] == [
        0, 0, 1, 1, 1, 1,
    ]
    assert four["galleries"]["all"]["within"] == 1 and moment_r1(two, "after") == two["galleries"]["all"]["within"]


def test_publish_stills__makes_a_first_ranking_of_middle_frames(archive: Archive) -> None:
    publish_stills(archive)
    publish_stills(archive)  # what is embedded is kept
    stills, taught = (open_first(archive, first).search_text("red") for first in ("stills", "taught"))
    assert stills.collection != taught.collection and len(stills.hits) == len(COLOURS)
    assert stills.hits[0].video_id == taught.hits[0].video_id == video_id_of_colour("red")


def test_by_both__is_the_mean_of_both_scores_and_moves_no_other_hit() -> None:
    scores = [(0.8, 0.0), (0.8, 0.9), (0.5, 1.0), (0.05, None)]
    hits = [
        Hit("v", 0, 1, first, None, f"c{place}", 0, (), "", "", None,
            reranked=None if second is None else Reranked(second, place + 1))
        for place, (first, second) in enumerate(scores)
    ]
    assert [hit.best_clip_id for hit in by_both(Answer("v", "c", tuple(hits), None)).hits] == ["c1", "c2", "c0", "c3"]
    alone = Answer("v", "c", tuple(hits[3:]), None)
    assert by_both(alone) == alone


def test_measure__a_random_judge_is_the_same_each_time(archive: Archive, tmp_path: Path) -> None:
    first, second = (measured(archive, RandomJudge(0), tmp_path / name) for name in "ab")
    assert [row["galleries"] for row in first] == [row["galleries"] for row in second]
    scores = [RandomJudge(seed).score("red", [b"1", b"2"]) for seed in range(200)]
    assert 0 <= min(scores) < 20 and 80 < max(scores) <= 100


def test_questions_of__are_drawn_as_many_of_each_gallery(archive: Archive) -> None:
    drawn = questions_of(archive, "test", most=2)
    assert sorted(each.gallery for each in drawn) == ["g0", "g1"]
    assert drawn == questions_of(archive, "test", most=2)
    assert all((each.truth.start_ms, each.truth.end_ms) == (0, 3000) for each in drawn)


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"messages": []}', b'{"messages": [{"content": [{"type": "x"}]}]}'])
def test_endpoint__refuses_what_asks_for_no_score(body: bytes) -> None:
    with serve(RandomJudge(0)) as endpoint:
        request = urllib.request.Request(f"{endpoint.url}/chat/completions", body)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=20)
    assert refused.value.code == 400 and endpoint.num_requests == 0


@pytest.mark.parametrize("query", ["a red box", 'the "{query}"\nof a \\ path', "Straße 港 \u2028 \ud83d\ude00"])
def test_query_of__gives_what_was_asked(query: str) -> None:
    assert query_of(PROMPT.replace("{query}", json.dumps(query, ensure_ascii=False))) == query
