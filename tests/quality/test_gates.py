"""The gates: what must pass, what must stop, and what they leave behind. Great Expectations is the real one."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vidseek_media.errors import ArtifactError, ConfigError, GateFailed
from vidseek_media.ids import clip_id_of
from vidseek_media.tables import CAPTIONS, CLIPS, FRAMES, GROUPS, PAIRS, REJECTED, VIDEOS, write_table
from vidseek_quality import validation
from vidseek_quality.gates import check_embeddings, check_pairs, effective_rank, mean_cosine
from vidseek_quality.thresholds import EmbeddingThresholds, PairThresholds

WRITE_DOCS = validation.write_docs
VERSION = "0123456789abcdef"
SPLITS = ("train", "validation", "test")


def clip_rows(num_videos: int = 6, per_video: int = 4) -> list[dict[str, object]]:
    return [
        {"clip_id": str(clip_id_of(f"{video:032x}", second * 1000, second * 1000 + 1000)), "video_id": f"{video:032x}",
         "index": second, "start_ms": second * 1000, "end_ms": second * 1000 + 1000, "cut": ["captions"]}
        for video in range(num_videos) for second in range(per_video)
    ]


def pair_rows(clips: list[dict[str, object]]) -> list[dict[str, object]]:
    return [
        {"clip_id": clip["clip_id"], "video_id": clip["video_id"], "caption": f"a red ball, take {number}",
         "split": SPLITS[int(str(clip["video_id"]), 16) % 3], "gallery": "default", "contrast": "", "axis": ""}
        for number, clip in enumerate(clips)
    ]


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
        self.clips = clip_rows()
        self.pairs = pair_rows(self.clips)
        self.rejected: list[dict[str, object]] = []
        self.out = folder / "reports" / "pairs"

    def check(self, captions: Path | None = None, groups: Path | None = None, **thresholds: object) -> object:
        for name, rows, schema in (("pairs", self.pairs, PAIRS), ("clips", self.clips, CLIPS),
                                   ("rejected", self.rejected, REJECTED)):
            write_table(self.folder / f"{name}.parquet", rows, schema)
        return check_pairs(
            self.folder / "pairs.parquet", self.folder / "clips.parquet", rejected=[self.folder / "rejected.parquet"],
            captions=captions, groups=groups, out=self.out, thresholds=PairThresholds(**thresholds),  # type: ignore[arg-type]
        )

    def fails(self, groups: Path | None = None, **thresholds: object) -> dict[str, dict[str, object]]:
        """The failures of result.json by rule, after the gate has failed."""
        with pytest.raises(GateFailed) as caught:
            self.check(groups=groups, **thresholds)
        record = json.loads((self.out / "result.json").read_text())
        assert record["passed"] is False
        for failure in record["failures"]:
            assert failure["rule"] in str(caught.value)
            assert all(one in str(caught.value) for one in failure["ids"])
        return {failure["rule"]: failure for failure in record["failures"]}


def test_check_pairs__sound_table_passes_and_writes_the_same_result_twice(archive: Archive, docs: None) -> None:
    result = archive.check()
    first = (archive.out / "result.json").read_bytes()
    archive.check()
    assert result.passed  # type: ignore[attr-defined]
    assert (archive.out / "result.json").read_bytes() == first
    record = json.loads(first)
    assert record["statistics"]["num_pairs"] == 24
    assert record["num_expectations"] == 12
    page = (archive.out / "docs" / "index.html").read_text()
    assert "great-expectations-web-assets" not in page
    assert list((archive.out / "docs" / "validations").rglob("*.html"))
    assert "pairs: passed" in (archive.out / "report.html").read_text()
    assert [path.name for path in archive.out.parent.iterdir()] == ["pairs"]


def test_check_pairs__near_duplicates_in_two_splits_fail(archive: Archive) -> None:
    by_video = {str(pair["video_id"]): str(pair["split"]) for pair in archive.pairs}
    learned = next(video for video, split in by_video.items() if split == "train")
    asked = next(video for video, split in by_video.items() if split == "test")
    path = archive.folder / "groups.parquet"
    write_table(path, [{"video_id": video, "group": video} for video in by_video], GROUPS)
    archive.check(groups=path)
    write_table(path, [{"video_id": learned, "group": learned}, {"video_id": asked, "group": learned}], GROUPS)
    failures = archive.fails(groups=path)
    assert set(failures) == {"no leak: near-duplicates, and clips of one longer video, are in one split"}
    [failure] = failures.values()
    assert set(failure["ids"]) <= {p["clip_id"] for p in archive.pairs if p["video_id"] in (learned, asked)}  # type: ignore[call-overload]


def source_tables(archive: Archive) -> dict[str, list[dict[str, object]]]:
    """Videos, clips and captions that belong together: three videos of 9 s, three clips each."""
    videos = [
        {"video_id": f"{n:032x}", "uris": [f"{n}.mp4"], "source_id": "", "duration_ms": 9000, "fps": 10.0, "width": 64,
         "height": 48, "codec": "h264", "title": "", "channel": "", "category": "", "published_at": "", "thumbnail": "",
         "clip_of": ""}
        for n in range(3)
    ]
    clips = [
        {"clip_id": str(clip_id_of(str(v["video_id"]), 3000 * i, 3000 * i + 3000)), "video_id": v["video_id"], "index": i,
         "start_ms": 3000 * i, "end_ms": 3000 * i + 3000, "cut": ["windows"]}
        for v in videos for i in range(3)
    ]
    captions = [
        {"video_id": c["video_id"], "clip_id": c["clip_id"], "text": f"clip {i}", "writer": "file", "cost_usd": 0.0,
         "split": "", "gallery": "", "contrast": "", "axis": ""}
        for i, c in enumerate(clips)
    ]
    captions.append({**captions[0], "clip_id": None, "text": "of the whole video"})
    return {"videos": videos, "clips": clips, "captions": captions}


def check_sources(archive: Archive, tables: dict[str, list[dict[str, object]]]) -> dict[str, list[str]]:
    """The ids by rule that the gate names; nothing where it passes."""
    for name, schema in (("videos", VIDEOS), ("clips", CLIPS), ("captions", CAPTIONS), ("pairs", PAIRS)):
        write_table(archive.folder / f"{name}.parquet", tables.get(name, []), schema)
    try:
        check_pairs(
            archive.folder / "pairs.parquet", archive.folder / "clips.parquet", videos=archive.folder / "videos.parquet",
            captions=archive.folder / "captions.parquet", out=archive.out, thresholds=PairThresholds(),
        )
    except GateFailed:
        record = json.loads((archive.out / "result.json").read_text())
        return {failure["rule"]: failure["ids"] for failure in record["failures"]}
    return {}


def test_check_pairs__sound_videos_clips_and_captions_pass(archive: Archive) -> None:
    assert check_sources(archive, source_tables(archive)) == {}


def test_check_pairs__broken_videos_clips_and_captions_are_named(archive: Archive) -> None:
    tables = source_tables(archive)
    videos, clips, captions = tables["videos"], tables["clips"], tables["captions"]
    videos[1]["uris"] = ["1.mp4", "2.mp4"]  # 2.mp4 is of video 2
    clips[2].update(end_ms=9001, clip_id=str(clip_id_of(str(clips[2]["video_id"]), 6000, 9001)))
    clips[4]["clip_id"] = "00000000-0000-0000-0000-000000000000"
    clips[8].update(video_id="f" * 32, clip_id=str(clip_id_of("f" * 32, 6000, 9000)))
    captions[6]["text"] = " "
    failures = check_sources(archive, tables)
    assert failures.pop("a file is of one video") == [videos[1]["video_id"], videos[2]["video_id"]]
    assert failures.pop("a clip ends with its video or before") == [clips[2]["clip_id"]]
    assert failures.pop("a clip_id is that of the clip's video and span") == [clips[4]["clip_id"]]
    assert failures.pop("every clip's video is in the videos table") == [clips[8]["clip_id"]]
    assert failures.pop("every caption's clip is in the clips table, and of its video") == [
        captions[n]["clip_id"] for n in (2, 4, 8)
    ]
    assert failures.pop("no caption of any clip is blank") == [captions[6]["clip_id"]]
    assert not failures


def test_check_pairs__archive_without_captions_passes_with_a_note(archive: Archive) -> None:
    archive.pairs = []
    archive.check()
    record = json.loads((archive.out / "result.json").read_text())
    assert record["passed"] and record["statistics"]["num_pairs"] == 0
    assert "base model" in record["notes"][0]


def test_check_pairs__every_caption_rejected_fails(archive: Archive) -> None:
    archive.pairs = []
    archive.rejected = [{"id": "a.mp4", "stage": "caption", "reason": "no such file"}]
    (failure,) = archive.fails().values()
    assert failure["observed"] == 1.0


def test_check_pairs__broken_rows_are_named(archive: Archive) -> None:
    """One table with one fault of each kind: each rule names its own row and no other does."""
    blank, long, gone, moved, leaking, nowhere = (archive.pairs[number] for number in (0, 1, 2, 3, 4, 8))
    blank["caption"] = "   "
    long["caption"] = "x" * 31
    gone["clip_id"] = "00000000-0000-0000-0000-000000000000"
    moved["clip_id"] = archive.clips[20]["clip_id"]
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
    assert archive.check(max_caption_share=0.25).passed  # type: ignore[attr-defined]


def test_check_pairs__few_pairs_may_share_a_text(archive: Archive) -> None:
    archive.pairs = archive.pairs[:4]
    for pair in archive.pairs[:3]:
        pair["caption"] = "a video"
    assert archive.check(min_caption_repeats=3).passed  # type: ignore[attr-defined]


def test_check_pairs__second_caption_of_a_clip_passes_unless_one_is_required(archive: Archive) -> None:
    archive.pairs.append({**archive.pairs[0], "caption": "the same ball in other words"})
    assert archive.check().passed  # type: ignore[attr-defined]
    assert set(archive.fails(one_caption_per_clip=True)) == {"a clip has one caption"}
    archive.pairs[-1]["caption"] = archive.pairs[0]["caption"]
    assert set(archive.fails()) == {"a clip has the same caption only once"}


def test_check_pairs__captions_of_whole_videos_are_not_rejections(archive: Archive) -> None:
    """They make no pair by design: an archive that has no others is as good as one without captions."""
    archive.pairs = []
    archive.rejected = [{"id": "0" * 32, "stage": "pairs", "reason": "it is of a whole video of several clips"}] * 3
    caption = dict.fromkeys(CAPTIONS.names, "") | {"clip_id": None, "text": "my holiday", "cost_usd": 0.0}
    write_table(archive.folder / "captions.parquet", [caption] * 3, CAPTIONS)
    assert archive.check(captions=archive.folder / "captions.parquet").notes  # type: ignore[attr-defined]
    write_table(archive.folder / "captions.parquet", [caption] * 2, CAPTIONS)
    with pytest.raises(GateFailed):
        archive.check(captions=archive.folder / "captions.parquet")


def test_check_pairs__rejected_share_over_the_limit_fails(archive: Archive) -> None:
    archive.rejected = [{"id": f"{n}.mp4", "stage": "pairs", "reason": "?"} for n in range(8)]  # 8 of 32
    assert archive.check(max_rejected_share=0.25).passed  # type: ignore[attr-defined]
    (failure,) = archive.fails(max_rejected_share=0.24).values()
    assert failure["observed"] == 0.25


def test_check_pairs__missing_table_leaves_the_last_report(archive: Archive) -> None:
    archive.check()
    (archive.folder / "pairs.parquet").unlink()
    with pytest.raises(ArtifactError, match=r"pairs\.parquet is missing"):
        check_pairs(archive.folder / "pairs.parquet", archive.folder / "clips.parquet", out=archive.out)
    assert (archive.out / "result.json").exists()


def test_thresholds__out_of_range_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"max_rejected_share is 1\.5"):
        PairThresholds(max_rejected_share=1.5)
    with pytest.raises(ConfigError):
        PairThresholds(min_caption_length=9, max_caption_length=8)
    with pytest.raises(ConfigError):
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

    def check(self, **thresholds: object) -> object:
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
            parts, self.folder / "frames.parquet", out=self.out, dimension=16, encoder_version=VERSION,
            thresholds=EmbeddingThresholds(**thresholds),  # type: ignore[arg-type]
        )

    def fails(self) -> dict[str, dict[str, object]]:
        with pytest.raises(GateFailed):
            self.check()
        return {one["rule"]: one for one in json.loads((self.out / "result.json").read_text())["failures"]}


def test_check_embeddings__sound_parts_pass(tmp_path: Path) -> None:
    embedded = Embedded(tmp_path)
    assert embedded.check().passed  # type: ignore[attr-defined]
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
    found = {rule: set(failure["ids"]) for rule, failure in embedded.fails().items()}  # type: ignore[call-overload]
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
    assert "too few" in result.notes[0]  # type: ignore[attr-defined]


def test_check_embeddings__no_embedding_at_all_fails(tmp_path: Path) -> None:
    assert "there is at least one embedding" in Embedded(tmp_path, num_clips=0).fails()


def test_check_embeddings__missing_parts_name_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="dvc repro embed"):
        check_embeddings(tmp_path, tmp_path / "frames.parquet", out=tmp_path / "out", dimension=16,
                         encoder_version=VERSION)
    assert not (tmp_path / "out").exists()


def test_mean_cosine__equals_the_mean_over_pairs() -> None:
    vectors = unit_vectors(5)
    pairs = [float(vectors[a] @ vectors[b]) for a in range(5) for b in range(5) if a != b]
    assert mean_cosine(vectors) == pytest.approx(sum(pairs) / len(pairs), abs=1e-6)


def test_effective_rank__counts_equal_directions() -> None:
    """± each of four axes: four singular values alike, so the rank is four."""
    axes = np.concatenate([np.eye(9)[:4], -np.eye(9)[:4]]).astype(np.float32)
    assert effective_rank(axes) == pytest.approx(4)


def test_gates__import_without_great_expectations() -> None:
    """Importing the module costs nothing; running a gate does."""
    import subprocess

    code = "import sys; import vidseek_quality.gates; assert 'great_expectations' not in sys.modules"
    folder = Path(__file__).parents[2] / "packages"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(folder)})
