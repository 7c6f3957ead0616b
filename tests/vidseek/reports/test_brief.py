"""The brief: what an archive is said to hold, whether teaching made it better, and what is to be done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.serving.colours import write_colour_archive
from vidseek.archive import Archive
from vidseek.reports.brief import brief_of, counted, percent, percent_interval, points_interval
from vidseek.reports.report import write_report
from vidseek_media.tables import CAPTIONS, PAIRS, write_table

WELL = {"value": 0.785, "low": 0.726, "high": 0.842}
FEW = {"value": 0.4, "low": None, "high": None, "note": "not proven: too few videos"}


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    archive = write_colour_archive(tmp_path)
    write_table(archive.data / "caption" / "captions.parquet", [], CAPTIONS)
    write_table(archive.pairs_table, [], PAIRS)
    return archive


def pairs(archive: Archive, **splits: int) -> None:
    rows: list[dict[str, object]] = [
        {**dict.fromkeys(PAIRS.names, ""), "clip_id": f"{split}{num}", "split": split}
        for split, count in splits.items() for num in range(count)
    ]
    write_table(archive.pairs_table, rows, PAIRS)


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def judged(archive: Archive, gain: dict[str, Any], retention: Any = "not measured") -> None:
    model = {f"r{k}_interval": {"value": 0.81, "low": 0.75, "high": 0.87} for k in (1, 5, 10)}
    entry = {"num_queries": 200, "base": model, "adapted": model, "gain": {"r1": gain}}
    write(archive.reports / "evaluate" / "metrics.json", {"galleries": {"default": entry}, "retention": retention})


def test_brief__of_an_archive_without_captions_asks_for_captions(archive: Archive) -> None:
    found = brief_of(archive)
    assert "holds 4 videos" in found.holds and "No caption says" in found.holds
    assert found.taught.startswith("Nothing was taught, because no caption belongs to a clip")
    assert found.better.startswith("How well it finds is not measured")
    assert any("captions.csv" in each for each in found.next_steps)


def test_brief__of_what_was_proven_names_the_gain_with_its_interval(archive: Archive) -> None:
    pairs(archive, train=400, test=200)
    write(archive.selected, {"setting": "lora", "backbone": "some/clip"})
    kept = {"num_queries": 200, "base": {"r1": 0.965}, "adapted": {"r1": 0.96},
            "change": {"r1": {"value": -0.005, "low": -0.03, "high": 0.02}}}
    judged(archive, WELL, kept)
    found = brief_of(archive)
    assert "some/clip was taught with 400 captioned clips" in found.taught
    assert found.better.startswith("The taught model is better. Of 200 test captions, it puts the right clip first for 81 % "
                                   "(75 to 87)")
    assert "+78.5 points (+72.6 to +84.2)" in found.better and "No loss is seen" in found.better
    assert not any("captions.csv" in each or "general.source" in each for each in found.next_steps)


@pytest.mark.parametrize(("gain", "says", "step"), [
    ({"value": -0.2, "low": -0.3, "high": -0.1}, "is worse for some captions", "Do not rely on it"),
    ({"value": 0.0, "low": -0.1, "high": 0.1}, "It is not proven", "Look at the wrong answers"),
    (FEW, "cannot be told: the test captions are of too few videos", "Caption more videos: with fewer than 20"),
])
def test_brief__does_not_claim_what_is_not_proven(archive: Archive, gain: dict[str, Any], says: str, step: str) -> None:
    pairs(archive, train=40)
    write(archive.selected, {"setting": "lora", "backbone": "b"})
    judged(archive, gain)
    found = brief_of(archive)
    assert says in found.better and "The taught model is better" not in found.better
    assert "What it may have forgotten of what it knew before is not measured" in found.better
    assert any(each.startswith(step) for each in found.next_steps)


def test_brief__of_a_training_that_lost_says_that_the_model_is_as_it_came(archive: Archive) -> None:
    pairs(archive, train=40)
    lost = {"challenger": "lora", "won": False, "verdict": "not proven better"}
    write(archive.selected, {"setting": "base", "backbone": "b", "challenges": [lost], "notes": []})
    judged(archive, {"value": 0.0, "low": 0.0, "high": 0.0})
    found = brief_of(archive)
    assert "was not taken" in found.taught and "lora: not proven better" in found.taught and "as it came" in found.taught
    assert "taught model" not in found.better and "first for 81 % (75 to 87)" in found.better
    assert any("larger model" in each for each in found.next_steps)


def test_brief__says_what_people_taught_and_what_came_of_it(archive: Archive) -> None:
    pairs(archive, train=40)
    challenge = {"challenger": "lora", "champion": "the champion", "won": True, "verdict": "proven better", "gain": 0.04,
                 "low": 0.01, "high": 0.07}
    write(archive.selected, {"setting": "lora", "backbone": "b", "challenges": [challenge]})
    assert "New in the last training" not in brief_of(archive).taught
    changes = {"num_new": 14, "num_new_by_people": 12, "num_new_judged": 1, "num_new_refused": 0}
    write(archive.reports / "train" / "lora" / "metrics.json", {"trained": True, "changes": changes})
    assert brief_of(archive).taught.endswith(
        "New in the last training (lora): 12 captions written here, 1 confirmed hit. Against the champion its mean "
        "reciprocal rank changed by +0.040 (+0.010 to +0.070): proven better.")
    write(archive.selected, {"setting": "base", "backbone": "b", "challenges": [
        challenge | {"won": False, "verdict": "not proven", "gain": None, "low": None, "high": None}]})
    assert brief_of(archive).taught.endswith("It was not put to the proof against the champion: not proven.")


def test_brief__says_whether_it_can_be_searched(archive: Archive) -> None:
    assert "nothing is published yet" in brief_of(archive).holds
    write(archive.receipts / "publish.json", {"num_points": 3622})
    found = brief_of(archive)
    assert "3,622 clips of them can be searched" in found.holds
    assert found.next_steps[0].startswith("Search:")


def test_brief__names_and_verdicts_are_text_on_the_page(archive: Archive) -> None:
    write(archive.selected, {"setting": "<script>x</script>", "backbone": "<img src=x>", "notes": ["<b>"]})
    path = archive.reports / "report.html"
    write_report(archive, path)
    page = path.read_text(encoding="utf-8")
    assert "<script" not in page and "<img src=x" not in page and "&lt;script&gt;" in page


def test_brief__the_page_begins_with_it_and_shows_right_and_wrong_answers_as_text(archive: Archive) -> None:
    pairs(archive, train=40)
    write(archive.selected, {"setting": "lora", "backbone": "b"})
    judged(archive, WELL)
    folder = archive.reports / "evaluate" / "pictures"
    found = {"file": "0-1.jpg", "place": 1, "is_right": False, "cosine": 0.5}
    wrong = {"caption": "<i>a crane</i>", "gallery": "g", "rank": 7, "num_clips": 40, "answers": [found]}
    write(folder / "answers.json", {"num_right": 0, "num_wrong": 1, "right": [], "wrong": [wrong]})
    (folder / "answers").mkdir()
    (folder / "answers" / "0-1.jpg").write_bytes(b"JPEG")
    path = archive.reports / "report.html"
    write_report(archive, path)
    page = path.read_text(encoding="utf-8")
    assert page.index("The taught model is better") < page.index("What to do next") < page.index("How well it finds")
    assert "&lt;i&gt;a crane" in page and "comes as number 7 of 40" in page and "base64,SlBFRw==" in page


def test_figures__are_told_with_their_unit() -> None:
    assert (percent(0.025), percent(1.0), counted(1, "video"), counted(1200, "clip")) == (
        "2.5 %", "100 %", "1 video", "1,200 clips")
    assert percent_interval(WELL) == "78.5 % (73 to 84)" and points_interval(WELL) == "+78.5 points (+72.6 to +84.2)"
    assert percent_interval(FEW) == "40 % (not proven: too few videos)"
