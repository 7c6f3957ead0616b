from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import numpy_helper

from tests.raising import raises
from tests.training.champions import write_champion
from tests.training.tiny import Archive, Row, all_colours, write_archive, write_viclip
from vidseek_encoder.bundle import EncoderSpec
from vidseek_media.errors import ArtifactError
from vidseek_media.splitting.both_sides import find_both_sides
from vidseek_media.tables import BOTH_SIDES, GROUPS, PAIRS, read_table, write_table
from vidseek_training import backbones
from vidseek_training.dataset.pair_set import load_pairs
from vidseek_training.evaluation.champion import adapter_of
from vidseek_training.evaluation.embedding import embed_pairs
from vidseek_training.evaluation.evaluate import Evaluation, evaluate, write_evaluation
from vidseek_training.evaluation.retrieval_metrics import judge
from vidseek_training.fitting import lora


def judging(
    exported: Path, backbone: Path, archive: Archive, *, champion: Path | None = None, general: Path | None = None
) -> Evaluation:
    return evaluate(
        champion or exported / "champion", exported / "encoder", backbone=str(backbone), pairs=archive.pairs,
        frames=archive.frames, general=general, resamples=300, seed=0, variant="fp32",
    )


@pytest.fixture(scope="module")
def two_galleries(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    rows = [
        Row(row.video, row.index, "test", row.shade, row.colour, gallery="easy" if row.index % 2 else "near",
            contrast=row.contrast, axis=row.axis) for row in all_colours(4, "test", contrasts=True)
    ]
    return write_archive(tmp_path_factory.mktemp("galleries"), [*rows, *all_colours(1, "train")])


@pytest.fixture(scope="module")
def evaluation(exported: Path, backbone: Path, two_galleries: Archive) -> Evaluation:
    return judging(exported, backbone, two_galleries)


def ranks_of(archive: Archive, backbone: Path, adapter: Path | None, gallery: str) -> np.ndarray:
    model = lora.merged(backbones.load(backbone), adapter)
    pairs = load_pairs(archive.pairs, archive.frames, model.spec, split="test")
    ranks: np.ndarray = judge(embed_pairs(model, pairs), pairs.table).text_ranks
    return ranks[(pairs.table.gallery == gallery).to_numpy()]


def test_evaluate__figures_of_each_gallery_are_those_of_its_ranks(
    evaluation: Evaluation, exported: Path, backbone: Path, two_galleries: Archive
) -> None:
    figures = evaluation.figures
    assert figures["num_test_pairs"] == 16 and set(figures["galleries"]) == {"easy", "near"}
    assert figures["setting"] == "shaken-7"
    assert figures["encoder_version"] == EncoderSpec.load(exported / "encoder").encoder_version
    for gallery, entry in figures["galleries"].items():
        base = ranks_of(two_galleries, backbone, None, gallery)
        adapted = ranks_of(two_galleries, backbone, adapter_of(exported / "champion"), gallery)
        assert entry["num_queries"] == len(base) == 8
        for k in (1, 5, 10):
            assert entry["base"][f"r{k}"] == (base <= k).mean() and entry["adapted"][f"r{k}"] == (adapted <= k).mean()
            interval = entry["adapted"][f"r{k}_interval"]
            assert interval["value"] == entry["adapted"][f"r{k}"]
            assert interval["low"] is None and "1 groups of videos, at least 20" in interval["note"]  # of one test video
            gain = entry["gain"][f"r{k}"]["value"]
            assert gain == pytest.approx((adapted <= k).mean() - (base <= k).mean(), abs=1e-4)
        assert "video_to_text_r1" in entry["base"]


def test_evaluate__the_bundle_does_what_the_adapted_model_does(evaluation: Evaluation) -> None:
    for entry in evaluation.figures["galleries"].values():
        assert entry["exported"]["mrr"] == pytest.approx(entry["adapted"]["mrr"], abs=1e-3)
        assert entry["exported"]["mrr"] != entry["base"]["mrr"]
    shares = evaluation.figures["two_way"]
    assert set(shares) == {"base", "adapted", "exported"} and shares["exported"] == shares["adapted"]
    assert set(shares["base"]) == {"shade"}
    assert evaluation.exported.videos.shape == (16, 16)


@pytest.mark.slow
def test_evaluate__retention_is_the_paired_change_on_the_general_world(
    exported: Path, backbone: Path, two_galleries: Archive, tmp_path: Path
) -> None:
    general = write_archive(tmp_path, all_colours(9, "test"))
    retention = judging(exported, backbone, two_galleries, general=general.root).figures["retention"]
    assert retention["num_queries"] == 16
    base = ranks_of(general, backbone, None, "default")
    adapted = ranks_of(general, backbone, adapter_of(exported / "champion"), "default")
    for k in (1, 5, 10):
        assert retention["base"][f"r{k}"] == pytest.approx((base <= k).mean(), abs=1e-4)
        change = retention["change"][f"r{k}"]["value"]
        assert change == pytest.approx((adapted <= k).mean() - (base <= k).mean(), abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("general", [None, "no test pairs"])
def test_evaluate__retention_that_cannot_be_measured_says_so(
    exported: Path, backbone: Path, two_galleries: Archive, tmp_path: Path, general: str | None
) -> None:
    root = write_archive(tmp_path, all_colours(9, "train")).root if general else None
    assert judging(exported, backbone, two_galleries, general=root).figures["retention"] == "not measured"


def test_evaluate__the_base_as_champion_gains_nothing(
    exported: Path, backbone: Path, two_galleries: Archive, tmp_path: Path
) -> None:
    champion = write_champion(tmp_path / "champion", backbone, seed=None)
    for entry in judging(exported, backbone, two_galleries, champion=champion).figures["galleries"].values():
        assert entry["base"] == entry["adapted"]
        assert all(gain["value"] == 0 for gain in entry["gain"].values())


@pytest.mark.slow
def test_evaluate__intervals_are_by_groups_of_videos(exported: Path, backbone: Path, tmp_path: Path) -> None:
    rows = [row for video in range(40, 70) for row in all_colours(video, "test", contrasts=True)[video % 8 :: 8]]
    archive = write_archive(tmp_path / "archive", rows)
    alone = judging(exported, backbone, archive, general=archive.root).figures
    write_table(archive.pairs.parent / "groups.parquet", [
        {"video_id": row.video_id, "group": f"{40 + (row.video - 40) // 10:032x}"} for row in rows if row.index < 8
    ], GROUPS)
    grouped = judging(exported, backbone, archive, general=archive.root).figures
    entry, merged = alone["galleries"]["default"], grouped["galleries"]["default"]
    assert (alone["num_test_groups"], entry["num_groups"], merged["num_groups"]) == (30, 30, 3)
    shown = [
        lambda figures: figures["galleries"]["default"]["adapted"]["r1_interval"],
        lambda figures: figures["galleries"]["default"]["gain"]["r10"],
        lambda figures: figures["two_way_intervals"]["shade"]["gain"],
        lambda figures: figures["retention"]["change"]["r1"], lambda figures: figures["retention"]["adapted"]["r5_interval"],
    ]
    for figure in shown:
        assert figure(alone)["num_groups"] == 30 and figure(alone)["low"] <= figure(alone)["value"] <= figure(alone)["high"]
        assert figure(grouped)["low"] is None and "too few videos (3 groups" in figure(grouped)["note"]
        assert figure(grouped)["value"] == figure(alone)["value"]


def test_evaluate__a_bundle_of_another_backbone_is_an_error(
    exported: Path, two_galleries: Archive, tmp_path: Path
) -> None:
    other = write_viclip(tmp_path / "other", seed=9)
    champion = write_champion(tmp_path / "champion", other, seed=None)
    with raises(ArtifactError, code="other-backbone", naming="other") as caught:
        judging(exported, other, two_galleries, champion=champion)
    assert "dvc repro export" in caught.value.remedy


@pytest.mark.slow
def test_write_evaluation__leaves_figures_and_recalls_for_dvc(evaluation: Evaluation, tmp_path: Path) -> None:
    write_evaluation(evaluation, tmp_path / "report")
    assert json.loads((tmp_path / "report" / "metrics.json").read_text()) == evaluation.figures
    with (tmp_path / "report" / "recalls.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 3
    for row in rows:
        wanted = evaluation.figures["galleries"][row["gallery"]][row["model"]][f"r{row['k']}"]
        assert float(row["recall"]) == wanted
    assert (tmp_path / "report" / "pictures" / "retrieval.png").stat().st_size > 1000


def test_evaluate__without_test_pairs_measures_nothing_and_writes_all_files(
    exported: Path, backbone: Path, tmp_path: Path
) -> None:
    archive = write_archive(tmp_path / "archive", all_colours(1, "train"))
    evaluation = judging(exported, backbone, archive)
    assert evaluation.figures["num_test_pairs"] == 0 and evaluation.figures["galleries"] == {}
    write_evaluation(evaluation, tmp_path / "report")
    assert {path.name for path in (tmp_path / "report").iterdir()} == {"metrics.json", "recalls.csv", "pictures"}


def test_evaluate__says_what_the_figures_are_without_what_training_has_seen(
    exported: Path, backbone: Path, tmp_path: Path
) -> None:
    # Five of 16 captions are training's too (one by case alone, one by tokens: no word of it is known), and one clip is.
    rows = all_colours(4, "test")
    same = [Row(1, place, "train", row.shade, row.colour) for place, row in enumerate(rows[:3])]
    said = Row(1, 3, "train", "dark", "red", text=rows[3].caption.upper().replace("A ", "a "))
    archive = write_archive(tmp_path / "archive", [
        *rows[:15], Row(4, 15, "test", "dark", "cyan", text="zebra zebra"), *same, said,
        Row(1, 4, "train", "dark", "red", text="okapi okapi"),
    ])
    seen = find_both_sides(read_table(archive.pairs, PAIRS), {}, max_bits=6, min_share=0.5)
    assert sorted(seen.caption) == sorted(row.caption for row in rows[:4])
    shown = {"clip_id": rows[7].clip_id, "caption": rows[7].caption, "split": "test", "same_caption": False,
             "same_frames": True}
    write_table(archive.pairs.parent / "both_sides.parquet", pd.concat([seen, pd.DataFrame([shown])]), BOTH_SIDES)
    general = write_archive(tmp_path / "general", [Row(9, 0, "train", "dark", "red", text=rows[9].caption)])
    found = judging(exported, backbone, archive, general=general.root)
    both = found.figures["both_sides"]
    numbers = [both[f"num_{name}"] for name in (
        "captions_in_training", "clips_in_training", "captions_in_general", "clips_in_general")]
    assert numbers == [5, 1, 1, 0]
    left = both["without"]["default"]
    assert left["num_queries"] == 16 - 7
    model = backbones.load(backbone)
    pairs = load_pairs(archive.pairs, archive.frames, model.spec, split="test")
    kept = ~pairs.table.caption.isin([*(row.caption for row in (*rows[:4], rows[7], rows[9])), "zebra zebra"]).to_numpy()
    ranks = judge(embed_pairs(model, pairs), pairs.table).text_ranks[kept]
    assert left["base"]["r1"] == pytest.approx((ranks <= 1).mean()) and left["base"]["mdr"] == np.median(ranks)
    assert set(left) == {"num_queries", "base", "adapted", "exported"}


def test_evaluate__judges_clips_and_queries_by_the_variants_that_are_served(
    exported: Path, backbone: Path, two_galleries: Archive, evaluation: Evaluation, tmp_path: Path
) -> None:
    shutil.copytree(exported / "encoder", tmp_path / "encoder")
    shutil.copytree(tmp_path / "encoder" / "fp32", tmp_path / "encoder" / "int8")
    texts = onnx.load(tmp_path / "encoder" / "int8" / "text.onnx")
    largest = max(texts.graph.initializer, key=lambda each: np.prod(each.dims))
    values = numpy_helper.to_array(largest)
    largest.CopyFrom(numpy_helper.from_array(values * np.float32(1.5), largest.name))
    onnx.save(texts, tmp_path / "encoder" / "int8" / "text.onnx")
    spec = EncoderSpec.load(tmp_path / "encoder")
    replace(spec, variants=("fp32", "int8")).save(tmp_path / "encoder")
    found = {
        (clips, queries): evaluate(
            exported / "champion", tmp_path / "encoder", backbone=str(backbone), pairs=two_galleries.pairs,
            frames=two_galleries.frames, general=None, resamples=50, seed=0, variant=clips, query_variant=queries,
        ) for clips, queries in (("fp32", "int8"), ("int8", None))
    }
    for (clips, queries), each in found.items():
        assert (each.figures["variant"], each.figures["query_variant"]) == (clips, queries or clips)
        assert np.array_equal(each.exported.videos, evaluation.exported.videos)  # the clips' tower is the same here
        assert not np.allclose(each.exported.texts, evaluation.exported.texts, atol=1e-3)
