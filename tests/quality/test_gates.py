"""The gates: what must pass, what must stop, and what they leave behind. Great Expectations is the real one."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.raising import raises
from vidseek_media.errors import ArtifactError, ConfigError, GateFailed
from vidseek_media.ids import clip_id_of
from vidseek_media.records import Rejection
from vidseek_media.tables import CAPTIONS, CLIPS, FRAMES, GROUPS, PAIRS, REJECTED, VIDEOS, write_table
from vidseek_quality import validation
from vidseek_quality.gates import Published, check_embeddings, check_pairs
from vidseek_quality.report import GateResult
from vidseek_quality.thresholds import ArchiveThresholds, EmbeddingThresholds, PairThresholds
from vidseek_quality.vectors import Sample

WRITE_DOCS = validation.write_docs
VERSION = "0123456789abcdef"
SPLITS = ("train", "validation", "test")


STAGES = ("ingest", "cut", "frames", "caption", "pairs")
TABLES = {
    "videos": ("ingest", VIDEOS), "clips": ("cut", CLIPS), "frames": ("frames", FRAMES), "captions": ("caption", CAPTIONS),
    "pairs": ("pairs", PAIRS), "groups": ("pairs", GROUPS),
}


def sound_tables(num_videos: int = 6, per_video: int = 4) -> dict[str, list[dict[str, Any]]]:
    """Of an archive with a caption for each clip of a second; every third video is in the same split."""
    videos = [
        {**dict.fromkeys(VIDEOS.names, ""), "views": None, "video_id": f"{n:032x}", "uris": [f"{n}.mp4"],
         "duration_ms": 1000 * per_video,
         "fps": 10.0, "width": 64, "height": 48}
        for n in range(num_videos)
    ]
    clips = [
        {"clip_id": str(clip_id_of(str(v["video_id"]), 1000 * i, 1000 * i + 1000)), "video_id": v["video_id"], "index": i,
         "start_ms": 1000 * i, "end_ms": 1000 * i + 1000, "cut": ["captions"]}
        for v in videos for i in range(per_video)
    ]
    texts = [f"a red ball, take {number}" for number in range(len(clips))]
    annotations = {"gallery": "default", "contrast": "", "axis": ""}
    return {
        "videos": videos,
        "clips": clips,
        "frames": [{"clip_id": c["clip_id"], "video_id": c["video_id"], "key": "", "shard": "0.tar", "num_frames": 8,
                    "num_repeated": 0, "decoder": "pyav", "quality_flags": [], "hashes": []} for c in clips],
        "captions": [{"video_id": c["video_id"], "clip_id": c["clip_id"], "text": text, "writer": "file", "cost_usd": 0.0,
                      "split": "", **annotations} for c, text in zip(clips, texts, strict=True)],
        "pairs": [{"clip_id": c["clip_id"], "video_id": c["video_id"], "caption": text, **annotations,
                   "split": SPLITS[int(str(c["video_id"]), 16) % 3]} for c, text in zip(clips, texts, strict=True)],
        "groups": [{"video_id": v["video_id"], "group": v["video_id"]} for v in videos],
    }


@pytest.fixture(autouse=True)
def no_docs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of a gate's time goes into its site; one test asks for it."""
    monkeypatch.setattr(validation, "write_docs", lambda context, docs: None)


@pytest.fixture
def docs(no_docs: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "write_docs", WRITE_DOCS)


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path)


class Archive:
    """A sound archive in a folder; tests break one thing each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tables = sound_tables()
        self.rejected: dict[str, list[str]] = {}
        self.kinds: dict[str, str] = {}
        """Of what `ingest` rejected, where it is no file."""
        self.codes: dict[str, str] = {}
        """Of what was rejected, by id."""
        self.out = folder / "reports" / "pairs"

    @property
    def pairs(self) -> list[dict[str, Any]]:
        return self.tables["pairs"]

    def check(self, archive: ArchiveThresholds | None = None, **thresholds: Any) -> GateResult:
        for name, (stage, schema) in TABLES.items():
            write_table(self.folder / stage / f"{name}.parquet", self.tables[name], schema)
        for stage in STAGES:
            kinds = self.kinds if stage == "ingest" else {}
            rows = [
                asdict(Rejection(id, stage, "?", kinds.get(id, ""), code=self.codes.get(id, "")))
                for id in self.rejected.get(stage, [])
            ]
            write_table(self.folder / stage / "rejected.parquet", rows, REJECTED)
        return check_pairs(
            *(self.folder / stage for stage in STAGES), out=self.out, archive=archive,
            thresholds=PairThresholds(**thresholds),
        )

    def fails(self, archive: ArchiveThresholds | None = None, **thresholds: Any) -> dict[str, dict[str, Any]]:
        """The failures of result.json by rule, after the gate has failed."""
        with raises(GateFailed, code="gate-not-passed") as caught:
            self.check(archive, **thresholds)
        record = json.loads((self.out / "result.json").read_text())
        assert record["passed"] is False
        for failure in record["failures"]:
            assert failure["rule"] in str(caught.value)
            assert all(one in str(caught.value) for one in failure["ids"])
        return {failure["rule"]: failure for failure in record["failures"]}


@pytest.mark.slow
def test_check_pairs__says_in_equal_bytes_that_it_passed(archive: Archive) -> None:
    """What depends on passed.json does not run again because the archive has grown."""
    archive.check()
    passed = (archive.out / "passed.json").read_bytes()
    one = archive.tables["videos"][0]
    archive.tables["videos"].append({**one, "video_id": "f" * 32, "uris": ["new.mp4"]})
    before = (archive.out / "result.json").read_bytes()
    archive.check()
    assert (archive.out / "result.json").read_bytes() != before
    assert (archive.out / "passed.json").read_bytes() == passed
    archive.fails(min_caption_length=1000)
    assert not (archive.out / "passed.json").exists()


def test_check_pairs__sound_table_passes_and_writes_the_same_result_twice(archive: Archive, docs: None) -> None:
    result = archive.check()
    first = (archive.out / "result.json").read_bytes()
    archive.check()
    assert result.passed
    assert (archive.out / "result.json").read_bytes() == first
    record = json.loads(first)
    assert record["statistics"]["num_pairs"] == 24
    assert record["num_expectations"] == 34
    page = (archive.out / "docs" / "index.html").read_text()
    assert "great-expectations-web-assets" not in page
    assert list((archive.out / "docs" / "validations").rglob("*.html"))
    assert "pairs: passed" in (archive.out / "report.html").read_text()
    assert [path.name for path in archive.out.parent.iterdir()] == ["pairs"]


def test_check_pairs__near_duplicates_in_two_splits_fail(archive: Archive) -> None:
    by_video = {str(pair["video_id"]): str(pair["split"]) for pair in archive.pairs}
    learned = next(video for video, split in by_video.items() if split == "train")
    asked = next(video for video, split in by_video.items() if split == "test")
    archive.check()
    archive.tables["groups"] = [{"video_id": learned, "group": learned}, {"video_id": asked, "group": learned}]
    [(rule, failure)] = archive.fails().items()
    assert rule == "no leak: near-duplicates, and clips of one longer video, are in one split"
    assert set(failure["ids"]) == {p["clip_id"] for p in archive.pairs if p["video_id"] in (learned, asked)}


def test_check_pairs__every_broken_row_of_every_table_is_named(archive: Archive) -> None:
    """One fault of each kind, each in a row of its own: each rule names its own row and no other does."""
    videos, clips, frames, captions = (archive.tables[name] for name in ("videos", "clips", "frames", "captions"))
    archive.tables["pairs"] = []
    videos[1]["uris"] = ["1.mp4", "2.mp4"]  # 2.mp4 is of video 2
    videos[3].update(width=0)
    videos[4].update(duration_ms=0)
    end_ms = clips[3]["end_ms"] + 1
    old = clips[3]["clip_id"]
    clips[3].update(end_ms=end_ms, clip_id=str(clip_id_of(str(clips[3]["video_id"]), 3000, end_ms)))
    clips[4]["clip_id"] = "00000000-0000-0000-0000-000000000000"
    clips[9]["index"], clips[10]["index"] = clips[10]["index"], clips[9]["index"]
    clips[23].update(video_id="f" * 32, clip_id=str(clip_id_of("f" * 32, 3000, 4000)), index=0)
    frames[14]["num_repeated"] = 8
    lost = frames.pop(13)
    archive.rejected["frames"] = [frames.pop(12)["clip_id"]]
    captions[6]["text"] = " \t"
    captions[7]["text"] = "x" * 31
    captions[8]["cost_usd"] = -1.0
    captions[9]["video_id"] = "e" * 32
    found = {rule: set(failure["ids"]) for rule, failure in archive.fails(max_caption_length=30).items()}
    own = {n: clips[n]["clip_id"] for n in range(24)}
    joined = [f"{found.pop(rule)}" for rule in (
        "frames are of a clip that the clips table lists", "a clip has frames or was rejected",
    )]
    assert own[4] in joined[1] and lost["clip_id"] in joined[1] and own[12] not in joined[1]
    assert old in joined[0]
    of_four = {own[n] for n in range(16, 20)}
    assert found.pop("a clip ends with its video or before") == {own[3], *of_four}
    assert found == {
        "a video has a duration": {videos[4]["video_id"]},
        "a video has a size": {videos[3]["video_id"]},
        "a file is of one video": {videos[1]["video_id"], videos[2]["video_id"]},
        "every clip's video is in the videos table": {own[23]},
        "the clips of a video are numbered in order of time": {own[9], own[10]},
        "a clip_id is that of the clip's video and span": {own[4]},
        "a clip has at least one good frame": {own[14]},
        "every caption's video is in the videos table": {own[9]},
        "every caption's clip is in the clips table, and of its video": {
            captions[n]["clip_id"] for n in (3, 4, 9, 23)
        },
        "no caption of any clip is blank": {own[6]},
        "captions of any clip have at most 30 characters": {own[7]},
        "a caption costs nothing or more": {own[8]},
    }


@pytest.mark.parametrize(("stage", "id", "what"), [
    ("ingest", "a.mp4", "files"), ("pairs", "0" * 36, "pairs"),
    *(pytest.param(*each, marks=pytest.mark.slow) for each in (
        ("ingest", "captions.csv:3", "captions"), ("cut", "0" * 32, "clips"), ("frames", "0" * 36, "frames"),
        ("caption", "0:1:2", "captions"),
    )),
])
def test_check_pairs__too_many_rejected_of_any_kind_fail(archive: Archive, stage: str, id: str, what: str) -> None:
    num_kept = {"files": 6}.get(what, 24)
    archive.rejected = {stage: [id] * num_kept}
    archive.kinds = {"captions.csv:3": "caption"}
    judges_small = ArchiveThresholds(max_rejected_share=0.5, min_sampled=12, max_one_length_share=1.0)
    archive.check(judges_small, max_rejected_share=0.5)
    below = judges_small.model_copy(update={"max_rejected_share": 0.49})
    [(rule, failure)] = archive.fails(below, max_rejected_share=0.49).items()
    assert rule == f"rejected {what}: at most 0.49 of all"
    assert failure["observed"] == 0.5


@pytest.mark.slow
def test_check_pairs__one_broken_file_of_a_few_is_no_reason_to_stop(archive: Archive) -> None:
    archive.rejected = {"ingest": ["a.mp4", "b.mp4", "c.mp4"]}  # of nine
    assert archive.check().statistics["rejected_share_files"] == pytest.approx(1 / 3, abs=1e-6)
    archive.tables |= {name: [] for name in archive.tables}
    assert archive.fails()["rejected files: at most 0.2 of all"]["observed"] == 1.0


def test_check_pairs__transcripts_that_cannot_be_read_are_no_rejected_files(archive: Archive) -> None:
    archive.rejected = {"ingest": ["a.srt", "b.en.VTT", "c.srt:7"]}
    archive.kinds = {"a.srt": "transcript", "b.en.VTT": "transcript", "c.srt:7": "cue"}
    statistics = archive.check().statistics
    assert (statistics["num_rejected_files"], statistics["num_rejected_captions"]) == (0, 0)


def test_check_pairs__a_rejected_row_of_a_manifest_is_a_rejected_file(archive: Archive) -> None:
    archive.rejected = {"ingest": ["list.csv:3", "captions.csv:4"]}
    archive.kinds = {"captions.csv:4": "caption"}
    statistics = archive.check().statistics
    assert (statistics["num_rejected_files"], statistics["num_rejected_captions"]) == (1, 1)


GERMAN = ["ein roter Ball rollt langsam über die grüne Wiese", "zwei Männer unterhalten sich auf der Straße"]


def test_check_pairs__captions_of_another_language_fail_and_are_named(archive: Archive) -> None:
    texts = [f"a man walks his dog along the beach in the evening, number {number}" for number in range(40)]
    for number in (3, 17, 25, 31, 38):
        texts[number] = f"{GERMAN[number % 2]}, Nummer {number}"
    archive.tables["captions"] = [{**archive.tables["captions"][n % 24], "text": text} for n, text in enumerate(texts)]

    def limits(*languages: str, share: float = 0.1) -> ArchiveThresholds:
        return ArchiveThresholds(languages=languages, max_other_language_share=share, max_one_length_share=1.0)

    [(rule, failure)] = archive.fails(limits("en")).items()
    assert rule == "captions are in en: at most 0.1 of them in another"
    assert failure["ids"] == [archive.tables["captions"][n]["clip_id"] for n in (3, 17, 25, 31, 38)]
    assert archive.check(limits("en", "de")).passed
    assert archive.check(limits("en", share=0.2)).statistics["language_de"] == 0.125
    with raises(ConfigError, code="unknown-choice", naming="'english'"):
        archive.check(limits("english"))


@pytest.mark.slow
def test_check_pairs__captions_cut_off_at_one_length_fail(archive: Archive) -> None:
    captions = archive.tables["captions"]
    archive.tables["captions"] = [{**captions[n % 24], "text": "x" * (40 if n < 24 else n)} for n in range(40)]
    assert archive.check(ArchiveThresholds(max_one_length_share=0.6)).passed
    [(rule, failure)] = archive.fails(ArchiveThresholds(max_one_length_share=0.59)).items()
    assert rule == "captions of one and the same length: at most 0.59"
    assert failure["observed"] == 0.6


def test_check_pairs__archive_without_captions_passes_with_a_note(archive: Archive) -> None:
    for name in ("pairs", "captions", "groups"):
        archive.tables[name] = []
    archive.check()
    record = json.loads((archive.out / "result.json").read_text())
    assert record["passed"] and record["statistics"]["num_pairs"] == 0
    assert "base model" in record["notes"][0]


def test_check_pairs__every_caption_rejected_fails(archive: Archive) -> None:
    archive.tables |= {"pairs": [], "captions": []}
    archive.rejected = {"caption": ["0:1:2"]}
    (failure,) = archive.fails().values()
    assert failure["observed"] == 1.0


def test_check_pairs__broken_rows_are_named(archive: Archive) -> None:
    """One table with one fault of each kind: each rule names its own row and no other does."""
    blank, long, gone, moved, leaking, nowhere = (archive.pairs[number] for number in (0, 1, 2, 3, 4, 8))
    blank["caption"] = "   "
    long["caption"] = "x" * 31
    gone["clip_id"] = "00000000-0000-0000-0000-000000000000"
    moved["clip_id"] = archive.tables["clips"][20]["clip_id"]
    leaking["split"] = "test"  # video 1, whose other pairs are in validation
    nowhere["split"] = "holdout"
    failures = {rule: failure["ids"] for rule, failure in archive.fails(max_caption_length=30).items()}
    assert failures.pop("no caption is blank") == [blank["clip_id"]]
    assert failures.pop("captions have 3 to 30 characters") == [long["clip_id"]]
    assert failures.pop("every pair's clip_id is in the clips table") == [gone["clip_id"]]
    assert failures.pop("every pair names the video of its clip") == [moved["clip_id"]]
    assert failures.pop("split is one of ('train', 'validation', 'test')") == [nowhere["clip_id"]]
    leak = failures.pop("no leak: all pairs of a video are in one split")
    assert leak == [pair["clip_id"] for pair in archive.pairs[4:12]]
    assert leak == failures.pop("no leak: near-duplicates, and clips of one longer video, are in one split")
    assert not failures


def test_check_pairs__ten_ids_are_named_and_all_are_counted(archive: Archive) -> None:
    for pair in archive.pairs[:15]:
        pair["caption"] = None
    (failure,) = archive.fails().values()
    assert failure["num_offending"] == 15
    assert failure["ids"] == [pair["clip_id"] for pair in archive.pairs[:10]]


def test_check_pairs__one_text_over_and_over_fails(archive: Archive) -> None:
    for number, pair in enumerate(archive.pairs[:6]):
        pair["caption"] = "A video" if number % 2 else " a video "
    (failure,) = archive.fails(max_caption_share=0.2).values()
    assert failure["num_offending"] == 6
    assert archive.check(max_caption_share=0.25).passed


def test_check_pairs__few_pairs_may_share_a_text(archive: Archive) -> None:
    archive.tables["pairs"] = archive.pairs[:4]
    for pair in archive.pairs[:3]:
        pair["caption"] = "a video"
    assert archive.check(min_caption_repeats=3).passed


@pytest.mark.slow
def test_check_pairs__second_caption_of_a_clip_passes_unless_one_is_required(archive: Archive) -> None:
    archive.pairs.append({**archive.pairs[0], "caption": "the same ball in other words"})
    assert archive.check().passed
    assert set(archive.fails(one_caption_per_clip=True)) == {"a clip has one caption"}
    archive.pairs[-1]["caption"] = archive.pairs[0]["caption"]
    assert set(archive.fails()) == {"a clip has the same caption only once"}


@pytest.mark.slow
def test_check_pairs__captions_of_whole_videos_are_not_rejections(archive: Archive) -> None:
    """They make no pair by design: an archive that has no others is as good as one without captions."""
    caption = {**archive.tables["captions"][0], "clip_id": None}
    archive.tables |= {"pairs": [], "captions": [caption] * 3}
    archive.rejected = {"pairs": ["0" * 32] * 3}
    assert archive.check().notes
    archive.rejected = {"pairs": ["0" * 32] * 4}
    assert archive.fails()["rejected pairs: at most 0.2 of all"]["observed"] == 1.0


def test_check_pairs__captions_of_still_pictures_are_not_rejections(archive: Archive) -> None:
    """A lecture of slides has subtitles, and clips in which nothing moves."""
    skipped, lost = "0" * 32, "1" * 32
    archive.codes = {skipped: "clip-without-content"}
    archive.rejected = {"pairs": [skipped] * 200}
    assert archive.check().statistics["rejected_share_pairs"] == 0.0
    archive.rejected = {"pairs": [skipped] * 200 + [lost] * 40}
    assert set(archive.fails()) == {"rejected pairs: at most 0.2 of all"}


@pytest.mark.slow
def test_check_pairs__a_few_rejected_pairs_are_not_judged(archive: Archive) -> None:
    """As in all tables: of few rows a share says nothing, unless none was kept."""
    archive.rejected = {"pairs": ["0" * 32] * 7}
    assert archive.check().statistics["rejected_share_pairs"] == pytest.approx(7 / 31, abs=1e-6)
    archive.tables["pairs"] = []
    assert set(archive.fails()) == {"rejected pairs: at most 0.2 of all"}


def test_check_pairs__missing_table_leaves_the_last_report(archive: Archive) -> None:
    archive.check()
    (archive.folder / "pairs" / "pairs.parquet").unlink()
    with raises(ArtifactError, code="file-absent", naming="pairs.parquet"):
        check_pairs(*(archive.folder / stage for stage in STAGES), out=archive.out)
    assert (archive.out / "result.json").exists()


def test_thresholds__out_of_range_is_a_config_error() -> None:
    with raises(ConfigError, code="setting-out-of-range", naming="max_rejected_share is 1.5"):
        PairThresholds(max_rejected_share=1.5)
    with raises(ConfigError, code="setting-out-of-range"):
        PairThresholds(min_caption_length=9, max_caption_length=8)
    with raises(ConfigError, code="setting-out-of-range"):
        EmbeddingThresholds(min_effective_rank=0.5)


def unit_vectors(n: int, dimension: int = 16) -> np.ndarray:
    vectors = np.random.default_rng(7).normal(size=(n, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


class Embedded:
    """Sound parts of a sound archive in a folder; tests break one thing each."""

    def __init__(self, folder: Path, num_clips: int = 60) -> None:
        self.folder = folder
        self.ids = [str(clip_id_of("0" * 32, n, n + 1)) for n in range(num_clips)]
        self.vectors = [list(map(float, row)) for row in unit_vectors(num_clips)]
        self.versions = [VERSION] * num_clips
        self.variants = ["fp32"] * num_clips
        self.frame_ids = list(self.ids)
        self.out = folder / "reports" / "embeddings"

    def check(self, published: Published | None = None, **thresholds: Any) -> GateResult:
        parts = self.folder / "parts"
        parts.mkdir(exist_ok=True)
        table = pa.table({
            "clip_id": pa.array(self.ids, pa.string()), "values": pa.array(self.vectors, pa.list_(pa.float32())),
            "encoder_version": pa.array(self.versions, pa.string()), "variant": pa.array(self.variants, pa.string()),
        })
        pq.write_table(table.slice(0, 20), parts / "a.parquet")
        pq.write_table(table.slice(20), parts / "b.parquet")
        frames = [{"clip_id": one, "video_id": "0" * 32, "key": one, "shard": "0.tar", "num_frames": 8,
                   "num_repeated": 0, "decoder": "pyav"} for one in self.frame_ids]
        write_table(self.folder / "frames.parquet", frames, FRAMES)
        return check_embeddings(
            parts, self.folder / "frames.parquet", out=self.out, dimension=16, encoder_version=VERSION, variant="fp32",
            thresholds=EmbeddingThresholds(**thresholds), published=published,
        )

    def fails(self, published: Published | None = None, **thresholds: Any) -> dict[str, dict[str, Any]]:
        with raises(GateFailed, code="gate-not-passed"):
            self.check(published, **thresholds)
        return {one["rule"]: one for one in json.loads((self.out / "result.json").read_text())["failures"]}


def test_check_embeddings__sound_parts_pass(tmp_path: Path) -> None:
    embedded = Embedded(tmp_path)
    assert embedded.check().passed
    record = json.loads((embedded.out / "result.json").read_text())
    assert record["statistics"]["num_embeddings"] == 60
    assert record["statistics"]["effective_rank"] > 12
    assert abs(record["statistics"]["mean_cosine"]) < 0.1


def test_check_embeddings__broken_vectors_are_named(tmp_path: Path) -> None:
    embedded = Embedded(tmp_path)
    embedded.vectors[3][5] = math.nan
    embedded.vectors[4] = [2 * value for value in embedded.vectors[4]]
    embedded.vectors[5] = embedded.vectors[5][:15]
    embedded.versions[6] = "f" * 16
    embedded.variants[7] = "int8"
    stranger, forgotten = embedded.frame_ids[8], str(clip_id_of("1" * 32, 0, 1))
    embedded.frame_ids[8] = forgotten
    embedded.ids[9] = embedded.ids[10]
    embedded.frame_ids.remove(str(clip_id_of("0" * 32, 9, 10)))
    found = {rule: set(failure["ids"]) for rule, failure in embedded.fails().items()}
    ids = embedded.ids
    assert found == {
        "a clip is embedded once": {ids[10]},
        "every embedding is of a clip that frames.parquet lists": {stranger},
        "every clip that frames.parquet lists is embedded": {forgotten},
        "an embedding has 16 values": {ids[5]},
        "no value is NaN or infinite": {ids[3]},
        "embeddings have unit length, within 0.001": {ids[4]},
        f"every embedding is of encoder_version {VERSION}": {ids[6]},
        "every embedding is written by variant fp32": {ids[7]},
    }


def test_check_embeddings__one_answer_for_everything_is_collapse(tmp_path: Path) -> None:
    embedded = Embedded(tmp_path)
    embedded.vectors = [embedded.vectors[0]] * 60
    found = embedded.fails()
    assert found["no collapse: mean cosine between clips: at most 0.95"]["observed"] == pytest.approx(1)
    assert found["no collapse: effective rank is at least 4.0"]["observed"] == 1.0


def test_check_embeddings__few_clips_are_not_judged_for_collapse(tmp_path: Path) -> None:
    embedded = Embedded(tmp_path, num_clips=3)
    embedded.vectors = [embedded.vectors[0]] * 3
    result = embedded.check()
    assert "too few" in result.notes[0]


def test_check_embeddings__no_embedding_at_all_fails(tmp_path: Path) -> None:
    assert "there is at least one embedding" in Embedded(tmp_path, num_clips=0).fails()


def test_check_embeddings__missing_parts_name_the_remedy(tmp_path: Path) -> None:
    write_table(tmp_path / "frames.parquet", [], FRAMES)
    (tmp_path / "parts").mkdir()
    with raises(ArtifactError, code="no-embeddings", remedy="dvc repro embed"):
        check_embeddings(tmp_path / "parts", tmp_path / "frames.parquet", out=tmp_path / "out", dimension=16,
                         encoder_version=VERSION, variant="fp32")
    assert not (tmp_path / "out").exists()


def test_check_embeddings__a_huge_value_is_finite_and_not_of_unit_length(tmp_path: Path) -> None:
    embedded = Embedded(tmp_path)
    embedded.vectors[3][0] = 1e30  # its square is no float32
    failures = embedded.fails()
    assert "no value is NaN or infinite" not in failures
    assert failures["embeddings have unit length, within 0.001"]["ids"] == [embedded.ids[3]]


def published_of(vectors: np.ndarray, *, encoder_version: str = VERSION) -> Published:
    ids = sorted(str(clip_id_of("1" * 32, n, n + 1)) for n in range(len(vectors)))
    return Published("clips-0-0", encoder_version, Sample(tuple(ids), vectors))


def test_check_embeddings__drift_is_told_and_stops_only_where_it_shall(tmp_path: Path) -> None:
    embedded = Embedded(tmp_path, num_clips=200)
    turned = unit_vectors(200)
    turned[:, 0] = -5 * np.abs(turned[:, 0])
    other = published_of((turned / np.linalg.norm(turned, axis=1, keepdims=True)).astype(np.float32))
    result = embedded.check(other)
    assert result.passed and "clips-0-0" in result.notes[0] and "on_drift" in result.notes[0]
    [(rule, failure)] = embedded.fails(other, on_drift="fail").items()
    assert rule == "no drift from what is live: at most 0.5"
    assert failure["observed"] == result.statistics["drift"] > 0.5
    same = embedded.check(published_of(unit_vectors(200)), on_drift="fail")
    assert same.notes == () and same.statistics["drift"] is not None and same.statistics["drift"] < 0.3


def test_check_embeddings__drift_that_cannot_be_measured_says_why(tmp_path: Path) -> None:
    embedded = Embedded(tmp_path)
    for published, why in (
        (None, "nothing is live"), (published_of(unit_vectors(60), encoder_version="f" * 16), "another encoder_version"),
        (published_of(unit_vectors(20)), "too few clips"),
    ):
        result = embedded.check(published, on_drift="fail")
        assert result.statistics["drift"] is None
        assert result.notes[0].startswith("drift: not measured") and why in result.notes[0]


def test_gates__import_without_great_expectations() -> None:
    """Importing the module costs nothing; running a gate does."""
    import subprocess

    code = "import sys; import vidseek_quality.gates; assert 'great_expectations' not in sys.modules"
    folder = Path(__file__).parents[2] / "packages"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(folder)})
