from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.raising import raises
from tests.retrieval.archive import VERSION, clip_row, video_row, write_archive
from tests.tiny_bundle import COLOURS, colour_vector, write_tiny_bundle
from vidseek_encoder.encoder import Encoder
from vidseek_media.errors import ArtifactError, InputRejected
from vidseek_media.tables import PAIRS, read_table, write_table
from vidseek_retrieval.confidence.calibrate import (
    VECTORS_FOLDER,
    Bootstrap,
    CalibrateReport,
    Said,
    asked_videos,
    calibrate,
    read_calibration,
    unlearned,
    write_report,
)
from vidseek_retrieval.confidence.calibration import FEATURES, Calibration
from vidseek_retrieval.confidence.text_vectors import TextVectors
from vidseek_retrieval.index.publish import publish
from vidseek_retrieval.search.moment_recall import PublishedWindows
from vidseek_retrieval.search.query import QueryInputs, SearchOptions, Weights
from vidseek_retrieval.search.searcher import Searcher


def pair_row(clip: dict[str, object], caption: str, split: str) -> dict[str, object]:
    return {**dict.fromkeys(PAIRS.names, ""), "clip_id": clip["clip_id"], "video_id": clip["video_id"],
            "caption": caption, "split": split, "gallery": "default"}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    folder = tmp_path_factory.mktemp("bundle")
    write_tiny_bundle(folder, encoder_version=VERSION)
    return Encoder.load(folder, threads=1, towers=["text"])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve videos of one noisy colour each, whose captions name it, ten times; in the other world all is white."""
    root, draws = tmp_path_factory.mktemp("calibrate"), np.random.default_rng(0)
    names = [name for name in COLOURS if name != "white"]
    videos, clips, vectors, pairs = [], [], [], []
    for number in range(12):
        video_id, name = f"{number:032x}", names[number % 3]
        videos.append(video_row(video_id, f"{number}.mp4", channel=name))
        clips.append(clip_row(video_id, 0, 0, 3000))
        noisy = colour_vector(COLOURS[name]) + draws.normal(scale=0.2, size=4)
        vectors.append((noisy / np.linalg.norm(noisy)).astype(np.float32))
        pairs += [pair_row(clips[-1], name, split) for split in ["validation", "test"] * 5]
    write_archive(root, videos, clips, np.stack(vectors))
    write_table(root / "pairs.parquet", pairs, PAIRS)
    replayed = [pair_row(clips[2], "red", "train")] * 60  # what training replays is no strange query, and not asked
    write_table(root / "general.parquet", [pair_row(clip, "white", "test") for clip in clips[:2]] * 60 + replayed, PAIRS)
    return root


def run(
    root: Path, encoder: Encoder, *, pairs: str = "pairs", general: bool = True, max_queries: int = 500,
    feedback: Sequence[Said] = (), kept: Path | None = None, most: int | None = None,
    texts: Mapping[str, str] | None = None,
) -> CalibrateReport:
    table = root / f"{pairs}.parquet"
    windows = PublishedWindows.load(
        root / "embed", root / "cut", cut="windows", most=most, always=asked_videos(table, max_queries=max_queries)
    )
    return calibrate(
        windows, root / "cut", table, TextVectors(encoder, kept), margin=0.02,
        general_pairs=root / "general.parquet" if general else None, max_queries=max_queries, feedback=feedback,
        bootstrap=Bootstrap(50, 0), texts=lambda: texts or {},
    )


def test_calibrate__asks_with_the_words_of_the_archive_too(root: Path, encoder: Encoder) -> None:
    table = read_table(root / "pairs.parquet", PAIRS)
    named = dict(zip(table["clip_id"], table["caption"], strict=True))
    texts = {clip_id: f"tape {number} {name}" for number, (clip_id, name) in enumerate(sorted(named.items()))}
    report = run(root, encoder, texts=texts)
    found = report.calibration
    assert found is not None and found.mix_slope == run(root, encoder).calibration.slope  # type: ignore[union-attr]
    assert 0 < found.word_weight <= 1 and report.figures["word_weight"] == round(found.word_weight, 4)
    hits = report.figures["of_hits"]
    assert {kind: hits[kind]["first"]["num"] for kind in hits} == {
        "at_prior": 240, "present": 60, "worded": 60, "left_out": 60, "unlike": 60
    }
    assert Calibration.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_calibrate__fits_on_validation_and_measures_on_test(root: Path, encoder: Encoder) -> None:
    report = run(root, encoder)
    assert report.calibration is not None and report.calibration.encoder_version == VERSION
    assert report.calibration.num_queries == 180 and report.figures["num_queries"] == 180  # present, left out, unlike
    assert 0 <= report.figures["calibration_error"] < 0.1 and report.figures["kept"] > 0.5
    hits = report.figures["of_hits"]
    assert {kind: hits[kind]["first"]["num"] for kind in hits} == {
        "at_prior": 180, "present": 60, "left_out": 60, "unlike": 60
    }
    assert hits["present"]["first"]["num_groups"] == 12 and hits["unlike"]["first"]["right"] == 0.0
    assert report.figures["min_confidence_groups"] == 12 and not report.figures["min_confidence_assured"]
    assert report.figures["turned_away_unlike"] == 1.0  # no clip is white
    assert sum(each["num"] for each in report.bins) == 180 * 5
    assert "turned_away_unlike" not in run(root, encoder, general=False).figures
    moments = report.figures["moments"]["default"]
    assert moments["num_queries"] == 60 and 0 < moments["r1"] < moments["r10"] == 1.0  # four videos of each colour
    assert (report.figures["num_clips"], report.figures["num_clips_published"]) == (12, 12)


def test_calibrate__keeps_the_captions_as_they_were_asked(root: Path, encoder: Encoder) -> None:
    calibration = run(root, encoder).calibration
    assert calibration is not None and calibration.reference is not None
    reference = calibration.reference
    # 60 of each split, once as it is: not those whose video was left out, nor those of the other world.
    assert reference.encoder_version == VERSION and reference.rows.shape == (120, 2) and reference.axes == ""
    assert (reference.rows[:, 0] > 0.8).all() and len(np.unique(reference.rows[:, 0].round(4))) == 3


def test_calibrate__max_queries(root: Path, encoder: Encoder) -> None:
    report = run(root, encoder, general=False, max_queries=20)
    assert report.figures["num_queries"] == 40


def test_calibrate__without_pairs_says_so(root: Path, encoder: Encoder, tmp_path: Path) -> None:
    write_table(root / "none.parquet", [], PAIRS)
    report = run(root, encoder, pairs="none")
    assert report.calibration is None and report.figures == {"calibration": "not measured"}
    write_report(report, out=tmp_path / "out", reports=tmp_path / "reports")
    assert read_calibration(tmp_path / "out") is None
    assert (tmp_path / "reports" / "reliability.csv").read_text().splitlines()[0] == "confidence,right,num,share"


def test_write_report__is_read_back(root: Path, encoder: Encoder, tmp_path: Path) -> None:
    report = run(root, encoder)
    for _ in range(2):
        write_report(report, out=tmp_path / "out", reports=tmp_path / "reports")
    assert read_calibration(tmp_path / "out") == report.calibration
    assert json.loads((tmp_path / "reports" / "metrics.json").read_text()) == report.figures
    assert len((tmp_path / "reports" / "reliability.csv").read_text().splitlines()) == len(report.bins) + 1
    (tmp_path / "out" / "calibration.json").write_text("{")
    for folder in (tmp_path / "out", tmp_path / "none"):
        with raises(ArtifactError, code="calibration-broken", remedy="dvc repro calibrate"):
            read_calibration(folder)


def test_search__confidence_and_what_it_cuts(root: Path, encoder: Encoder, tmp_path: Path) -> None:
    calibration = run(root, encoder).calibration
    assert calibration is not None
    tables = {"embed_dir": root / "embed", "cut_dir": root / "cut", "ingest_dir": root / "ingest"}
    plain = publish(**tables, index=tmp_path / "index").collection
    assert publish(**tables, index=tmp_path / "index", calibration=calibration).collection != plain
    searcher = Searcher.open(tmp_path / "index", encoder)
    hits = searcher.search_text("red", limit=1000).hits
    confidences = [hit.confidence for hit in hits if hit.confidence is not None]
    assert len(confidences) == len(hits) and confidences == sorted(confidences, reverse=True)
    red = searcher.encode(QueryInputs(texts=("red",)))
    sure = searcher.search(red, SearchOptions(limit=1000, min_confidence=confidences[3])).hits
    assert sure == tuple(hit for hit in hits if (hit.confidence or 0) >= confidences[3])
    white = searcher.encode(QueryInputs(texts=("white",)))
    nothing = searcher.search(white, SearchOptions(min_confidence=calibration.min_confidence))
    assert nothing.hits == () and nothing.next_offset is None
    # A filter takes clips away and leaves what each of the others is worth.
    green = searcher.search(red, SearchOptions(filters={"channel": "green"}, limit=1000)).hits
    assert green and {hit.best_clip_id: hit.confidence for hit in green}.items() <= {
        hit.best_clip_id: hit.confidence for hit in hits}.items()
    vector = encoder.embed_texts(["red"])[0]
    assert searcher.search_vector(vector, VERSION, words="red", limit=1000).hits == hits
    assert searcher.search_vector(vector, VERSION).hits[0].confidence is None


def test_search__min_confidence_for_what_has_none_is_refused(root: Path, encoder: Encoder, tmp_path: Path) -> None:
    tables = {"embed_dir": root / "embed", "cut_dir": root / "cut", "ingest_dir": root / "ingest"}
    publish(**tables, index=tmp_path / "index")
    options = SearchOptions(min_confidence=0.5)
    searcher = Searcher.open(tmp_path / "index", encoder)
    with raises(InputRejected, code="no-confidence"):
        searcher.search(searcher.encode(QueryInputs(texts=("red",))), options)
    publish(**tables, index=tmp_path / "index", calibration=run(root, encoder).calibration)
    two = searcher.encode(QueryInputs(texts=("red", "blue")))
    assert all(hit.confidence is None for hit in searcher.search(two).hits)
    both = searcher.encode(QueryInputs(texts=("red",)), QueryInputs(texts=("blue",)))
    for query, wanted in ((two, options), (both, options)):
        with raises(InputRejected, code="no-confidence"):
            searcher.search(query, wanted)
    with raises(InputRejected, code="bad-option", naming="min_confidence is 2"):
        searcher.search(two, SearchOptions(min_confidence=2, weights=Weights()))


def test_publish__a_calibration_of_another_encoder_is_refused(root: Path, encoder: Encoder, tmp_path: Path) -> None:
    calibration = run(root, encoder).calibration
    assert calibration is not None
    other = replace(calibration, encoder_version="f" * 16)
    with raises(ArtifactError, code="other-encoder", remedy="dvc repro calibrate"):
        publish(root / "embed", root / "cut", root / "ingest", index=tmp_path / "index", calibration=other)


def test_calibrate__feedback_joins_the_fit(root: Path, encoder: Encoder) -> None:
    """Who says that every red hit is wrong takes confidence from red, and from nothing that is measured."""
    clip_ids = [str(clip_row(f"{number:032x}", 0, 0, 3000)["clip_id"]) for number in range(0, 12, 3)]
    said = [Said("red", clip_id, False) for clip_id in clip_ids] + [Said(" ", "x", True), Said("red", "unknown", True)]
    plain = run(root, encoder)
    told = run(root, encoder, feedback=said * 3)
    assert plain.calibration is not None and told.calibration is not None
    assert (told.figures["num_feedback"], plain.figures["num_feedback"]) == (1, 0)
    assert told.calibration.num_queries == plain.calibration.num_queries + 1
    assert told.figures["num_queries"] == plain.figures["num_queries"]
    assert told.calibration.weights != plain.calibration.weights


def test_unlearned__what_taught_does_not_measure(tmp_path: Path) -> None:
    rows = [{**dict.fromkeys(PAIRS.names, ""), "clip_id": clip_id, "caption": "red", "contrast": "blue", "split": split}
            for clip_id, split in (("a", "train"), ("b", "test"))]
    write_table(tmp_path / "pairs.parquet", rows, PAIRS)
    said = [Said(query, clip_id, True) for clip_id in "abc" for query in ("Red ", "blue", "green")]
    assert [(each.clip_id, each.query) for each in unlearned(said, tmp_path / "pairs.parquet")] == [
        ("a", "green"), *((clip_id, query) for clip_id in "bc" for query in ("Red ", "blue", "green"))]


def test_search__a_query_of_words_that_nobody_learned_is_less_sure(root: Path, encoder: Encoder, tmp_path: Path) -> None:
    pairs = read_table(root / "pairs.parquet", PAIRS)
    learned = pairs.assign(split="train").to_dict("records")
    write_table(root / "learned.parquet", [*pairs.to_dict("records"), *learned], PAIRS)
    calibration = run(root, encoder, pairs="learned").calibration
    assert calibration is not None and calibration.familiarity is not None
    assert calibration.familiarity.words == {"red", "green", "blue"}
    named = dict(zip(FEATURES, calibration.weights, strict=True))
    assert named["oov_rate"] > 0  # white was asked, and nothing is
    publish(root / "embed", root / "cut", root / "ingest", index=tmp_path / "index", calibration=calibration)
    searcher = Searcher.open(tmp_path / "index", encoder)
    vector = encoder.embed_texts(["red"])[0]
    known, unknown = (
        searcher.search_vector(vector, VERSION, words=words).hits[0].confidence for words in ("red", "scarlet")
    )
    assert known is not None and unknown is not None and unknown < 0.8 * known


def test_calibrate__a_second_run_embeds_no_query_and_says_the_same(root: Path, encoder: Encoder, tmp_path: Path) -> None:
    first = run(root, encoder)
    write_report(first, out=tmp_path / "out", reports=tmp_path / "reports")
    again = run(root, encoder, kept=tmp_path / "out" / VECTORS_FOLDER)
    assert first.vectors.num_embedded > 0 and again.vectors.num_embedded == 0
    assert (again.calibration, again.figures) == (first.calibration, first.figures)
    fewer = run(root, encoder, max_queries=20, kept=tmp_path / "out" / VECTORS_FOLDER)
    assert fewer.vectors.num_embedded > 0  # other lists: as in a run of their own
    assert fewer.calibration == run(root, encoder, max_queries=20).calibration


def test_calibrate__a_sample_has_the_videos_that_are_asked_for(root: Path, encoder: Encoder) -> None:
    few = root / "few.parquet"
    table = read_table(root / "pairs.parquet", PAIRS)
    write_table(few, table[table["video_id"] < f"{4:032x}"].to_dict("records"), PAIRS)
    sampled = run(root, encoder, pairs="few", most=6)
    whole = run(root, encoder, pairs="few")
    assert (sampled.figures["num_clips"], sampled.figures["num_clips_published"]) == (6, 12)
    expected = sampled.figures["moments"]["default"]["expected_of_all"]
    # With half of the rivals more is found; what is expected among all is no more than that.
    assert whole.figures["moments"]["default"]["r1"] <= sampled.figures["moments"]["default"]["r1"]
    assert 0 <= expected["r1"] <= sampled.figures["moments"]["default"]["r1"]
    assert "expected_of_all" not in whole.figures["moments"]["default"]
