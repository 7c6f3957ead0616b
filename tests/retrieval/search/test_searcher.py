from __future__ import annotations

import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.raising import raises
from tests.retrieval.archive import VERSION, clip_row, random_archive, unit_rows, video_row, write_archive
from tests.retrieval.search.test_moments import rank_exact
from tests.tiny_bundle import COLOURS, clip_of, colour_vector, write_tiny_bundle
from vidseek_encoder.encoder import Encoder
from vidseek_media.errors import ArtifactError, ConfigError, InputRejected
from vidseek_media.tables import CAPTIONS, write_table
from vidseek_media.text.segments import Segment, write_segments
from vidseek_retrieval.embedding.embed_texts import clip_texts, embed_texts
from vidseek_retrieval.embedding.embedding_parts import read_parts
from vidseek_retrieval.index.collection_metadata import CollectionMetadata
from vidseek_retrieval.index.publish import publish
from vidseek_retrieval.search.browse import transcript
from vidseek_retrieval.search.moment_recall import PublishedWindows
from vidseek_retrieval.search.moments import RankedClip, merge_moments
from vidseek_retrieval.search.query import Answer, QueryInputs, SearchOptions, Weights
from vidseek_retrieval.search.searcher import Searcher
from vidseek_retrieval.settings import EvidenceWeights, PublishSettings, SearchSettings


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    folder = tmp_path_factory.mktemp("bundle")
    write_tiny_bundle(folder, encoder_version=VERSION)
    return Encoder.load(folder, threads=1)


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of one video for each colour; in the red one seconds 10 to 15 alone are red, the rest is grey."""
    root = tmp_path_factory.mktemp("colours")
    videos, clips, vectors = [], [], []
    for number, (name, colour) in enumerate(COLOURS.items()):
        video_id = f"{number:032x}"
        videos.append(video_row(video_id, f"{name}.mp4", title="" if name == "blue" else f"All {name}"))
        for index in range(20):
            clips.append(clip_row(video_id, index, 1000 * index, 1000 * index + 3000))
            vectors.append(colour_vector(colour if name != "red" or index in (10, 11, 12) else (90, 110, 120)))
    publish(**write_archive(root, videos, clips, np.stack(vectors)), index=root / "index")
    return root / "index"


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("noise")
    publish(**random_archive(root), index=root / "index")
    return root


def test_search_text__finds_the_moment(colours: Path, encoder: Encoder) -> None:
    answer = Searcher.open(colours, encoder).search_text("red", limit=1)
    (hit,) = answer.hits
    assert (hit.video_id, hit.start_ms, hit.end_ms) == (f"{0:032x}", 10_000, 15_000)
    assert (hit.title, hit.uri, hit.thumbnail_url, hit.confidence) == ("All red", "red.mp4", None, None)
    assert hit.score > 0.99 and len(hit.clip_ids) == 3 and hit.best_clip_id in hit.clip_ids
    assert hit.best_ms in (11_500, 12_500, 13_500)
    assert answer.encoder_version == VERSION and answer.next_offset == 1


def test_answer__has_these_fields_in_json(colours: Path, encoder: Encoder) -> None:
    content = Searcher.open(colours, encoder).search_text("blue", limit=1).to_json()
    assert list(content) == ["encoder_version", "collection", "hits", "next_offset"]
    (hit,) = content["hits"]
    assert list(hit) == [
        "video_id",
        "start_ms",
        "end_ms",
        "score",
        "confidence",
        "best_clip_id",
        "best_ms",
        "clip_ids",
        "title",
        "uri",
        "thumbnail_url",
        "evidence",
        "fields",
    ]
    assert hit["fields"] == {}
    assert hit["title"] == "blue"  # it has no title, so its file's stem


def test_search_image_and_frames__like_the_words(colours: Path, encoder: Encoder) -> None:
    searcher = Searcher.open(colours, encoder)
    expected = [hit.video_id for hit in searcher.search_text("green", limit=1).hits]
    frames = clip_of(COLOURS["green"], frames=5, height=30, width=40)
    assert [hit.video_id for hit in searcher.search_frames(frames, limit=1).hits] == expected
    assert [hit.video_id for hit in searcher.search_image(frames[0], limit=1).hits] == expected


def test_search__agrees_with_exact_search(noise: Path) -> None:
    searcher = Searcher.open(noise / "index", None, settings=SearchSettings(merge_margin=0.05))
    embeddings = read_parts(noise / "embed" / "parts")
    spans = {
        str(row["clip_id"]): (str(row["video_id"]), int(str(row["start_ms"])), int(str(row["end_ms"])))
        for number in range(4)
        for row in [clip_row(f"{number:032x}", index, 1000 * index, 1000 * index + 3000) for index in range(58)]
    }
    clips = [RankedClip(clip_id, *spans[clip_id], 0.0) for clip_id in embeddings.clip_ids]
    queries = unit_rows(5, 16, seed=9)
    rankings = rank_exact(queries, embeddings.vectors, clips)
    for query, ranking in zip(queries, rankings, strict=True):
        expected = merge_moments(ranking, margin=0.05)
        hits = searcher.search_vector(query, VERSION, limit=1000).hits
        assert [(hit.best_clip_id, hit.start_ms, hit.end_ms) for hit in hits] == [
            (moment.best_clip_id, moment.start_ms, moment.end_ms) for moment in expected
        ]


def test_search__pages_join_to_the_whole(noise: Path) -> None:
    searcher = Searcher.open(noise / "index", None)
    (query,) = unit_rows(1, 16, seed=3)
    whole = searcher.search_vector(query, VERSION, limit=1000)
    assert whole.next_offset is None
    hits, offset, pages = [], 0, 0
    while offset is not None:
        page = searcher.search_vector(query, VERSION, limit=7, offset=offset, collection=whole.collection)
        hits += page.hits
        offset = page.next_offset
        pages += 1
    assert tuple(hits) == whole.hits and pages == -(-len(hits) // 7)
    assert searcher.search_vector(query, VERSION, offset=5000).hits == ()


@pytest.mark.parametrize("text", ["", " ", "\n\t\u3000"])
def test_search_text__blank(colours: Path, encoder: Encoder, text: str) -> None:
    with raises(InputRejected, code="empty-query"):
        Searcher.open(colours, encoder).search_text(text)


@pytest.mark.parametrize("text", ["red " * 2500, "🟥🟥", "قرمز", "红", "' OR 1=1 --", "\x00"])
def test_search_text__any_text_answers(colours: Path, encoder: Encoder, text: str) -> None:
    assert Searcher.open(colours, encoder).search_text(text).hits


@pytest.mark.parametrize("wrong", [{"limit": 0}, {"limit": 1001}, {"offset": -1}])
def test_search__page_out_of_range(colours: Path, encoder: Encoder, wrong: dict[str, int]) -> None:
    with raises(InputRejected, code="bad-option", naming="limit"):
        Searcher.open(colours, encoder).search_text("red", **wrong)


@pytest.mark.parametrize("vector", [np.full(16, np.nan), np.full(16, np.inf), np.ones(15), np.ones((1, 16))])
def test_search_vector__not_a_vector(noise: Path, vector: np.ndarray) -> None:
    with raises(InputRejected, code="bad-vector"):
        Searcher.open(noise / "index", None).search_vector(vector.astype(np.float32), VERSION)


def test_search__another_encoder_version_is_refused(tmp_path: Path, colours: Path) -> None:
    write_tiny_bundle(tmp_path / "bundle", encoder_version="f" * 16)
    other = Encoder.load(tmp_path / "bundle", threads=1)
    with raises(ArtifactError, code="other-encoder"):
        Searcher.open(colours, other)
    with raises(ArtifactError, code="other-encoder", naming=("f" * 16, VERSION)):
        Searcher.open(colours, None).search_vector(unit_rows(1, 4)[0], "f" * 16)


def test_search__nothing_published(tmp_path: Path, encoder: Encoder) -> None:
    with raises(ArtifactError, code="not-published", naming="'clips'", remedy="dvc repro"):
        Searcher.open(tmp_path / "index", encoder)


def test_search__unknown_alias_or_collection(colours: Path, encoder: Encoder) -> None:
    with raises(ArtifactError, code="not-published", naming="'exp-none'"):
        Searcher.open(colours, encoder, alias="exp-none")
    searcher = Searcher.open(colours, encoder)
    for name in (f"clips-{VERSION}-000000000000", "../index", "/etc", " "):
        with raises(InputRejected, code="no-such-collection"):
            searcher.search_text("red", collection=name)
    assert searcher.search_text("red", collection="") == searcher.search_text("red")  # none named: the live one


def test_search__no_encoder(colours: Path) -> None:
    with raises(ConfigError, code="no-encoder"):
        Searcher.open(colours, None).search_text("red")


def test_room__imports_without_torch() -> None:
    script = """
import sys
for name in ("torch", "transformers", "peft", "mlflow", "great_expectations"):
    sys.modules[name] = None
import vidseek_retrieval.embedding.embed_clips, vidseek_retrieval.index.publish, vidseek_retrieval.search.searcher
"""
    done = subprocess.run([sys.executable, "-c", script], env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_search__negative_margin(colours: Path) -> None:
    with raises(ConfigError, code="setting-out-of-range", naming="merge_margin"):
        Searcher.open(colours, None, settings=SearchSettings(merge_margin=-0.1))


@pytest.mark.parametrize("content", ["", "[]", '{"clips": 1}', '{"clips": {}}'])
def test_search__broken_aliases(tmp_path: Path, content: str) -> None:
    (tmp_path / "aliases.json").write_text(content)
    with raises(ArtifactError, code="aliases-broken", naming="aliases.json"):
        Searcher.open(tmp_path, None)


def test_search__broken_collection_file(tmp_path: Path) -> None:
    report = publish(**random_archive(tmp_path, num_videos=1), index=tmp_path / "index")
    for content in ("", "[]", "{}", '{"files": {}}'):
        (tmp_path / "index" / report.collection / "collection.json").write_text(content)
        with raises(ArtifactError, code="collection-broken", naming="collection.json"):
            Searcher.open(tmp_path / "index", None)


def test_search__broken_shard(tmp_path: Path) -> None:
    report = publish(**random_archive(tmp_path, num_videos=1), index=tmp_path / "index")
    for path in sorted((tmp_path / "index" / report.collection / "shard").rglob("segment.json")):
        path.write_bytes(path.read_bytes()[:20])
    with raises(ArtifactError, code="collection-broken"):
        Searcher.open(tmp_path / "index", None)


def test_search__across_publishes_is_never_empty_mixed_or_failed(tmp_path: Path) -> None:
    index = tmp_path / "index"
    owners = {publish(**random_archive(tmp_path, num_videos=1, seed=0), index=index).collection: 0}
    searcher = Searcher.open(index, None)
    (query,) = unit_rows(1, 16, seed=3)
    stop, answers, failures = threading.Event(), [], []

    def search() -> None:
        while not stop.is_set():
            try:
                answers.append(searcher.search_vector(query, VERSION, limit=1000))
            except Exception as error:  # noqa: BLE001 - any failure is what this test looks for
                failures.append(error)
            time.sleep(0.005)  # or the publisher hardly gets the interpreter

    threads = [threading.Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    expected = {}
    try:
        for seed in (1, 2):
            tables = random_archive(tmp_path, num_videos=1, seed=seed)
            report = publish(**tables, index=index, settings=PublishSettings(keep_previous=0))
            owners[report.collection] = seed
            expected[report.collection] = Searcher.open(index, None).search_vector(query, VERSION, limit=1000)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures
    assert {answer.collection for answer in answers} <= set(owners) and answers[-1].collection != answers[0].collection
    for answer in answers:
        assert answer.hits and answer == expected.get(answer.collection, answer)


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory, encoder: Encoder) -> Path:
    """The colours again, one clip each; the captions say other colours than the clips show."""
    root = tmp_path_factory.mktemp("captioned")
    says = {"red": "green crane", "green": "blue crane", "blue": "white van", "white": "van camera 7"}
    videos, clips, captions = [], [], []
    for number, name in enumerate(COLOURS):
        video_id = f"{number:032x}"
        videos.append(video_row(video_id, f"{name}.mp4", title="tape", channel=f"channel {number % 2}"))
        clips.append(clip_row(video_id, 0, 0, 3000))
        captions.append({**dict.fromkeys(CAPTIONS.names, ""), "video_id": video_id, "clip_id": clips[-1]["clip_id"],
                         "text": says[name], "cost_usd": 0.0})
    tables = write_archive(root, videos, clips, np.stack([colour_vector(colour) for colour in COLOURS.values()]))
    write_table(root / "caption" / "captions.parquet", captions, CAPTIONS)
    texts = clip_texts(tables["ingest_dir"], tables["cut_dir"], root / "caption", cut="windows")
    embed_texts([each.spoken for each in texts.values()], encoder, out=root / "embed")
    publish(**tables, caption_dir=root / "caption", index=root / "index")
    return root / "index"


def found(answer: Answer) -> list[str]:
    return [hit.uri.removesuffix(".mp4") for hit in answer.hits]


def test_search__several_things_at_once_are_their_sum(captioned: Path, encoder: Encoder) -> None:
    searcher = Searcher.open(captioned, encoder)
    both = searcher.search(searcher.encode(QueryInputs(texts=("red",), images=(clip_of(COLOURS["blue"])[0],))))
    vectors = encoder.embed_texts(["red", "blue"])
    direction = vectors.mean(axis=0) / np.linalg.norm(vectors.mean(axis=0))
    scores = {name: float(colour_vector(colour) @ direction) for name, colour in COLOURS.items()}
    assert [hit.score for hit in both.hits] == pytest.approx(sorted(scores.values(), reverse=True), abs=1e-4)
    assert set(found(both)[:2]) == {"red", "blue"}


def test_search__less_of_that(captioned: Path, encoder: Encoder) -> None:
    searcher = Searcher.open(captioned, encoder)
    white = searcher.encode(QueryInputs(texts=("white",)))
    less_red = searcher.encode(QueryInputs(texts=("white",)), QueryInputs(texts=("red",)))
    without = searcher.search(less_red, SearchOptions(fields=("visual",)))
    pictures = SearchOptions(fields=("visual",))
    before, after = found(searcher.search(white, pictures)), found(without)
    assert before[0] == after[0] == "white"
    assert {hit.uri: hit.score for hit in without.hits}["red.mp4"] < {
        hit.uri: hit.score for hit in searcher.search(white, pictures).hits
    }["red.mp4"]
    assert after[-1] == "red"
    with raises(InputRejected, code="vectors-cancel"):
        same = Searcher.open(captioned, encoder, settings=SearchSettings(negative_weight=1.0))
        same.search(same.encode(QueryInputs(texts=("red",)), QueryInputs(texts=("red",))))
    with raises(InputRejected, code="empty-query"):
        searcher.encode(QueryInputs(), QueryInputs(texts=("red",)))


def test_search__like_a_clip_of_the_archive_leaves_it_out(colours: Path, encoder: Encoder) -> None:
    searcher = Searcher.open(colours, encoder)
    (hit,) = searcher.search_text("blue", limit=1).hits
    answer = searcher.search(searcher.encode(QueryInputs(clip_ids=(hit.best_clip_id,))))
    best = next(each for each in answer.hits if each.video_id == hit.video_id)
    assert best.score == pytest.approx(1.0, abs=1e-5) and answer.hits[0] == best  # the rest of the blue video
    (own,) = searcher.points([hit.best_clip_id])
    for each in answer.hits:
        if each.video_id == hit.video_id:
            assert each.end_ms <= own.payload["start_ms"] or each.start_ms >= own.payload["end_ms"]
    for wrong, code in (("nonsense", "bad-clip-id"), ("00000000-0000-5000-8000-000000000000", "unknown-example")):
        with raises(InputRejected, code=code, naming=wrong):
            searcher.search(searcher.encode(QueryInputs(clip_ids=(wrong,))))


def test_search__filters_and_an_unknown_one(captioned: Path, encoder: Encoder) -> None:
    searcher = Searcher.open(captioned, encoder)
    query = searcher.encode(QueryInputs(texts=("red",)))
    assert set(found(searcher.search(query, SearchOptions(filters={"channel": "channel 1"})))) == {"green", "white"}
    assert found(searcher.search(query, SearchOptions(filters={"channel": "none"}))) == []
    with raises(InputRejected, code="unknown-filter", naming="'colour'"):
        searcher.search(query, SearchOptions(filters={"colour": "red"}))


def test_search__by_caption_by_words_and_by_both(captioned: Path, encoder: Encoder) -> None:
    searcher = Searcher.open(captioned, encoder)
    query = searcher.encode(QueryInputs(texts=("green",)))
    assert found(searcher.search(query, SearchOptions(fields=("visual",))))[0] == "green"
    by_caption = searcher.search(query, SearchOptions(weights=Weights(video=0, caption=1)))
    assert found(by_caption)[0] == "red" and len(by_caption.hits) == 4
    by_words = searcher.search(query, SearchOptions(weights=Weights(video=0, words=1)))
    assert [(hit.uri, hit.score) for hit in by_words.hits] == [("red.mp4", 1.0)]
    both = searcher.search(query, SearchOptions(weights=Weights(video=1, words=1)))
    # Red is first by words; by video green is first and red third or fourth.
    assert found(both)[:2] == ["red", "green"] and both.hits[0].score < 1
    camera = searcher.encode(QueryInputs(texts=("camera 7",)))
    assert found(searcher.search(camera, SearchOptions(weights=Weights(video=0, words=1)))) == ["white"]
    default = Searcher.open(captioned, encoder, settings=SearchSettings(weights=Weights(video=0, words=1)))
    assert found(default.search(query)) == ["red"]


def test_search__words_and_pictures_together(captioned: Path, encoder: Encoder) -> None:
    searcher = Searcher.open(captioned, encoder)
    answer = searcher.search(searcher.encode(QueryInputs(texts=("green crane",))))
    assert found(answer)[0] == "red" and len(answer.hits) == 4  # what only the pictures say follows
    (evidence,) = answer.hits[0].evidence
    assert (evidence.field, evidence.matches) == ("captions", ("green", "crane"))
    assert (evidence.start_ms, evidence.end_ms) == (0, 3000) and "green crane" in evidence.text
    pictures = SearchOptions(fields=("visual",))
    plain = searcher.search(searcher.encode(QueryInputs(texts=("green crane",))), pictures)
    assert all(hit.evidence == () for hit in plain.hits)
    nothing = searcher.encode(QueryInputs(texts=("zebra",)))
    assert searcher.search(nothing).hits == searcher.search(nothing, pictures).hits


def test_search__only_in_words_and_phrases(captioned: Path, encoder: Encoder) -> None:
    searcher = Searcher.open(captioned, encoder)

    def asked(text: str, *fields: str, **filters: object) -> list[str]:
        query = searcher.encode(QueryInputs(texts=(text,)))
        return found(searcher.search(query, SearchOptions(fields=fields, filters=filters)))

    assert asked("green crane", "captions")[0] == "red" and "white" not in asked("green crane", "captions")
    assert asked("green crane", "speech", "ocr") == []  # the archive has neither
    assert asked('a "blue crane" somewhere') == asked('"blue CRANE"', "captions") == ["green"]
    assert asked('"crane blue"') == [] and asked('"crane" "white"') == []
    assert asked('"crane"', channel="channel 1") == ["green"]
    assert asked("grean crane", "captions")[0] == "red" and asked("crane camra 7", "captions")[0] == "white"
    with raises(InputRejected, code="unknown-field", naming="sound", remedy=["visual", "ocr"]):
        asked("green", "sound")


def test_search__evidence_weighs_nothing_where_params_say_so(captioned: Path, encoder: Encoder) -> None:
    searcher = Searcher.open(captioned, encoder, settings=SearchSettings(evidence=EvidenceWeights(captions=0.0)))
    query = searcher.encode(QueryInputs(texts=("green crane",)))
    assert searcher.search(query).hits == searcher.search(query, SearchOptions(fields=("visual",))).hits


def test_search__weights_that_leave_nothing(colours: Path, captioned: Path, encoder: Encoder) -> None:
    words = SearchOptions(weights=Weights(video=0, words=1))
    without = Searcher.open(colours, encoder)
    with raises(InputRejected, code="nothing-to-rank-by"):
        without.search(without.encode(QueryInputs(texts=("red",))), words)
    searcher = Searcher.open(captioned, encoder)
    with raises(InputRejected, code="nothing-to-rank-by"):
        searcher.search(searcher.encode(QueryInputs(images=(clip_of(COLOURS["red"])[0],))), words)
    with raises(ConfigError, code="setting-out-of-range", naming="weights"):
        Weights(video=0)


def test_search__diversity_brings_what_differs(colours: Path, encoder: Encoder) -> None:
    searcher = Searcher.open(colours, encoder, settings=SearchSettings(merge_margin=0.0))
    query = searcher.encode(QueryInputs(texts=("red",)))
    plain = searcher.search(query, SearchOptions(limit=1000))
    spread = searcher.search(query, SearchOptions(limit=1000, diversity=0.7))
    assert spread.hits[0] == plain.hits[0]
    assert sorted(hit.best_clip_id for hit in spread.hits) == sorted(hit.best_clip_id for hit in plain.hits)
    assert len({hit.video_id for hit in spread.hits[:3]}) >= len({hit.video_id for hit in plain.hits[:3]})
    assert spread.hits != plain.hits
    pages = [searcher.search(query, SearchOptions(limit=2, offset=at, diversity=0.7)).hits for at in (0, 2)]
    assert pages[0] + pages[1] == spread.hits[:4]
    for wrong in (-0.1, 1.1, float("nan")):
        with raises(InputRejected, code="bad-option", naming="diversity"):
            searcher.search(query, SearchOptions(diversity=wrong))


@pytest.mark.parametrize("knows", [True, False])
def test_search__the_margin_is_in_standard_deviations_of_the_collections_scores(
    noise: Path, monkeypatch: pytest.MonkeyPatch, knows: bool
) -> None:
    """Whether the collection knows the spread of its scores or, of an earlier build, a sample of its points says it."""
    spread = Searcher.open(noise / "index", None).opened().metadata.score_spread["video"]
    assert spread == PublishedWindows.load(noise / "embed", noise / "cut", cut="windows").score_spread
    assert spread == pytest.approx(0.25, abs=0.02)
    if not knows:
        monkeypatch.setattr(CollectionMetadata, "from_json", lambda content: replace(
            _facts_of(content), score_spread={}
        ))
    query = unit_rows(1, 16, seed=9)[0]
    for margin_sd in (0.0, 0.3, 1.0):
        found = Searcher.open(noise / "index", None, settings=SearchSettings(merge_margin_sd=margin_sd))
        as_cosine = Searcher.open(noise / "index", None, settings=SearchSettings(merge_margin=round(margin_sd * spread, 6)))
        assert found.search_vector(query, VERSION).hits == as_cosine.search_vector(query, VERSION).hits


_facts_of = CollectionMetadata.from_json


def test_search__a_calibration_of_an_earlier_version_gives_no_confidence_and_names_the_command(
    colours: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    older = {"encoder_version": VERSION, "weights": {"score": 1.0, "lead": 0.0}, "bias": 0.0, "min_confidence": 0.1}
    monkeypatch.setattr(CollectionMetadata, "from_json", lambda content: replace(_facts_of(content), calibration=older))
    searcher = Searcher.open(colours, encoder)
    for _ in range(2):
        assert searcher.search_text("red").hits[0].confidence is None
    assert caplog.text.count("dvc repro calibrate publish") == 1
    with raises(InputRejected, code="no-confidence", naming="earlier version") as caught:
        searcher.search(searcher.encode(QueryInputs(texts=("red",))), SearchOptions(min_confidence=0.5))
    assert "dvc repro calibrate publish" in caught.value.remedy


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A red and a blue video of six windows each; the red one says something, the blue one shows it."""
    root = tmp_path_factory.mktemp("spoken")
    videos, clips, vectors = [], [], []
    for number, name in enumerate(["red", "blue"]):
        video_id = f"{number:032x}"
        videos.append(video_row(video_id, f"{name}.mp4"))
        for window in range(6):
            clips.append(clip_row(video_id, window, 3000 * window, 3000 * window + 3000))
            vectors.append(colour_vector(COLOURS[name]))
    tables = write_archive(root, videos, clips, np.stack(vectors))
    write_segments(root / "subtitles", {f"{0:032x}": [
        Segment(3200, 4100, "the quarterly revenue grew", "en", "file"), Segment(4100, 5600, "by a tenth", "en", "file"),
    ]})
    write_segments(root / "speech", {})
    write_segments(root / "ocr", {f"{1:032x}": [Segment(9000, 18000, "QUARTERLYREVENUE 2026", "", "rapidocr")]})
    publish(**tables, segment_dirs={"speech": [root / "subtitles", root / "speech"], "ocr": [root / "ocr"]},
            index=root / "index")
    return root / "index"


def test_search__what_is_said_and_what_stands_on_the_screen(spoken: Path, encoder: Encoder) -> None:
    searcher = Searcher.open(spoken, encoder)

    def asked(text: str, *fields: str) -> Answer:
        return searcher.search(searcher.encode(QueryInputs(texts=(text,))), SearchOptions(fields=fields))

    (said,) = asked("quarterly revenue", "speech").hits
    assert (said.uri, said.start_ms, said.end_ms) == ("red.mp4", 3200, 4100)  # where the words are, not the window
    assert [(each.field, each.text, each.matches) for each in said.evidence] == [
        ("speech", "the quarterly revenue grew", ("quarterly", "revenue"))
    ]
    (shown,) = asked("revenue", "ocr").hits  # the words run together
    assert (shown.uri, shown.start_ms, shown.end_ms) == ("blue.mp4", 9000, 18000)
    assert shown.evidence[0].matches == ("QUARTERLYREVENUE",)
    assert {hit.uri for hit in asked('"quarterly revenue"').hits} == {"red.mp4", "blue.mp4"}
    assert found(asked("quarterly revenue grew", "visual", "speech"))[0] == "red"
    assert [hit.uri for hit in asked("quartely revenje", "speech").hits] == ["red.mp4"]
    texts = transcript(searcher.opened(), said.best_clip_id)
    assert [(each.start_ms, each.text) for each in texts] == [(3200, "the quarterly revenue grew"), (4100, "by a tenth")]
